//! The group sparsity of the input gradient J as a penalty, for comparison with JaFR.
//!
//! A mean over the images of the batch, as in JaFR's official code, and J is the gradient of the *mean* loss: it carries
//! 1/batch, so that λ means half as much when the batch is twice as large. `per_image` takes the images' own gradients
//! instead.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::input_penalty::{InputPenalty, finite, scaled};
use crate::{Error, Result};

/// λ times the mean over the images of the summed Lp norms of all 2×2 windows (stride 2, each channel on its own) of J:
/// few regions of the image are to matter (official `grad_sparsity_lambda`). `[regularizers] group_sparsity = { lambda = 0.01 }` in recipes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSparsity {
    /// Weight in the loss.
    pub lambda: f64,
    /// p ≥ 1; 2 is the group lasso.
    pub power: f64,
    /// Uses each image's own loss gradient instead of its share in the batch mean (J times the batch size).
    pub per_image: bool,
    /// Epochs without it first.
    pub warmup: u64,
}

impl Default for GroupSparsity {
    fn default() -> Self {
        Self { lambda: 0.01, power: 2.0, per_image: false, warmup: 0 }
    }
}

impl GroupSparsity {
    /// The unweighted penalty of J `[batch, height, width, channels]`, a differentiable scalar. An odd last row
    /// or column belongs to no window, as in PyTorch's `LPPool2d`.
    pub fn value(&self, gradient: &Tensor) -> Result<Tensor> {
        let gradient = scaled(gradient, self.per_image)?;
        let (batch, height, width, channels) = gradient.dims4()?;
        let (rows, columns) = (height / 2, width / 2);
        let even = gradient.narrow(1, 0, rows * 2)?.narrow(2, 0, columns * 2)?;
        let windows = even
            .reshape((batch * rows, 2, columns, 2, channels))?
            .permute((0, 2, 4, 1, 3))?
            .reshape((batch * rows * columns * channels, 4))?;
        // |x| with derivative 0 at 0.
        let sizes = (&windows * windows.detach().sign()?)?;
        // The largest entry is factored out: powers of small gradients would underflow.
        let largest = sizes.detach().max_keepdim(1)?;
        let empty = largest.eq(0.0)?;
        let scale = empty.where_cond(&largest.ones_like()?, &largest)?;
        let powers = sizes.broadcast_div(&scale)?.powf(self.power)?.sum_keepdim(1)?;
        let safe = empty.where_cond(&powers.ones_like()?, &powers)?;
        let norm = (safe.powf(1.0 / self.power)? * largest)?;
        Ok((norm.sum_all()? / batch as f64)?)
    }
}

impl InputPenalty for GroupSparsity {
    fn lambda(&self) -> f64 {
        self.lambda
    }

    fn warmup(&self) -> u64 {
        self.warmup
    }

    fn validate(&self) -> Result<()> {
        if !(self.power.is_finite() && self.power >= 1.0) {
            return Err(Error::config("group_sparsity: power must be at least 1"));
        }
        finite("group_sparsity", self.lambda)
    }

    fn unweighted(&self, gradient: &Tensor) -> Result<Tensor> {
        self.value(gradient)
    }
}
