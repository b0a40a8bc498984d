//! Analyses of trained models: where in the frequency domain they live.
//!
//! Every analysis is a function `run` of the networks that are set side by side, a [`Job`] and a plain configuration. It
//! gives its results and [`Findings`]: lines, records, CSV and report sections, which
//! [`write_analysis`](crate::report::write_analysis) puts into a folder.
//!
//! | file | question |
//! |---|---|
//! | `heatmap` | which Fourier waves fool a model (Yin et al. 2019) |
//! | `bands` | which band of the spectrum is enough, which is needed; accuracy through masks |
//! | `masks` | learned Fourier masks: energies, differences, similarity |
//! | `probe`, `embedding` | do masks of images tell their class? |
//! | `perturbations` | spectra of what attacks add |
//! | `corruptions` | accuracy under corruptions, from low to high frequency |
//! | `corruption_spectra` | Fourier maps of what corruptions change, per severity |
//! | `features` | spectra of feature maps, stage by stage |
//! | `filters` | energy of convolution filters per DCT frequency |
//! | `gradients` | spectrum of the input gradient |
//! | `space` | whether masks and windows act on the network's input or on pixels |
//! | `examples` | images under attack, and their spectra |
//!
//! ```
//! use bandwise::analyze::filters::FilterSpectrum;
//! use bandwise::candle_core::Device;
//! use bandwise::network::{Network, NetworkConfig};
//!
//! # fn main() -> bandwise::Result<()> {
//! let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") };
//! let network = Network::new(config, 0, &Device::Cpu)?;
//! let spectrum = FilterSpectrum::measure("untrained", &network.model)?;
//! for layer in &spectrum.layers {
//!     assert!((layer.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
//! }
//! # Ok(())
//! # }
//! ```

pub mod bands;
pub mod corruption_spectra;
pub mod corruptions;
pub mod embedding;
pub mod examples;
pub mod features;
pub mod filters;
mod findings;
pub mod gradients;
pub mod heatmap;
pub mod masks;
pub mod perturbations;
pub mod probe;
pub mod space;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod workflow_tests;

pub use findings::{Analysis, Findings};

use crate::attack::Classifier;
use crate::evaluate::record::Record;
use crate::evaluate::subject::{Subject, TestImages};
use crate::plot::Axis;
use crate::{Error, Job, Result};

/// A classifier with its name in plots.
#[derive(Clone, Copy)]
pub struct NamedClassifier<'a> {
    /// The name.
    pub label: &'a str,
    /// The model.
    pub classifier: &'a dyn Classifier,
}

impl<'a> NamedClassifier<'a> {
    /// The classifier of a subject under its label.
    pub fn of(subject: &'a Subject) -> Self {
        Self { label: &subject.label, classifier: &subject.classifier }
    }
}

/// The axes of a centered spectrum, in cycles per image: horizontal to the right, vertical upwards, so that directions run
/// counter-clockwise. Ticks stand in the middle of their cells.
fn frequency_axes(height: usize, width: usize) -> (Axis, Axis) {
    let range = |side: usize| {
        let (lowest, highest) = (-((side / 2) as f64), ((side - side / 2) as f64) - 1.0);
        (lowest - 0.5, highest + 0.5)
    };
    let (left, right) = range(width.max(1));
    let (below, above) = range(height.max(1));
    // Row 0 is the lowest frequency of the discrete transform, which counts downwards.
    (
        Axis::integers("horizontal frequency (cycles per image)").range(left, right),
        Axis::integers("vertical frequency (cycles per image)").range(-above, -below),
    )
}

/// The axis of radial profiles.
fn radius_axis() -> Axis {
    Axis::integers("frequency (cycles per image)")
}

/// What remains of an analysis that was stopped.
const NOTHING_WRITTEN: &str = "nothing was written";

/// Says how much of a model's analysis is done, and ends it after a stop.
fn advance(job: &Job, label: &str, done: usize, total: usize) -> Result<()> {
    job.report(label, done, total, "");
    job.interrupt.check(NOTHING_WRITTEN)
}

/// The record of a measurement that draws from `seed`.
fn signed(subject: &Subject, record: Record, seed: u64) -> Record {
    let mut record = subject.sign(record);
    record.provenance.seeds = vec![seed];
    record
}

/// The images that all subjects are judged by.
///
/// # Errors
/// Without a subject, if they were loaded for different images, or for a batch size of 0.
fn shared_images(subjects: &[Subject], job: &Job) -> Result<TestImages> {
    let first = subjects.first().ok_or_else(|| Error::config("an analysis needs at least one network"))?;
    if job.batch_size == 0 {
        return Err(Error::config("an analysis needs a batch size of at least 1"));
    }
    let images = |subject: &Subject| (subject.data.dataset.fingerprint().to_owned(), subject.count());
    if subjects.iter().any(|other| images(other) != images(first)) {
        return Err(Error::config("networks that are set side by side must look at the same images"));
    }
    first.data.load(&job.device)
}
