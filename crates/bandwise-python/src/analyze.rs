//! Analyses and their pages.

use std::path::{Path, PathBuf};

use bandwise::analyze::masks::data_set::{self, DataSetMasksConfig};
use bandwise::analyze::masks::per_image::{self, ImageMasksConfig};
use bandwise::analyze::{Analysis, bands, gradients, heatmap as waves, perturbations};
use bandwise::evaluate::record::{self, Record};
use bandwise::evaluate::subject::Subject;
use bandwise::report::{self, Report};
use bandwise::{Job, Result};
use numpy::{PyArray1, PyArray3, PyArrayMethods};
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::images::Images;
use crate::models::Model;
use crate::work::{exception, json, run, settings};

/// What an analysis leaves for readers.
#[pyclass(frozen, module = "bandwise._bandwise")]
pub struct Findings(bandwise::analyze::Findings);

#[pymethods]
impl Findings {
    #[getter]
    fn title(&self) -> &str {
        &self.0.title
    }

    #[getter]
    fn lines(&self) -> Vec<String> {
        self.0.lines.clone()
    }

    /// The records as JSON.
    #[getter]
    fn records(&self) -> PyResult<String> {
        json(&self.0.records)
    }

    /// Names of CSV texts, and the texts.
    #[getter]
    fn tables(&self) -> Vec<(String, String)> {
        self.0.tables.clone()
    }

    /// Title, caption, SVG and CSV of each figure.
    fn figures(&self) -> Vec<(String, String, String, String)> {
        let sections = self.0.sections.iter().flat_map(|(_, section)| report::drawings(section));
        sections.map(|drawn| (drawn.title, drawn.caption, drawn.svg, drawn.csv)).collect()
    }

    /// The whole page.
    fn html(&self) -> String {
        let report = Report::new(self.0.title.clone());
        self.0.sections.iter().fold(report, |report, (_, section)| report.section(section.clone())).to_html()
    }

    /// Writes CSV, figures, records and the page into a folder; returns the page.
    fn write(&self, folder: PathBuf) -> PyResult<PathBuf> {
        report::write_analysis(&folder, &self.0).map_err(exception)
    }
}

type Models = Vec<(Py<Model>, String)>;
type Told = (usize, Option<Py<PyAny>>);

/// Runs an analysis of models, each with its label, on the same images.
fn analyzed<T: Send>(
    py: Python<'_>,
    models: &Models,
    images: &Images,
    told: Told,
    work: impl FnOnce(&[Subject], &Job) -> Result<Analysis<T>> + Send,
) -> PyResult<(Vec<T>, Findings)> {
    let all: Vec<&Model> = models.iter().map(|(model, _)| model.get()).collect();
    let labels: Vec<&str> = models.iter().map(|(_, label)| label.as_str()).collect();
    let found = run(py, &all, told, |job| {
        let subjects = all.iter().zip(&labels).map(|(model, label)| model.subject(&images.set, Some(label)));
        work(&subjects.collect::<Result<Vec<_>>>()?, job)
    })?;
    Ok((found.results, Findings(found.findings)))
}

/// One map for each model, as JSON.
#[pyfunction]
pub fn heatmap(
    py: Python<'_>,
    models: Models,
    images: &Images,
    config: &str,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, Findings)> {
    let config = settings(config)?;
    let work = |subjects: &[Subject], job: &Job| waves::run(subjects, job, &config);
    let (results, findings) = analyzed(py, &models, images, (batch_size, progress), work)?;
    Ok((json(&results)?, findings))
}

/// Accuracy through each window of each model, as JSON.
#[pyfunction]
pub fn band_accuracy(
    py: Python<'_>,
    models: Models,
    images: &Images,
    config: &str,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, Findings)> {
    let config = settings(config)?;
    let work = |subjects: &[Subject], job: &Job| bands::run(subjects, job, &config);
    let (results, findings) = analyzed(py, &models, images, (batch_size, progress), work)?;
    Ok((json(&results)?, findings))
}

/// The spectrum of each model's perturbations, as JSON.
#[pyfunction]
pub fn perturbation_spectrum(
    py: Python<'_>,
    models: Models,
    images: &Images,
    config: &str,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, Findings)> {
    let config = settings(config)?;
    let work = |subjects: &[Subject], job: &Job| perturbations::run(subjects, job, &config);
    let (results, findings) = analyzed(py, &models, images, (batch_size, progress), work)?;
    Ok((json(&results)?, findings))
}

/// The spectrum of each model's input gradient, as JSON.
#[pyfunction]
pub fn gradient_spectrum(
    py: Python<'_>,
    models: Models,
    images: &Images,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, Findings)> {
    let (results, findings) = analyzed(py, &models, images, (batch_size, progress), gradients::run)?;
    let mut rows = Vec::new();
    for (label, found) in results {
        let (height, width) = found.amplitudes.size();
        rows.push(json!({
            "label": label, "height": height, "width": width, "images": found.images(), "zero": found.zero,
            "not_finite": found.not_finite, "mean_norm": found.mean_norm(),
            "low_frequency_bias": found.low_frequency_bias().map_err(exception)?,
            "amplitude": found.amplitudes.mean_amplitude(), "power": found.amplitudes.mean_power(),
        }));
    }
    Ok((json(&rows)?, findings))
}

/// Masks `[n, height, width]`, un-shifted; what is known of each as JSON.
type Masks<'py> = (Bound<'py, PyArray3<f32>>, String, Findings);

fn masks<'py>(
    py: Python<'py>,
    masks: &[bandwise::method::fourier_mask::Mask],
    known: &[Value],
    findings: Findings,
) -> PyResult<Masks<'py>> {
    let size = masks.first().map_or([0, 0], |mask| [mask.height, mask.width]);
    let values: Vec<f32> = masks.iter().flat_map(|mask| mask.values.iter().copied()).collect();
    let array = PyArray1::from_vec(py, values).reshape([masks.len(), size[0], size[1]])?;
    Ok((array, json(&known)?, findings))
}

/// A mask for each model, or for each class.
#[pyfunction]
pub fn fourier_mask<'py>(
    py: Python<'py>,
    models: Models,
    images: &Images,
    config: &str,
    folder: PathBuf,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Masks<'py>> {
    let config: DataSetMasksConfig = settings(config)?;
    let work = |subjects: &[Subject], job: &Job| data_set::run(subjects, job, &config, &folder);
    let (results, findings) = analyzed(py, &models, images, (batch_size, progress), work)?;
    let all: Vec<_> = results.iter().map(|found| found.learned.mask.clone()).collect();
    let known: Vec<Value> = (results.iter())
        .map(|found| {
            json!({ "label": found.label, "accuracy": found.accuracy, "converged": found.learned.converged,
                    "accuracy_kept": found.learned.accuracy_kept, "epochs": found.learned.history.len() })
        })
        .collect();
    masks(py, &all, &known, findings)
}

/// A mask for each image.
#[pyfunction]
pub fn image_masks<'py>(
    py: Python<'py>,
    models: Models,
    images: &Images,
    config: &str,
    folder: PathBuf,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Masks<'py>> {
    let config: ImageMasksConfig = settings(config)?;
    let work = |subjects: &[Subject], job: &Job| per_image::run(subjects, job, &config, &folder);
    let (results, findings) = analyzed(py, &models, images, (batch_size, progress), work)?;
    let all: Vec<_> = results.iter().flat_map(|learned| learned.masks.iter().cloned()).collect();
    let known = results.iter().flat_map(|learned| {
        learned.lines.iter().map(|line| {
            let mut known = json!(line);
            known["label"] = format!("{} {}", learned.label, line.image).into();
            known
        })
    });
    masks(py, &all, &known.collect::<Vec<_>>(), findings)
}

/// Writes the page of run folders and files of records; `extra` are records in memory, JSON under a name each, which
/// go into `scratch` first.
#[pyfunction]
pub fn page(
    runs: Vec<PathBuf>,
    extra: Vec<(String, String)>,
    scratch: PathBuf,
    out: PathBuf,
) -> PyResult<PathBuf> {
    let mut all = runs;
    for (name, records) in extra {
        let records: Vec<Record> = settings(&records)?;
        let folder = scratch.join(Path::new(&name).file_name().unwrap_or("result".as_ref()));
        std::fs::create_dir_all(&folder)?;
        record::append_jsonl(&folder.join("results.jsonl"), &records).map_err(exception)?;
        all.push(folder);
    }
    report::write_report(&all, Some(&out)).map_err(exception)
}
