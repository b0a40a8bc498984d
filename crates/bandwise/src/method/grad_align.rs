//! GradAlign (Andriushchenko and Flammarion, "Understanding and improving fast adversarial training",
//! NeurIPS 2020): keeps the input gradient aligned within the ε-ball, which prevents the catastrophic
//! overfitting of single-step adversarial training.
//!
//! ```text
//! λ · ( 1 − mean_i cos( ∇x CE(x_i), ∇x CE(x_i + η_i) ) ),   η uniform in [−ε, ε]
//! ```
//!
//! Images with a zero gradient are left out of the mean, as in the official code.

use candle_core::{Device, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::input_gradient::{Penalty, norms, scalar};
use crate::attack::Epsilon;
use crate::{Error, Result, random};

/// The regularizer's settings: `[regularizers] grad_align = { lambda = 0.2 }` in recipes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradAlign {
    /// Weight in the loss (0.2 in JaFR's scripts).
    pub lambda: f64,
    /// Largest change η of a pixel, pixels in [0, 1]; 8/255 by default.
    pub epsilon: Epsilon,
    /// Holds the gradient at the clean images constant, as the official FGSM branch does; otherwise both
    /// gradients carry a derivative.
    pub detach_clean: bool,
}

impl Default for GradAlign {
    fn default() -> Self {
        Self { lambda: 0.2, epsilon: Epsilon::of_255(8.0), detach_clean: true }
    }
}

impl GradAlign {
    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        let epsilon = self.epsilon.value();
        if self.lambda.is_finite() && epsilon > 0.0 && epsilon <= 1.0 {
            return Ok(());
        }
        Err(Error::config(
            "grad_align: lambda must be finite and epsilon within (0, 1] (pixels lie in [0, 1])",
        ))
    }

    /// The penalty of the gradients at the clean and at the moved images, each `[batch, height, width,
    /// channels]`, a differentiable scalar.
    pub fn value(&self, clean: &Tensor, moved: &Tensor) -> Result<Tensor> {
        let mean = alignment(clean, moved)?;
        Ok(((1.0 - mean)? * self.lambda)?)
    }

    /// The penalty and its derivatives with respect to the gradient at the clean images (`None` where that is
    /// held constant) and at the moved ones.
    pub fn penalty(&self, clean: &Tensor, moved: &Tensor) -> Result<(Option<Penalty>, Penalty)> {
        let at_moved = Penalty::of(moved, |moved| self.value(&clean.detach(), moved))?;
        let at_clean = match self.detach_clean {
            true => None,
            false => Some(Penalty::of(clean, |clean| self.value(clean, &moved.detach()))?),
        };
        Ok((at_clean, at_moved))
    }
}

/// `cos(a_i, b_i)` of each image, `[batch]`; 0, without gradient, where one of them is zero.
pub fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let unit = |x: &Tensor| -> Result<Tensor> {
        // Cosines do not see scale: a constant factor first keeps tiny gradients from underflowing.
        let flat = x.flatten_from(1)?;
        let largest = flat.detach().abs()?.max_keepdim(1)?;
        let scale = largest.eq(0.0)?.where_cond(&largest.ones_like()?, &largest)?;
        let flat = flat.broadcast_div(&scale)?;
        let norm = norms(&flat)?.unsqueeze(1)?;
        let norm = norm.eq(0.0)?.where_cond(&norm.ones_like()?, &norm)?;
        Ok(flat.broadcast_div(&norm)?)
    };
    Ok((unit(a)? * unit(b)?)?.sum(1)?)
}

/// Mean cosine over the images where both gradients are non-zero, a differentiable scalar; 1 if there are
/// none.
pub fn alignment(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let present = |x: &Tensor| -> Result<Tensor> {
        Ok(x.detach().flatten_from(1)?.abs()?.max(1)?.gt(0.0)?.to_dtype(x.dtype())?)
    };
    let weights = (present(a)? * present(b)?)?;
    let count = scalar(&weights.sum_all()?)?;
    if count == 0.0 {
        return Ok(Tensor::ones((), a.dtype(), a.device())?);
    }
    Ok(((cosines(a, b)? * weights)?.sum_all()? / count)?)
}

/// Uniform noise in ±`radius` of the shape of `images` `[batch, height, width, channels]`; every image draws from
/// a random stream of its own, of `seed` and its identity in `ids`.
pub fn uniform_noise(images: &Tensor, radius: f64, seed: u64, ids: &[u64]) -> Result<Tensor> {
    let length = images.elem_count() / ids.len().max(1);
    let values: Vec<f32> = ids
        .iter()
        .flat_map(|&id| {
            let mut stream = random::stream(seed, &[random::tag("gradient alignment"), id]);
            (0..length).map(move |_| (stream.random::<f32>() * 2.0 - 1.0) * radius as f32)
        })
        .collect();
    Ok(Tensor::from_vec(values, images.shape(), &Device::Cpu)?
        .to_dtype(images.dtype())?
        .to_device(images.device())?)
}
