//! What penalties of the input gradient J have in common. Each has a file of its own, and a line in the table of
//! `[regularizers]` ([`crate::train::regularizers`]).

use candle_core::Tensor;

use super::input_gradient::Penalty;
use crate::{Error, Result};

/// A function of the input gradient J that is added to the loss.
pub trait InputPenalty {
    /// Weight in the loss.
    fn lambda(&self) -> f64;

    /// Epochs without it first.
    fn warmup(&self) -> u64;

    /// Refuses values that make no sense.
    fn validate(&self) -> Result<()>;

    /// The penalty at J `[batch, height, width, channels]`, without λ: a differentiable scalar.
    fn unweighted(&self, gradient: &Tensor) -> Result<Tensor>;

    /// What is added to the loss: λ times the penalty, and its derivative with respect to J.
    fn penalty(&self, gradient: &Tensor) -> Result<Penalty> {
        Penalty::of(gradient, |gradient| Ok((self.unweighted(gradient)? * self.lambda())?))
    }
}

/// J as it is, or the images' own gradients.
pub(super) fn scaled(gradient: &Tensor, per_image: bool) -> Result<Tensor> {
    match per_image {
        true => Ok((gradient * gradient.dim(0)? as f64)?),
        false => Ok(gradient.clone()),
    }
}

pub(super) fn finite(name: &str, lambda: f64) -> Result<()> {
    if lambda.is_finite() {
        Ok(())
    } else {
        Err(Error::config(format!("{name}: lambda must be a finite number")))
    }
}
