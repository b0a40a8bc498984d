//! What a trainer writes and reads back: checkpoints, weights, the state of the run.

use serde_json::json;

use super::{Observer, Position, Trainer};
use crate::method::Network;
use crate::train::averaging::Statistics;
use crate::train::batch_statistics;
use crate::train::checkpoint::{self, Checkpoints, Point, Snapshot};
use crate::train::recipe::JudgedWeights;
use crate::train::run::Status;
use crate::{Error, Result};

/// The newest checkpoint and a spare, in case the disk damages that.
const CHECKPOINTS_KEPT: usize = 2;
/// Points at the checkpoint of the last epoch that showed no catastrophic overfitting.
const SOUND: &str = "sound";
/// Name of the lasting perturbation among a checkpoint's tensors.
const LASTING: &str = "images";

/// The latest checkpoint that is whole.
pub(super) fn latest(checkpoints: &Checkpoints, observer: &dyn Observer) -> Result<Option<Snapshot>> {
    let Some((saved, damaged)) = checkpoints.latest()? else { return Ok(None) };
    for file in damaged {
        observer.message(&format!("{}: damaged, passed over ({})", file.path.display(), file.reason));
    }
    Ok(Some(saved))
}

/// Where the run stood.
pub(super) fn position_of(saved: &Snapshot) -> Result<Position> {
    serde_json::from_value(saved.metadata.clone())
        .map_err(|e| Error::config(format!("the checkpoint's training position cannot be read: {e}")))
}

impl Trainer<'_> {
    /// Goes on with the tensors of a checkpoint; the position is the caller's.
    pub(super) fn take_up(&mut self, saved: &Snapshot) -> Result<()> {
        self.network.model.set_state(&saved.model)?;
        self.optimizer.load_state(&saved.optimizer)?;
        if let Some(average) = &mut self.average {
            average.load_state(&saved.average, &self.device)?;
        }
        let lasting = saved.perturbation.get(LASTING);
        self.lasting = lasting.map(|lasting| lasting.to_device(&self.device)).transpose()?;
        // The process may have been killed between a checkpoint and its mark.
        self.mark_sound()
    }

    pub(super) fn save_checkpoint(&self) -> Result<()> {
        let metadata = serde_json::to_value(&self.position)
            .map_err(|e| Error::config(format!("the training position cannot be stored: {e}")))?;
        let lasting = self.lasting.iter().map(|lasting| (LASTING.to_string(), lasting.clone()));
        let snapshot = Snapshot {
            point: self.point(),
            model: self.network.model.state().into_iter().collect(),
            optimizer: self.optimizer.state()?,
            average: self.average.as_ref().map_or(Ok(Default::default()), |average| average.state())?,
            perturbation: lasting.collect(),
            metadata,
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
            Ok(()) => Error::Interrupted(format!("saved in {place}; go on with --resume --out {place}")),
            Err(error) => error,
        }
    }

    /// Keeps the checkpoint of the last epoch without catastrophic overfitting from being pruned.
    pub(super) fn mark_sound(&self) -> Result<()> {
        match self.position.sound {
            Some(epoch) => {
                self.checkpoints.point(SOUND, Point::after(epoch), json!({ "epoch": epoch })).map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// Puts weights and optimiser back to the last epoch without catastrophic overfitting, and returns its
    /// number; `None` if there was none.
    pub(super) fn restore_sound(&mut self) -> Result<Option<u64>> {
        if let Some(epoch) = self.position.sound {
            let saved = checkpoint::read(&self.checkpoints.path(Point::after(epoch)))?;
            self.take_up(&saved)?;
        }
        Ok(self.position.sound)
    }

    /// The network that is evaluated and saved: that of the averaged weights, where there is an average and
    /// the recipe wants it, else the one in training.
    pub(super) fn judged(&self) -> Result<Network> {
        match self.recipe.evaluation.weights {
            JudgedWeights::Average => Ok(self.averaged()?.unwrap_or_else(|| self.network.clone())),
            JudgedWeights::Trained => Ok(self.network.clone()),
        }
    }

    /// A network of the averaged weights, if any were averaged yet.
    fn averaged(&self) -> Result<Option<Network>> {
        let Some(average) = self.average.as_ref().filter(|average| average.count() > 0) else {
            return Ok(None);
        };
        let mut network = Network::new(self.network.config.clone(), self.recipe.seed, &self.device)?;
        network.model.set_precision(self.recipe.precision.into())?;
        network.model.set_state(average.tensors())?;
        if average.config().statistics() == Statistics::Recomputed {
            batch_statistics::recompute(&network.model, &self.loader, 0, &self.device)?;
        }
        Ok(Some(network))
    }

    /// Writes the weights that training ends with, and returns the network to be evaluated.
    pub(super) fn save_weights(&self) -> Result<Network> {
        let judged = self.judged()?;
        judged.save(&self.folder.file("model.safetensors"))?;
        if let Some(averaged) = self.averaged()? {
            match self.recipe.evaluation.weights {
                JudgedWeights::Average => self.network.save(&self.folder.file("trained.safetensors"))?,
                JudgedWeights::Trained => averaged.save(&self.folder.file("average.safetensors"))?,
            }
        }
        Ok(judged)
    }
}
