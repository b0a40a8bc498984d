//! What is minimised: one file per objective, each reading like its paper's equation.

mod adversarial;
mod mart;
mod standard;
mod trades;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use adversarial::Adversarial;
pub use mart::Mart;
pub use standard::Standard;
pub use trades::Trades;

use super::step::Step;
use crate::Result;

/// What an objective makes of one batch.
#[derive(Debug)]
pub struct Outcome {
    /// The scalar to differentiate.
    pub loss: Tensor,
    /// Logits `[batch, classes]` that count for the training accuracy.
    pub logits: Tensor,
}

/// A training objective with its parameters: the `[objective]` table of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Objective {
    /// Cross-entropy on clean pictures.
    Standard(Standard),
    /// Cross-entropy on adversarial pictures (PGD-AT, FGSM-RS).
    Adversarial(Adversarial),
    /// Clean cross-entropy and a divergence.
    Trades(Trades),
    /// Boosted cross-entropy and a weighted divergence.
    Mart(Mart),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Standard(Standard::default())
    }
}

impl Objective {
    /// The loss of one batch.
    pub fn forward(&self, step: &Step) -> Result<Outcome> {
        match self {
            Self::Standard(objective) => objective.forward(step),
            Self::Adversarial(objective) => objective.forward(step),
            Self::Trades(objective) => objective.forward(step),
            Self::Mart(objective) => objective.forward(step),
        }
    }

    /// Refuses parameters that make no sense.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Standard(_) => Ok(()),
            Self::Adversarial(objective) => objective.attack.validate(),
            Self::Trades(objective) => objective.attack.validate(),
            Self::Mart(objective) => objective.attack.validate(),
        }
    }
}

/// β of TRADES and MART.
fn six() -> f64 {
    6.0
}
