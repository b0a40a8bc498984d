//! Catastrophic overfitting (Wong et al. 2020): within one epoch, a network trained on a cheap attack (FGSM) can
//! become immune to that very attack and lose all robustness against any other. The training loss shows nothing.
//!
//! The detector runs PGD on a small fixed set of training images and compares its accuracy with that under the
//! training attack, and with its own best so far.

use std::sync::Arc;

use candle_core::Device;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::objective::Objective;
use crate::attack::{Attack, Classifier, Pgd};
use crate::data::{Dataset, Subset};
use crate::evaluate::accuracy;
use crate::{Error, Interrupt, Job, Result, random};

/// Accuracy that may be lost without a word, for the noise of a small set.
const TOLERANCE: f64 = 0.1;

/// The `[overfitting]` table of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overfitting {
    /// Training images that are watched, chosen once.
    pub images: usize,
    /// Epochs between checks.
    pub every: u64,
    /// The attack that cannot be fooled; PGD-10 in the ball of the training attack, if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<Attack>,
    /// The share of the expected accuracy below which the alarm is raised.
    pub threshold: f64,
    /// What happens then.
    pub action: Action,
}

/// What happens when catastrophic overfitting is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A warning in log, metrics and report; training goes on.
    #[default]
    Warn,
    /// Training ends.
    Stop,
    /// Training ends with the state of the last epoch that passed.
    Restore,
}

impl Default for Overfitting {
    fn default() -> Self {
        Self { images: 256, every: 1, attack: None, threshold: 0.5, action: Action::Warn }
    }
}

impl Overfitting {
    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if self.images == 0 || self.every == 0 {
            return Err(Error::config("overfitting.images and overfitting.every must be at least 1"));
        }
        if !(self.threshold > 0.0 && self.threshold < 1.0) {
            return Err(Error::config(format!(
                "overfitting.threshold must be a share between 0 and 1, not {}",
                self.threshold
            )));
        }
        self.attack.iter().try_for_each(Attack::validate)
    }
}

/// One look at the watched images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// Accuracy under the training attack; that of the epoch in free adversarial training.
    pub training_attack: f64,
    /// Accuracy under the stronger attack.
    pub pgd: f64,
}

impl Observation {
    /// The warning, if the accuracy under the stronger attack has fallen below `threshold` times that under
    /// the training attack, or times `best`, its own best so far.
    pub fn warning(&self, threshold: f64, best: f64) -> Option<String> {
        let fallen = |expected: f64| self.pgd < threshold * expected && self.pgd < expected - TOLERANCE;
        let compared = if fallen(self.training_attack) {
            format!("but {:.1} % under the training attack", 100.0 * self.training_attack)
        } else if fallen(best) {
            format!("after {:.1} % in an earlier epoch", 100.0 * best)
        } else {
            return None;
        };
        let pgd = 100.0 * self.pgd;
        Some(format!(
            "catastrophic overfitting: {pgd:.1} % of the watched training images survive PGD, {compared}"
        ))
    }
}

/// Watches a run.
pub struct Detector {
    config: Overfitting,
    images: Subset,
    training_attack: Option<Attack>,
    strong_attack: Attack,
    seed: u64,
    batch_size: usize,
}

impl Detector {
    /// A detector for training with `objective` on `train`.
    ///
    /// # Errors
    /// For an objective that does not train on adversarial images.
    pub fn new(
        config: &Overfitting,
        objective: &Objective,
        train: &Arc<dyn Dataset>,
        seed: u64,
        batch_size: usize,
    ) -> Result<Self> {
        let (norm, epsilon) = objective.ball().ok_or_else(|| {
            Error::config("[overfitting] needs an adversarial objective to compare PGD with its attack")
        })?;
        let strong_attack =
            config.attack.clone().unwrap_or(Attack::Pgd(Pgd { norm, epsilon, ..Pgd::default() }));
        let mut indices: Vec<usize> = (0..train.len()).collect();
        indices.shuffle(&mut random::stream(seed, &[random::tag("watched pictures")]));
        indices.truncate(config.images);
        Ok(Self {
            config: config.clone(),
            images: Subset::new(train.clone(), indices)?,
            training_attack: objective.training_attack().cloned(),
            strong_attack,
            seed,
            batch_size,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &Overfitting {
        &self.config
    }

    /// Attacks the watched images. `epoch_accuracy`, the training accuracy of the epoch, stands for that
    /// under the training attack where there is none that could be run again.
    pub fn observe(
        &self,
        model: &dyn Classifier,
        epoch_accuracy: f64,
        device: &Device,
        interrupt: &Interrupt,
    ) -> Result<Observation> {
        let job = Job { batch_size: self.batch_size, interrupt: interrupt.clone(), ..Job::on(device) };
        let indices: Vec<usize> = (0..self.images.len()).collect();
        let clean = accuracy::correct(model, &self.images, &indices, &job)?;
        let under = |attack: &Attack| -> Result<f64> {
            let flags = accuracy::robust(model, &self.images, &clean, attack, self.seed, &job)?;
            Ok(flags.iter().filter(|right| **right).count() as f64 / flags.len().max(1) as f64)
        };
        let training_attack = self.training_attack.as_ref().map_or(Ok(epoch_accuracy), under)?;
        Ok(Observation { training_attack, pgd: under(&self.strong_attack)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fall_is_told_from_noise() {
        let warning = |training_attack: f64, pgd: f64, best: f64| {
            Observation { training_attack, pgd }.warning(0.5, best)
        };
        assert!(warning(0.9, 0.02, 0.0).unwrap().contains("90.0 % under the training attack"));
        assert!(warning(0.1, 0.1, 0.45).unwrap().contains("45.0 % in an earlier epoch"));
        assert_eq!(warning(0.55, 0.45, 0.46), None);
        // A network that has learned nothing yet.
        assert_eq!(warning(0.12, 0.04, 0.12), None);
    }
}
