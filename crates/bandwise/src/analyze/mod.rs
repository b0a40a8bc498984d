//! Analyses of trained models: where in the frequency domain they live.
//!
//! Every analysis gives plain results for one or several models, from which a CSV text and a report
//! section are made.
//!
//! | file | question |
//! |---|---|
//! | `heatmap` | which Fourier waves fool a model (Yin et al. 2019) |
//! | `bands` | which band of the spectrum is enough, which is needed; accuracy through masks |
//! | `masks` | learned Fourier masks: energies, differences, similarity |
//! | `probe`, `embedding` | do masks of images tell their class? |
//! | `perturbations` | spectra of what attacks add |
//! | `corruptions` | accuracy under corruptions, from low to high frequency |
//! | `features` | spectra of feature maps, stage by stage |
//! | `filters` | energy of convolution filters per DCT frequency |
//! | `gradients` | spectrum of the input gradient |
//! | `examples` | pictures under attack, and their spectra |

pub mod bands;
pub mod corruptions;
pub mod embedding;
pub mod examples;
pub mod features;
pub mod filters;
pub mod gradients;
pub mod heatmap;
pub mod masks;
pub mod perturbations;
pub mod probe;

#[cfg(test)]
mod tests;

use crate::Result;
use crate::attack::Classifier;
use crate::evaluate::subject::Subject;
use crate::plot::Axis;

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

/// The axes of a centred spectrum, in cycles per image: horizontal to the right, vertical upwards, so that directions run
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

/// Told how many parts of an analysis are done, and of how many; an error ends the analysis.
pub type Progress<'a> = dyn FnMut(usize, usize) -> Result<()> + 'a;
