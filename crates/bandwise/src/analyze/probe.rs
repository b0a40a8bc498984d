//! Do per-image masks tell the class? A linear classifier on masks, cross-validated, next to the same
//! classifier on scrambled labels: what it reaches there is what chance and the method reach.

use candle_core::{D, DType, Device, Tensor};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::evaluate::record::Record;
use crate::evaluate::statistics::wilson_interval;
use crate::method::fourier_mask::Mask;
use crate::nn::loss::log_softmax;
use crate::plot::{Cell, Table};
use crate::{Error, Result, random};

/// How the classifier is trained and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeConfig {
    /// Parts of the cross-validation: each image is judged by a classifier that has not seen it.
    pub folds: usize,
    /// Adam steps on all training images at once.
    pub steps: usize,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Weight of ‖W‖²/2.
    pub weight_decay: f64,
    /// Seed of folds and scrambling.
    pub seed: u64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { folds: 5, steps: 300, learning_rate: 0.01, weight_decay: 1e-3, seed: 0 }
    }
}

/// What a linear classifier makes of masks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Which masks and which labels.
    pub label: String,
    /// Which images it got right.
    pub correct: Vec<bool>,
    /// Which it got right (by their scrambled label) after training on scrambled labels.
    pub scrambled: Vec<bool>,
    /// Share of the most frequent class: what a constant answer reaches.
    pub majority: f64,
}

impl Probe {
    /// Trains and judges on the even parts of `masks` with `labels`.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer images than folds, masks of different sizes, or labels that are missing.
    pub fn measure(label: &str, masks: &[Mask], labels: &[u32], config: &ProbeConfig) -> Result<Self> {
        let same_size = masks.windows(2).all(|p| (p[0].height, p[0].width) == (p[1].height, p[1].width));
        if masks.len() != labels.len() || masks.len() < config.folds.max(2) || config.folds < 2 || !same_size
        {
            return Err(Error::config(format!(
                "a probe in {} folds needs at least as many masks of one size with labels; got {} masks, {} labels",
                config.folds,
                masks.len(),
                labels.len()
            )));
        }
        let classes = labels.iter().max().map_or(1, |l| *l as usize + 1);
        let features = features(masks)?;
        let mut scrambled = labels.to_vec();
        scrambled.shuffle(&mut random::stream(config.seed, &[random::tag("scrambled labels")]));
        let counts = (0..classes as u32).map(|c| labels.iter().filter(|l| **l == c).count());
        Ok(Self {
            label: label.into(),
            correct: cross_validate(&features, labels, classes, config)?,
            scrambled: cross_validate(&features, &scrambled, classes, config)?,
            majority: counts.max().unwrap_or(0) as f64 / labels.len() as f64,
        })
    }

    /// Accuracy and its control as records.
    pub fn records(&self) -> [Record; 2] {
        [("labels", &self.correct), ("scrambled labels", &self.scrambled)].map(|(name, flags)| {
            let mut record = Record { metric: "probe_accuracy".into(), ..Record::accuracy(flags) };
            record.extra.insert("classes".into(), self.label.clone().into());
            record.extra.insert("probe".into(), name.into());
            record
        })
    }
}

/// Even parts as rows `[n, height · width]`.
fn features(masks: &[Mask]) -> Result<Tensor> {
    let values: Vec<f32> = masks.iter().flat_map(|m| m.even().values).collect();
    Ok(Tensor::from_vec(values, (masks.len(), masks[0].values.len()), &Device::Cpu)?)
}

/// Which images a classifier gets right that was trained without their fold.
fn cross_validate(
    features: &Tensor,
    labels: &[u32],
    classes: usize,
    config: &ProbeConfig,
) -> Result<Vec<bool>> {
    let folds = stratified_folds(labels, config);
    let mut correct = vec![false; labels.len()];
    for fold in 0..config.folds {
        let rows = |inside: bool| -> Vec<u32> {
            (0..labels.len()).filter(|i| (folds[*i] == fold) == inside).map(|i| i as u32).collect()
        };
        let (train, test) = (rows(false), rows(true));
        if train.is_empty() || test.is_empty() {
            continue;
        }
        let part = |rows: &[u32]| -> Result<Tensor> {
            Ok(features.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)
        };
        let train_labels: Vec<u32> = train.iter().map(|i| labels[*i as usize]).collect();
        let (train, mean) = centered(&part(&train)?)?;
        let (weight, bias) = softmax_regression(&train, &train_labels, classes, config)?;
        let logits = part(&test)?.broadcast_sub(&mean)?.matmul(&weight)?.broadcast_add(&bias)?;
        let predictions: Vec<u32> = logits.argmax(D::Minus1)?.to_vec1()?;
        for (image, prediction) in test.iter().zip(predictions) {
            correct[*image as usize] = prediction == labels[*image as usize];
        }
    }
    Ok(correct)
}

/// A fold per image; every class is spread evenly.
fn stratified_folds(labels: &[u32], config: &ProbeConfig) -> Vec<usize> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.shuffle(&mut random::stream(config.seed, &[random::tag("folds")]));
    order.sort_by_key(|i| labels[*i]);
    let mut folds = vec![0; labels.len()];
    for (place, image) in order.into_iter().enumerate() {
        folds[image] = place % config.folds;
    }
    folds
}

fn centered(features: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = features.mean_keepdim(0)?;
    Ok((features.broadcast_sub(&mean)?, mean))
}

/// Weights `[features, classes]` and bias `[1, classes]` by full-batch Adam.
fn softmax_regression(
    features: &Tensor,
    labels: &[u32],
    classes: usize,
    config: &ProbeConfig,
) -> Result<(Tensor, Tensor)> {
    let (count, width) = features.dims2()?;
    let one_hot: Vec<f32> = labels
        .iter()
        .flat_map(|label| (0..classes as u32).map(move |c| if c == *label { 1.0 } else { 0.0 }))
        .collect();
    let one_hot = Tensor::from_vec(one_hot, (count, classes), &Device::Cpu)?;
    let mut weight = Descent::new(width, classes)?;
    let mut bias = Descent::new(1, classes)?;
    let transposed = features.t()?.contiguous()?;
    for step in 1..=config.steps {
        let logits = features.matmul(&weight.value)?.broadcast_add(&bias.value)?;
        let residual = ((log_softmax(&logits)?.exp()? - &one_hot)? / count as f64)?;
        let slope = (transposed.matmul(&residual)? + (&weight.value * config.weight_decay)?)?;
        weight.step(&slope, step, config.learning_rate)?;
        bias.step(&residual.sum_keepdim(0)?, step, config.learning_rate)?;
    }
    Ok((weight.value, bias.value))
}

/// A matrix on its way down, with Adam's moments.
struct Descent {
    value: Tensor,
    first: Tensor,
    second: Tensor,
}

impl Descent {
    fn new(rows: usize, columns: usize) -> Result<Self> {
        let zeros = Tensor::zeros((rows, columns), DType::F32, &Device::Cpu)?;
        Ok(Self { value: zeros.clone(), first: zeros.clone(), second: zeros })
    }

    fn step(&mut self, gradient: &Tensor, step: usize, learning_rate: f64) -> Result<()> {
        self.first = ((&self.first * 0.9)? + (gradient * 0.1)?)?;
        self.second = ((&self.second * 0.999)? + (gradient.sqr()? * 0.001)?)?;
        let first = (&self.first / (1.0 - 0.9f64.powi(step as i32)))?;
        let second = (&self.second / (1.0 - 0.999f64.powi(step as i32)))?;
        self.value = (&self.value - ((first * learning_rate)? / (second.sqrt()? + 1e-8)?)?)?;
        Ok(())
    }
}

/// Probes next to their controls.
pub fn table(probes: &[Probe]) -> Table {
    let cell = |flags: &[bool]| {
        let (correct, total) = (flags.iter().filter(|f| **f).count() as u64, flags.len() as u64);
        Cell::percent(correct as f64 / total as f64).with_interval(Some(wilson_interval(correct, total)))
    };
    let columns = ["masks", "accuracy", "scrambled labels", "constant answer"];
    let table = Table::new("A linear classifier on masks", &columns);
    let table = probes.iter().fold(table, |table, p| {
        table.row(vec![
            Cell::text(&*p.label),
            cell(&p.correct),
            cell(&p.scrambled),
            Cell::percent(p.majority),
        ])
    });
    table.caption("Cross-validated: every mask is judged by a classifier that has not seen it.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    /// Noise masks in which one frequency tells the class.
    fn masks(count: usize, hint: f32) -> (Vec<Mask>, Vec<u32>) {
        let mut stream = random::stream(1, &[]);
        let labels: Vec<u32> = (0..count).map(|i| (i % 3) as u32).collect();
        let mask = |label: &u32| {
            let mut values: Vec<f32> = (0..64).map(|_| stream.random::<f32>() * 0.3).collect();
            values[1 + *label as usize] += hint;
            Mask::new(8, 8, values)
        };
        (labels.iter().map(mask).collect(), labels)
    }

    #[test]
    fn a_hint_is_found_and_scrambling_loses_it() {
        let (masks, labels) = masks(90, 0.7);
        let probe = Probe::measure("a", &masks, &labels, &ProbeConfig::default()).unwrap();
        let share = |flags: &[bool]| flags.iter().filter(|f| **f).count() as f64 / flags.len() as f64;
        assert!(share(&probe.correct) > 0.95, "{}", share(&probe.correct));
        assert!(share(&probe.scrambled) < 0.55, "{}", share(&probe.scrambled));
        assert!((probe.majority - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(probe, Probe::measure("a", &masks, &labels, &ProbeConfig::default()).unwrap());
        assert!(Probe::measure("a", &masks[..3], &labels[..3], &ProbeConfig::default()).is_err());
    }
}
