//! Adversarial weight perturbation, AWP (Wu, Xia and Wang, NeurIPS 2020): a flatter loss in weight space, and with
//! it less robust overfitting.
//!
//! ```text
//! min over w   max over v ∈ V   ρ(w + v),        V = { v : ‖v_l‖ ≤ γ ‖w_l‖ for every layer l }
//! ```
//!
//! ρ is the loss of any adversarial objective on its adversarial images, which are made at w. One step, as in
//! the official code:
//!
//! ```text
//! v_l ← γ · ‖w_l‖ / ‖∇ρ(w)_l‖ · ∇ρ(w)_l        (eq. 8, one ascent step, from v = 0)
//! w   ← (w + v) − η · ∇ρ(w + v) − v            (eq. 9; weight decay and momentum see w + v)
//! ```
//!
//! Layers are weight matrices and kernels; batch norm and biases are left alone. The ascent uses the batch's
//! statistics and leaves the running ones alone.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use serde::{Deserialize, Serialize};

use super::optimizer::sum_of_squares;
use crate::nn::Model;
use crate::{Error, Result};

/// Keeps the quotient finite where a gradient vanishes, as in the official code.
const TINY: f64 = 1e-20;

/// The `[awp]` table of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Awp {
    /// Size of the perturbation, relative to each layer's weights.
    pub gamma: f64,
    /// Whole epochs that are trained without it first.
    pub warmup: u64,
}

impl Default for Awp {
    /// γ = 0.005, from the beginning.
    fn default() -> Self {
        Self { gamma: 5e-3, warmup: 0 }
    }
}

impl Awp {
    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if self.gamma.is_finite() && self.gamma > 0.0 {
            return Ok(());
        }
        Err(Error::config(format!("awp.gamma must be a positive number such as 0.005, not {}", self.gamma)))
    }

    /// Whether weights are perturbed after this many whole epochs.
    pub fn is_on(&self, epochs_done: u64) -> bool {
        epochs_done >= self.warmup
    }

    /// v, from the gradient of the loss at the present weights.
    pub fn perturbation(&self, model: &Model, gradients: &GradStore) -> Result<WeightPerturbation> {
        let mut layers = Vec::new();
        for (_, w) in model.trainable() {
            let Some(gradient) = gradients.get(w.as_tensor()).filter(|_| w.rank() > 1) else { continue };
            let (weight_norm, gradient_norm) =
                (sum_of_squares(&w.as_detached_tensor())?.sqrt(), sum_of_squares(gradient)?.sqrt());
            let v = (gradient.detach() * (self.gamma * weight_norm / (gradient_norm + TINY)))?;
            layers.push((w, v));
        }
        Ok(WeightPerturbation(layers))
    }
}

/// A change of weights that can be taken back.
#[derive(Debug)]
pub struct WeightPerturbation(Vec<(Var, Tensor)>);

impl WeightPerturbation {
    /// `w ← w + v`.
    pub fn add(&self) -> Result<()> {
        self.0.iter().try_for_each(|(w, v)| Ok(w.set(&(w.as_detached_tensor() + v)?)?))
    }

    /// `w ← w − v`.
    pub fn remove(&self) -> Result<()> {
        self.0.iter().try_for_each(|(w, v)| Ok(w.set(&(w.as_detached_tensor() - v)?)?))
    }
}
