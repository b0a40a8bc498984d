//! A whole training run: folder, training, final evaluation, records.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::json;

use super::history::History;
use super::recipe::{Change, Influence, Recipe};
use super::run_folder::{RunFolder, Status};
use super::trainer::{Observer, Prepared, Saved, Trainer};
use crate::analyze::examples;
use crate::attack::{Attack, Pgd};
use crate::data::Split;
use crate::evaluate::accuracy;
use crate::evaluate::accuracy_record::accuracy_record;
use crate::evaluate::cues;
use crate::evaluate::record::{Provenance, Record};
use crate::evaluate::subject::{Compute, Subject, TestSet};
use crate::network::{ModelSource, Network};
use crate::wording::counted;
use crate::{Error, Interrupt, Job, Result};

/// Example images in a run's report.
const EXAMPLES: usize = 6;

/// Where and how a run computes, and who hears of it.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where the tensors live.
    pub device: &'a Device,
    /// Callbacks for its progress.
    pub observer: &'a dyn Observer,
    /// Raised from outside to stop.
    pub interrupt: &'a Interrupt,
}

/// Trains a recipe in a new folder.
///
/// # Errors
/// The recipe cannot run (no folder is left behind then), or the folder holds a run already.
pub fn start(folder: &Path, recipe: Recipe, surroundings: Surroundings) -> Result<Network> {
    RunFolder::check_free(folder)?;
    let prepared = Prepared::new(recipe, false, surroundings.device)?;
    let recipe = prepared.recipe().clone();
    let run = RunFolder::create(folder, &recipe)?;
    let trainer = Trainer::new(prepared, run.clone(), None, surroundings.observer, surroundings.interrupt)?;
    finish(&run, &recipe, trainer, surroundings)
}

/// Resumes the run in `folder` if there is one of the same recipe, else starts it.
///
/// # Errors
/// If the run there has other settings.
pub fn start_or_resume(folder: &Path, recipe: Recipe, surroundings: Surroundings) -> Result<Network> {
    if folder.join("run.toml").exists() {
        take_up(folder, recipe, Changed::Elsewhere, surroundings)
    } else {
        start(folder, recipe, surroundings)
    }
}

/// Resumes the run in `folder` from its last checkpoint, with the settings of `recipe`: usually those of its own
/// `run.toml` ([`RunFolder::recipe`]).
///
/// # Errors
/// If a setting that could change a number is not what the checkpoint was made with, unless `accept_changes`: then
/// the new settings hold from there on, and every record names both. Also for a run that has ended, where the changed
/// settings have nothing left to act on.
pub fn resume(
    folder: &Path,
    recipe: Recipe,
    accept_changes: bool,
    surroundings: Surroundings,
) -> Result<Network> {
    let changed = if accept_changes { Changed::Accepted } else { Changed::Refused };
    take_up(folder, recipe, changed, surroundings)
}

/// What happens to a run whose settings are no longer those of its checkpoint.
#[derive(Clone, Copy, PartialEq)]
enum Changed {
    /// It continues with the new ones.
    Accepted,
    /// It is refused; they may be accepted.
    Refused,
    /// It is refused, and nobody can accept them: another folder must be chosen.
    Elsewhere,
}

fn take_up(
    folder: &Path,
    mut recipe: Recipe,
    changed: Changed,
    surroundings: Surroundings,
) -> Result<Network> {
    let Surroundings { device, observer, interrupt } = surroundings;
    let (run, on_disk) = RunFolder::open(folder)?;
    let complete = run.status()? == Status::Complete;
    let saved = Saved::latest(&run.checkpoints(), observer)?;
    if saved.is_none() && !complete && run.metrics()?.iter().any(|line| line.epoch > 0) {
        observer.message("warning: the folder has no checkpoint to go on from: training begins again");
    }
    let made_with = saved.as_ref().and_then(|saved| saved.recipe.as_ref()).unwrap_or(&on_disk);
    if recipe.model.weights.is_some() && recipe.model.weights == made_with.model.weights {
        recipe.model = recipe.model.decided_by(&made_with.model);
    }
    let (changes, free): (Vec<Change>, Vec<Change>) =
        made_with.changes_to(&recipe)?.into_iter().partition(|c| c.influence() == Influence::Training);
    let evaluates_anew = free.iter().any(|change| change.influence() == Influence::FinalEvaluation);
    if complete && changes.is_empty() && !evaluates_anew {
        if recipe != on_disk {
            run.set_recipe(&recipe)?;
        }
        let longer = match changed {
            Changed::Elsewhere => "",
            _ => "; train longer with --resume --set epochs=N --accept-changes",
        };
        observer.message(&format!("{}: this run is complete already{longer}", recipe.name));
        return Network::load(&run.file("model.safetensors"), device);
    }
    if complete && saved.is_none() {
        return Err(Error::config(format!(
            "{}: this run is complete and its checkpoints are gone, so it cannot be continued; start a new run from its \
             weights with --init {}",
            folder.display(),
            run.file("model.safetensors").display()
        )));
    }
    let prepared = Prepared::new(recipe, saved.is_some(), device)?;
    let changes = with_data(changes, saved.as_ref(), &prepared);
    let from_file = prepared.recipe() == &on_disk;
    if let Some(saved) = &saved {
        check_parameters(&run, &changes, saved, &prepared, from_file)?;
    }
    if !changes.is_empty() {
        if changed != Changed::Accepted {
            return Err(refusal(folder, &changes, saved.as_ref(), from_file, changed));
        }
        saved
            .iter()
            .try_for_each(|saved| check_effect(folder, &changes, saved, prepared.recipe(), complete))?;
    }
    let recipe = prepared.recipe().clone();
    let accepted = saved.is_some() && !changes.is_empty();
    let adopted = saved.is_some() && !free.is_empty();
    let mut trainer = Trainer::new(prepared, run.clone(), saved, observer, interrupt)?;
    if accepted {
        trainer.accept(&changes)?;
    } else if adopted {
        trainer.save_checkpoint()?;
    }
    if recipe != on_disk {
        run.set_recipe(&recipe)?;
    }
    finish(&run, &recipe, trainer, surroundings)
}

/// The changes that count, judged by the images themselves: another path to the same ones is none, other images under
/// the same path are one.
fn with_data(mut changes: Vec<Change>, saved: Option<&Saved>, prepared: &Prepared) -> Vec<Change> {
    let before = saved.map_or("", |saved| saved.position.data_sha256.as_str());
    if before.is_empty() {
        return changes;
    }
    let now = prepared.data_sha256();
    if before == now {
        changes.retain(|change| change.key != "data.source");
    } else if !changes.iter().any(|change| change.key.starts_with("data.")) {
        let short = |hash: &str| Some(format!("images {}", &hash[..hash.len().min(12)]));
        let (from, to) = (short(before), short(&now));
        changes.push(Change { key: "data.source".into(), from, to });
    }
    changes
}

/// Refuses to resume a network whose parameters are not those of the checkpoint: nobody can accept that.
fn check_parameters(
    run: &RunFolder,
    changes: &[Change],
    saved: &Saved,
    prepared: &Prepared,
    from_file: bool,
) -> Result<()> {
    let shapes = |tensors: &mut dyn Iterator<Item = (&String, &Tensor)>| -> BTreeMap<String, Vec<usize>> {
        tensors.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect()
    };
    let network = prepared.network().model.state();
    let now = shapes(&mut network.iter().map(|(name, tensor)| (name, tensor)));
    let before = shapes(&mut saved.snapshot.model.iter());
    let Some(name) = now.keys().chain(before.keys()).find(|name| now.get(*name) != before.get(*name)) else {
        return Ok(());
    };
    let shape = |shapes: &BTreeMap<String, Vec<usize>>| {
        shapes.get(name).map_or("missing".to_owned(), |shape| format!("{shape:?}"))
    };
    // Of all changes, those that can be the reason.
    let reasons: Vec<Change> = changes
        .iter()
        .filter(|c| c.key.starts_with("model.") || c.key.starts_with("data."))
        .cloned()
        .collect();
    let trained = run.file("model.safetensors");
    let weights = if trained.exists() { trained } else { run.checkpoints().path(saved.snapshot.point) };
    Err(Error::config(format!(
        "{}: the network has other parameters than the one that was trained ({name} is {} in the checkpoint, and \
         {} now):{}\nsuch a run cannot be continued: undo that, or train in another folder (--out DIR); there, \
         --init {} (model.weights) starts from the weights here, of which only the classes may differ",
        run.path().display(),
        shape(&before),
        shape(&now),
        listed(&reasons, Some(saved), from_file),
        weights.display()
    )))
}

fn refusal(
    folder: &Path,
    changes: &[Change],
    saved: Option<&Saved>,
    from_file: bool,
    changed: Changed,
) -> Error {
    let remedy = match changed {
        Changed::Elsewhere => "repeat the settings to go on, or choose another folder with --out DIR",
        _ => {
            "undo that, or continue with --resume --accept-changes: the new settings then hold from here on, and every \
             record names both"
        }
    };
    Error::config(format!(
        "{}: the settings have changed:{}\n{remedy}",
        folder.display(),
        listed(changes, saved, from_file)
    ))
}

/// One line for each change.
fn listed(changes: &[Change], saved: Option<&Saved>, from_file: bool) -> String {
    let origin = if saved.is_some() { "the checkpoint was made with" } else { "the run was started with" };
    let now = if from_file { "run.toml says" } else { "now it is" };
    let line = |change: &Change| {
        format!("\n  {}: {origin} {}, {now} {}", change.key, change.before(), change.after())
    };
    changes.iter().map(line).collect()
}

/// Refuses changes that would come too late, or tear an epoch in two.
fn check_effect(
    folder: &Path,
    changes: &[Change],
    saved: &Saved,
    recipe: &Recipe,
    complete: bool,
) -> Result<()> {
    let position = &saved.position;
    let names = || changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>().join(", ");
    if recipe.epochs < position.epoch || (complete && recipe.epochs == position.epoch) {
        return Err(Error::config(format!(
            "{}: {} {} trained already, and {} can change nothing any more; train longer with --set epochs=N, or \
             start a new run in another folder (--out)",
            folder.display(),
            counted(position.epoch as usize, "epoch"),
            if position.epoch == 1 { "is" } else { "are" },
            names()
        )));
    }
    let orders = |key: &str| matches!(key, "batch_size" | "seed") || key.starts_with("data.");
    match changes.iter().find(|change| position.batch > 0 && orders(&change.key)) {
        Some(change) => Err(Error::config(format!(
            "{}: {} decides which images make a batch, and the checkpoint lies in the middle of epoch {}; it can only be \
             changed between epochs",
            folder.display(),
            change.key,
            position.epoch + 1
        ))),
        None => Ok(()),
    }
}

/// Trains, measures, records.
fn finish(run: &RunFolder, recipe: &Recipe, trainer: Trainer, surroundings: Surroundings) -> Result<Network> {
    let (network, history) = trainer.run()?;
    let records = evaluate(run, recipe, &history, surroundings).map_err(|error| match error {
        Error::Interrupted(_) => {
            let place = run.path().display();
            Error::Interrupted(format!(
                "training is complete and saved in {place}, its evaluation is not; continue with --resume --out {place}"
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
    history: &History,
    Surroundings { device, observer, interrupt }: Surroundings,
) -> Result<Vec<Record>> {
    let data = TestSet::open(&recipe.data.source, Split::Test, None)?;
    let job =
        Job { batch_size: recipe.evaluation.batch_size, interrupt: interrupt.clone(), ..Job::on(device) };
    // What is judged is what was saved.
    let source = ModelSource::new(run.file("model.safetensors"));
    let mut subject = Subject::load(&source, &data, &Compute::on(device, recipe.precision))?;
    subject.provenance.seeds = vec![recipe.seed];
    subject.provenance.configuration = json!(recipe);
    subject.provenance.training = history.to_json();
    let (model, dataset, provenance) = (&subject.classifier, data.dataset.as_ref(), &subject.provenance);
    let clean = accuracy::correct(model, dataset, &data.indices(), &job)?;
    let mut records = vec![subject.sign(accuracy_record(&clean, None, provenance))];
    for attack in &recipe.evaluation.final_attacks {
        observer.message(&format!("{}: measuring under {attack}", recipe.name));
        let flags = accuracy::robust(model, dataset, &clean, attack, recipe.seed, &job)?;
        records.push(subject.sign(accuracy_record(&flags, Some(attack), provenance)));
    }
    if recipe.data.source.synthetic_config().is_some() {
        // The line for people names the test images, and these are others.
        let provenance = Provenance { subject: String::new(), ..provenance.clone() };
        records.extend(cues::records(model, &recipe.data.source, &provenance, &job)?);
    }
    let attack = recipe.evaluation.final_attacks.first().cloned().unwrap_or(Attack::Pgd(Pgd::default()));
    let shown: Vec<usize> = (0..dataset.len().min(EXAMPLES)).collect();
    examples::section(model, dataset, &shown, &attack, recipe.seed, device)?
        .write_json(&run.file("sections/examples.json"))?;
    Ok(records)
}

#[cfg(test)]
mod tests;
