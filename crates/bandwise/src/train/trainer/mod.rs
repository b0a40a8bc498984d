//! The training loop.

mod checkpointing;
mod epoch_end;
mod prepare;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::averaging::Average;
use super::checkpoint::Checkpoints;
use super::epoch_metrics::{EpochMetrics, Sums};
use super::history::History;
use super::optimizer::Optimizer;
use super::overfitting::Detector;
use super::recipe::Recipe;
use super::run_folder::{RunFolder, Status};
use super::schedule;
use super::selection::Selector;
use super::step::Step;
use super::update::{StepOutput, update};
use crate::data::{Batch, Dataset, Loader};
use crate::formats::events::EventWriter;
use crate::network::Network;
use crate::nn::Mode;
use crate::{Error, Interrupt, Result};

pub use super::observer::{Observer, Silent};
pub use checkpointing::Saved;
pub use prepare::Prepared;

/// Where a run stands between two steps; stored in every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs completed.
    pub epoch: u64,
    /// Batches completed in the current epoch.
    pub batch: usize,
    /// Optimizer steps taken in all.
    pub step: u64,
    /// Sums of the current epoch.
    pub sums: Sums,
    /// Best value of each criterion so far, and its epoch.
    pub best: BTreeMap<String, (f64, u64)>,
    /// Best accuracy of the watched training images under PGD.
    #[serde(default)]
    pub best_watched: f64,
    /// Robust accuracy on the training images that choose the best weights, if this epoch has looked at them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<f64>,
    /// The last epoch without catastrophic overfitting, if its state is to be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_healthy_epoch: Option<u64>,
    /// Why training ended before its last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Fingerprint of the training and the test images.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data_sha256: String,
    /// What records say beside the recipe.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
}

/// A run in progress.
pub struct Trainer<'a> {
    recipe: Recipe,
    folder: RunFolder,
    network: Network,
    optimizer: Optimizer,
    average: Option<Average>,
    /// The perturbation that free adversarial training carries from step to step.
    carried_delta: Option<Tensor>,
    loader: Loader,
    test: Arc<dyn Dataset>,
    detector: Option<Detector>,
    selector: Option<Selector>,
    position: Position,
    checkpoints: Checkpoints,
    events: EventWriter,
    device: Device,
    observer: &'a dyn Observer,
    interrupt: &'a Interrupt,
}

impl<'a> Trainer<'a> {
    /// Begins a run in `folder`, or goes on from what was `saved` of it.
    ///
    /// # Errors
    /// The folder cannot be written, or what was saved does not fit the recipe.
    pub fn new(
        prepared: Prepared,
        folder: RunFolder,
        saved: Option<Saved>,
        observer: &'a dyn Observer,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let Prepared {
            recipe, network, optimizer, average, loader, test, detector, selector, device, ..
        } = prepared;
        let (position, snapshot) = match saved {
            Some(saved) => (saved.position, Some(saved.snapshot)),
            None => {
                let history = History { initial_weights: prepared.initial, ..History::default() };
                let data_sha256 = prepare::data_sha256(loader.dataset().as_ref(), test.as_ref());
                (Position { data_sha256, history, ..Position::default() }, None)
            }
        };
        folder.truncate_metrics(position.epoch)?;
        folder.set_status(Status::Running)?;
        let mut trainer = Self {
            events: EventWriter::resume(folder.path(), position.step),
            checkpoints: folder.checkpoints(),
            position,
            recipe,
            folder,
            network,
            optimizer,
            average,
            carried_delta: None,
            loader,
            test,
            detector,
            selector,
            device,
            observer,
            interrupt,
        };
        match &snapshot {
            Some(snapshot) => trainer.take_up(snapshot)?,
            None => prepared.notes.iter().for_each(|note| observer.message(note)),
        }
        Ok(trainer)
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after the interrupt flag was raised and a checkpoint was written.
    pub fn run(mut self) -> Result<(Network, History)> {
        self.observer.started(&self.recipe, self.network.model.parameter_count(), self.position.epoch);
        self.measure_start()?;
        if self.position.step == 0 {
            self.select()?;
        }
        while self.position.epoch < self.recipe.epochs && self.position.stopped.is_none() {
            self.epoch()?;
        }
        Ok((self.save_weights()?, self.position.history))
    }

    fn epoch(&mut self) -> Result<()> {
        let began = Instant::now();
        let epoch = self.position.epoch;
        let batches = self.loader.batches_per_epoch();
        let mut metrics = EpochMetrics::from_sums(self.position.sums.clone());
        for batch in self.loader.epoch_from(epoch, self.position.batch) {
            self.learn(&batch?, &mut metrics)?;
            // Looking at the sums waits for an accelerator: not after every step.
            if self.device.is_cpu() || self.position.batch.is_multiple_of(20) {
                self.observer.step(epoch, self.position.batch, batches, metrics.sums()?);
            }
            if self.interrupt.should_stop() {
                self.position.sums = metrics.sums()?.clone();
                return Err(self.interrupted());
            }
        }
        self.position.sums = metrics.sums()?.clone();
        if !self.position.sums.loss.is_finite() {
            return Err(Error::model(format!(
                "the loss is no longer a finite number in epoch {}; try a lower learning_rate",
                epoch + 1
            )));
        }
        match self.finish_epoch(began) {
            // Measuring was stopped: all batches are done, and the run continues with measuring.
            Err(Error::Interrupted(_)) => Err(self.interrupted()),
            other => other,
        }
    }

    /// All updates that a batch gives.
    fn learn(&mut self, batch: &Batch, metrics: &mut EpochMetrics) -> Result<()> {
        let images = batch.images.to_device(&self.device)?;
        let labels = batch.labels.to_device(&self.device)?;
        let ids: Vec<u64> = batch.indices.iter().map(|&index| index as u64).collect();
        for replay in 0..self.recipe.objective.replays() {
            let at = self.schedule_position(self.position.batch, replay);
            let step = Step {
                model: &self.network.model,
                images: images.clone(),
                labels: labels.clone(),
                image_ids: &ids,
                carried_delta: self.carried_delta_for(&images)?,
                seed: self.recipe.seed,
                epoch: self.position.epoch,
                time: (at.step + 1) as f64 / at.steps_per_epoch as f64,
                progress: self.recipe.progress(self.position.epoch + 1),
                mode: Mode::Train,
            };
            let rate = self.recipe.schedule.rate(self.recipe.learning_rate, at);
            let updated = update(&self.recipe, &step, &mut self.optimizer, rate)?;
            metrics.add(&updated, &labels)?;
            self.keep_carried_delta(&updated)?;
            self.position.step += 1;
            if let Some(average) = &mut self.average
                && average.config().is_due(schedule::Position { step: at.step + 1, ..at })
            {
                average.update(&self.network.model.state())?;
            }
            self.select()?;
        }
        self.position.batch += 1;
        Ok(())
    }

    /// Where the schedule stands before replay `replay` of batch `batch` of the current epoch.
    fn schedule_position(&self, batch: usize, replay: usize) -> schedule::Position {
        let replays = self.recipe.objective.replays();
        let steps_per_epoch = (self.loader.batches_per_epoch() * replays) as u64;
        let step = self.position.epoch * steps_per_epoch + (batch * replays + replay) as u64;
        schedule::Position { step, steps_per_epoch, epochs: self.recipe.epochs }
    }

    /// The rows of the carried perturbation for a batch like `images`.
    fn carried_delta_for(&self, images: &Tensor) -> Result<Option<Tensor>> {
        let Some(carried_delta) = &self.carried_delta else { return Ok(None) };
        if carried_delta.dims()[1..] != images.dims()[1..] {
            return Err(Error::config(
                "free adversarial training needs images of one size: its perturbation goes on from batch to batch",
            ));
        }
        Ok(Some(carried_delta.narrow(0, 0, images.dim(0)?)?))
    }

    /// Puts the rows that an update has changed back; a smaller last batch leaves the others as they were.
    fn keep_carried_delta(&mut self, updated: &StepOutput) -> Result<()> {
        let Some(changed) = &updated.carried_delta else { return Ok(()) };
        let rows = changed.dim(0)?;
        self.carried_delta = Some(match &self.carried_delta {
            Some(old) if old.dim(0)? > rows => {
                Tensor::cat(&[changed, &old.narrow(0, rows, old.dim(0)? - rows)?], 0)?
            }
            _ => changed.clone(),
        });
        Ok(())
    }
}
