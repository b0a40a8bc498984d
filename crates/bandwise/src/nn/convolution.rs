//! The convolution slot: every convolution of every architecture is one of these.

use bandwise_kernels::{ConvConfig, conv2d};
use candle_core::Tensor;

use super::parameter::Parameter;
use super::signal::Signal;
use crate::Result;

/// How a convolution's filters are parametrised.
#[derive(Clone, Debug)]
pub enum Filters {
    /// Spatial weights `[out, in/groups, kh, kw]`.
    Plain {
        /// The weights.
        weight: Parameter,
    },
}

/// A 2-D convolution with exchangeable parametrisation of its filters.
#[derive(Clone, Debug)]
pub struct Convolution {
    /// PyTorch's module name, such as `layer1.0.conv1`.
    pub name: String,
    /// The filters.
    pub filters: Filters,
    /// One value per output channel.
    pub bias: Option<Parameter>,
    /// Stride, padding, dilation, groups and arithmetic.
    pub config: ConvConfig,
}

impl Convolution {
    /// `[batch, height, width, in]` to `[batch, height', width', out]`.
    pub fn forward(&self, input: &Signal) -> Result<Signal> {
        let weight = self.weight()?;
        let output = input.linear(|x| Ok(conv2d(x, &weight, &self.config)?))?;
        match &self.bias {
            Some(bias) => output.add_constant(bias.tensor()),
            None => Ok(output),
        }
    }

    /// The spatial filters `[out, in/groups, kh, kw]`, whatever the parametrisation.
    pub fn weight(&self) -> Result<Tensor> {
        match &self.filters {
            Filters::Plain { weight } => Ok(weight.tensor().clone()),
        }
    }

    /// Its parameters, in PyTorch's order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let filters = match &self.filters {
            Filters::Plain { weight } => weight,
        };
        std::iter::once(filters).chain(&self.bias).collect()
    }

    /// A copy that shares storage and is constant to autodiff.
    pub fn frozen(&self) -> Self {
        let filters = match &self.filters {
            Filters::Plain { weight } => Filters::Plain { weight: weight.frozen() },
        };
        Self { filters, bias: self.bias.as_ref().map(Parameter::frozen), ..self.clone() }
    }
}
