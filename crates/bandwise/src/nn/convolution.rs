//! The convolution slot: every convolution of every architecture is one of these.

use bandwise_kernels::{Algorithm, ConvConfig, algorithm, conv2d};
use candle_core::Tensor;

use super::decomposed::{Decomposed, FilterBasis};
use super::dual_tensor::DualTensor;
use super::parameter::{Parameter, Role};
use crate::Result;

/// How a convolution's filters are parametrised.
#[derive(Clone, Debug)]
pub enum Filters {
    /// Spatial weights `[out, in/groups, kh, kw]`.
    Plain {
        /// The weights.
        weight: Parameter,
    },
    /// Coefficients in the cosine basis (filter frequency regularization).
    Decomposed(Decomposed),
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
    pub fn forward(&self, input: &DualTensor) -> Result<DualTensor> {
        let output = match &self.filters {
            Filters::Plain { weight } => input.linear(|x| Ok(conv2d(x, weight.tensor(), &self.config)?))?,
            Filters::Decomposed(filters) => filters.forward(input, &self.config)?,
        };
        match &self.bias {
            Some(bias) => output.add_constant(bias.tensor()),
            None => Ok(output),
        }
    }

    /// The spatial filters `[out, in/groups, kh, kw]`, whatever the parametrisation.
    pub fn weight(&self) -> Result<Tensor> {
        match &self.filters {
            Filters::Plain { weight } => Ok(weight.tensor().clone()),
            Filters::Decomposed(filters) => filters.weight(),
        }
    }

    /// What it runs as where its filters do not change, as in attacks and evaluations: batch norm that is folded into
    /// it, or the other parametrisation of its filters, do not matter then.
    pub fn algorithm(&self) -> Result<Algorithm> {
        let (values, shape) = match &self.filters {
            Filters::Plain { weight } => (weight.tensor(), weight.tensor().dims4()?.into()),
            Filters::Decomposed(filters) => (filters.coefficients.tensor(), filters.shape()),
        };
        Ok(algorithm(shape, &self.config, values.dtype(), values.device()))
    }

    /// The kernel's rows and columns.
    pub fn kernel(&self) -> (usize, usize) {
        match &self.filters {
            Filters::Plain { weight } => match *weight.tensor().dims() {
                [_, _, height, width] => (height, width),
                _ => (1, 1),
            },
            Filters::Decomposed(filters) => (filters.basis.dct.height(), filters.basis.dct.width()),
        }
    }

    /// The filters' coefficients in the cosine basis, `[filters, frequency]`, whatever the
    /// parametrisation, and the basis; differentiable.
    pub fn coefficients(&self) -> Result<(Tensor, FilterBasis)> {
        match &self.filters {
            Filters::Plain { weight } => {
                let basis = FilterBasis::of(weight.tensor())?;
                Ok((basis.analyze(weight.tensor())?, basis))
            }
            Filters::Decomposed(filters) => Ok((filters.matrix()?, filters.basis.clone())),
        }
    }

    /// Goes back to plain filters of the same values.
    pub fn recompose(&mut self) -> Result<()> {
        if matches!(self.filters, Filters::Decomposed(_)) {
            let weight = Parameter::new(format!("{}.weight", self.name), Role::Weight, &self.weight()?)?;
            self.filters = Filters::Plain { weight };
        }
        Ok(())
    }

    /// Its parameters, in PyTorch's order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let filters = match &self.filters {
            Filters::Plain { weight } => weight,
            Filters::Decomposed(filters) => &filters.coefficients,
        };
        std::iter::once(filters).chain(&self.bias).collect()
    }

    /// A copy that shares storage and is constant to autodiff. Filters made of coefficients are put
    /// together once, at the copy's first use.
    pub fn frozen(&self) -> Self {
        let filters = match &self.filters {
            Filters::Plain { weight } => Filters::Plain { weight: weight.frozen() },
            Filters::Decomposed(filters) => Filters::Decomposed(filters.frozen()),
        };
        Self { filters, bias: self.bias.as_ref().map(Parameter::frozen), ..self.clone() }
    }
}
