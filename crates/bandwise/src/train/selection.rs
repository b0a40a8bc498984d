//! The best weights by PGD on fixed training images, every so many steps, as in JaFR's official code: catastrophic
//! overfitting shows on training images, too, and no test image takes part in the choice.

use std::sync::Arc;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::attack::{Attack, Classifier, Pgd};
use crate::data::{Dataset, Subset};
use crate::evaluate::accuracy;
use crate::{Error, Job, Result};

/// `[evaluation] select` of a recipe: `best.safetensors` then holds the weights that were best here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// How many training images: the first ones, without augmentation.
    pub images: usize,
    /// Optimizer steps from one look at them to the next; the first one is before training.
    pub every: u64,
    /// What they are attacked with.
    pub attack: Attack,
}

impl Default for Selection {
    /// 256 images, every 200 steps, as published.
    fn default() -> Self {
        Self { images: 256, every: 200, attack: Attack::Pgd(Pgd::default()) }
    }
}

impl Selection {
    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if self.images == 0 || self.every == 0 {
            return Err(Error::config(
                "evaluation.select.images and evaluation.select.every must be at least 1",
            ));
        }
        self.attack.validate()
    }
}

/// Judges weights by the images of a [`Selection`].
pub struct Selector {
    every: u64,
    images: Subset,
    attack: Attack,
    seed: u64,
    batch_size: usize,
}

impl Selector {
    /// A judge with the first images of `train`, attacked `batch_size` at a time.
    ///
    /// # Errors
    /// If the images cannot be read.
    pub fn new(config: &Selection, train: &Arc<dyn Dataset>, seed: u64, batch_size: usize) -> Result<Self> {
        let images = Subset::first(train.clone(), config.images)?;
        Ok(Self { every: config.every, images, attack: config.attack.clone(), seed, batch_size })
    }

    /// Whether weights are judged after this many steps.
    pub fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// Share of the images that are right and stay so under attack.
    ///
    /// # Errors
    /// If the images do not fit the model.
    pub fn accuracy(&self, model: &dyn Classifier, device: &Device) -> Result<f64> {
        // Not to be interrupted: the step before it is taken already.
        let job = Job { batch_size: self.batch_size, ..Job::on(device) };
        let indices: Vec<usize> = (0..self.images.len()).collect();
        let clean = accuracy::correct(model, &self.images, &indices, &job)?;
        let robust = accuracy::robust(model, &self.images, &clean, &self.attack, self.seed, &job)?;
        Ok(robust.iter().filter(|right| **right).count() as f64 / robust.len().max(1) as f64)
    }
}
