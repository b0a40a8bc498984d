//! The training loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoints, Point, Snapshot};
use super::optimizer::Optimizer;
use super::recipe::Recipe;
use super::run::{MetricsLine, RunFolder, Status};
use super::schedule;
use super::step::Step;
use super::tally::{Sums, Tally};
use super::tensorboard::EventWriter;
use crate::attack::FrozenModel;
use crate::data::{Dataset, Loader, LoaderConfig, Split, Subset};
use crate::evaluate::accuracy::{self, Settings};
use crate::method::Network;
use crate::{Error, Result};

/// The newest checkpoint and a spare, in case the disk damages that.
const CHECKPOINTS_KEPT: usize = 2;

/// Watches a run: progress bars, log lines. All methods default to silence.
pub trait Observer: Sync {
    /// Training begins or goes on at `epoch` (0-based) of `epochs`.
    fn started(&self, _recipe: &Recipe, _parameters: usize, _epoch: u64) {}
    /// A step has been taken; `done` of `batches` in this epoch.
    fn step(&self, _epoch: u64, _done: usize, _batches: usize, _sums: Sums) {}
    /// An epoch has ended; its metrics are saved.
    fn epoch(&self, _line: &MetricsLine, _epochs: u64, _seconds: f64) {}
    /// Something that the user should know.
    fn message(&self, _text: &str) {}
}

/// Watches nothing.
pub struct Silent;

impl Observer for Silent {}

/// Where a run stands between two steps; stored in every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs completed.
    pub epoch: u64,
    /// Steps completed in the current epoch.
    pub batch: usize,
    /// Optimiser steps taken in all.
    pub step: u64,
    /// Sums of the current epoch.
    pub sums: Sums,
    /// Best value of each criterion so far, and its epoch.
    pub best: BTreeMap<String, (f64, u64)>,
}

/// A run in progress.
pub struct Trainer<'a> {
    recipe: Recipe,
    folder: RunFolder,
    network: Network,
    optimizer: Optimizer,
    loader: Loader,
    test: Arc<dyn Dataset>,
    position: Position,
    checkpoints: Checkpoints,
    events: EventWriter,
    device: Device,
    observer: &'a dyn Observer,
    interrupt: &'a AtomicBool,
}

impl<'a> Trainer<'a> {
    /// Prepares a new run in `folder`, or the continuation of the one that is there.
    ///
    /// # Errors
    /// For data, models or folders that do not fit; nothing has been trained then.
    pub fn new(
        recipe: Recipe,
        folder: RunFolder,
        resume: bool,
        device: &Device,
        observer: &'a dyn Observer,
        interrupt: &'a AtomicBool,
    ) -> Result<Self> {
        let mut train = recipe.data.source.open(Split::Train)?;
        if let Some(limit) = recipe.data.train_limit {
            train = Arc::new(Subset::first(train, limit)?);
        }
        let test = recipe.data.source.open(Split::Test)?;
        let config = LoaderConfig {
            batch_size: recipe.batch_size,
            shuffle: true,
            drop_last: recipe.data.drop_last,
            augment: recipe.data.augment.clone(),
            seed: recipe.seed,
            threads: 0,
        };
        let channels = train.get(0)?.0.channels;
        let loader = Loader::new(train.clone(), config)?;
        if loader.batches_per_epoch() == 0 {
            return Err(Error::config(
                "the training set is smaller than one batch, and drop_last leaves nothing",
            ));
        }
        let network_config = recipe.model.clone().resolved(train.num_classes(), channels);
        let mut network = Network::new(network_config, recipe.seed, device)?;
        network.model.set_precision(recipe.precision.into())?;
        let mut optimizer = Optimizer::new(recipe.optimizer.clone(), network.model.trainable())?;
        let mut position = Position::default();
        let checkpoints = Checkpoints::new(folder.file("checkpoints"));
        if resume && let Some((saved, damaged)) = checkpoints.latest()? {
            for file in damaged {
                observer.message(&format!("{}: damaged, passed over ({})", file.path.display(), file.reason));
            }
            network.model.set_state(&saved.model)?;
            optimizer.load_state(&saved.optimizer)?;
            position = serde_json::from_value(saved.metadata)
                .map_err(|e| Error::format(checkpoints.folder(), format!("the training position: {e}")))?;
        }
        folder.truncate_metrics(position.epoch)?;
        folder.set_status(Status::Running)?;
        let events = EventWriter::resume(folder.path(), position.step)?;
        let device = device.clone();
        Ok(Self {
            recipe,
            folder,
            network,
            optimizer,
            loader,
            test,
            position,
            checkpoints,
            events,
            device,
            observer,
            interrupt,
        })
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after the interrupt flag was raised and a checkpoint was written.
    pub fn run(mut self) -> Result<Network> {
        self.observer.started(&self.recipe, self.network.model.parameter_count(), self.position.epoch);
        while self.position.epoch < self.recipe.epochs {
            self.epoch()?;
        }
        self.network.save(&self.folder.file("model.safetensors"))?;
        Ok(self.network)
    }

    fn epoch(&mut self) -> Result<()> {
        let began = Instant::now();
        let epoch = self.position.epoch;
        let batches = self.loader.batches_per_epoch();
        let mut tally = Tally::from_sums(self.position.sums);
        let mut rate = 0.0;
        for batch in self.loader.epoch_from(epoch, self.position.batch) {
            let batch = batch?;
            let images = batch.images.to_device(&self.device)?;
            let labels = batch.labels.to_device(&self.device)?;
            let ids: Vec<u64> = batch.indices.iter().map(|&index| index as u64).collect();
            rate = self.learning_rate(self.position.batch, batches);
            self.step(&images, &labels, &ids, rate, &mut tally)?;
            self.position.batch += 1;
            self.position.step += 1;
            // Looking at the sums waits for an accelerator: not after every step.
            if self.device.is_cpu() || self.position.batch.is_multiple_of(20) {
                self.observer.step(epoch, self.position.batch, batches, tally.sums()?);
            }
            if self.interrupt.load(Ordering::Relaxed) {
                self.position.sums = tally.sums()?;
                self.save_checkpoint()?;
                self.folder.set_status(Status::Interrupted)?;
                let place = self.folder.path().display();
                return Err(Error::Interrupted(format!(
                    "saved in {place}; go on with --resume --out {place}"
                )));
            }
        }
        let sums = tally.sums()?;
        if !sums.loss.is_finite() {
            return Err(Error::model(format!(
                "the loss is no longer a finite number in epoch {}; try a lower learning_rate",
                epoch + 1
            )));
        }
        self.finish_epoch(sums, rate, began)
    }

    fn learning_rate(&self, batch: usize, batches: usize) -> f64 {
        let steps_per_epoch = batches as u64;
        let step = self.position.epoch * steps_per_epoch + batch as u64;
        let position = schedule::Position { step, steps_per_epoch, epochs: self.recipe.epochs };
        self.recipe.schedule.rate(self.recipe.learning_rate, position)
    }

    fn step(
        &mut self,
        images: &Tensor,
        labels: &Tensor,
        ids: &[u64],
        rate: f64,
        tally: &mut Tally,
    ) -> Result<()> {
        let step = Step {
            model: &self.network.model,
            images,
            labels,
            image_ids: ids,
            seed: self.recipe.seed,
            epoch: self.position.epoch,
            progress: (self.position.epoch + 1) as f64 / self.recipe.epochs as f64,
        };
        let outcome = self.recipe.objective.forward(&step)?;
        let outcome = self.recipe.regularizers.apply(&step, outcome)?;
        let gradients = outcome.loss.backward()?;
        self.optimizer.step(&gradients, rate)?;
        tally.add(&outcome.loss, &outcome.logits, labels)
    }

    /// Measures, keeps the best, records metrics, checkpoints.
    fn finish_epoch(&mut self, sums: Sums, rate: f64, began: Instant) -> Result<()> {
        self.position.epoch += 1;
        self.position.batch = 0;
        self.position.sums = Sums::default();
        let epoch = self.position.epoch;
        let mut values = BTreeMap::from([
            ("train/loss".to_string(), sums.mean_loss()),
            ("train/accuracy".to_string(), sums.accuracy()),
            ("learning_rate".to_string(), rate),
        ]);
        let last = epoch == self.recipe.epochs;
        let every = self.recipe.evaluation.every;
        if every > 0 && (last || epoch.is_multiple_of(every)) {
            self.evaluate(&mut values)?;
        }
        let line = MetricsLine { kind: "epoch".into(), epoch, step: self.position.step, values };
        // Metrics first: a resumed run drops and writes again what its checkpoint does not cover.
        self.folder.append_metrics(&line)?;
        if last || epoch.is_multiple_of(self.recipe.checkpoint.every) {
            self.save_checkpoint()?;
        }
        for (name, value) in &line.values {
            self.events.scalar(name, line.step, *value as f32)?;
        }
        self.events.flush()?;
        self.observer.epoch(&line, self.recipe.epochs, began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Accuracy on the test split, clean and (if asked for) under attack; keeps the best weights of each.
    fn evaluate(&mut self, values: &mut BTreeMap<String, f64>) -> Result<()> {
        let settings = Settings {
            batch_size: self.recipe.evaluation.batch_size,
            device: &self.device,
            interrupt: None,
            progress: &|_, _, _| {},
        };
        let model = FrozenModel::folded(&self.network.model)?;
        let count = self.recipe.evaluation.limit.unwrap_or(usize::MAX).min(self.test.len());
        let indices: Vec<usize> = (0..count).collect();
        let share = |flags: &[bool]| flags.iter().filter(|hit| **hit).count() as f64 / count.max(1) as f64;
        let clean = accuracy::correct(&model, self.test.as_ref(), &indices, &settings)?;
        values.insert("test/accuracy".into(), share(&clean));
        let mut criteria = vec![("best", share(&clean))];
        if let Some(attack) = &self.recipe.evaluation.attack {
            let robust =
                accuracy::robust(&model, self.test.as_ref(), &clean, attack, self.recipe.seed, &settings)?;
            values.insert("test/robust_accuracy".into(), share(&robust));
            criteria = vec![("best", share(&robust)), ("best-sum", share(&clean) + share(&robust))];
        }
        for (name, value) in criteria {
            if self.position.best.get(name).is_none_or(|(best, _)| value > *best) {
                self.position.best.insert(name.into(), (value, self.position.epoch));
                self.network.save(&self.folder.file(&format!("{name}.safetensors")))?;
            }
        }
        Ok(())
    }

    fn save_checkpoint(&self) -> Result<()> {
        let point = Point { epoch: self.position.epoch, step: self.position.batch as u64 };
        let metadata = serde_json::to_value(&self.position)
            .map_err(|e| Error::config(format!("the training position cannot be stored: {e}")))?;
        let snapshot = Snapshot {
            point,
            model: self.network.model.state().into_iter().collect(),
            optimizer: self.optimizer.state()?,
            average: Default::default(),
            metadata,
        };
        self.checkpoints.save(&snapshot)?;
        self.checkpoints.prune(CHECKPOINTS_KEPT).map(|_| ())
    }
}
