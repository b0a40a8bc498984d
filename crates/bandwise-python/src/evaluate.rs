//! Accuracies clean, under attacks and under corruptions; adversarial images.

use std::path::PathBuf;

use bandwise::attack::{Attack, AttackContext, AttackOverrides};
use bandwise::candle_core::{Device, Tensor};
use bandwise::evaluate::attacks::{self as workflow, AttacksConfig};
use bandwise::evaluate::corruptions::{self as corrupted, CorruptionsConfig};
use numpy::{PyArray1, PyArray4, PyArrayMethods};
use pyo3::prelude::*;
use serde_json::{Map, Value, json};

use crate::images::Images;
use crate::models::Model;
use crate::work::{exception, json, run, settings};

/// The attacks of these names with settings that are given as text.
fn named(names: &[String], given: &str) -> PyResult<Vec<Attack>> {
    let given: Map<String, Value> = settings(given)?;
    let overrides = overrides(&given).map_err(exception)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() && !given.is_empty() {
        return Err(exception(bandwise::Error::config(
            "eps, steps and the like need an attack, for example \"pgd\"",
        )));
    }
    overrides.attacks(&names).map_err(exception)
}

fn overrides(given: &Map<String, Value>) -> bandwise::Result<AttackOverrides> {
    let mut overrides = AttackOverrides::default();
    for (name, value) in given {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let refused = |_| {
            bandwise::Error::config(format!("`{text}` is no value for {name}: a whole number is expected"))
        };
        match &**name {
            "epsilon" => overrides.epsilon = Some(text.parse()?),
            "norm" => overrides.norm = Some(text.parse()?),
            "steps" => overrides.steps = Some(text.parse().map_err(refused)?),
            "step_size" => overrides.step_size = Some(text.parse()?),
            "start" => overrides.start = Some(text.parse()?),
            "restarts" => overrides.restarts = Some(text.parse().map_err(refused)?),
            "queries" => overrides.queries = Some(text.parse().map_err(refused)?),
            "targets" => overrides.targets = Some(text.parse().map_err(refused)?),
            "band" => overrides.band = Some(text.parse()?),
            "exact_gradient" => overrides.exact_gradient = Some(value.as_bool().unwrap_or_default()),
            other => return Err(bandwise::Error::config(format!("attacks have no setting `{other}`"))),
        }
    }
    Ok(overrides)
}

/// Records, names and warnings as JSON.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn evaluate(
    py: Python<'_>,
    model: &Model,
    images: &Images,
    attacks: Vec<String>,
    given: &str,
    seed: u64,
    journal: Option<PathBuf>,
    shard: Option<&str>,
    save_adversarial: Option<PathBuf>,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let shard = shard.map_or(Ok(Default::default()), str::parse).map_err(exception)?;
    let config = AttacksConfig { attacks: named(&attacks, given)?, seed, shard, journal, save_adversarial };
    let found = run(py, &[model], (batch_size, progress), |job| {
        let subject = model.subject(&images.set, None)?;
        workflow::run(&subject, job, &config)
    })?;
    let warnings: Vec<String> = found.warnings.iter().map(ToString::to_string).collect();
    json(&json!({ "records": found.records, "names": found.names, "warnings": warnings }))
}

/// Attacked images `[n, height, width, channels]`, and what happened to each as JSON.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn attack<'py>(
    py: Python<'py>,
    model: &Model,
    images: &Images,
    name: String,
    given: &str,
    seed: u64,
    early_stop: bool,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyArray4<f32>>, String)> {
    let attack = named(&[name], given)?.remove(0);
    let (pixels, shape, outcomes) = run(py, &[model], (batch_size, progress), |job| {
        let clean = images.set.load(&Device::Cpu)?;
        let (count, height, width, channels) = clean.images.dims4()?;
        let (mut parts, mut outcomes) = (Vec::new(), Vec::new());
        for start in (0..count).step_by(job.batch_size) {
            job.report(attack.name(), start, count, "");
            let length = job.batch_size.min(count - start);
            let ids: Vec<u64> = (start as u64..(start + length) as u64).collect();
            let watch = |_: f64| job.report(attack.name(), start, count, "");
            let context = AttackContext {
                early_stop,
                interrupt: Some(&job.interrupt),
                watch: Some(&watch),
                ..AttackContext::evaluation(seed, &ids, job.batch_size)
            };
            let pixels = clean.images.narrow(0, start, length)?.contiguous()?;
            let labels = clean.labels.narrow(0, start, length)?.contiguous()?;
            let result = attack.run(model.classifier(), &pixels, &labels, &context)?;
            parts.push(result.images);
            outcomes.extend(result.outcomes);
        }
        job.report(attack.name(), count, count, "");
        let pixels = Tensor::cat(&parts, 0)?.flatten_all()?.to_vec1::<f32>()?;
        Ok((pixels, [count, height, width, channels], outcomes))
    })?;
    Ok((PyArray1::from_vec(py, pixels).reshape(shape)?, json(&outcomes)?))
}

/// Each attack with its default parameters, as JSON.
#[pyfunction]
pub fn attacks() -> PyResult<String> {
    let mut rows = Vec::new();
    for name in Attack::names() {
        let attack: Attack = name.parse().map_err(exception)?;
        let norms: Vec<String> = attack.norms().iter().map(ToString::to_string).collect();
        rows.push(
            json!({ "name": name, "norms": norms, "protocol": attack.protocol(), "parameters": attack }),
        );
    }
    json(&rows)
}

/// Records as JSON: clean accuracy, every corruption at every severity, and what they add up to.
#[pyfunction]
pub fn evaluate_corruptions(
    py: Python<'_>,
    model: &Model,
    images: &Images,
    config: &str,
    folder: Option<PathBuf>,
    batch_size: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let config: CorruptionsConfig = settings(config)?;
    let records = run(py, &[model], (batch_size, progress), |job| {
        let set = config.of(images.set.dataset.clone(), &images.set.name)?;
        let subject = model.subject(&set.data, None)?;
        corrupted::run(&subject, &set, job, folder.as_deref())
    })?;
    json(&records)
}
