//! The evaluation engine: fills a journal, working only on what is missing and still alive.
//!
//! Images are judged clean first; each attack then sees the correctly classified ones, in waves of a
//! few batches within which the attack refills its batches with survivors. After every wave the
//! judgements are on the disk.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};

use super::journal::{CLEAN, Entry, Journal};
use crate::attack::{Attack, AttackContext, Classifier, Outcome, Warning, merged, verdicts};
use crate::data::Dataset;
use crate::{Error, Job, Result, files};

/// Batches from which an attack refills its batch with survivors.
const BATCHES_PER_WAVE: usize = 4;

/// What a run added to a journal.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// What a reader of the results must know.
    pub warnings: Vec<Warning>,
    /// Seconds spent on clean images and on each attack, in the order of the table; the time of
    /// earlier runs is not known.
    pub seconds: Vec<f64>,
}

/// Judges everything that the journal's header asks for and its entries lack. `save_adversarial` is a
/// folder for the attacked images: `FOLDER/ATTACK/FIRST-LAST.safetensors`, one file per wave with
/// `images` `[n, height, width, channels]`, `labels` and `indices`.
///
/// # Errors
/// [`Error::Interrupted`] after a stop: what is journalled stays, and the same call continues.
pub fn run(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    journal: &mut Journal,
    job: &Job,
    save_adversarial: Option<&Path>,
) -> Result<Finished> {
    if journal.header().images > dataset.len() {
        return Err(Error::config(format!(
            "the evaluation asks for {} images, {} has {}",
            journal.header().images,
            dataset.name(),
            dataset.len()
        )));
    }
    let mut warnings = Vec::new();
    let mut began = Instant::now();
    judge_clean(model, dataset, journal, job)?;
    let mut seconds = vec![began.elapsed().as_secs_f64()];
    for (attack, label) in journal.header().attacks.clone().iter().zip(journal.header().labels()) {
        began = Instant::now();
        let missing = journal.missing(&label);
        for wave in missing.chunks((job.batch_size * BATCHES_PER_WAVE).max(1)) {
            warnings.extend(attack_wave(
                model,
                dataset,
                journal,
                attack,
                &label,
                wave,
                job,
                save_adversarial,
            )?);
            report(journal, &label, job);
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    Ok(Finished { warnings: merged(warnings), seconds })
}

fn judge_clean(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    journal: &mut Journal,
    job: &Job,
) -> Result<()> {
    for batch in journal.missing(CLEAN).chunks(job.batch_size.max(1)) {
        job.interrupt.check("the journal holds what was judged; run again to continue")?;
        let (images, labels) = read(dataset, batch, &job.device)?;
        let judged = verdicts(&model.logits_no_graph(&images)?, &labels.to_vec1()?)?;
        let outcomes = judged.iter().map(|verdict| Outcome {
            broken: verdict.wrong,
            margin: verdict.margin,
            queries: 1,
            ..Outcome::default()
        });
        journal.append(batch.iter().zip(outcomes).map(|(&image, o)| Entry::of(image, CLEAN, o)).collect())?;
        report(journal, CLEAN, job);
    }
    Ok(())
}

fn attack_wave(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    journal: &mut Journal,
    attack: &Attack,
    label: &str,
    wave: &[usize],
    job: &Job,
    save_adversarial: Option<&Path>,
) -> Result<Vec<Warning>> {
    let (images, labels) = read(dataset, wave, &job.device)?;
    let ids: Vec<u64> = wave.iter().map(|&image| image as u64).collect();
    let context = AttackContext {
        interrupt: Some(&job.interrupt),
        ..AttackContext::evaluation(journal.header().seed, &ids, job.batch_size)
    };
    let result = attack.run(model, &images, &labels, &context)?;
    if let Some(folder) = save_adversarial {
        let name = format!("{:06}-{:06}.safetensors", wave[0], wave[wave.len() - 1]);
        save(&folder.join(label.replace('#', "-")).join(name), &result.images, &labels, wave)?;
    }
    journal
        .append(wave.iter().zip(result.outcomes).map(|(&image, o)| Entry::of(image, label, o)).collect())?;
    Ok(result.warnings)
}

fn read(dataset: &dyn Dataset, indices: &[usize], device: &Device) -> Result<(Tensor, Tensor)> {
    let (mut pixels, mut labels, mut shape) = (Vec::new(), Vec::with_capacity(indices.len()), None);
    for &index in indices {
        let (image, label) = dataset.get(index)?;
        if *shape.get_or_insert(image.shape()) != image.shape() {
            return Err(Error::config(format!(
                "{}: images of different sizes cannot be attacked together; bring them to one size with `size=N`",
                dataset.name()
            )));
        }
        pixels.extend_from_slice(&image.pixels);
        labels.push(label);
    }
    let [height, width, channels] = shape.unwrap_or_default();
    let images = Tensor::from_vec(pixels, (indices.len(), height, width, channels), device)?;
    Ok((images, Tensor::from_vec(labels, indices.len(), device)?))
}

fn save(path: &std::path::Path, images: &Tensor, labels: &Tensor, wave: &[usize]) -> Result<()> {
    let cpu = Device::Cpu;
    let indices: Vec<u32> = wave.iter().map(|&image| image as u32).collect();
    let tensors = [
        ("images", images.to_device(&cpu)?),
        ("labels", labels.to_device(&cpu)?),
        ("indices", Tensor::from_slice(&indices, indices.len(), &cpu)?),
    ];
    let bytes = safetensors::serialize(tensors, None)
        .map_err(|e| Error::format(path, format!("the attacked images could not be written: {e}")))?;
    files::write_atomic(path, &bytes)
}

fn report(journal: &Journal, attack: &str, job: &Job) {
    let judged: Vec<bool> = journal
        .header()
        .image_numbers()
        .filter_map(|image| journal.get(attack, image).map(|entry| entry.correct))
        .collect();
    let total = judged.len() + journal.missing(attack).len();
    let correct = judged.iter().filter(|&&correct| correct).count();
    let stage = if attack == CLEAN { "clean" } else { attack };
    job.report(stage, judged.len(), total, &format!("{correct} right"));
}
