//! The Fourier spectrum of the input gradient: which frequencies of an image a network looks at.
//!
//! Gradients are those of each image's own cross-entropy, in evaluation mode, so that nothing depends on
//! the batch size. (JaFR's J is this divided by the batch size, with batch statistics.)
//!
//! [`GradientSpectrum`] measures one network; [`section`] sets several side by side, next to the spectrum
//! of the images.

mod images;
mod presentation;

use candle_core::{DType, Device, Tensor, Var};

pub use presentation::{csv, section};

use super::{Analysis, Findings, NOTHING_WRITTEN, advance, shared_images};
use crate::attack::Classifier;
use crate::evaluate::record::Record;
use crate::evaluate::subject::{Subject, with_warnings};
use crate::method::grad_align::{alignment, uniform_noise};
use crate::method::input_gradient::{InputGradient, norms, scalar};
use crate::method::jafr::Jafr;
use crate::nn::{ForwardContext, Model, loss};
use crate::spectral::statistics::SpectrumStatistics;
use crate::wording::counted;
use crate::{Error, Job, Result};

/// Sections of its page.
pub const SECTIONS: [&str; 1] = ["gradients"];

/// Measures the input gradient of each network; results carry the network's label.
///
/// # Errors
/// [`Error::Interrupted`] after a stop; if images cannot be read or do not fit a network.
pub fn run(subjects: &[Subject], job: &Job) -> Result<Analysis<(String, GradientSpectrum)>> {
    let data = shared_images(subjects, job)?;
    let mut findings = Findings::new("Input gradients");
    let mut models = Vec::new();
    let mut shown = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        advance(job, "input gradients", index, subjects.len())?;
        subject.needs_gradients("a gradient spectrum")?;
        let (images, labels) = (&data.images, &data.labels);
        let (found, examples) = match &subject.network {
            Some(network) => {
                let frozen = network.model.folded()?;
                let examples =
                    images::gradients(&data, |images, labels| own_gradients(&frozen, images, labels));
                (GradientSpectrum::measure(&network.model, images, labels, job.batch_size)?, examples?)
            }
            None => {
                let model = &subject.classifier;
                let examples =
                    images::gradients(&data, |images, labels| of_own_losses(model, images, labels));
                (GradientSpectrum::of_classifier(model, images, labels, job)?, examples?)
            }
        };
        let label = &subject.label;
        let (bias, norm) = (found.low_frequency_bias()?, (found.images() > 0).then(|| found.mean_norm()));
        let warnings: Vec<String> = found.warning().into_iter().collect();
        findings.lines.push(in_words(label, bias, norm));
        findings.lines.extend(warnings.iter().map(|warning| format!("warning: {label}: {warning}")));
        for (metric, value) in [("low_frequency_bias", bias), ("gradient_norm", norm)] {
            let Some(value) = value else { continue };
            let mut record = Record::scalar(metric, value);
            record.extra.insert("label".into(), label.clone().into());
            findings.records.push(with_warnings(subject.sign(record), &warnings));
        }
        models.push((label.clone(), found));
        shown.push((label.clone(), examples));
    }
    let images = SpectrumStatistics::of_tensor(&data.images)?;
    findings.lines.push(format!("images: low-frequency bias {:.3}", image_bias(&images)?));
    let findings = findings.table("gradients", csv(&models));
    let mut findings =
        findings.section(SECTIONS[0], section(&models, &images)?.images(images::grid(&shown, &data)?));
    for (label, found) in models.iter().rev() {
        findings.warn(label, &found.warning().into_iter().collect::<Vec<_>>());
    }
    Ok(Analysis { results: models, findings })
}

/// JaFR's low-frequency bias of the mean amplitude of images.
fn image_bias(images: &SpectrumStatistics) -> Result<f64> {
    let (height, width) = images.size();
    Jafr::default().bias_of_amplitudes(images.mean_amplitude(), height, width)
}

fn in_words(label: &str, bias: Option<f64>, norm: Option<f64>) -> String {
    let bias = bias.map_or("no low-frequency bias".into(), |bias| format!("low-frequency bias {bias:.3}"));
    let norm = norm.map_or("no norm".into(), |norm| format!("mean norm {norm:.4}"));
    format!("{label}: {bias}, {norm}")
}

/// Mean Fourier amplitudes of a network's input gradient over many images. Gradients that are not finite are left out.
#[derive(Clone, Debug)]
pub struct GradientSpectrum {
    /// Spectra of the gradients as they are.
    pub amplitudes: SpectrumStatistics,
    /// Spectra of the gradients divided by their L2 norms: every image counts alike.
    pub unit: SpectrumStatistics,
    /// Images whose gradient is zero: they have a norm, but no frequencies.
    pub zero: usize,
    /// Images whose gradient is not finite.
    pub not_finite: usize,
    /// Sum of the gradients' L2 norms.
    norm_sum: f64,
}

impl GradientSpectrum {
    /// Measures `images` `[n, height, width, channels]` with `labels` `[n]` (u32), `batch_size` at a time.
    ///
    /// # Errors
    /// If there are no images, or they do not fit the model.
    pub fn measure(model: &Model, images: &Tensor, labels: &Tensor, batch_size: usize) -> Result<Self> {
        let frozen = model.folded()?;
        Self::of_gradients(images, labels, batch_size, |images, labels| {
            own_gradients(&frozen, images, labels)
        })
    }

    /// The same of any classifier.
    ///
    /// # Errors
    /// As [`GradientSpectrum::measure`]; [`Error::Interrupted`] after a stop.
    pub fn of_classifier(
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        job: &Job,
    ) -> Result<Self> {
        Self::of_gradients(images, labels, job.batch_size, |images, labels| {
            job.interrupt.check(NOTHING_WRITTEN)?;
            of_own_losses(model, images, labels)
        })
    }

    fn of_gradients(
        images: &Tensor,
        labels: &Tensor,
        batch_size: usize,
        gradients: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let (count, height, width, channels) = images.dims4()?;
        if count == 0 || batch_size == 0 {
            return Err(Error::config("a gradient spectrum needs at least one image, and one per batch"));
        }
        let mut found = Self {
            amplitudes: SpectrumStatistics::new(height, width, channels),
            unit: SpectrumStatistics::new(height, width, channels),
            zero: 0,
            not_finite: 0,
            norm_sum: 0.0,
        };
        for start in (0..count).step_by(batch_size) {
            let length = batch_size.min(count - start);
            found.add(&gradients(&images.narrow(0, start, length)?, &labels.narrow(0, start, length)?)?)?;
        }
        Ok(found)
    }

    fn add(&mut self, gradient: &Tensor) -> Result<()> {
        let gradient = gradient.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let sizes: Vec<f64> = norms(&gradient)?.flatten_all()?.to_vec1()?;
        let finite: Vec<u32> = (0..sizes.len()).filter(|i| sizes[*i].is_finite()).map(|i| i as u32).collect();
        self.not_finite += sizes.len() - finite.len();
        self.zero += sizes.iter().filter(|size| **size == 0.0).count();
        if finite.is_empty() {
            return Ok(());
        }
        let gradient = gradient.index_select(&Tensor::new(finite, &Device::Cpu)?, 0)?;
        let norms = norms(&gradient)?;
        self.norm_sum += scalar(&norms.sum_all()?)?;
        let divisors = norms.eq(0.0)?.where_cond(&norms.ones_like()?, &norms)?.reshape(((), 1, 1, 1))?;
        self.amplitudes.add_tensor(&gradient)?;
        self.unit.add_tensor(&gradient.broadcast_div(&divisors)?)
    }

    /// Number of images measured: those with a finite gradient.
    pub fn images(&self) -> usize {
        self.amplitudes.images()
    }

    /// Mean L2 norm of the gradients; not a number if none is finite.
    pub fn mean_norm(&self) -> f64 {
        self.norm_sum / self.images() as f64
    }

    /// JaFR's low-frequency bias (sum, exponents ±1) of the mean amplitude map of those gradients that are not zero;
    /// `None` if there are none.
    pub fn low_frequency_bias(&self) -> Result<Option<f64>> {
        let remaining = self.images() - self.zero;
        if remaining == 0 {
            return Ok(None);
        }
        let (height, width) = self.amplitudes.size();
        let scale = self.images() as f64 / remaining as f64;
        let map = self.amplitudes.mean_amplitude().into_iter().map(|amplitude| amplitude * scale).collect();
        Jafr::default().bias_of_amplitudes(map, height, width).map(Some)
    }

    /// What a reader must know if some gradients lead nowhere.
    fn warning(&self) -> Option<String> {
        let total = self.images() + self.not_finite;
        let found = match (self.zero, self.not_finite) {
            (0, 0) => return None,
            (zero, 0) => format!("zero on {zero}"),
            (0, broken) => format!("not finite on {broken}"),
            (zero, broken) => format!("zero on {zero} and not finite on {broken}"),
        };
        let left_out = self.zero + self.not_finite;
        let rest = match total == left_out {
            true => "there is no bias".to_string(),
            false => format!("the bias is that of the other {}", total - left_out),
        };
        Some(format!("masked gradients: the gradient is {found} of {}; {rest}", counted(total, "image")))
    }
}

/// Gradients of each image's own cross-entropy, of any classifier.
fn of_own_losses(model: &dyn Classifier, images: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let pixels = Var::from_tensor(&images.contiguous()?)?;
    let losses = loss::cross_entropy(&model.logits(&pixels)?, labels)?;
    match losses.sum_all()?.backward()?.remove(&pixels) {
        Some(gradient) => Ok(gradient.detach()),
        None => Ok(pixels.zeros_like()?),
    }
}

/// Gradients of each image's own cross-entropy.
fn own_gradients(frozen: &Model, images: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let found = InputGradient::of(frozen, images, labels, &ForwardContext::eval())?;
    Ok((found.gradient * images.dim(0)? as f64)?)
}

/// The three numbers that follow a network's input gradient through training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientSummary {
    /// [`GradientSpectrum::low_frequency_bias`].
    pub low_frequency_bias: Option<f64>,
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
