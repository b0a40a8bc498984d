//! Filters written in the cosine basis: coefficients in place of spatial weights.
//!
//! The flat coefficients are the same for both official layers, `[out, in/groups, frequency]` in row-major
//! order; only name and shape of the parameter differ:
//!
//! | layer | parameter | shape |
//! |---|---|---|
//! | weight decomposition | `NAME.coefficients` | `[out·in/groups, N², 1, 1]` |
//! | signal decomposition | `NAME.coefficients.weight` | `[out, in/groups·N², 1, 1]` |

use std::sync::{Arc, OnceLock};

use bandwise_kernels::{ConvConfig, conv2d};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::dual_tensor::DualTensor;
use super::parameter::{Parameter, Role};
use crate::spectral::dct::DctBasis;
use crate::{Error, Result};

/// The cosine basis of one kernel size as tensors.
#[derive(Clone, Debug)]
pub struct FilterBasis {
    /// The numbers behind the tensors.
    pub dct: DctBasis,
    maps: Tensor,
    inverse: Tensor,
}

impl FilterBasis {
    /// The basis for kernels of `height` rows and `width` columns.
    pub fn new(height: usize, width: usize, dtype: DType, device: &Device) -> Result<Self> {
        let dct = DctBasis::rectangular(height, width)?;
        let (maps, inverse) = (dct.to_tensor(dtype, device)?, dct.inverse_to_tensor(dtype, device)?);
        Ok(Self { dct, maps, inverse })
    }

    /// The basis for the kernels of spatial weights `[out, in/groups, height, width]`.
    pub fn of(weight: &Tensor) -> Result<Self> {
        let (_, _, height, width) = weight.dims4()?;
        Self::new(height, width, weight.dtype(), weight.device())
    }

    /// Coefficients `[filters, frequency]` of spatial weights `[out, in/groups, height, width]`: one
    /// matrix product.
    pub fn analyze(&self, weight: &Tensor) -> Result<Tensor> {
        Ok(weight.reshape(((), self.area()))?.matmul(&self.inverse)?)
    }

    /// Filters `[filters, pixel]` of coefficients that hold `frequency` numbers for each.
    pub fn synthesize(&self, coefficients: &Tensor) -> Result<Tensor> {
        Ok(coefficients.reshape(((), self.area()))?.matmul(&self.maps)?)
    }

    /// Weights of the depthwise convolution that expands each of `channels` into its responses,
    /// `[channels·frequency, 1, height, width]`, channel by channel.
    pub fn expansion(&self, channels: usize) -> Result<Tensor> {
        let maps = self.maps.reshape((self.area(), 1, self.dct.height(), self.dct.width()))?;
        Ok(maps.repeat((channels, 1, 1, 1))?)
    }

    fn area(&self) -> usize {
        self.dct.height() * self.dct.width()
    }
}

/// Which of the two official layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Filters are put together from coefficients, then convolve.
    #[default]
    Weight,
    /// The input is expanded in the basis, then a 1×1 convolution mixes the responses.
    Signal,
}

impl Domain {
    /// Name and shape of the coefficients that stand for spatial weights of `shape`, `[out, in/groups, height,
    /// width]`, in the convolution `name`.
    pub(crate) fn parameter(self, name: &str, shape: [usize; 4]) -> (String, [usize; 4]) {
        let [outputs, inputs, height, width] = shape;
        match self {
            Self::Weight => (format!("{name}.coefficients"), [outputs * inputs, height * width, 1, 1]),
            Self::Signal => (format!("{name}.coefficients.weight"), [outputs, inputs * height * width, 1, 1]),
        }
    }
}

/// Filters as coefficients in the cosine basis.
#[derive(Clone, Debug)]
pub struct Decomposed {
    /// Which layer computes with them.
    pub domain: Domain,
    /// The coefficients.
    pub coefficients: Parameter,
    /// The basis they refer to.
    pub basis: FilterBasis,
    /// Shape of the spatial weights, `[out, in/groups, height, width]`.
    shape: [usize; 4],
    /// Only in frozen copies: the spatial weights, computed at the first use.
    recomposed: Option<Arc<OnceLock<Tensor>>>,
}

impl Decomposed {
    /// Filters of spatial shape `[out, in/groups, height, width]` for the convolution `name`;
    /// `coefficients` hold `out · in/groups · height · width` numbers in row-major order of any shape.
    pub fn new(
        domain: Domain,
        name: &str,
        shape: [usize; 4],
        coefficients: &Tensor,
        basis: FilterBasis,
    ) -> Result<Self> {
        let [_, _, height, width] = shape;
        if (height, width) != (basis.dct.height(), basis.dct.width()) {
            return Err(Error::model(format!("{name}: {height}×{width} filters in a basis of another size")));
        }
        let (name, flat) = domain.parameter(name, shape);
        let coefficients = Parameter::new(name, Role::Weight, &coefficients.reshape(&flat)?)?;
        Ok(Self { domain, coefficients, basis, shape, recomposed: None })
    }

    /// The shape of the spatial weights, `[out, in/groups, height, width]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The coefficients `[filters, frequency]` with `filters = out · in/groups`.
    pub fn matrix(&self) -> Result<Tensor> {
        Ok(self.coefficients.tensor().reshape(((), self.basis.area()))?)
    }

    /// The spatial weights `[out, in/groups, height, width]`.
    pub fn weight(&self) -> Result<Tensor> {
        let compute = || Ok(self.basis.synthesize(self.coefficients.tensor())?.reshape(&self.shape)?);
        match &self.recomposed {
            None => compute(),
            Some(kept) => match kept.get() {
                Some(weight) => Ok(weight.clone()),
                None => compute().map(|weight| kept.get_or_init(|| weight).clone()),
            },
        }
    }

    /// The convolution without its bias.
    pub(super) fn forward(&self, input: &DualTensor, config: &ConvConfig) -> Result<DualTensor> {
        if self.domain == Domain::Weight || self.recomposed.is_some() {
            let weight = self.weight()?;
            return input.linear(|x| Ok(conv2d(x, &weight, config)?));
        }
        let channels = self.shape[1] * config.groups;
        let expansion = self.basis.expansion(channels)?;
        let expand = ConvConfig { groups: channels, ..*config };
        let mix = ConvConfig { groups: config.groups, precision: config.precision, ..ConvConfig::default() };
        let coefficients = self.coefficients.tensor();
        input.linear(|x| Ok(conv2d(&conv2d(x, &expansion, &expand)?, coefficients, &mix)?))
    }

    /// A copy that is constant to autodiff and computes its spatial weights once, at the first use.
    pub fn frozen(&self) -> Self {
        let recomposed = self.recomposed.clone().or_else(|| Some(Arc::default()));
        Self { coefficients: self.coefficients.frozen(), recomposed, ..self.clone() }
    }
}
