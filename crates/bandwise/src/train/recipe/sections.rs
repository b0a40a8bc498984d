//! The smaller tables of a recipe.

use serde::{Deserialize, Serialize};

use crate::attack::Attack;
use crate::data::{Augment, DataSpec};
use crate::train::selection::Selection;
use crate::{Error, Result};

/// The `[data]` table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The data set; its training split is learned, its test split evaluated.
    #[serde(default)]
    pub source: DataSpec,
    /// Random changes of training images, in order.
    #[serde(default)]
    pub augment: Vec<Augment>,
    /// Only the first N training images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Leave out an incomplete last batch.
    #[serde(default)]
    pub drop_last: bool,
}

/// The `[evaluation]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Epochs between evaluations on the test split (0: none before training has ended).
    pub every: u64,
    /// Share of the training after which every epoch is evaluated, whatever `every` says (FPCM's official
    /// code: every 10 epochs, and every one after 0.7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_after: Option<f64>,
    /// Which weights are evaluated and saved, where an average of them is kept.
    #[serde(skip_serializing_if = "is_default")]
    pub weights: EvaluatedWeights,
    /// Only the first N test images during training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Also measure robust accuracy under this attack, and keep the best by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<Attack>,
    /// Choose the best weights by robust accuracy on training images every so many steps, not on test images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Selection>,
    /// Follow the input gradients (low-frequency bias, norm, alignment) of the first N test images;
    /// 0 for none.
    pub track_gradients: usize,
    /// Images per pass.
    pub batch_size: usize,
    /// Attacks measured on the whole test split when training has ended.
    #[serde(rename = "final")]
    pub final_attacks: Vec<Attack>,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            every: 1,
            every_after: None,
            weights: EvaluatedWeights::default(),
            limit: None,
            attack: None,
            select: None,
            track_gradients: 0,
            batch_size: 250,
            final_attacks: Vec::new(),
        }
    }
}

impl EvaluationConfig {
    /// Whether the network is evaluated after `epoch` (from 1) of `epochs`.
    pub fn is_due(&self, epoch: u64, epochs: u64) -> bool {
        let late = |after: f64| epoch as f64 >= after * epochs as f64;
        let regular = self.every > 0 && (epoch == epochs || epoch.is_multiple_of(self.every));
        regular || self.every_after.is_some_and(late)
    }

    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if let Some(after) = self.every_after.filter(|after| !(0.0..=1.0).contains(after)) {
            return Err(Error::config(format!(
                "evaluation.every_after must be a share of the training in [0, 1], not {after}"
            )));
        }
        if self.limit == Some(0) {
            return Err(Error::config(
                "evaluation.limit must be at least 1: there is no accuracy of no images; evaluation.every = 0 measures \
                 nothing before training has ended",
            ));
        }
        self.select.iter().try_for_each(Selection::validate)?;
        self.attack.iter().chain(&self.final_attacks).try_for_each(Attack::validate)
    }
}

/// Which weights are evaluated and saved as `model.safetensors`, where `[averaging]` keeps an average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluatedWeights {
    /// The average; the trained ones are saved as `trained.safetensors`.
    #[default]
    Average,
    /// Those that the optimizer changes; the average is saved as `average.safetensors`.
    Trained,
}

/// The `[early_stopping]` table: ends training that no longer gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Epochs without a new best robust accuracy (clean accuracy, if no `evaluation.attack` is given) after
    /// which training ends.
    pub patience: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The `[checkpoint]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Epochs between checkpoints from which training can go on.
    pub every: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_come_every_so_often_and_then_every_epoch() {
        let due = |every: u64, every_after: Option<f64>| -> Vec<u64> {
            let config = EvaluationConfig { every, every_after, ..EvaluationConfig::default() };
            (1..=20).filter(|&epoch| config.is_due(epoch, 20)).collect()
        };
        assert_eq!(due(6, None), [6, 12, 18, 20]);
        assert_eq!(due(6, Some(0.75)), [6, 12, 15, 16, 17, 18, 19, 20]);
        assert_eq!(due(0, None), [0u64; 0]);
        assert_eq!(due(0, Some(0.9)), [18, 19, 20]);
    }
}
