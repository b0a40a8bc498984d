//! The norm of the input gradient J as a penalty, for comparison with JaFR.
//!
//! A mean over the images of the batch, as in JaFR's official code, and J is the gradient of the *mean* loss: it carries
//! 1/batch, so that λ means half as much when the batch is twice as large. `per_image` takes the images' own gradients
//! instead.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::input_gradient::norms;
use super::input_penalty::{InputPenalty, finite, scaled};
use crate::Result;

/// λ times the mean over the images of the L2 norm of J ("double backpropagation", Drucker and Le Cun 1992; official
/// `grad_l2_norm_lambda`): `[regularizers] gradient_norm = { lambda = 0.1 }` in recipes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradientNorm {
    /// Weight in the loss.
    pub lambda: f64,
    /// The mean of the *squared* norms instead.
    pub squared: bool,
    /// Uses each image's own loss gradient instead of its share in the batch mean (J times the batch size).
    pub per_image: bool,
    /// Epochs without it first.
    pub warmup: u64,
}

impl Default for GradientNorm {
    fn default() -> Self {
        Self { lambda: 0.01, squared: false, per_image: false, warmup: 0 }
    }
}

impl GradientNorm {
    /// The unweighted penalty of J `[batch, height, width, channels]`, a differentiable scalar.
    pub fn value(&self, gradient: &Tensor) -> Result<Tensor> {
        let norms = norms(&scaled(gradient, self.per_image)?)?;
        match self.squared {
            true => Ok(norms.sqr()?.mean_all()?),
            false => Ok(norms.mean_all()?),
        }
    }
}

impl InputPenalty for GradientNorm {
    fn lambda(&self) -> f64 {
        self.lambda
    }

    fn warmup(&self) -> u64 {
        self.warmup
    }

    fn validate(&self) -> Result<()> {
        finite("gradient_norm", self.lambda)
    }

    fn unweighted(&self, gradient: &Tensor) -> Result<Tensor> {
        self.value(gradient)
    }
}
