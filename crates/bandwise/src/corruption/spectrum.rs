//! Where in the spectrum a corruption does its damage.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ByteImage;
use crate::spectral::bands::{radial_sum, radius_index};
use crate::spectral::fourier::transform::spectrum;
use crate::{Error, Result};

/// The mean power spectrum of the differences between corrupted and clean images, `|FFT(difference)|²` with values
/// in [0, 1], by rings around the mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DifferenceSpectrum {
    /// Mean power in the rings of radius 0, 1, 2, … ([`radius_index`]).
    pub radial_power: Vec<f64>,
    /// Power-weighted mean radius without the mean itself, as a share of half the shorter side: near 0 for fog, large
    /// for noise. The order of corruptions from low to high frequency. 0 where nothing differs.
    pub centroid: f64,
}

impl DifferenceSpectrum {
    /// The spectrum of `corrupted − clean`, averaged over images of one shape and their channels.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no image or shapes differ.
    pub fn between(corrupted: &[ByteImage], clean: &[ByteImage]) -> Result<Self> {
        let Some(first) = clean.first() else {
            return Err(Error::config("a difference spectrum needs at least one image"));
        };
        let shape = |input: &ByteImage| (input.height, input.width, input.channels);
        if corrupted.len() != clean.len() || clean.iter().chain(corrupted).any(|p| shape(p) != shape(first)) {
            return Err(Error::config("a difference spectrum needs pairs of images of one shape"));
        }
        let (height, width, channels) = shape(first);
        // Per image first and summed in order: the result does not depend on the thread count.
        let powers: Vec<Vec<f64>> = corrupted.par_iter().zip(clean).map(|(a, b)| power(a, b)).collect();
        let mut total = vec![0.0; height * width];
        for power in &powers {
            total.iter_mut().zip(power).for_each(|(sum, p)| *sum += p / (clean.len() * channels) as f64);
        }
        let counts = radial_sum(&vec![1.0; total.len()], height, width);
        let sums = radial_sum(&total, height, width);
        let radial_power = sums.iter().zip(&counts).map(|(sum, count)| sum / count.max(1.0)).collect();
        let half = (height.min(width) as f64 / 2.0).max(1.0);
        let (mut weighted, mut weight) = (0.0, 0.0);
        for (power, radius) in total.iter().zip(radius_index(height, width)).skip(1) {
            weighted += power * radius as f64;
            weight += power;
        }
        let centroid = if weight > 0.0 { weighted / weight / half } else { 0.0 };
        Ok(Self { radial_power, centroid })
    }
}

/// `|FFT|²` of the difference, summed over channels.
fn power(corrupted: &ByteImage, clean: &ByteImage) -> Vec<f64> {
    let ByteImage { height, width, channels, .. } = *clean;
    let mut power = vec![0.0; height * width];
    for channel in 0..channels {
        let values = |input: &ByteImage| -> Vec<f64> {
            input.bytes[channel..].iter().step_by(channels).map(|&byte| f64::from(byte) / 255.0).collect()
        };
        let plane: Vec<f64> = values(corrupted).iter().zip(values(clean)).map(|(a, b)| a - b).collect();
        power.iter_mut().zip(spectrum(&plane, height, width)).for_each(|(p, z)| *p += z.norm_sqr());
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corruption::{Corruption, Corruptor, Protocol, Severity};

    #[test]
    fn noise_lies_higher_than_fog() {
        let smooth = |i: usize| (100 + i / 96 + i % 96 / 3) as u8;
        let clean = vec![ByteImage::new(32, 32, 3, (0..3072).map(smooth).collect()); 4];
        let centroid = |corruption| {
            let severity = Severity::new(3).unwrap();
            let corrupted =
                Corruptor::new(Protocol::Cifar, 1).apply_all(&clean, corruption, severity, 0).unwrap();
            DifferenceSpectrum::between(&corrupted, &clean).unwrap().centroid
        };
        assert!(centroid(Corruption::GaussianNoise) > 2.0 * centroid(Corruption::Fog));
        assert_eq!(DifferenceSpectrum::between(&clean, &clean).unwrap().centroid, 0.0);
        assert!(DifferenceSpectrum::between(&clean[..1], &clean).is_err());
    }
}
