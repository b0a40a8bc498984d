//! Mean spectra of many images: amplitude, log-amplitude and power.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::fourier::transform::spectrum;
use crate::{Error, Result};

/// Images summed together before partial sums are added up in order: results do not depend on the thread count.
const IMAGES_PER_PART: usize = 16;

/// Added to amplitudes under the logarithm of [`SpectrumStatistics::mean_log_amplitude`].
pub const LOG_EPSILON: f64 = 1e-8;

/// Running sums over the spectra of images of one size, in f64.
#[derive(Debug, Clone)]
pub struct SpectrumStatistics {
    height: usize,
    width: usize,
    channels: usize,
    images: usize,
    sums: Sums,
}

#[derive(Debug, Clone)]
struct Sums {
    amplitude: Vec<f64>,
    log1p: Vec<f64>,
    log: Vec<f64>,
    power: Vec<f64>,
}

impl Sums {
    fn zeros(area: usize, channels: usize) -> Self {
        let zeros = vec![0.0; area];
        Self { amplitude: zeros.clone(), log1p: zeros.clone(), log: zeros, power: vec![0.0; area * channels] }
    }

    fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.amplitude, &other.amplitude),
            (&mut self.log1p, &other.log1p),
            (&mut self.log, &other.log),
            (&mut self.power, &other.power),
        ];
        for (sum, part) in pairs {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
}

impl SpectrumStatistics {
    /// Empty sums for images `[height, width, channels]`.
    pub fn new(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels, images: 0, sums: Sums::zeros(height * width, channels) }
    }

    /// The statistics of all images of a tensor `[batch, height, width, channels]`.
    pub fn of_tensor(images: &Tensor) -> Result<Self> {
        let (_, height, width, channels) = images.dims4()?;
        let mut statistics = Self::new(height, width, channels);
        statistics.add_tensor(images)?;
        Ok(statistics)
    }

    /// Adds every image of a tensor `[batch, height, width, channels]`.
    pub fn add_tensor(&mut self, images: &Tensor) -> Result<()> {
        self.add(&images.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?)
    }

    /// Adds images lying one after the other, each `[height, width, channels]`.
    ///
    /// # Errors
    /// [`Error::Config`] if the slice does not hold a whole number of images.
    pub fn add<T: Copy + Into<f64> + Sync>(&mut self, images: &[T]) -> Result<()> {
        let (height, width, channels) = (self.height, self.width, self.channels);
        let area = height * width;
        let length = area * channels;
        if length == 0 || !images.len().is_multiple_of(length) {
            return Err(Error::config(format!(
                "{} values are not a whole number of {height}x{width}x{channels} images",
                images.len()
            )));
        }
        let parts: Vec<Sums> = images
            .par_chunks(length * IMAGES_PER_PART)
            .map(|part| {
                let mut sums = Sums::zeros(area, channels);
                for image in part.chunks_exact(length) {
                    for channel in 0..channels {
                        let plane: Vec<f64> =
                            image[channel..].iter().step_by(channels).map(|&x| x.into()).collect();
                        for (p, z) in spectrum(&plane, height, width).iter().enumerate() {
                            let power = z.norm_sqr();
                            let amplitude = power.sqrt();
                            sums.amplitude[p] += amplitude;
                            sums.log1p[p] += amplitude.ln_1p();
                            sums.log[p] += (amplitude + LOG_EPSILON).ln();
                            sums.power[channel * area + p] += power;
                        }
                    }
                }
                sums
            })
            .collect();
        parts.iter().for_each(|part| self.sums.merge(part));
        self.images += images.len() / length;
        Ok(())
    }

    /// Images seen so far.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Height and width of the spectra.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Mean of `|F|` over images and channels, un-shifted `[height, width]`.
    pub fn mean_amplitude(&self) -> Vec<f64> {
        self.mean(&self.sums.amplitude, self.channels)
    }

    /// Mean of `ln(1 + |F|)` over images and channels.
    pub fn mean_log1p_amplitude(&self) -> Vec<f64> {
        self.mean(&self.sums.log1p, self.channels)
    }

    /// Mean of `ln(|F| + 1e-8)` over images and channels.
    pub fn mean_log_amplitude(&self) -> Vec<f64> {
        self.mean(&self.sums.log, self.channels)
    }

    /// Mean of `|F|²` over images, per channel: `[channels, height, width]`.
    pub fn mean_power_per_channel(&self) -> Vec<f64> {
        self.mean(&self.sums.power, 1)
    }

    /// Mean of `|F|²` over images and channels.
    pub fn mean_power(&self) -> Vec<f64> {
        let mut total = vec![0.0; self.height * self.width];
        for plane in self.sums.power.chunks_exact(total.len()) {
            total.iter_mut().zip(plane).for_each(|(sum, value)| *sum += value);
        }
        self.mean(&total, self.channels)
    }

    fn mean(&self, sums: &[f64], channels: usize) -> Vec<f64> {
        let count = (self.images * channels).max(1) as f64;
        sums.iter().map(|sum| sum / count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::spectral::bands;

    #[test]
    #[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
    fn golden_mean_spectra_of_cifar() {
        let folder = golden::folder();
        let expected = golden::tensors(&folder, "case7_spectral.safetensors");
        let mut statistics = SpectrumStatistics::new(32, 32, 3);
        let images = golden::records(&folder, &golden::json(&folder, "case7_spectral.json"), 500).images();
        statistics.add(&images.flatten_all().unwrap().to_vec1::<f32>().unwrap()).unwrap();
        // The reference leaves the outermost ring, a single pixel, out of its profile.
        let mut profile = bands::radial_mean(&statistics.mean_log1p_amplitude(), 32, 32);
        profile.truncate(expected["radial_mean_log1p"].elem_count());
        for (name, ours) in [
            ("mean_amplitude", statistics.mean_amplitude()),
            ("mean_log1p_amplitude", statistics.mean_log1p_amplitude()),
            ("mean_log_amplitude_eps1e-8", statistics.mean_log_amplitude()),
            ("mean_power_per_channel", statistics.mean_power_per_channel()),
            ("radial_mean_log1p", profile),
        ] {
            let theirs = golden::values(&expected[name]);
            assert_eq!(ours.len(), theirs.len(), "{name}");
            let error: f64 = ours.iter().zip(&theirs).map(|(a, b)| (a - b).powi(2)).sum();
            let norm: f64 = theirs.iter().map(|b| b * b).sum();
            assert!((error / norm).sqrt() < 1e-8, "{name}: {}", (error / norm).sqrt());
        }
    }

    #[test]
    fn partial_images_are_refused() {
        assert!(SpectrumStatistics::new(4, 4, 3).add(&[0.0f32; 47]).is_err());
    }
}
