//! What is minimized: one file per objective, each reading like its paper's equation.

mod adversarial;
mod free;
mod mart;
mod standard;
mod trades;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use adversarial::{Adversarial, Perturbation};
pub use free::Free;
pub use mart::Mart;
pub use standard::Standard;
pub use trades::Trades;

use super::step::Step;
use crate::attack::{Attack, Epsilon, Norm};
use crate::{Error, Result};

/// What an objective makes of one batch.
#[derive(Debug)]
pub struct Outcome {
    /// The scalar to differentiate.
    pub loss: Tensor,
    /// Logits `[batch, classes]` that count for the training accuracy.
    pub logits: Tensor,
    /// What the loss consists of, by name, without weights (λ, β): scalars, detached.
    pub terms: Terms,
}

/// Parts of a loss by name.
pub type Terms = Vec<(&'static str, Tensor)>;

/// The name of the classification part of every objective.
pub(super) const CROSS_ENTROPY: &str = "cross_entropy";
/// The name of the part that compares clean and adversarial predictions.
pub(super) const DIVERGENCE: &str = "divergence";

/// A training objective with its parameters: the `[objective]` table of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Objective {
    /// Cross-entropy on clean images.
    Standard(Standard),
    /// Cross-entropy on adversarial images (PGD-AT, FGSM-RS).
    Adversarial(Adversarial),
    /// Cross-entropy on images that are perturbed along the way (free adversarial training).
    Free(Free),
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
    /// The images that the loss is taken on, without a graph behind them: adversarial ones against the present weights, but for
    /// standard training.
    pub fn attack(&self, step: &Step) -> Result<Tensor> {
        match self {
            Self::Standard(_) => Ok(step.images.clone()),
            Self::Adversarial(objective) => objective.attack(step),
            Self::Free(objective) => objective.attack(step),
            Self::Trades(objective) => objective.attack(step),
            Self::Mart(objective) => objective.attack(step),
        }
    }

    /// The loss of one batch, given what [`Objective::attack`] made of its images.
    pub fn loss(&self, step: &Step, adversarial: &Tensor) -> Result<Outcome> {
        match self {
            Self::Standard(objective) => objective.loss(step),
            Self::Adversarial(objective) => objective.loss(step, adversarial),
            Self::Free(objective) => objective.loss(step, adversarial),
            Self::Trades(objective) => objective.loss(step, adversarial),
            Self::Mart(objective) => objective.loss(step, adversarial),
        }
    }

    /// The perturbation that the next step begins with, where it comes out of this one's backward pass: `gradient` is
    /// that of the loss at the images that [`Objective::attack`] made, if the pass reached them.
    pub fn next_delta(&self, step: &Step, gradient: Option<&Tensor>) -> Result<Option<Tensor>> {
        match (self, gradient) {
            (Self::Standard(_) | Self::Adversarial(_) | Self::Trades(_) | Self::Mart(_), _) => Ok(None),
            (Self::Free(free), Some(gradient)) => free.next(step, gradient).map(Some),
            (Self::Free(_), None) => Ok(Some(step.images.zeros_like()?)),
        }
    }

    /// Optimizer updates that each batch gives.
    pub fn replays(&self) -> usize {
        match self {
            Self::Free(objective) => objective.replays,
            _ => 1,
        }
    }

    /// The attack used in training; `None` for standard training, and for free adversarial training, whose own
    /// updates make the perturbations.
    pub fn training_attack(&self) -> Option<&Attack> {
        match self {
            Self::Standard(_) | Self::Free(_) => None,
            Self::Adversarial(objective) => Some(&objective.attack),
            Self::Trades(objective) => Some(&objective.attack),
            Self::Mart(objective) => Some(&objective.attack),
        }
    }

    /// The norm and radius of the perturbations that are trained against.
    pub fn ball(&self) -> Option<(Norm, Epsilon)> {
        match self {
            Self::Free(objective) => Some((Norm::Linf, objective.epsilon)),
            _ => self.training_attack().map(|attack| (attack.norm(), attack.epsilon())),
        }
    }

    /// Whether it trains on adversarial images.
    pub fn is_adversarial(&self) -> bool {
        self.ball().is_some()
    }

    /// Epochs over which ε grows to its full value.
    pub fn epsilon_warmup(&self) -> f64 {
        match self {
            Self::Standard(_) => 0.0,
            Self::Adversarial(objective) => objective.epsilon_warmup,
            Self::Free(objective) => objective.epsilon_warmup,
            Self::Trades(objective) => objective.epsilon_warmup,
            Self::Mart(objective) => objective.epsilon_warmup,
        }
    }

    /// Refuses parameters that make no sense.
    pub fn validate(&self) -> Result<()> {
        let (smoothing, beta) = match self {
            Self::Standard(objective) => (objective.label_smoothing, 0.0),
            Self::Adversarial(objective) => (objective.label_smoothing, 0.0),
            Self::Free(objective) => (objective.label_smoothing, 0.0),
            Self::Trades(objective) => (objective.label_smoothing, objective.beta),
            Self::Mart(objective) => (0.0, objective.beta),
        };
        if !(0.0..1.0).contains(&smoothing) {
            return Err(Error::config(format!(
                "objective.label_smoothing must lie in [0, 1), not {smoothing}"
            )));
        }
        if !(beta.is_finite() && beta >= 0.0) {
            return Err(Error::config(format!("objective.beta must not be negative, not {beta}")));
        }
        let warmup = self.epsilon_warmup();
        if !(warmup.is_finite() && warmup >= 0.0) {
            return Err(Error::config(format!(
                "objective.epsilon_warmup must be a number of epochs, at least 0, not {warmup}"
            )));
        }
        if let Self::Adversarial(objective) = self {
            objective.validate()?;
        }
        match self {
            Self::Free(objective) => objective.validate(),
            _ => self.training_attack().map_or(Ok(()), Attack::validate),
        }
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// β of TRADES and MART.
fn six() -> f64 {
    6.0
}
