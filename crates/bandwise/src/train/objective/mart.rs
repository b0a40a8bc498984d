//! MART (Wang et al. 2020): min BCE(f(x + δ), y) + β · KL(f(x) ‖ f(x + δ)) · (1 − p_y(x)), where BCE is the
//! boosted cross-entropy: CE plus the margin term −log(1 − max_{k≠y} p_k(x + δ)).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::Result;
use crate::attack::Attack;
use crate::nn::loss::{boosted_cross_entropy, kl_divergence, label_probability};
use crate::train::step::{AttackMode, Step};

/// Keeps 1 − p_y away from zero, as in the official code.
const ONE: f64 = 1.000_000_1;

/// Boosted cross-entropy plus a divergence that counts most where the clean image is misclassified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mart {
    /// Attack that generates the training images.
    pub attack: Attack,
    /// Statistics of batch norm while the attack runs.
    #[serde(default)]
    pub attack_mode: AttackMode,
    /// Epochs over which the attack's ε (and step size) grows linearly to its full value.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub epsilon_warmup: f64,
    /// Weight of the divergence.
    #[serde(default = "super::six")]
    pub beta: f64,
}

impl Mart {
    pub(super) fn attack(&self, step: &Step) -> Result<Tensor> {
        step.attack(&self.attack, self.attack_mode, self.epsilon_warmup)
    }

    pub(super) fn loss(&self, step: &Step, adversarial: &Tensor) -> Result<Outcome> {
        let clean = step.logits(&step.images)?;
        let attacked = step.logits(adversarial)?;
        let boosted = boosted_cross_entropy(&attacked, &step.labels)?.mean_all()?;
        let unsure = (ONE - label_probability(&clean, &step.labels)?)?;
        let robust = (kl_divergence(&clean, &attacked)? * unsure)?.mean_all()?;
        let loss = (&boosted + (&robust * self.beta)?)?;
        let terms = vec![(super::CROSS_ENTROPY, boosted.detach()), (super::DIVERGENCE, robust.detach())];
        Ok(Outcome { loss, logits: attacked, terms })
    }
}
