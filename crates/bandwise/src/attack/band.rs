//! A set of spatial frequencies to which a perturbation is confined.

use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::geometry::{Norm, norms};
use crate::spectral::bands::{radii, signed_frequency};
use crate::spectral::fourier::filter2;
use crate::{Error, Result};

/// Frequencies, in cycles per image, in which an attack may work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Band {
    /// The ring `from ≤ √(u² + v²) < to`, written `from:to`; `8:` has no outer end.
    Ring {
        /// Inner radius, inclusive.
        from: f64,
        /// Outer radius, exclusive.
        to: f64,
    },
    /// Single frequencies (vertical, horizontal) with their mirror images, written `3,-4;0,5`.
    Frequencies(Vec<(i64, i64)>),
}

impl Band {
    /// Whether the signed frequency (vertical, horizontal) belongs to the band.
    pub fn contains(&self, vertical: i64, horizontal: i64) -> bool {
        match self {
            Self::Ring { from, to } => {
                let radius = (vertical as f64).hypot(horizontal as f64);
                *from <= radius && radius < *to
            }
            Self::Frequencies(list) => {
                list.contains(&(vertical, horizontal)) || list.contains(&(-vertical, -horizontal))
            }
        }
    }

    /// The band as an un-shifted mask `[height, width]` of zeros and ones, even under (u, v) → (−u, −v).
    pub fn mask(&self, height: usize, width: usize) -> Vec<f32> {
        let inside = |index: usize, radius: f64| match self {
            Self::Ring { from, to } => *from <= radius && radius < *to,
            Self::Frequencies(list) => list.iter().any(|&(i, j)| {
                let (row, column) = (index / width, index % width);
                // Beyond the Nyquist frequency there is nothing, rather than an alias.
                let same = |f: i64, side: usize, at: usize| {
                    2 * f.unsigned_abs() as u128 <= side as u128 && f.rem_euclid(side as i64) == at as i64
                };
                (same(i, height, row) && same(j, width, column))
                    || (same(i.saturating_neg(), height, row) && same(j.saturating_neg(), width, column))
            }),
        };
        radii(height, width).into_iter().enumerate().map(|(i, r)| f32::from(u8::from(inside(i, r)))).collect()
    }

    /// Refuses a band that no frequency of such images falls into.
    pub(crate) fn check_size(&self, height: usize, width: usize) -> Result<()> {
        if self.mask(height, width).contains(&1.0) {
            return Ok(());
        }
        Err(Error::config(format!("the band {self} holds no frequency of {height}×{width} pixels")))
    }

    /// The part of `x` `[n, height, width, channels]` that lies in the band.
    pub(crate) fn filter(&self, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = x.dims4()?;
        let mask = self.mask(height, width);
        filter2(x, &Tensor::from_vec(mask, (height, width), x.device())?)
    }

    /// The perturbation `x − origin` without what is outside the band, scaled down to `epsilon`.
    ///
    /// Scaling keeps it in the band (clipping would not); only the pixel box `[0, 1]`, applied last,
    /// may leak a little.
    pub(crate) fn confine(&self, x: &Tensor, origin: &Tensor, norm: Norm, epsilon: f64) -> Result<Tensor> {
        let delta = self.filter(&(x - origin)?)?;
        let sizes = norms(&delta, norm)?;
        let factor = sizes.minimum(epsilon)?.div(&(sizes + 1e-12)?)?;
        Ok((origin + delta.broadcast_mul(&factor)?)?.clamp(0.0, 1.0)?)
    }

    /// All frequencies of `height` × `width` images in the band, one of each mirror pair.
    pub(crate) fn frequencies(band: Option<&Self>, height: usize, width: usize) -> Vec<(i64, i64)> {
        (0..height * width)
            .map(|p| (signed_frequency(p / width, height), signed_frequency(p % width, width)))
            .filter(|&(i, j)| i > 0 || (i == 0 && j >= 0))
            .filter(|&(i, j)| band.is_none_or(|band| band.contains(i, j)))
            .collect()
    }
}

impl FromStr for Band {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::config(format!(
                "`{text}` is not a band: write radii as `4:8` (cycles per image) or frequencies as `3,-4;0,5`"
            ))
        };
        if let Some((from, to)) = text.split_once(':') {
            let radius = |part: &str, default: f64| match part.trim() {
                "" => Ok(default),
                part => part.parse::<f64>().map_err(|_| wrong()),
            };
            let (from, to) = (radius(from, 0.0)?, radius(to, f64::INFINITY)?);
            return if from >= 0.0 && from < to { Ok(Self::Ring { from, to }) } else { Err(wrong()) };
        }
        let frequency = |pair: &str| -> Option<(i64, i64)> {
            let (i, j) = pair.split_once(',')?;
            Some((i.trim().parse().ok()?, j.trim().parse().ok()?))
        };
        text.split(';').map(frequency).collect::<Option<Vec<_>>>().map(Self::Frequencies).ok_or_else(wrong)
    }
}

impl fmt::Display for Band {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring { from, to } if to.is_infinite() => write!(f, "{from}:"),
            Self::Ring { from, to } => write!(f, "{from}:{to}"),
            Self::Frequencies(list) => {
                let pairs: Vec<String> = list.iter().map(|(i, j)| format!("{i},{j}")).collect();
                f.write_str(&pairs.join(";"))
            }
        }
    }
}

impl TryFrom<String> for Band {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Band> for String {
    fn from(band: Band) -> Self {
        band.to_string()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::attack::geometry::{Noise, host_norms, noise};

    #[test]
    fn text_forms_come_back() {
        for text in ["4:8", "0:2.5", "8:", "3,-4;0,5"] {
            assert_eq!(text.parse::<Band>().unwrap().to_string(), text);
        }
        for text in ["", "8:4", "a:b", "3", "1,2,3"] {
            assert!(text.parse::<Band>().is_err(), "{text}");
        }
    }

    #[test]
    fn confined_perturbations_have_nothing_outside_the_band() {
        let origin = Tensor::full(0.5f64, (2, 8, 8, 3), &Device::Cpu).unwrap();
        let drawn = noise(&origin, 1, &[[0, 0, 0], [0, 1, 0]], Noise::Uniform).unwrap();
        let outside: Vec<f32> = "2:4".parse::<Band>().unwrap().mask(8, 8).iter().map(|m| 1.0 - m).collect();
        let outside = Tensor::from_vec(outside, (8, 8), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        for norm in [Norm::Linf, Norm::L2] {
            let near = "2:4"
                .parse::<Band>()
                .unwrap()
                .confine(&(&origin + &drawn).unwrap(), &origin, norm, 0.1)
                .unwrap();
            let delta = (near - &origin).unwrap();
            assert!(host_norms(&delta, norm).unwrap().iter().all(|&size| (size - 0.1).abs() < 1e-9));
            let leaked = filter2(&delta, &outside).unwrap();
            assert!(host_norms(&leaked, Norm::L2).unwrap().iter().all(|&size| size < 1e-12));
        }
    }
}
