//! TRADES (Zhang et al. 2019): min CE(f(x), y) + β · KL(f(x) ‖ f(x + δ)).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::Result;
use crate::attack::Attack;
use crate::nn::loss::{kl_divergence, smoothed_cross_entropy};
use crate::train::step::{AttackMode, Step};

/// Clean cross-entropy plus β times the divergence that an attack causes.
///
/// The original attack climbs the divergence itself, `{ name = "pgd", loss = "kl-divergence", start =
/// "gaussian" }`; FPCM's official code climbs the cross-entropy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trades {
    /// Attack that generates the training images.
    pub attack: Attack,
    /// Statistics of batch norm while the attack runs.
    #[serde(default)]
    pub attack_mode: AttackMode,
    /// Epochs over which the attack's ε (and step size) grows linearly to its full value.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub epsilon_warmup: f64,
    /// Weight of the divergence (β = 1/λ in the paper).
    #[serde(default = "super::six")]
    pub beta: f64,
    /// Share of the target probability that is spread over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
}

impl Trades {
    pub(super) fn attack(&self, step: &Step) -> Result<Tensor> {
        step.attack(&self.attack, self.attack_mode, self.epsilon_warmup)
    }

    pub(super) fn loss(&self, step: &Step, adversarial: &Tensor) -> Result<Outcome> {
        let clean = step.logits(&step.images)?;
        let attacked = step.logits(adversarial)?;
        let natural = smoothed_cross_entropy(&clean, &step.labels, self.label_smoothing)?.mean_all()?;
        let robust = kl_divergence(&clean, &attacked)?.mean_all()?;
        let loss = (&natural + (&robust * self.beta)?)?;
        let terms = vec![(super::CROSS_ENTROPY, natural.detach()), (super::DIVERGENCE, robust.detach())];
        Ok(Outcome { loss, logits: attacked, terms })
    }
}
