//! Adversarial training (Madry et al. 2018): min over θ of CE(f(x + δ), y), with δ from an attack on the
//! present weights. With FGSM and a random start it is fast adversarial training (Wong et al. 2020).

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::Result;
use crate::attack::Attack;
use crate::nn::loss::smoothed_cross_entropy;
use crate::train::step::{AttackMode, Step};

/// Cross-entropy on adversarial images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// Who makes the images.
    pub attack: Attack,
    /// Statistics of batch norm while the attack runs.
    #[serde(default)]
    pub attack_mode: AttackMode,
    /// Epochs over which the attack's ε (and step size) grows linearly to its full value.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub epsilon_warmup: f64,
    /// Share of the target probability that is spread over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
}

impl Adversarial {
    pub(super) fn attack(&self, step: &Step) -> Result<Tensor> {
        step.attack(&self.attack, self.attack_mode, self.epsilon_warmup)
    }

    pub(super) fn loss(&self, step: &Step, adversarial: &Tensor) -> Result<Outcome> {
        let logits = step.logits(adversarial)?;
        let loss = smoothed_cross_entropy(&logits, &step.labels, self.label_smoothing)?.mean_all()?;
        let terms = vec![(super::CROSS_ENTROPY, loss.detach())];
        Ok(Outcome { loss, logits, terms })
    }
}
