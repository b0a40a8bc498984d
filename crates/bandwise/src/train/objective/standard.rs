//! Standard training: min CE(f(x), y), with optional label smoothing.

use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::Result;
use crate::nn::loss::smoothed_cross_entropy;
use crate::train::step::Step;

/// Cross-entropy on clean pictures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standard {
    /// Share of the target probability that is spread over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
}

impl Standard {
    pub(super) fn forward(&self, step: &Step) -> Result<Outcome> {
        let logits = step.logits(step.images)?;
        let loss = smoothed_cross_entropy(&logits, step.labels, self.label_smoothing)?.mean_all()?;
        Ok(Outcome { loss, logits })
    }
}
