//! Free adversarial training (Shafahi et al. 2019, algorithm 1): each batch is replayed m times, and the one
//! backward pass of a replay serves both players:
//!
//! ```text
//! g_θ, g_x ← ∇ CE(f_θ(clip(x + δ)), y)
//! θ ← θ − η · g_θ        δ ← clip(δ + α · sign(g_x), −ε, ε)
//! ```
//!
//! δ lasts: the next replay, and the next batch, go on from it. Training so costs what standard training with m
//! times the epochs costs; `epochs` of a recipe counts passes through the data set, each of m replays.

use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::attack::Epsilon;
use crate::nn::loss::smoothed_cross_entropy;
use crate::train::step::Step;
use crate::{Error, Result};

/// The paper tries up to 30.
const MAX_REPLAYS: usize = 1000;

/// Cross-entropy on images whose perturbation comes from the passes that train the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Free {
    /// Radius of the L∞ ball.
    pub epsilon: Epsilon,
    /// Step length α; ε if not given, as in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
    /// Updates that each batch gives, m.
    pub replays: usize,
    /// Epochs over which ε grows from 0.
    pub epsilon_warmup: f64,
    /// Share of the target probability that is spread over all classes.
    pub label_smoothing: f64,
}

impl Default for Free {
    /// ε = 8/255 and m = 8, the paper's choice for CIFAR-10.
    fn default() -> Self {
        let epsilon = Epsilon::of_255(8.0);
        Self { epsilon, step_size: None, replays: 8, epsilon_warmup: 0.0, label_smoothing: 0.0 }
    }
}

impl Free {
    pub(super) fn validate(&self) -> Result<()> {
        if self.replays == 0 || self.replays > MAX_REPLAYS {
            return Err(Error::config(format!(
                "objective.replays must lie between 1 and {MAX_REPLAYS}, not {}",
                self.replays
            )));
        }
        if self.epsilon.value() > 1.0 {
            return Err(Error::config(format!(
                "objective.epsilon = {} is larger than the whole pixel range [0, 1]",
                self.epsilon
            )));
        }
        Ok(())
    }

    /// clip(x + δ), as a variable: the pass that trains the weights then also gives its gradient.
    pub(super) fn attack(&self, step: &Step) -> Result<Tensor> {
        let moved = match &step.carried_delta {
            Some(delta) => (&step.images + delta)?.clamp(0.0, 1.0)?,
            None => step.images.clone(),
        };
        Ok(Var::from_tensor(&moved)?.into_inner())
    }

    pub(super) fn loss(&self, step: &Step, adversarial: &Tensor) -> Result<Outcome> {
        let logits = step.logits(adversarial)?;
        let loss = smoothed_cross_entropy(&logits, &step.labels, self.label_smoothing)?.mean_all()?;
        let terms = vec![(super::CROSS_ENTROPY, loss.detach())];
        Ok(Outcome { loss, logits, terms })
    }

    /// The next δ, from `gradient`, that of the loss at clip(x + δ). Where the clip cut, δ stays; pixels at 0 or 1
    /// themselves move, as with PyTorch's `clamp` of the time (that of 2.15 has no gradient there).
    pub fn next(&self, step: &Step, gradient: &Tensor) -> Result<Tensor> {
        let delta = match &step.carried_delta {
            Some(delta) => delta.clone(),
            None => step.images.zeros_like()?,
        };
        let strength = step.warmed_up(self.epsilon_warmup);
        let epsilon = self.epsilon.value() * strength;
        let step_size = self.step_size.unwrap_or(self.epsilon).value() * strength;
        let moved = (&step.images + &delta)?;
        let inside = (moved.ge(0.0)? * moved.le(1.0)?)?.to_dtype(delta.dtype())?;
        let direction = (gradient.detach().sign()? * inside)?;
        Ok((delta + (direction * step_size)?)?.clamp(-epsilon, epsilon)?)
    }
}
