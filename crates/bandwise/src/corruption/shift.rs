//! Distribution shifts of our own making: filtered, phase-scrambled and contrast-reduced versions of any image.
//!
//! The phase and contrast manipulations follow Geirhos et al. (NeurIPS 2018); the filters are the ideal windows of
//! [`crate::spectral::bands`].

use std::fmt;
use std::str::FromStr;

use rustfft::num_complex::Complex;
use serde::{Deserialize, Serialize};

use super::noise::normal;
use crate::data::Image;
use crate::random::{stream, tag};
use crate::spectral::bands::{high_pass, low_pass};
use crate::spectral::fourier::transform::{inverse_spectrum, spectrum};
use crate::{Error, Result};

/// A change of an image. Results are clipped to [0, 1], not rounded to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Shift {
    /// Keeps frequencies up to this radius, `√(u² + v²) ≤ radius`.
    LowPass(f64),
    /// Keeps frequencies beyond this radius, around the mean of each channel.
    HighPass(f64),
    /// Turns every frequency by a random angle of up to ± this share of 180°, the same for all channels: amplitudes
    /// stay, phases go. 0 changes nothing, 1 leaves no structure.
    PhaseScramble(f64),
    /// Contrast reduced to this share around mid-gray: `(x − ½) · share + ½`.
    Contrast(f64),
}

impl Shift {
    /// The shifted image; `index` is the image's position in its data set and decides, with the seed, what is random.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty image.
    pub fn apply(&self, image: &Image, seed: u64, index: u64) -> Result<Image> {
        if image.pixels.is_empty() {
            return Err(Error::config("an empty image cannot be shifted"));
        }
        let (height, width) = (image.height, image.width);
        Ok(match *self {
            Self::LowPass(radius) => {
                let mask = low_pass(height, width, radius);
                filtered(image, |k, z| z * f64::from(mask[k]))
            }
            Self::HighPass(radius) => {
                let mask = high_pass(height, width, radius);
                filtered(image, |k, z| if k == 0 { z } else { z * f64::from(mask[k]) })
            }
            Self::PhaseScramble(strength) => {
                let random = &mut stream(seed, &[tag("phase_scramble"), index]);
                let noise: Vec<f64> = (0..height * width).map(|_| normal(random)).collect();
                let angles: Vec<f64> =
                    spectrum(&noise, height, width).iter().map(|z| z.arg() * strength).collect();
                // Frequencies that are their own opposites must stay real: their angle is 0 or π, and becomes 0.
                let turn = |k: usize| match is_own_opposite(k, height, width) {
                    true => Complex::new(1.0, 0.0),
                    false => Complex::from_polar(1.0, angles[k]),
                };
                filtered(image, |k, z| z * turn(k))
            }
            Self::Contrast(share) => {
                let mut image = image.clone();
                image.pixels.iter_mut().for_each(|x| *x = (*x - 0.5) * share as f32 + 0.5);
                image
            }
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::LowPass(_) => "low_pass",
            Self::HighPass(_) => "high_pass",
            Self::PhaseScramble(_) => "phase_scramble",
            Self::Contrast(_) => "contrast",
        }
    }

    fn amount(&self) -> f64 {
        match *self {
            Self::LowPass(v) | Self::HighPass(v) | Self::PhaseScramble(v) | Self::Contrast(v) => v,
        }
    }
}

fn is_own_opposite(k: usize, height: usize, width: usize) -> bool {
    (2 * (k / width)).is_multiple_of(height) && (2 * (k % width)).is_multiple_of(width)
}

/// Every channel's spectrum changed and brought back, clipped to [0, 1].
fn filtered(image: &Image, change: impl Fn(usize, Complex<f64>) -> Complex<f64>) -> Image {
    let (height, width, channels) = (image.height, image.width, image.channels);
    let mut result = image.clone();
    for channel in 0..channels {
        let plane: Vec<f64> =
            image.pixels[channel..].iter().step_by(channels).map(|&x| f64::from(x)).collect();
        let changed: Vec<_> =
            spectrum(&plane, height, width).into_iter().enumerate().map(|(k, z)| change(k, z)).collect();
        let plane = inverse_spectrum(&changed, height, width);
        for (pixel, value) in result.pixels[channel..].iter_mut().step_by(channels).zip(plane) {
            *pixel = value.clamp(0.0, 1.0) as f32;
        }
    }
    result
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name(), self.amount())
    }
}

impl FromStr for Shift {
    type Err = Error;

    /// `low_pass:RADIUS`, `high_pass:RADIUS`, `phase_scramble:SHARE` (1 if not given) or `contrast:SHARE`; hyphens will
    /// do for underscores.
    fn from_str(text: &str) -> Result<Self> {
        let usage = || {
            Error::config(format!(
                "`{text}` is no shift; write low_pass:RADIUS, high_pass:RADIUS (pixels of the spectrum, 0 or more), \
                 phase_scramble:SHARE or contrast:SHARE (0 to 1)"
            ))
        };
        let (name, amount) = text.split_once(':').unwrap_or((text, ""));
        let name = name.trim().replace('-', "_");
        let amount = match (amount.trim(), name.as_str()) {
            ("", "phase_scramble" | "phase_scrambled") => 1.0,
            (amount, _) => amount.parse::<f64>().map_err(|_| usage())?,
        };
        let shift = match name.as_str() {
            "low_pass" => Self::LowPass(amount),
            "high_pass" => Self::HighPass(amount),
            "phase_scramble" | "phase_scrambled" => Self::PhaseScramble(amount),
            "contrast" => Self::Contrast(amount),
            _ => return Err(usage()),
        };
        let largest = if matches!(shift, Self::LowPass(_) | Self::HighPass(_)) { f64::MAX } else { 1.0 };
        if (0.0..=largest).contains(&amount) { Ok(shift) } else { Err(usage()) }
    }
}

impl TryFrom<String> for Shift {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Shift> for String {
    fn from(shift: Shift) -> Self {
        shift.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with little contrast, so that nothing is clipped.
    fn input(height: usize, width: usize) -> Image {
        let pixels = (0..height * width * 3).map(|i| 0.45 + 0.1 * ((i * 37 % 101) as f32 / 101.0)).collect();
        Image { height, width, channels: 3, pixels }
    }

    fn apply(text: &str, image: &Image) -> Image {
        text.parse::<Shift>().unwrap().apply(image, 1, 2).unwrap()
    }

    fn close(a: &Image, b: &Image) -> bool {
        a.pixels.iter().zip(&b.pixels).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn extreme_amounts_change_nothing() {
        for (height, width) in [(8, 8), (7, 10), (1, 1)] {
            let image = input(height, width);
            for text in ["low_pass:99", "high_pass:0", "phase_scramble:0", "contrast:1"] {
                assert!(close(&apply(text, &image), &image), "{text} {height}x{width}");
            }
        }
    }

    #[test]
    fn low_and_high_pass_add_up() {
        let image = input(9, 12);
        let (low, high) = (apply("low_pass:3", &image), apply("high_pass:3", &image));
        let mean = apply("low_pass:0", &image);
        let sum = low.pixels.iter().zip(&high.pixels).zip(&mean.pixels).map(|((l, h), m)| l + h - m);
        assert!(sum.zip(&image.pixels).all(|(sum, x)| (sum - x).abs() < 1e-5));
    }

    #[test]
    fn scrambling_keeps_amplitudes() {
        let image = input(8, 6);
        let scrambled = apply("phase_scramble:1", &image);
        assert!(!close(&scrambled, &image));
        let amplitudes = |image: &Image| -> Vec<f64> {
            let plane: Vec<f64> = image.pixels.iter().step_by(3).map(|&x| f64::from(x)).collect();
            spectrum(&plane, 8, 6).iter().map(|z| z.norm()).collect()
        };
        for (a, b) in amplitudes(&image).iter().zip(amplitudes(&scrambled)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        assert_eq!(scrambled, apply("phase_scramble:1", &image));
    }

    #[test]
    fn texts_round_trip() {
        for text in ["low_pass:4", "high_pass:2.5", "phase_scramble:0.5", "contrast:0.1"] {
            assert_eq!(text.parse::<Shift>().unwrap().to_string(), text);
        }
        assert_eq!("phase-scrambled".parse::<Shift>().unwrap(), Shift::PhaseScramble(1.0));
        assert_eq!("low-pass:4".parse::<Shift>().unwrap(), Shift::LowPass(4.0));
        for text in ["contrast", "contrast:2", "low_pass:-1", "blur:3", "low_pass:NaN"] {
            assert!(text.parse::<Shift>().is_err(), "{text}");
        }
    }
}
