//! Standard training: min CE(f(x), y), with optional label smoothing.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::Result;
use crate::nn::loss::smoothed_cross_entropy;
use crate::train::step::Step;

/// Cross-entropy on clean images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// Share of the target probability that is spread over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
}

impl Standard {
    pub(super) fn loss(&self, step: &Step) -> Result<Outcome> {
        let logits = step.logits(&step.images)?;
        let loss = self.loss_of(&logits, &step.labels)?;
        let terms = vec![(super::CROSS_ENTROPY, loss.detach())];
        Ok(Outcome { loss, logits, terms })
    }

    /// The loss of clean logits `[batch, classes]`, a scalar.
    pub fn loss_of(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        Ok(smoothed_cross_entropy(logits, labels, self.label_smoothing)?.mean_all()?)
    }
}
