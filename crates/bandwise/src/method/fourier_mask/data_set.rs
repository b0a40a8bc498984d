//! One mask for a whole data set, or for one class of it.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mask::Mask;
use super::objective::{Baseline, Invariance, LARGEST_EXPONENT, Samples, masked_predictions};
use super::optimizer::{Adam, Schedule};
use crate::attack::Classifier;
use crate::spectral::fourier::ImageSpectra;
use crate::wording::counted;
use crate::{Error, Interrupt, Result, differences, files, random};

/// How a data-set mask is learned; the defaults are the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SharedMaskConfig {
    /// λ·‖M₀‖₁, the weight of sparsity (`mask_decay`).
    pub decay: f64,
    /// Peak learning rate of the one-cycle schedule (`mask_lr`).
    pub learning_rate: f64,
    /// Most passes over the images (`mask_epochs`); the schedule spans all of them.
    pub epochs: usize,
    /// Share of all steps that the learning rate rises (`mask_schedule`); 0 for a constant rate.
    pub warm_up: f64,
    /// Images per step.
    pub batch_size: usize,
    /// How a batch forms its invariance.
    pub invariance: Invariance,
    /// Invariance above which a step's gradient grows no more. The default only keeps numbers finite: one image
    /// whose class has turned still outweighs all others for thousands of steps, because Adam divides by the
    /// largest gradients it remembers. Around 1 it cannot, and masks become sparse much faster.
    pub largest_exponent: f64,
    /// A mask is kept if it leaves this share of the unmasked accuracy.
    pub accuracy_kept: f64,
    /// A change of the relative L1 norm of at most this counts as none.
    pub tolerance: f64,
    /// Stop after this many epochs in which the accuracy was kept and the norm did not change.
    pub patience: usize,
    /// Seed of the order of the images.
    pub seed: u64,
    /// Images in one pass when accuracy is measured.
    pub evaluation_batch: usize,
}

impl Default for SharedMaskConfig {
    fn default() -> Self {
        Self {
            decay: 0.2,
            learning_rate: 1e-3,
            epochs: 100,
            warm_up: 0.1,
            batch_size: 1,
            invariance: Invariance::PerSample,
            largest_exponent: LARGEST_EXPONENT,
            accuracy_kept: 0.99,
            tolerance: 1e-5,
            patience: 7,
            seed: 0,
            evaluation_batch: 128,
        }
    }
}

impl SharedMaskConfig {
    fn check(&self, images: usize) -> Result<()> {
        let positive = [
            ("decay", self.decay),
            ("learning_rate", self.learning_rate),
            ("largest_exponent", self.largest_exponent),
        ];
        if let Some((name, value)) = positive.iter().find(|(_, v)| !(v.is_finite() && *v > 0.0)) {
            return Err(Error::config(format!(
                "mask learning: {name} = {value}, expected a positive number"
            )));
        }
        if !(0.0..1.0).contains(&self.warm_up) {
            return Err(Error::config(format!("mask learning: warm_up = {}, expected 0 to 1", self.warm_up)));
        }
        if self.batch_size == 0 || self.epochs == 0 || images == 0 {
            return Err(Error::config(
                "mask learning needs images, at least one epoch and a batch size above 0",
            ));
        }
        Ok(())
    }
}

/// What one pass over the images did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochLog {
    /// Counted from 1.
    pub epoch: usize,
    /// Mean invariance over the steps, before `exp`.
    pub invariance: f64,
    /// Mean over the steps of ‖M‖₁ / ‖M₀‖₁.
    pub relative_l1: f64,
    /// Accuracy through the mask at the end of the epoch.
    pub masked_accuracy: f64,
    /// Unmasked accuracy.
    pub clean_accuracy: f64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
}

/// Everything needed to go on after a stop.
#[derive(Clone, Debug)]
pub struct SharedMaskState {
    /// One entry per finished epoch.
    pub history: Vec<EpochLog>,
    masks: Tensor,
    adam: Adam,
    kept: Option<Tensor>,
    steps: usize,
    quiet_epochs: usize,
}

/// The learned mask.
#[derive(Clone, Debug)]
pub struct SharedMaskResult {
    /// The last mask that kept the accuracy or, if none did, the last mask.
    pub mask: Mask,
    /// Whether it kept the accuracy.
    pub accuracy_kept: bool,
    /// Whether learning ended because the mask converged, rather than for lack of epochs.
    pub converged: bool,
    /// One entry per epoch.
    pub history: Vec<EpochLog>,
}

/// Learns one mask for all images it is given, epoch by epoch.
///
/// ```text
/// let mut learner = SharedMaskLearner::new(&model, images, labels, config)?;
/// while let Some(log) = learner.epoch(None)? { /* show log, save learner.state() */ }
/// let mask = learner.result()?.mask;
/// ```
pub struct SharedMaskLearner<'a> {
    model: &'a dyn Classifier,
    config: SharedMaskConfig,
    images: Tensor,
    labels: Tensor,
    label_values: Vec<u32>,
    clean: Baseline,
    clean_accuracy: f64,
    schedule: Schedule,
    state: SharedMaskState,
}

impl<'a> SharedMaskLearner<'a> {
    /// `images` `[n, height, width, channels]` with `labels` `[n]` (u32).
    ///
    /// # Errors
    /// [`Error::Config`] for settings that make no sense.
    pub fn new(
        model: &'a dyn Classifier,
        images: Tensor,
        labels: Tensor,
        config: SharedMaskConfig,
    ) -> Result<Self> {
        let (count, height, width, _) = images.dims4()?;
        config.check(count)?;
        let clean = Baseline::measure(model, &images, Some(&labels), config.evaluation_batch)?;
        let label_values: Vec<u32> = labels.to_vec1()?;
        let clean_accuracy = accuracy(&clean.predictions, &label_values);
        let steps = config.epochs * count.div_ceil(config.batch_size);
        let schedule = Schedule::new(config.learning_rate, steps, config.warm_up);
        let masks = Tensor::ones((1, height, width), candle_core::DType::F32, images.device())?;
        let adam = Adam::new(&masks)?;
        let state = SharedMaskState { history: vec![], masks, adam, kept: None, steps: 0, quiet_epochs: 0 };
        Ok(Self { model, config, images, labels, label_values, clean, clean_accuracy, schedule, state })
    }

    /// Goes on where `state` was saved.
    pub fn resume(mut self, state: SharedMaskState) -> Result<Self> {
        if state.masks.dims() != self.state.masks.dims() {
            return Err(Error::config(format!(
                "the saved mask is {:?}, the images need {:?}: it belongs to another data set; choose another folder",
                &state.masks.dims()[1..],
                &self.state.masks.dims()[1..]
            )));
        }
        self.state = state;
        Ok(self)
    }

    /// What to save in order to [`resume`](Self::resume).
    pub fn state(&self) -> &SharedMaskState {
        &self.state
    }

    /// Accuracy without a mask.
    pub fn clean_accuracy(&self) -> f64 {
        self.clean_accuracy
    }

    /// One more pass over the images; `None` once learning has ended.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the flag was raised; [`state`](Self::state) is then in the middle of an
    /// epoch, resume from the one saved before.
    pub fn epoch(&mut self, interrupt: Option<&Interrupt>) -> Result<Option<EpochLog>> {
        if self.is_finished() {
            return Ok(None);
        }
        let epoch = self.state.history.len();
        let mut order: Vec<u32> = (0..self.label_values.len() as u32).collect();
        order.shuffle(&mut random::stream(self.config.seed, &[random::tag("fourier mask"), epoch as u64]));
        let (mut invariance, mut relative_l1, mut count) = (0.0, 0.0, 0.0);
        for part in order.chunks(self.config.batch_size) {
            if interrupt.is_some_and(Interrupt::should_stop) {
                return Err(Error::Interrupted(format!(
                    "stopped after {} of mask learning",
                    counted(epoch, "epoch")
                )));
            }
            let (step_invariance, step_l1) = self.step(part)?;
            (invariance, relative_l1, count) =
                (invariance + step_invariance, relative_l1 + step_l1, count + 1.0);
        }
        let learning_rate = self.schedule.at(self.state.steps - 1).learning_rate;
        let mask = self.state.masks.squeeze(0)?;
        let predictions = masked_predictions(self.model, &self.images, &mask, self.config.evaluation_batch)?;
        let log = EpochLog {
            epoch: epoch + 1,
            invariance: invariance / count,
            relative_l1: relative_l1 / count,
            masked_accuracy: accuracy(&predictions, &self.label_values),
            clean_accuracy: self.clean_accuracy,
            learning_rate,
        };
        self.judge(&log);
        self.state.history.push(log.clone());
        Ok(Some(log))
    }

    /// One Adam step on the images `rows`: invariance (mean over samples) and relative L1 norm before it.
    fn step(&mut self, rows: &[u32]) -> Result<(f64, f64)> {
        let device = self.images.device();
        let rows = Tensor::new(rows, device)?;
        let samples = Samples {
            spectra: ImageSpectra::new(&self.images.index_select(&rows, 0)?)?,
            labels: self.labels.index_select(&rows, 0)?,
            clean_losses: self.clean.losses.index_select(&rows, 0)?,
        };
        let masks = &self.state.masks;
        let evaluation =
            samples.evaluate(self.model, masks, self.config.invariance, self.config.largest_exponent)?;
        let area = masks.elem_count() as f64;
        let relative_l1 = f64::from(masks.sum_all()?.to_scalar::<f32>()?) / area;
        // The L1 norm's gradient is the sign: nothing pulls at entries that are already 0.
        let gradient = (evaluation.gradient + masks.sign()?.affine(self.config.decay / area, 0.0)?)?;
        let rate = self.schedule.at(self.state.steps);
        self.state.masks = self.state.adam.step(masks, &gradient, &[rate], &[self.state.steps])?;
        self.state.steps += 1;
        let invariance = evaluation.invariance.iter().sum::<f64>() / evaluation.invariance.len() as f64;
        Ok((invariance, relative_l1))
    }

    /// Keeps the mask if it kept the accuracy, and counts the epochs in which nothing changed.
    fn judge(&mut self, log: &EpochLog) {
        if log.masked_accuracy >= self.config.accuracy_kept * self.clean_accuracy {
            self.state.kept = Some(self.state.masks.clone());
            let Some(previous) = self.state.history.last() else { return };
            let still = (log.relative_l1 - previous.relative_l1).abs() <= self.config.tolerance;
            self.state.quiet_epochs = if still { self.state.quiet_epochs + 1 } else { 0 };
        }
    }

    fn is_finished(&self) -> bool {
        self.state.quiet_epochs >= self.config.patience || self.state.history.len() >= self.config.epochs
    }

    /// The mask so far.
    pub fn result(&self) -> Result<SharedMaskResult> {
        let mask = self.state.kept.as_ref().unwrap_or(&self.state.masks);
        Ok(SharedMaskResult {
            mask: Mask::from_tensor(&mask.squeeze(0)?)?,
            accuracy_kept: self.state.kept.is_some(),
            converged: self.state.quiet_epochs >= self.config.patience,
            history: self.state.history.clone(),
        })
    }
}

fn accuracy(predictions: &[u32], labels: &[u32]) -> f64 {
    let correct = predictions.iter().zip(labels).filter(|(p, l)| p == l).count();
    correct as f64 / labels.len().max(1) as f64
}

/// What the state file says beside its tensors.
#[derive(Serialize, Deserialize)]
struct StateHeader {
    history: Vec<EpochLog>,
    steps: usize,
    quiet_epochs: usize,
    /// Model, data and configuration: others must not resume this state.
    #[serde(default)]
    belongs: Value,
}

const HEADER: &str = "bandwise.fourier-mask";

impl SharedMaskState {
    /// Writes the state as safetensors, atomically. `belongs` holds the settings that it belongs to.
    pub fn save(&self, path: &Path, belongs: &Value) -> Result<()> {
        let header = StateHeader {
            history: self.history.clone(),
            steps: self.steps,
            quiet_epochs: self.quiet_epochs,
            belongs: belongs.clone(),
        };
        let header = serde_json::to_string(&header)
            .map_err(|e| Error::config(format!("mask state cannot be stored: {e}")))?;
        let mut tensors =
            vec![("mask", &self.masks), ("first", &self.adam.first), ("second", &self.adam.second)];
        tensors.extend(self.kept.as_ref().map(|kept| ("kept", kept)));
        let metadata = HashMap::from([(HEADER.to_string(), header)]);
        let bytes = safetensors::serialize(tensors, Some(metadata))
            .map_err(|e| Error::format(path, format!("mask state cannot be stored: {e}")))?;
        files::write_atomic(path, &bytes)
    }

    /// Reads a state that [`save`](Self::save) wrote for the same settings.
    ///
    /// # Errors
    /// For other settings (the first that differs is named), and files that are no such state.
    pub fn load(path: &Path, belongs: &Value, device: &candle_core::Device) -> Result<Self> {
        let bad = |reason: String| Error::format(path, format!("not a mask state to resume: {reason}"));
        let bytes = files::read(path)?;
        let (_, metadata) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get(HEADER)).cloned();
        let text = text.ok_or_else(|| bad("its header is missing".into()))?;
        let header: StateHeader = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if header.belongs.is_null() {
            return Err(bad("it was written by an earlier version; choose another folder".into()));
        }
        if let Some(difference) =
            differences::between(("the mask", &header.belongs), ("the command", belongs))
        {
            return Err(Error::config(format!(
                "{} belongs to another mask: {difference}; choose another folder, or repeat its settings to go on",
                path.display()
            )));
        }
        let mut tensors = candle_core::safetensors::load_buffer(&bytes, device)?;
        let mut take = |name: &str| tensors.remove(name).ok_or_else(|| bad(format!("`{name}` is missing")));
        Ok(Self {
            masks: take("mask")?,
            adam: Adam { first: take("first")?, second: take("second")? },
            kept: take("kept").ok(),
            history: header.history,
            steps: header.steps,
            quiet_epochs: header.quiet_epochs,
        })
    }
}
