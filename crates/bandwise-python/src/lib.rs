//! The Python module `bandwise._bandwise`: converts arrays, calls the library, nothing else.
//!
//! | file | what |
//! |---|---|
//! | `models` | networks of ours, and models of Python's as foreign classifiers |
//! | `images` | labeled images in memory, corruptions |
//! | `work` | interrupts, progress, exceptions |
//! | `evaluate` | accuracies, adversarial images, lists of names |
//! | `analyze` | heat map, masks, bands, spectra, pages |
//!
//! Settings come as JSON of the library's own configurations, results go as JSON of its records: what the typed front
//! `python/bandwise` passes on needs no second definition here.

use pyo3::prelude::*;

mod analyze;
mod evaluate;
mod images;
mod models;
mod work;

#[pymodule]
mod _bandwise {
    #[pymodule_export]
    use crate::analyze::{
        Findings, band_accuracy, fourier_mask, gradient_spectrum, heatmap, image_masks, page,
        perturbation_spectrum,
    };
    #[pymodule_export]
    use crate::evaluate::{attack, attacks, evaluate, evaluate_corruptions};
    #[pymodule_export]
    use crate::images::{Images, corrupt, corruptions};
    #[pymodule_export]
    use crate::models::Model;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
