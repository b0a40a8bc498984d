//! Norms, balls and random points, per image of a batch `[n, height, width, channels]`.

use std::fmt;
use std::str::FromStr;

use candle_core::{D, DType, Tensor};
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Epsilon;
use crate::random::{self, Stream};
use crate::{Error, Result};

/// The norm that measures a perturbation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// Largest absolute change of a pixel value.
    #[default]
    Linf,
    /// Euclidean norm over all pixel values.
    L2,
    /// Sum of absolute changes.
    L1,
}

impl FromStr for Norm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "linf" => Ok(Self::Linf),
            "l2" => Ok(Self::L2),
            "l1" => Ok(Self::L1),
            _ => Err(Error::config(format!("unknown norm `{text}`; expected linf, l2 or l1"))),
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
            Self::L1 => "l1",
        })
    }
}

impl Norm {
    /// As papers write it.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Linf => "L∞",
            Self::L2 => "L2",
            Self::L1 => "L1",
        }
    }

    /// The radius that the literature uses on CIFAR-10, and every attack without another: 8/255, 0.5 or 12.
    pub const fn default_epsilon(self) -> Epsilon {
        match self {
            Self::Linf => Epsilon::of_255(8.0),
            Self::L2 => Epsilon::constant(0.5),
            Self::L1 => Epsilon::constant(12.0),
        }
    }
}

/// The norm of each image, `[n, 1, 1, 1]`.
pub(crate) fn norms(x: &Tensor, norm: Norm) -> Result<Tensor> {
    let flat = x.flatten_from(1)?;
    let norms = match norm {
        Norm::Linf => flat.abs()?.max(D::Minus1)?,
        Norm::L2 => flat.sqr()?.sum(D::Minus1)?.sqrt()?,
        Norm::L1 => flat.abs()?.sum(D::Minus1)?,
    };
    Ok(norms.reshape(((), 1, 1, 1))?)
}

/// The norm of each image on the host.
pub(crate) fn host_norms(x: &Tensor, norm: Norm) -> Result<Vec<f64>> {
    Ok(norms(x, norm)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

/// Whether each image's gradient is zero everywhere, or somewhere not a number.
pub(crate) fn without_direction(gradient: &Tensor) -> Result<Vec<bool>> {
    let mut sizes = host_norms(gradient, Norm::L1)?;
    if sizes.iter().any(|size| !size.is_finite()) {
        // A sum of finite float32 numbers can be infinite.
        sizes = host_norms(&gradient.to_dtype(DType::F64)?, Norm::L1)?;
    }
    Ok(sizes.into_iter().map(|size| size == 0.0 || !size.is_finite()).collect())
}

/// `x / (‖x‖ + 1e-12)` per image, as the official AutoAttack code has it.
pub(crate) fn normalized(x: &Tensor, norm: Norm) -> Result<Tensor> {
    Ok(x.broadcast_div(&(norms(x, norm)? + 1e-12)?)?)
}

/// One number per image as `[n, 1, 1, 1]`, in the type of `like` and on its device.
pub(crate) fn column(values: &[f64], like: &Tensor) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, (values.len(), 1, 1, 1), like.device())?.to_dtype(like.dtype())?)
}

/// The point of the ε-ball (L∞ by clipping, L2 by scaling) around `origin`, inside `[0, 1]`.
pub(crate) fn project(x: &Tensor, origin: &Tensor, norm: Norm, epsilon: f64) -> Result<Tensor> {
    let inside = match norm {
        Norm::Linf => x.maximum(&(origin - epsilon)?)?.minimum(&(origin + epsilon)?)?,
        Norm::L2 => {
            let delta = (x - origin)?;
            // min(ε, ‖δ‖) / ‖δ‖, written so that a zero perturbation stays zero.
            let lengths = norms(&delta, Norm::L2)?;
            let factor = lengths.minimum(epsilon)?.div(&(lengths + 1e-12)?)?;
            (origin + delta.broadcast_mul(&factor)?)?
        }
        Norm::L1 => (origin + super::projection::onto_l1_ball_and_box(origin, &(x - origin)?, epsilon)?)?,
    };
    Ok(inside.clamp(0.0, 1.0)?)
}

/// Distributions of a random starting point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Noise {
    /// Uniform in `[-1, 1]`.
    Uniform,
    /// Standard normal.
    Normal,
    /// Uniform in the unit L2 ball.
    Ball,
}

/// One random perturbation per image, from its own stream: independent of batch and order.
pub(crate) fn noise(like: &Tensor, seed: u64, tags: &[[u64; 3]], noise: Noise) -> Result<Tensor> {
    let (count, height, width, channels) = like.dims4()?;
    let size = height * width * channels;
    let mut values = vec![0f64; count * size];
    values
        .par_chunks_mut(size)
        .zip(tags)
        .for_each(|(row, tags)| fill(row, &mut random::stream(seed, tags), noise));
    Ok(Tensor::from_vec(values, like.dims(), like.device())?.to_dtype(like.dtype())?)
}

fn fill(row: &mut [f64], stream: &mut Stream, noise: Noise) {
    if noise == Noise::Uniform {
        row.fill_with(|| stream.random::<f64>() * 2.0 - 1.0);
        return;
    }
    row.fill_with(|| normal(stream));
    if noise == Noise::Ball {
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        let radius = stream.random::<f64>().powf(1.0 / row.len() as f64);
        row.iter_mut().for_each(|v| *v *= radius / length.max(f64::MIN_POSITIVE));
    }
}

/// A standard normal number (Box and Muller).
fn normal(stream: &mut Stream) -> f64 {
    let radius = (-2.0 * (1.0 - stream.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * stream.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn noise_belongs_to_the_image_not_to_the_batch() {
        let like = Tensor::zeros((3, 2, 2, 3), DType::F32, &Device::Cpu).unwrap();
        let tags = [[1, 10, 0], [1, 11, 0], [1, 12, 0]];
        let all = noise(&like, 7, &tags, Noise::Ball).unwrap();
        let one = noise(&like.narrow(0, 0, 1).unwrap(), 7, &tags[1..2], Noise::Ball).unwrap();
        let row = |t: &Tensor, i| t.get(i).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(row(&all, 1), row(&one, 0));
        assert_ne!(row(&all, 0), row(&all, 1));
        assert!(host_norms(&all, Norm::L2).unwrap().iter().all(|&n| n <= 1.0));
    }

    #[test]
    fn projections_end_inside_the_ball_and_the_box() {
        let origin = Tensor::full(0.9f64, (2, 4, 4, 1), &Device::Cpu).unwrap();
        let tags = [[0, 0, 0], [0, 1, 0]];
        let far = (&origin + noise(&origin, 1, &tags, Noise::Normal).unwrap()).unwrap();
        for (norm, epsilon) in [(Norm::Linf, 0.03), (Norm::L2, 0.5), (Norm::L1, 2.0)] {
            let near = project(&far, &origin, norm, epsilon).unwrap();
            let lengths = host_norms(&(&near - &origin).unwrap(), norm).unwrap();
            assert!(lengths.iter().all(|&n| n <= epsilon + 1e-9 && n > 0.1 * epsilon), "{norm}: {lengths:?}");
            let pixels = near.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert!(pixels.iter().all(|&p| (0.0..=1.0).contains(&p)));
        }
    }
}
