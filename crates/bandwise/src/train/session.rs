//! A whole training run: folder, training, final evaluation, records.

use std::path::Path;

use candle_core::Device;
use serde_json::json;

use super::recipe::Recipe;
use super::run::{RunFolder, Status};
use super::trainer::{Observer, Trainer};
use crate::analyze::examples;
use crate::attack::{Attack, FrozenModel, Pgd};
use crate::data::Split;
use crate::evaluate::accuracy;
use crate::evaluate::cues;
use crate::evaluate::record::{Provenance, Record};
use crate::evaluate::suite::accuracy_record;
use crate::method::Network;
use crate::{Error, Interrupt, Job, Result, files};

/// Example pictures in a run's report.
const EXAMPLES: usize = 6;

/// Trains a recipe in a new folder.
pub fn start(
    folder: &Path,
    recipe: Recipe,
    device: &Device,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Network> {
    // The data are opened first: a recipe that cannot run leaves no folder behind.
    recipe.data.source.open(Split::Train)?.get(0)?;
    let run = RunFolder::create(folder, &recipe)?;
    finish(run, recipe, false, device, observer, interrupt)
}

/// Goes on with the run in `folder` if there is one of the same recipe, else starts it.
pub fn start_or_resume(
    folder: &Path,
    recipe: Recipe,
    device: &Device,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Network> {
    if folder.join("run.toml").exists() {
        resume(folder, Some(&recipe), device, observer, interrupt)
    } else {
        start(folder, recipe, device, observer, interrupt)
    }
}

/// Goes on with the run in `folder` from its last checkpoint.
///
/// # Errors
/// If `given` is not the recipe that the run was started with.
pub fn resume(
    folder: &Path,
    given: Option<&Recipe>,
    device: &Device,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Network> {
    let (run, recipe) = RunFolder::open(folder)?;
    if given.is_some_and(|given| *given != recipe) {
        return Err(Error::config(format!(
            "{}: was started with other settings than the ones given now; --resume goes on with the run's own, so leave the recipe away",
            folder.join("run.toml").display()
        )));
    }
    finish(run, recipe, true, device, observer, interrupt)
}

fn finish(
    run: RunFolder,
    recipe: Recipe,
    resume: bool,
    device: &Device,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Network> {
    if resume && run.status()? == Status::Complete {
        observer.message("this run is complete already");
        return Ok(Network::load(&run.file("model.safetensors"), None, device)?.0);
    }
    let network = Trainer::new(recipe.clone(), run.clone(), resume, device, observer, interrupt)?.run()?;
    let records = evaluate(&run, &recipe, &network, device, observer, interrupt).map_err(|error| match error {
        Error::Interrupted(_) => {
            let place = run.path().display();
            Error::Interrupted(format!(
                "training is complete and saved in {place}, its evaluation is not; go on with --resume --out {place}"
            ))
        }
        other => other,
    });
    if let Err(Error::Interrupted(_)) = &records {
        run.set_status(Status::Interrupted)?;
    }
    let records = records?;
    // Records of an evaluation that was stopped half-way are replaced as a whole.
    let path = run.file("results.jsonl");
    if path.exists() {
        std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
    }
    run.append_results(&records)?;
    run.set_status(Status::Complete)?;
    Ok(network)
}

/// Clean accuracy and the recipe's final attacks, on the whole test split.
fn evaluate(
    run: &RunFolder,
    recipe: &Recipe,
    network: &Network,
    device: &Device,
    observer: &dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<Record>> {
    let dataset = recipe.data.source.open(Split::Test)?;
    let batch_size = recipe.evaluation.batch_size;
    let job = Job { batch_size, interrupt: interrupt.clone(), ..Job::on(device) };
    let provenance = Provenance {
        model: network.config.architecture.clone(),
        weights_sha256: files::sha256(&files::read(&run.file("model.safetensors"))?),
        data: recipe.data.source.to_string(),
        data_sha256: dataset.fingerprint().to_string(),
        split: Split::Test.to_string(),
        seeds: vec![recipe.seed],
        device: if device.is_cpu() { "cpu".into() } else { format!("{:?}", device.location()) },
        precision: recipe.precision.name().into(),
        configuration: json!(recipe),
        ..Provenance::default()
    };
    let model = FrozenModel::folded(&network.model)?;
    let indices: Vec<usize> = (0..dataset.len()).collect();
    let clean = accuracy::correct(&model, dataset.as_ref(), &indices, &job)?;
    let mut records = vec![accuracy_record(&clean, None, &provenance)];
    for attack in &recipe.evaluation.final_attacks {
        observer.message(&format!("{}: measuring under {attack}", recipe.name));
        let flags = accuracy::robust(&model, dataset.as_ref(), &clean, attack, recipe.seed, &job)?;
        records.push(accuracy_record(&flags, Some(attack), &provenance));
    }
    if recipe.data.source.synthetic_config().is_some() {
        records.extend(cues::records(&model, &recipe.data.source, &provenance, &job)?);
    }
    let attack = recipe.evaluation.final_attacks.first().cloned().unwrap_or(Attack::Pgd(Pgd::default()));
    let shown: Vec<usize> = (0..dataset.len().min(EXAMPLES)).collect();
    examples::section(&model, dataset.as_ref(), &shown, &attack, recipe.seed, device)?
        .write_json(&run.file("sections/examples.json"))?;
    Ok(records)
}
