//! Accuracy, clean and under attack, with work spent only on images that are still right.

use candle_core::{DType, Device, Tensor};

use crate::attack::{Attack, AttackContext, Classifier, Outcome};
use crate::data::{Batch, Dataset};
use crate::{Error, Job, Result};

/// The class that the model gives to each of the images `indices` of `dataset`.
pub fn predictions(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    indices: &[usize],
    job: &Job,
) -> Result<Vec<u32>> {
    if indices.is_empty() {
        return Err(Error::config("there are no images to judge"));
    }
    let mut classes = Vec::with_capacity(indices.len());
    let mut right = 0;
    for chunk in indices.chunks(job.batch_size.max(1)) {
        job.interrupt.check("evaluation was not finished")?;
        let batch = read(dataset, chunk, &job.device)?;
        let predicted = argmax(&model.logits_no_graph(&batch.images)?)?;
        let labels = batch.labels.to_vec1::<u32>()?;
        check_labels(&labels, model.num_classes())?;
        right += predicted.iter().zip(&labels).filter(|(class, label)| class == label).count();
        classes.extend(predicted);
        job.report("clean", classes.len(), indices.len(), &format!("{right} right"));
    }
    Ok(classes)
}

/// Which of the images `indices` of `dataset` the model gets right.
pub fn correct(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    indices: &[usize],
    job: &Job,
) -> Result<Vec<bool>> {
    let predicted = predictions(model, dataset, indices, job)?;
    indices.iter().zip(predicted).map(|(&index, class)| Ok(dataset.label(index)? == class)).collect()
}

/// What `attack` does to each of the images `indices`; image `i` draws from its own random stream.
pub fn under_attack(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    indices: &[usize],
    attack: &Attack,
    seed: u64,
    job: &Job,
) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(indices.len());
    for chunk in indices.chunks(job.batch_size.max(1)) {
        job.interrupt.check("evaluation was not finished")?;
        let batch = read(dataset, chunk, &job.device)?;
        let ids: Vec<u64> = chunk.iter().map(|&index| index as u64).collect();
        let context = AttackContext {
            interrupt: Some(&job.interrupt),
            ..AttackContext::evaluation(seed, &ids, job.batch_size)
        };
        outcomes.extend(attack.run(model, &batch.images, &batch.labels, &context)?.outcomes);
        let alive = outcomes.iter().filter(|outcome| !outcome.broken).count();
        job.report(attack.name(), outcomes.len(), indices.len(), &format!("{alive} right"));
    }
    Ok(outcomes)
}

/// Robust correctness of each image: right on the clean image and not broken by `attack`. Only
/// images that are right to begin with are attacked.
pub fn robust(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    clean: &[bool],
    attack: &Attack,
    seed: u64,
    job: &Job,
) -> Result<Vec<bool>> {
    let alive: Vec<usize> = (0..clean.len()).filter(|&index| clean[index]).collect();
    let outcomes = under_attack(model, dataset, &alive, attack, seed, job)?;
    let mut flags = clean.to_vec();
    for (index, outcome) in alive.into_iter().zip(outcomes) {
        flags[index] = !outcome.broken;
    }
    Ok(flags)
}

fn read(dataset: &dyn Dataset, indices: &[usize], device: &Device) -> Result<Batch> {
    let batch = Batch::of(dataset, indices)?;
    Ok(Batch { images: batch.images.to_device(device)?, labels: batch.labels.to_device(device)?, ..batch })
}

fn check_labels(labels: &[u32], classes: usize) -> Result<()> {
    match labels.iter().find(|&&label| label as usize >= classes) {
        None => Ok(()),
        Some(label) => Err(Error::model(format!(
            "the data has class {label}, but the model knows only {classes} classes; is it the right model?"
        ))),
    }
}

/// The class of the largest logit in each row; the first of equals, as in PyTorch.
fn argmax(logits: &Tensor) -> Result<Vec<u32>> {
    let rows = logits.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    if rows.iter().flatten().any(|value| !value.is_finite()) {
        return Err(Error::model("the model's logits are not finite numbers; are its weights damaged?"));
    }
    let largest = |row: &Vec<f32>| {
        (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best })
    };
    Ok(rows.iter().map(|row| largest(row) as u32).collect())
}
