//! What a trainer writes and reads back: checkpoints, weights, the state of the run.

use serde_json::json;

use super::{Observer, Position, Trainer, prepare};
use crate::network::Network;
use crate::train::averaging::Statistics;
use crate::train::batch_statistics;
use crate::train::checkpoint::{self, Checkpoints, Point, Snapshot};
use crate::train::history::AcceptedChange;
use crate::train::recipe::{Change, EvaluatedWeights, Recipe};
use crate::train::run_folder::{MetricsLine, Status};
use crate::{Error, Result};

/// The newest checkpoint and a spare, in case the disk damages that.
const CHECKPOINTS_KEPT: usize = 2;
/// Points at the checkpoint of the last epoch that showed no catastrophic overfitting.
const LAST_HEALTHY: &str = "last-healthy";
/// Name of the carried perturbation among a checkpoint's tensors.
const CARRIED_DELTA: &str = "images";

/// What a run left in its latest checkpoint.
#[derive(Debug)]
pub struct Saved {
    /// The tensors.
    pub snapshot: Snapshot,
    /// Where the run stood.
    pub position: Position,
    /// The recipe that it was made with; `None` in checkpoints of versions that did not store it.
    pub recipe: Option<Recipe>,
}

impl Saved {
    /// The latest checkpoint that is whole; `None` where there is none.
    ///
    /// # Errors
    /// There are checkpoints, and every one is damaged.
    pub fn latest(checkpoints: &Checkpoints, observer: &dyn Observer) -> Result<Option<Self>> {
        let Some(latest) = checkpoints.latest()? else { return Ok(None) };
        for file in latest.skipped {
            observer.message(&format!("{}: damaged, passed over ({})", file.path.display(), file.reason));
        }
        let snapshot = latest.snapshot;
        if !latest.verified {
            observer.message(&format!(
                "{}: written by an earlier version, without checksum and recipe; nothing vouches for its content",
                checkpoints.path(snapshot.point).display()
            ));
        }
        let position = serde_json::from_value(snapshot.metadata.clone())
            .map_err(|e| Error::config(format!("the checkpoint's training position cannot be read: {e}")))?;
        let recipe = snapshot.recipe.as_ref().map(|text| Recipe::parse(text, &[])).transpose()?;
        Ok(Some(Self { snapshot, position, recipe }))
    }
}

impl Trainer<'_> {
    /// Goes on with the tensors of a checkpoint; the position is the caller's.
    pub(super) fn take_up(&mut self, saved: &Snapshot) -> Result<()> {
        self.network.model.set_state(&saved.model)?;
        self.optimizer.load_state(&saved.optimizer)?;
        if let Some(average) = &mut self.average {
            average.load_state(&saved.average, &self.device)?;
        }
        let carried_delta = saved.perturbation.get(CARRIED_DELTA);
        self.carried_delta =
            carried_delta.map(|carried_delta| carried_delta.to_device(&self.device)).transpose()?;
        // The process may have been killed between a checkpoint and its mark.
        self.mark_healthy()
    }

    /// Goes on with other settings than before: notes them, and stores a checkpoint that holds them.
    ///
    /// What was best under the old settings may not be comparable, so "best" and early stopping begin anew.
    pub fn accept(&mut self, changes: &[Change]) -> Result<()> {
        let (epoch, batch) = (self.position.epoch, self.position.batch);
        let accepted = changes.iter().map(|change| AcceptedChange { epoch, batch, change: change.clone() });
        self.position.history.changes.extend(accepted);
        self.position.best.clear();
        self.position.stopped = None;
        self.position.data_sha256 = prepare::data_sha256(self.loader.dataset().as_ref(), self.test.as_ref());
        let list: Vec<String> = changes.iter().map(Change::to_string).collect();
        let note = format!("settings changed after epoch {epoch}: {}", list.join(", "));
        self.folder.append_metrics(&MetricsLine::message("note", epoch, self.position.step, &note))?;
        self.observer.message(&format!("{}: {note}", self.recipe.name));
        self.save_checkpoint()
    }

    /// Writes where the run stands, with the present recipe, and removes checkpoints that nobody needs.
    pub(in crate::train) fn save_checkpoint(&self) -> Result<()> {
        let metadata = serde_json::to_value(&self.position)
            .map_err(|e| Error::config(format!("the training position cannot be stored: {e}")))?;
        let carried_delta =
            self.carried_delta.iter().map(|carried_delta| (CARRIED_DELTA.to_string(), carried_delta.clone()));
        let snapshot = Snapshot {
            point: self.point(),
            model: self.network.model.state().into_iter().collect(),
            optimizer: self.optimizer.state()?,
            average: self.average.as_ref().map_or(Ok(Default::default()), |average| average.state())?,
            perturbation: carried_delta.collect(),
            metadata,
            network: self.network.metadata()?,
            recipe: Some(self.recipe.to_toml()?),
        };
        self.checkpoints.save(&snapshot)?;
        self.checkpoints.prune(CHECKPOINTS_KEPT).map(|_| ())
    }

    fn point(&self) -> Point {
        Point { epoch: self.position.epoch, step: self.position.batch as u64 }
    }

    /// Saves everything, and says how to go on; the error to end with.
    pub(super) fn interrupted(&self) -> Error {
        let saved = self.save_checkpoint().and_then(|()| self.folder.set_status(Status::Interrupted));
        let place = self.folder.path().display();
        match saved {
            Ok(()) => Error::Interrupted(format!("saved in {place}; continue with --resume --out {place}")),
            Err(error) => error,
        }
    }

    /// Keeps the checkpoint of the last epoch without catastrophic overfitting from being pruned.
    pub(super) fn mark_healthy(&self) -> Result<()> {
        match self.position.last_healthy_epoch {
            Some(epoch) => self
                .checkpoints
                .point(LAST_HEALTHY, Point::after(epoch), json!({ "epoch": epoch }))
                .map(|_| ()),
            None => Ok(()),
        }
    }

    /// Puts weights and optimizer back to the last epoch without catastrophic overfitting, and returns its
    /// number; `None` if there was none.
    pub(super) fn restore_healthy(&mut self) -> Result<Option<u64>> {
        if let Some(epoch) = self.position.last_healthy_epoch {
            let saved = checkpoint::read(&self.checkpoints.path(Point::after(epoch)))?;
            self.take_up(&saved)?;
        }
        Ok(self.position.last_healthy_epoch)
    }

    /// The network that is evaluated and saved: that of the averaged weights, where there is an average and
    /// the recipe wants it, else the one in training.
    pub(super) fn evaluated_network(&self) -> Result<Network> {
        match self.recipe.evaluation.weights {
            EvaluatedWeights::Average => Ok(self.averaged()?.unwrap_or_else(|| self.network.clone())),
            EvaluatedWeights::Trained => Ok(self.network.clone()),
        }
    }

    /// A network of the averaged weights, if any were averaged yet.
    fn averaged(&self) -> Result<Option<Network>> {
        let Some(average) = self.average.as_ref().filter(|average| average.count() > 0) else {
            return Ok(None);
        };
        let mut network = Network::new(self.network.config.clone(), self.recipe.seed, &self.device)?
            .with_class_names(&self.network.class_names);
        network.model.set_precision(self.recipe.precision)?;
        network.model.set_state(average.tensors())?;
        if average.config().statistics() == Statistics::Recomputed {
            batch_statistics::recompute(&network.model, &self.loader, 0, &self.device)?;
        }
        Ok(Some(network))
    }

    /// Writes the weights that training ends with, and returns the network to be evaluated.
    pub(super) fn save_weights(&self) -> Result<Network> {
        let judged = self.evaluated_network()?;
        judged.save(&self.folder.file("model.safetensors"))?;
        if let Some(averaged) = self.averaged()? {
            match self.recipe.evaluation.weights {
                EvaluatedWeights::Average => self.network.save(&self.folder.file("trained.safetensors"))?,
                EvaluatedWeights::Trained => averaged.save(&self.folder.file("average.safetensors"))?,
            }
        }
        Ok(judged)
    }
}
