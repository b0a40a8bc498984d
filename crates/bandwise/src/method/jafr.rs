//! Jacobian frequency regularization (Chan, Ong and Tan, "How does frequency bias affect the robustness of
//! neural image classifiers against common corruption and adversarial perturbations?", IJCAI 2022).
//!
//! Let J be the gradient of the mean cross-entropy at the *clean* images, `[batch, height, width,
//! channels]`. Its amplitude map M is the mean over batch and channels of |FFT2(J)|, restricted to
//! the rows 0..H/2 and columns 0..W/2 (U×V of them). With exponents p that fall linearly from +m at
//! frequency 0 to −m at the highest one, the *low-frequency bias* of the network is
//!
//! ```text
//! r = log( ( Σ_u Π_v M[u,v]^p[v]  +  Σ_v Π_u M[u,v]^p[u] ) / T )
//! ```
//!
//! and training minimizes `CE − λ·r`: λ > 0 moves what the network looks at towards low frequencies, λ < 0
//! towards high ones. The derivative of J that this needs comes from [`super::input_gradient`].
//!
//! Everything is evaluated in the log domain: the products under- and overflow float32 otherwise.
//!
//! As published, and kept: the map holds the frequencies where both components are non-negative, so the
//! two diagonals are not treated alike; exponents get +1e-5 and do not sum to zero; M gets
//! +1e-5, which flattens r for small J, and J shrinks with the batch size
//! ([`Jafr::per_image`] undoes that).
//!
//! ```
//! use bandwise::candle_core::{Device, Tensor};
//! use bandwise::method::Jafr;
//!
//! # fn main() -> bandwise::Result<()> {
//! let gradient = |pixel: fn(usize) -> f64| {
//!     let pixels: Vec<f64> = (0..64).map(pixel).collect();
//!     Tensor::from_vec(pixels, (1, 8, 8, 1), &Device::Cpu)
//! };
//! let even = gradient(|_| 1.0)?;
//! let checkered = gradient(|place| if (place / 8 + place % 8) % 2 == 0 { 1.0 } else { -1.0 })?;
//! let bias = |gradient| Jafr::default().bias(gradient)?.to_scalar::<f64>().map_err(bandwise::Error::from);
//! assert!(bias(&even)? > bias(&checkered)?);
//! # Ok(())
//! # }
//! ```

use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::input_gradient::{safe_sqrt, scalar};
use super::input_penalty::InputPenalty;
use crate::spectral::fourier::dft2;
use crate::{Error, Result};

/// Added to the amplitudes and to the exponents (official code).
const EPSILON: f64 = 1e-5;

/// How the weighted amplitudes become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// `log((Σ_u Π_v M^p[v] + Σ_v Π_u M^p[u]) / T)`, as in the paper.
    #[default]
    Sum,
    /// `Σ_uv (p[u] + p[v])·log M[u,v]`; the temperature plays no role.
    SumLog,
    /// `log(Π_u Π_v M^p[v] · Π_v Π_u M^p[u] / T)`, which is `sumlog − log T`.
    Product,
}

/// The regularizer's settings: `[regularizers] jafr = { lambda = 0.001 }` in recipes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jafr {
    /// Weight of the bias in the loss: 0.001 in the official scripts, 0.002 in the one for CIFAR-100 with FGSM.
    /// Negative values bias to high frequencies.
    pub lambda: f64,
    /// How the map becomes one number (`reduce_type`).
    pub reduction: Reduction,
    /// Exponent m of the lowest frequency; the highest gets −m.
    pub max_pow: f64,
    /// T.
    pub temperature: f64,
    /// Leaves the mean of the gradient out (`ignore_first_basis`).
    pub ignore_dc: bool,
    /// Uses each image's own loss gradient instead of its share in the batch mean (J times the batch size),
    /// so that the result does not depend on the batch size. Not in the paper.
    pub per_image: bool,
    /// Epochs that only log it first (`epochs_warmup_before_low_freq_bias_reg`).
    pub warmup: u64,
}

impl Default for Jafr {
    fn default() -> Self {
        Self {
            lambda: 0.001,
            reduction: Reduction::Sum,
            max_pow: 1.0,
            temperature: 1.0,
            ignore_dc: false,
            per_image: false,
            warmup: 0,
        }
    }
}

impl InputPenalty for Jafr {
    fn lambda(&self) -> f64 {
        self.lambda
    }

    fn warmup(&self) -> u64 {
        self.warmup
    }

    fn validate(&self) -> Result<()> {
        if !self.lambda.is_finite() || !self.max_pow.is_finite() {
            return Err(Error::config("jafr: lambda and max_pow must be finite numbers"));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::config("jafr: temperature must be a positive number"));
        }
        Ok(())
    }

    /// −r.
    fn unweighted(&self, gradient: &Tensor) -> Result<Tensor> {
        Ok(self.bias(gradient)?.neg()?)
    }
}

impl Jafr {
    /// The low-frequency bias r of an input gradient `[batch, height, width, channels]`, a differentiable
    /// scalar.
    pub fn bias(&self, gradient: &Tensor) -> Result<Tensor> {
        let gradient = match self.per_image {
            true => (gradient * gradient.dim(0)? as f64)?,
            false => gradient.clone(),
        };
        self.bias_of_map(&low_frequencies(&amplitude_map(&gradient)?)?)
    }

    /// The low-frequency bias r of an amplitude map `[U, V]` whose entry `[0, 0]` is the mean, a
    /// differentiable scalar.
    pub fn bias_of_map(&self, map: &Tensor) -> Result<Tensor> {
        let (rows, columns) = map.dims2()?;
        let map = if self.ignore_dc { (map * without_first(map)?)? } else { map.clone() };
        let log = (map + EPSILON)?.log()?;
        let down = exponents(rows, self.max_pow, &log)?.unsqueeze(1)?;
        let across = exponents(columns, self.max_pow, &log)?.unsqueeze(0)?;
        let row_products = log.broadcast_mul(&across)?.sum(1)?;
        let column_products = log.broadcast_mul(&down)?.sum(0)?;
        let logs = Tensor::cat(&[row_products, column_products], 0)?;
        match self.reduction {
            Reduction::Sum => Ok((log_sum_exp(&logs)? - self.temperature.ln())?),
            Reduction::SumLog => Ok(logs.sum_all()?),
            Reduction::Product => Ok((logs.sum_all()? - self.temperature.ln())?),
        }
    }
}

impl Jafr {
    /// The low-frequency bias r of a whole mean amplitude map, un-shifted, row by row.
    ///
    /// # Errors
    /// If there are not `height · width` amplitudes.
    pub fn bias_of_amplitudes(&self, amplitudes: Vec<f64>, height: usize, width: usize) -> Result<f64> {
        let map = Tensor::from_vec(amplitudes, (height, width), &Device::Cpu)?;
        scalar(&self.bias_of_map(&low_frequencies(&map)?.narrow(1, 0, width / 2 + 1)?)?)
    }
}

/// Mean over batch and channels of |FFT2|, un-normalized and un-shifted: `[batch, height, width, channels]`
/// to `[height, width/2 + 1]`, differentiable. The other half of the columns mirrors these.
pub fn amplitude_map(gradient: &Tensor) -> Result<Tensor> {
    let columns = gradient.dim(2)? / 2 + 1;
    let (re, im) = dft2(gradient)?;
    let power = (re.narrow(2, 0, columns)?.sqr()? + im.narrow(2, 0, columns)?.sqr()?)?;
    // The gradient of |z| at z = 0 is 0.
    Ok(safe_sqrt(&power)?.mean((0, 3))?)
}

/// The rows 0..H/2 of an [`amplitude_map`]: `[height, V]` to `[height/2 + 1, V]`.
pub fn low_frequencies(map: &Tensor) -> Result<Tensor> {
    Ok(map.narrow(0, 0, map.dim(0)? / 2 + 1)?)
}

/// `linspace(+max_pow, −max_pow, count) + 1e-5`, with type and device of `like`.
fn exponents(count: usize, max_pow: f64, like: &Tensor) -> Result<Tensor> {
    let intervals = count.saturating_sub(1).max(1) as f64;
    let values: Vec<f64> =
        (0..count).map(|k| max_pow - 2.0 * max_pow * k as f64 / intervals + EPSILON).collect();
    Ok(Tensor::from_vec(values, count, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())?)
}

/// Ones except a zero at `[0, 0]`.
fn without_first(map: &Tensor) -> Result<Tensor> {
    let mut values = vec![1.0f32; map.elem_count()];
    values[0] = 0.0;
    Ok(Tensor::from_vec(values, map.shape(), &Device::Cpu)?.to_dtype(map.dtype())?.to_device(map.device())?)
}

/// `log Σ exp(x)` of a vector.
fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    let largest = x.detach().max_keepdim(D::Minus1)?;
    let sum = x.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?;
    Ok((sum.log()? + largest)?.squeeze(0)?)
}

#[cfg(test)]
mod tests;
