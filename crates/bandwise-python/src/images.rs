//! Labeled images in memory, and their corruptions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bandwise::corruption::{
    ByteImage, Corruption, CorruptionConfig, Corruptor, FrostTextures, Protocol, Severity,
};
use bandwise::data::array::{ArrayDataset, Pixels};
use bandwise::data::{DataSpec, Split};
use bandwise::evaluate::subject::TestSet;
use numpy::{PyArray1, PyArray4, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray4};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::{Value, json};

use crate::models::copied;
use crate::work::{exception, run, settings};

/// Images with labels.
#[pyclass(frozen, module = "bandwise._bandwise")]
pub struct Images {
    pub set: TestSet,
}

#[pymethods]
impl Images {
    /// `pixels` `[n, height, width, channels]`, uint8 or float32 in [0, 1]; `labels` `[n]`.
    #[new]
    fn new(
        pixels: &Bound<'_, PyAny>,
        labels: PyReadonlyArray1<'_, u32>,
        classes: Vec<String>,
        name: String,
    ) -> PyResult<Self> {
        let (pixels, [_, height, width, channels]) = match pixels.extract::<PyReadonlyArray4<'_, u8>>() {
            Ok(bytes) => copied(&bytes).map(|(values, shape)| (Pixels::Bytes(values), shape))?,
            Err(_) => copied(&pixels.extract::<PyReadonlyArray4<'_, f32>>()?)
                .map(|(values, shape)| (Pixels::Floats(values), shape))?,
        };
        let labels = labels.as_slice()?.to_vec();
        let set =
            ArrayDataset::new(&*name, Path::new(&name), pixels, [height, width, channels], labels, classes)
                .and_then(|set| TestSet::of(Arc::new(set), name, Split::Test, None))
                .map_err(exception)?;
        Ok(Self { set })
    }

    /// Images that the library reads itself: `cifar10:DIR` and the like.
    #[staticmethod]
    fn open(py: Python<'_>, spec: &str, split: &str, limit: Option<usize>) -> PyResult<Self> {
        let spec: DataSpec = spec.parse().map_err(exception)?;
        let split: Split = settings(&Value::from(split).to_string())?;
        let set = py.detach(|| TestSet::open(&spec, split, limit)).map_err(exception)?;
        Ok(Self { set })
    }

    /// Pixels `[n, height, width, channels]` and labels `[n]`.
    #[allow(clippy::type_complexity)]
    fn arrays<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyArray4<f32>>, Bound<'py, PyArray1<u32>>)> {
        let (pixels, shape, labels) = py
            .detach(|| {
                let loaded = self.set.load(&bandwise::candle_core::Device::Cpu)?;
                let (count, height, width, channels) = loaded.images.dims4()?;
                let pixels = loaded.images.flatten_all()?.to_vec1::<f32>()?;
                Ok((pixels, [count, height, width, channels], loaded.label_values))
            })
            .map_err(exception)?;
        Ok((PyArray1::from_vec(py, pixels).reshape(shape)?, PyArray1::from_vec(py, labels)))
    }

    #[getter]
    fn sha256(&self) -> String {
        self.set.dataset.fingerprint().to_owned()
    }

    #[getter]
    fn classes(&self) -> Vec<String> {
        self.set.dataset.class_names().to_vec()
    }

    fn __len__(&self) -> usize {
        self.set.count()
    }
}

/// Corrupted images, uint8 `[n, height, width, channels]`; the first has index `first_index` in its data set.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn corrupt<'py>(
    py: Python<'py>,
    images: PyReadonlyArray4<'py, u8>,
    corruption: &str,
    severity: u8,
    protocol: Option<&str>,
    seed: u64,
    frost: Option<PathBuf>,
    first_index: u64,
) -> PyResult<Bound<'py, PyArray4<u8>>> {
    let (bytes, shape @ [_, height, width, channels]) = copied(&images)?;
    let corruption: Corruption = corruption.parse().map_err(exception)?;
    let severity = Severity::new(severity).map_err(exception)?;
    let protocol: Option<Protocol> = match protocol {
        None => None,
        Some(name) => Some(settings(&Value::from(name).to_string()).map_err(|_| {
            PyValueError::new_err(format!("`{name}` is no protocol; choose cifar, 64 or 224"))
        })?),
    };
    let protocol = protocol.unwrap_or(Protocol::for_size(height, width));
    let made = run(py, &[], (1, None), |_| {
        let corruptor = match &frost {
            Some(folder) => Corruptor::new(protocol, seed).with_frost(FrostTextures::from_folder(folder)?),
            None => Corruptor::new(protocol, seed),
        };
        let size = (height * width * channels).max(1);
        let pictures: Vec<ByteImage> =
            bytes.chunks(size).map(|bytes| ByteImage::new(height, width, channels, bytes.to_vec())).collect();
        let made = corruptor.apply_all(&pictures, corruption, severity, first_index)?;
        Ok(made.into_iter().flat_map(|picture| picture.bytes).collect::<Vec<u8>>())
    })?;
    PyArray1::from_vec(py, made).reshape(shape)
}

/// Each corruption with its family, what it does, and its groups, as JSON.
#[pyfunction]
pub fn corruptions() -> PyResult<String> {
    let main = CorruptionConfig { corruptions: vec!["main".into()], ..Default::default() };
    let main = main.list().map_err(exception)?;
    let row = |c: Corruption| {
        json!({ "name": c.name(), "family": c.family(), "summary": c.summary(),
                "group": if main.contains(&c) { "main" } else { "extra" } })
    };
    Ok(Value::from(Corruption::all().map(row).collect::<Vec<_>>()).to_string())
}
