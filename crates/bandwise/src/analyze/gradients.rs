//! The Fourier spectrum of the input gradient: which frequencies of an image a network looks at.
//!
//! Gradients are those of each image's own cross-entropy, in evaluation mode, so that nothing depends on
//! the batch size. (JaFR's J is this divided by the batch size, with batch statistics.)
//!
//! [`GradientSpectrum`] measures one network; [`section`] sets several side by side, next to the spectrum
//! of the images.

mod presentation;

use candle_core::{DType, Device, Tensor};

pub use presentation::{csv, section};

use super::{Analysis, Findings, advance, shared_images};
use crate::evaluate::record::Record;
use crate::evaluate::subject::Subject;
use crate::method::grad_align::{alignment, uniform_noise};
use crate::method::input_gradient::{InputGradient, norms, scalar};
use crate::method::jafr::{Jafr, low_frequencies};
use crate::nn::{Model, Pass};
use crate::spectral::statistics::SpectrumStatistics;
use crate::{Error, Job, Result};

/// Measures the input gradient of each network; results carry the network's label.
///
/// # Errors
/// [`Error::Interrupted`] after a stop; if images cannot be read or do not fit a network.
pub fn run(subjects: &[Subject], job: &Job) -> Result<Analysis<(String, GradientSpectrum)>> {
    let data = shared_images(subjects, job)?;
    let mut findings = Findings::new("Input gradients");
    let mut models = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        advance(job, "input gradients", index, subjects.len())?;
        let model = &subject.network.model;
        let found = GradientSpectrum::measure(model, &data.images, &data.labels, job.batch_size)?;
        let (bias, norm) = (found.low_frequency_bias()?, found.mean_norm());
        let label = &subject.label;
        findings.lines.push(format!("{label}: low-frequency bias {bias:.3}, mean norm {norm:.4}"));
        for (metric, value) in [("low_frequency_bias", bias), ("gradient_norm", norm)] {
            let mut record = Record::scalar(metric, value);
            record.extra.insert("label".into(), label.clone().into());
            findings.records.push(subject.sign(record));
        }
        models.push((label.clone(), found));
    }
    let images = SpectrumStatistics::of_tensor(&data.images)?;
    let findings = findings.table("gradients", csv(&models)).section("gradients", section(&models, &images)?);
    Ok(Analysis { results: models, findings })
}

/// Mean Fourier amplitudes of a network's input gradient over many images.
#[derive(Clone, Debug)]
pub struct GradientSpectrum {
    /// Spectra of the gradients as they are.
    pub amplitudes: SpectrumStatistics,
    /// Spectra of the gradients divided by their L2 norms: every image counts alike.
    pub unit: SpectrumStatistics,
    /// Sum of the gradients' L2 norms.
    norm_sum: f64,
}

impl GradientSpectrum {
    /// Measures `images` `[n, height, width, channels]` with `labels` `[n]` (u32), `batch_size` at a time.
    ///
    /// # Errors
    /// If there are no images, or they do not fit the model.
    pub fn measure(model: &Model, images: &Tensor, labels: &Tensor, batch_size: usize) -> Result<Self> {
        let (count, height, width, channels) = images.dims4()?;
        if count == 0 || batch_size == 0 {
            return Err(Error::config("a gradient spectrum needs at least one image, and one per batch"));
        }
        let frozen = model.folded()?;
        let mut found = Self {
            amplitudes: SpectrumStatistics::new(height, width, channels),
            unit: SpectrumStatistics::new(height, width, channels),
            norm_sum: 0.0,
        };
        for start in (0..count).step_by(batch_size) {
            let length = batch_size.min(count - start);
            let gradient =
                own_gradients(&frozen, &images.narrow(0, start, length)?, &labels.narrow(0, start, length)?)?;
            found.add(&gradient)?;
        }
        Ok(found)
    }

    fn add(&mut self, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let norms = norms(&gradient)?;
        self.norm_sum += scalar(&norms.sum_all()?)?;
        let divisors = norms.eq(0.0)?.where_cond(&norms.ones_like()?, &norms)?.reshape(((), 1, 1, 1))?;
        self.amplitudes.add_tensor(&gradient)?;
        self.unit.add_tensor(&gradient.broadcast_div(&divisors)?)
    }

    /// Number of images measured.
    pub fn images(&self) -> usize {
        self.amplitudes.images()
    }

    /// Mean L2 norm of the gradients.
    pub fn mean_norm(&self) -> f64 {
        self.norm_sum / self.images().max(1) as f64
    }

    /// JaFR's low-frequency bias (sum, exponents ±1) of the mean amplitude map.
    pub fn low_frequency_bias(&self) -> Result<f64> {
        let (height, width) = self.amplitudes.size();
        let map = Tensor::from_vec(self.amplitudes.mean_amplitude(), (height, width), &Device::Cpu)?;
        let map = low_frequencies(&map)?.narrow(1, 0, width / 2 + 1)?;
        scalar(&Jafr::default().bias_of_map(&map)?)
    }
}

/// Gradients of each image's own cross-entropy.
fn own_gradients(frozen: &Model, images: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let found = InputGradient::of(frozen, images, labels, &Pass::eval())?;
    Ok((found.gradient * images.dim(0)? as f64)?)
}

/// The three numbers that follow a network's input gradient through training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientSummary {
    /// [`GradientSpectrum::low_frequency_bias`].
    pub low_frequency_bias: f64,
    /// [`GradientSpectrum::mean_norm`].
    pub norm: f64,
    /// Mean cosine between the gradients at an image and at a random point within ±8/255 of it
    /// (GradAlign); it drops when single-step adversarial training overfits catastrophically.
    pub alignment: f64,
}

impl GradientSummary {
    /// Radius within which alignment is measured, pixels in [0, 1].
    pub const ALIGNMENT_RADIUS: f64 = 8.0 / 255.0;

    /// Measures `images` `[n, height, width, channels]` with `labels` `[n]` (u32), `batch_size` at a time. The
    /// random points come from `seed`.
    pub fn measure(
        model: &Model,
        images: &Tensor,
        labels: &Tensor,
        batch_size: usize,
        seed: u64,
    ) -> Result<Self> {
        let spectrum = GradientSpectrum::measure(model, images, labels, batch_size)?;
        let frozen = model.folded()?;
        let count = images.dim(0)?;
        let mut aligned = 0.0;
        for start in (0..count).step_by(batch_size) {
            let length = batch_size.min(count - start);
            let (images, labels) = (images.narrow(0, start, length)?, labels.narrow(0, start, length)?);
            let ids: Vec<u64> = (start as u64..(start + length) as u64).collect();
            let moved = (&images + uniform_noise(&images, Self::ALIGNMENT_RADIUS, seed, &ids)?)?;
            let here = own_gradients(&frozen, &images, &labels)?;
            let there = own_gradients(&frozen, &moved, &labels)?;
            aligned += scalar(&alignment(&here, &there)?)? * length as f64;
        }
        Ok(Self {
            low_frequency_bias: spectrum.low_frequency_bias()?,
            norm: spectrum.mean_norm(),
            alignment: aligned / count as f64,
        })
    }
}

#[cfg(test)]
mod tests;
