//! `bandwise analyze perturbations`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bandwise::Result;
use bandwise::analyze::perturbations::{PerturbationSpectrum, csv, section};
use bandwise::attack::{Attack, AttackContext, Classifier};
use bandwise::evaluate::record::Record;
use bandwise::wording::counted;
use candle_core::Tensor;
use clap::Args;

use super::bands::one_for_each;
use super::output::Output;
use super::subjects::{Pictures, SubjectArguments, progress};
use crate::attack_arguments::{self, AttackArguments};
use crate::progress::bar;

/// Spectra of adversarial perturbations, against learned Fourier masks.
#[derive(Args)]
pub struct PerturbationsArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    #[arg(
        long,
        value_name = "NAME",
        default_value = "pgd",
        help = attack_arguments::help("The attack"),
        long_help = attack_arguments::long_help("The attack")
    )]
    attack: String,
    #[command(flatten)]
    settings: AttackArguments,
    /// A mask.npy or masks.npy of `bandwise mask`, one for all models or one for each
    #[arg(long, value_name = "FILE")]
    mask: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &PerturbationsArguments, interrupt: &AtomicBool) -> Result<bool> {
    let attack = arguments.settings.attack(&arguments.attack)?;
    let (subjects, pictures) = arguments.subjects.load()?;
    let masks = one_for_each(&arguments.mask, subjects.len())?;
    let (mut spectra, mut records) = (Vec::new(), Vec::new());
    for (index, subject) in subjects.iter().enumerate() {
        let bar = bar(&subject.label, 1);
        let (batch_size, seed) = (arguments.subjects.batch_size, arguments.subjects.seed);
        let mut progress = progress(&bar, interrupt);
        let adversarial = perturb(&attack, &subject.classifier, &pictures, batch_size, seed, &mut progress)?;
        bar.finish_and_clear();
        let found =
            PerturbationSpectrum::measure(&subject.label, &pictures.images, &adversarial, masks.get(index))?;
        say!(
            "{}: half of the perturbations' power lies within {} cycles per image, {:.1} % above half of Nyquist ({})",
            found.label,
            found.median_frequency(),
            100.0 * found.high_share(),
            counted(found.images, "image")
        );
        let parameters = serde_json::to_value(&attack).unwrap_or_default();
        let (name, epsilon, norm) = (attack.name(), attack.epsilon().value(), attack.norm().to_string());
        let under_attack = |record: Record| {
            let record = record.under_attack(name, epsilon, Some(&norm), parameters.clone());
            subject.sign(record)
        };
        records.extend(found.records().into_iter().map(under_attack));
        if let Some(overlap) = found.mask {
            let [passing, evenly] = [overlap.passing, overlap.evenly].map(|v| 100.0 * v);
            say!(
                "{}: {passing:.1} % of the perturbations' power passes the mask ({evenly:.1} % if spread evenly)",
                found.label
            );
            let mut record = Record::scalar("perturbation_power_in_mask", overlap.passing);
            record.extra.insert("label".into(), found.label.clone().into());
            record.extra.insert("correlation".into(), overlap.correlation.into());
            records.push(under_attack(record));
        }
        spectra.push(found);
    }
    let mut output = Output::new(&arguments.subjects.out, "Adversarial perturbations");
    output.csv("perturbations", &csv(&spectra))?;
    output.records(&records)?;
    output.section("perturbations", section(&spectra, &attack.to_string()))?;
    output.finish()?;
    Ok(true)
}

/// Attacks all pictures, all steps, a batch at a time.
pub fn perturb(
    attack: &Attack,
    model: &dyn Classifier,
    pictures: &Pictures,
    batch_size: usize,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Tensor> {
    let count = pictures.label_values.len();
    let mut parts = Vec::new();
    for start in (0..count).step_by(batch_size) {
        progress(start, count)?;
        let length = batch_size.min(count - start);
        let ids: Vec<u64> = (start as u64..(start + length) as u64).collect();
        let context = AttackContext { batch_size, ..AttackContext::training(seed, &ids) };
        let images = pictures.images.narrow(0, start, length)?.contiguous()?;
        let labels = pictures.labels.narrow(0, start, length)?.contiguous()?;
        parts.push(attack.perturb(model, &images, &labels, &context)?);
    }
    progress(count, count)?;
    Ok(Tensor::cat(&parts, 0)?)
}
