//! Models: networks of ours, and whatever Python has.

use std::path::PathBuf;
use std::sync::Arc;

use bandwise::attack::{Classifier, ForeignClassifier, ForeignImages, ForeignModel, FrozenModel, Pullback};
use bandwise::candle_core::{Device, Tensor};
use bandwise::evaluate::subject::{Compute, Identity, Subject, TestSet};
use bandwise::network::{LoadedNetwork, ModelSource};
use bandwise::nn::Normalization;
use bandwise::{Error, Result};
use numpy::{PyArray1, PyArray2, PyArray4, PyArrayMethods, PyReadonlyArray4, PyReadonlyArrayDyn};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use crate::work::{Failure, exception, run};

/// A model, ready to be judged on any images.
#[pyclass(frozen, module = "bandwise._bandwise")]
pub struct Model {
    kind: Kind,
    classifier: Arc<dyn Classifier>,
    pub failure: Failure,
}

enum Kind {
    Network { loaded: Box<LoadedNetwork>, allow_mismatch: bool },
    Foreign(Identity),
}

impl Model {
    /// The model on images.
    pub fn subject(&self, data: &TestSet, label: Option<&str>) -> Result<Subject> {
        let mut subject = match &self.kind {
            Kind::Network { loaded, allow_mismatch } => {
                Subject::of_network((**loaded).clone(), *allow_mismatch, data, &Compute::default())?
            }
            Kind::Foreign(identity) => Subject::foreign(self.classifier.clone(), identity, data)?,
        };
        if let Some(label) = label {
            subject.label = label.to_owned();
        }
        Ok(subject)
    }

    /// The model as attacks see it.
    pub fn classifier(&self) -> &dyn Classifier {
        &self.classifier
    }
}

#[pymethods]
impl Model {
    /// A network of ours out of a file.
    #[staticmethod]
    #[pyo3(signature = (weights, architecture, classes, channels, width, mean, std, allow_mismatch))]
    #[allow(clippy::too_many_arguments)]
    fn load(
        py: Python<'_>,
        weights: PathBuf,
        architecture: Option<String>,
        classes: Option<usize>,
        channels: Option<usize>,
        width: Option<usize>,
        mean: Option<Vec<f64>>,
        std: Option<Vec<f64>>,
        allow_mismatch: bool,
    ) -> PyResult<Self> {
        let normalization = match (mean, std) {
            (Some(mean), Some(std)) => Some(Normalization { mean, std }),
            (None, None) => None,
            _ => return Err(exception(Error::config("mean and std belong together: give both or none"))),
        };
        let source =
            ModelSource { weights, architecture, classes, channels, width, normalization, allow_mismatch };
        py.detach(|| {
            let loaded = Box::new(source.load(&Device::Cpu)?);
            let classifier = Arc::new(FrozenModel::folded(&loaded.network.model)?);
            Ok(Self {
                kind: Kind::Network { loaded, allow_mismatch },
                classifier,
                failure: Failure::default(),
            })
        })
        .map_err(exception)
    }

    /// A model of Python's: an object with `logits(images)` and, if it has gradients, `record(images)`, which gives
    /// logits and a function from a cotangent to a gradient. Images are `[batch, height, width, channels]`; all arrays
    /// are contiguous float32.
    #[staticmethod]
    #[allow(clippy::too_many_arguments)]
    fn foreign(
        object: Py<PyAny>,
        classes: usize,
        has_gradients: bool,
        name: String,
        kind: String,
        sha256: String,
        device: String,
        precision: String,
        warnings: Vec<String>,
    ) -> Self {
        let failure = Failure::default();
        let model = PythonModel { object, classes, has_gradients, failure: failure.clone() };
        Self {
            kind: Kind::Foreign(Identity { name, kind, sha256, device, precision, warnings }),
            classifier: Arc::new(ForeignClassifier::new(Arc::new(model))),
            failure,
        }
    }

    /// Logits `[n, classes]` of images `[n, height, width, channels]`.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        images: PyReadonlyArray4<'py, f32>,
        batch_size: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (pixels, [count, height, width, channels]) = copied(&images)?;
        let rows = run(py, &[self], (batch_size, None), |job| {
            let images = Tensor::from_vec(pixels, (count, height, width, channels), &Device::Cpu)?;
            let mut rows: Vec<Vec<f32>> = Vec::with_capacity(count);
            for start in (0..count).step_by(job.batch_size) {
                let part = images.narrow(0, start, job.batch_size.min(count - start))?;
                rows.extend(self.classifier.logits_no_graph(&part)?.to_vec2::<f32>()?);
            }
            Ok(rows)
        })?;
        Ok(PyArray2::from_vec2(py, &rows)?)
    }

    #[getter]
    fn num_classes(&self) -> usize {
        self.classifier.num_classes()
    }

    #[getter]
    fn has_gradients(&self) -> bool {
        self.classifier.has_gradients()
    }

    #[getter]
    fn name(&self) -> String {
        match &self.kind {
            Kind::Network { loaded, .. } => loaded.network.config.architecture.clone(),
            Kind::Foreign(identity) => identity.name.clone(),
        }
    }

    #[getter]
    fn sha256(&self) -> String {
        match &self.kind {
            Kind::Network { loaded, .. } => loaded.sha256.clone(),
            Kind::Foreign(identity) => identity.sha256.clone(),
        }
    }

    #[getter]
    fn description(&self) -> String {
        match &self.kind {
            Kind::Network { loaded, .. } => loaded.describe(),
            Kind::Foreign(identity) => format!("{} ({})", identity.name, identity.kind),
        }
    }

    #[getter]
    fn warnings(&self) -> Vec<String> {
        match &self.kind {
            Kind::Network { loaded, .. } => loaded.warnings.clone(),
            Kind::Foreign(identity) => identity.warnings.clone(),
        }
    }
}

/// The values of an array, and its shape.
pub fn copied<T: numpy::Element + Copy>(array: &PyReadonlyArray4<'_, T>) -> PyResult<(Vec<T>, [usize; 4])> {
    let shape = array.as_array().dim();
    Ok((array.as_slice()?.to_vec(), [shape.0, shape.1, shape.2, shape.3]))
}

/// A model of Python's.
struct PythonModel {
    object: Py<PyAny>,
    classes: usize,
    has_gradients: bool,
    failure: Failure,
}

/// Calls Python; what it raises is kept, and told to the library in words.
fn ask<T>(failure: &Failure, call: impl FnOnce(Python<'_>) -> PyResult<T>) -> Result<T> {
    Python::attach(|py| {
        py.check_signals().and_then(|()| call(py)).map_err(|error| {
            let stopped = error.is_instance_of::<PyKeyboardInterrupt>(py);
            let text = error.to_string();
            failure.keep(error);
            match stopped {
                true => Error::Interrupted("the model was stopped".into()),
                false => Error::model(format!("the model raised {text}")),
            }
        })
    })
}

fn array<'py>(py: Python<'py>, images: &ForeignImages) -> PyResult<Bound<'py, PyArray4<f32>>> {
    PyArray1::from_slice(py, images.pixels).reshape(images.shape)
}

fn values(object: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
    let array: PyReadonlyArrayDyn<'_, f32> = object.extract()?;
    Ok(array.as_slice()?.to_vec())
}

impl ForeignModel for PythonModel {
    fn num_classes(&self) -> usize {
        self.classes
    }

    fn logits(&self, images: &ForeignImages) -> Result<Vec<f32>> {
        ask(&self.failure, |py| values(&self.object.bind(py).call_method1("logits", (array(py, images)?,))?))
    }

    fn has_gradients(&self) -> bool {
        self.has_gradients
    }

    fn record(&self, images: &ForeignImages) -> Result<(Vec<f32>, Box<dyn Pullback>)> {
        ask(&self.failure, |py| {
            let answer = self.object.bind(py).call_method1("record", (array(py, images)?,))?;
            let (logits, pullback): (Bound<'_, PyAny>, Py<PyAny>) = answer.extract()?;
            let shape = [images.shape[0], self.classes];
            let graph = Graph { pullback: Some(pullback), shape, failure: self.failure.clone() };
            Ok((values(&logits)?, Box::new(graph) as Box<dyn Pullback>))
        })
    }
}

/// The graph of a pass, kept in Python.
struct Graph {
    pullback: Option<Py<PyAny>>,
    shape: [usize; 2],
    failure: Failure,
}

impl Pullback for Graph {
    fn pull_back(&self, cotangent: &[f32]) -> Result<Vec<f32>> {
        ask(&self.failure, |py| {
            let Some(pullback) = &self.pullback else { return Ok(Vec::new()) };
            let cotangent = PyArray1::from_slice(py, cotangent).reshape(self.shape)?;
            values(&pullback.bind(py).call1((cotangent,))?)
        })
    }
}

impl Drop for Graph {
    /// At once: a graph holds the activations of a whole batch.
    fn drop(&mut self) {
        let pullback = self.pullback.take();
        Python::attach(|_| drop(pullback));
    }
}
