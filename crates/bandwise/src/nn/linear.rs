//! The fully connected layer.

use super::parameter::Parameter;
use super::signal::Signal;
use crate::Result;

/// `x·Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// PyTorch's module name.
    pub name: String,
    /// `[out, in]`; or `[out, in, 1, 1]` where PyTorch's model has a 1×1 convolution on a 1×1 map.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
}

impl Linear {
    /// `[batch, in]` to `[batch, out]`.
    pub fn forward(&self, input: &Signal) -> Result<Signal> {
        let transposed = self.weight.tensor().flatten_from(1)?.t()?;
        let output = input.linear(|x| Ok(x.matmul(&transposed)?))?;
        match &self.bias {
            Some(bias) => output.add_constant(bias.tensor()),
            None => Ok(output),
        }
    }

    /// Its parameters, in PyTorch's order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        std::iter::once(&self.weight).chain(&self.bias).collect()
    }

    /// A copy that shares storage and is constant to autodiff.
    pub fn frozen(&self) -> Self {
        Self { weight: self.weight.frozen(), bias: self.bias.as_ref().map(Parameter::frozen), ..self.clone() }
    }
}
