//! Batch normalization, with the ReLU and the residual sum that follow it folded in.

use bandwise_kernels::{batch_norm_eval, batch_norm_train, batch_norm_train_tangent, relu_tangent};
use candle_core::Tensor;

use super::context::{ForwardContext, Mode};
use super::dual_tensor::DualTensor;
use super::parameter::Parameter;
use crate::Result;

/// Batch norm over all axes but the last, optionally followed by a ReLU.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// PyTorch's module name.
    pub name: String,
    /// Scale (`weight`).
    pub gamma: Parameter,
    /// Shift (`bias`).
    pub beta: Parameter,
    /// Running mean.
    pub mean: Parameter,
    /// Running variance (unbiased, as PyTorch keeps it).
    pub variance: Parameter,
    /// Added to the variance (1e-5).
    pub epsilon: f64,
    /// Weight of a new batch in the running statistics (0.1).
    pub momentum: f64,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl BatchNorm {
    /// `relu?(batch_norm(input) + residual?)`.
    pub fn forward(
        &self,
        input: &DualTensor,
        residual: Option<&DualTensor>,
        relu: bool,
        pass: &ForwardContext,
    ) -> Result<DualTensor> {
        let relu = relu || (self.relu && residual.is_none());
        let (gamma, beta) = (self.gamma.tensor(), self.beta.tensor());
        let added = residual.map(|r| &r.value);
        let value = if pass.mode == Mode::Eval {
            let (mean, variance) = (self.mean.tensor(), self.variance.tensor());
            batch_norm_eval(&input.value, gamma, beta, mean, variance, self.epsilon, added, relu)?
        } else {
            let (value, batch) = batch_norm_train(&input.value, gamma, beta, self.epsilon, added, relu)?;
            if pass.mode == Mode::Train {
                self.update(&batch.mean, &batch.variance, batch.count)?;
            }
            value
        };
        let tangent = match self.tangent(input, residual, pass)? {
            Some(tangent) if relu => Some(relu_tangent(&value, &tangent)?),
            tangent => tangent,
        };
        Ok(DualTensor { value, tangent })
    }

    /// The tangent before the ReLU.
    fn tangent(
        &self,
        input: &DualTensor,
        residual: Option<&DualTensor>,
        pass: &ForwardContext,
    ) -> Result<Option<Tensor>> {
        let normalized = match &input.tangent {
            None => None,
            Some(tangent) if pass.mode == Mode::Eval => Some(tangent.broadcast_mul(&self.scale()?)?),
            Some(tangent) => {
                Some(batch_norm_train_tangent(&input.value, tangent, self.gamma.tensor(), self.epsilon)?)
            }
        };
        Ok(match (normalized, residual.and_then(|r| r.tangent.clone())) {
            (Some(a), Some(b)) => Some((a + b)?),
            (one, other) => one.or(other),
        })
    }

    /// `γ / √(running variance + ε)`: what evaluation multiplies with.
    pub fn scale(&self) -> Result<Tensor> {
        Ok((self.gamma.tensor() / (self.variance.tensor() + self.epsilon)?.sqrt()?)?)
    }

    /// `β − running mean · scale`: what evaluation adds.
    pub fn shift(&self) -> Result<Tensor> {
        Ok((self.beta.tensor() - (self.mean.tensor() * self.scale()?)?)?)
    }

    fn update(&self, mean: &Tensor, variance: &Tensor, count: usize) -> Result<()> {
        let unbiased = (variance * (count as f64 / (count.max(2) - 1) as f64))?;
        for (running, batch) in [(&self.mean, mean), (&self.variance, &unbiased)] {
            let old = (running.tensor() * (1.0 - self.momentum))?;
            running.set(&(old + (batch.detach() * self.momentum)?)?)?;
        }
        Ok(())
    }

    /// Its parameters and buffers, in PyTorch's order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        vec![&self.gamma, &self.beta, &self.mean, &self.variance]
    }

    /// A copy that shares storage and is constant to autodiff.
    pub fn frozen(&self) -> Self {
        Self { gamma: self.gamma.frozen(), beta: self.beta.frozen(), ..self.clone() }
    }
}
