//! What is evaluated: a network and the images that it is judged by, loaded and checked in one place.

use std::sync::Arc;

use bandwise_kernels::Precision;
use candle_core::{Device, DeviceLocation, Tensor};
use serde_json::json;

use super::fit::{self, Classes};
use super::record::{Provenance, Record};
use crate::attack::{Classifier, FrozenModel, NO_GRADIENTS};
use crate::corruption::{ChangedDataset, Shift};
use crate::data::{DataSpec, Dataset, Split, limits, load_all};
use crate::network::{LoadedNetwork, ModelSource, Network};
use crate::wording::counted;
use crate::{Error, Result};

/// The images of an evaluation; several networks may share them.
#[derive(Clone)]
pub struct TestSet {
    /// The images.
    pub dataset: Arc<dyn Dataset>,
    /// As named on the command line, for records.
    pub name: String,
    /// Which part of the data set it is.
    pub split: Split,
    /// Only the first N images are judged.
    pub limit: Option<usize>,
    /// How the images are changed before they are judged.
    pub shift: Option<Shift>,
}

impl TestSet {
    /// Opens a data set.
    ///
    /// # Errors
    /// If it cannot be read, or no image is left to judge.
    pub fn open(spec: &DataSpec, split: Split, limit: Option<usize>) -> Result<Self> {
        Self::of(spec.open(split)?, spec.to_string(), split, limit)
    }

    /// A data set that is open already, under the name that records give it.
    ///
    /// # Errors
    /// If no image is left to judge.
    pub fn of(dataset: Arc<dyn Dataset>, name: String, split: Split, limit: Option<usize>) -> Result<Self> {
        let set = Self { dataset, name, split, limit, shift: None };
        match set.count() {
            0 => Err(Error::config(format!("{}: there are no images to evaluate", set.name))),
            _ => Ok(set),
        }
    }

    /// Refuses batches of more than [`limits::MAX_BATCH_BYTES`].
    ///
    /// # Errors
    /// Also if the first image cannot be read.
    pub fn check_batch(&self, batch_size: usize) -> Result<()> {
        let (images, shape) = (batch_size.min(self.count()), self.dataset.first_shape()?);
        limits::check_batch(&format!("--batch-size on {}", self.name), images, shape, "choose a smaller one")
    }

    /// The same images, changed first.
    pub fn shifted(self, shift: Shift, seed: u64) -> Self {
        let name = format!("{} {shift}", self.name);
        Self {
            dataset: Arc::new(ChangedDataset::shifted(self.dataset, shift, seed)),
            name,
            shift: Some(shift),
            ..self
        }
    }

    /// How many images are judged.
    pub fn count(&self) -> usize {
        self.limit.unwrap_or(usize::MAX).min(self.dataset.len())
    }

    /// Their indices.
    pub fn indices(&self) -> Vec<usize> {
        (0..self.count()).collect()
    }

    /// Half a line: the data set, how many of its images are judged, its classes. No paths, so that it may stand in
    /// tables.
    pub fn describe(&self) -> String {
        let (count, all) = (self.count(), self.dataset.len());
        let images =
            if count < all { format!("the first {count} of {all} images") } else { counted(all, "image") };
        format!("{}: {images}, {}", self.dataset.name(), counted(self.dataset.num_classes(), "class"))
    }
}

/// The images of a test set in memory.
#[derive(Clone)]
pub struct TestImages {
    /// `[n, height, width, channels]`.
    pub images: Tensor,
    /// `[n]` u32, on the same device.
    pub labels: Tensor,
    /// The same on the host.
    pub label_values: Vec<u32>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

impl TestSet {
    /// All images that are judged, on a device.
    ///
    /// # Errors
    /// If they cannot be read or differ in size.
    pub fn load(&self, device: &Device) -> Result<TestImages> {
        let batch = load_all(self.dataset.as_ref(), self.limit)?;
        Ok(TestImages {
            label_values: batch.labels.to_vec1()?,
            images: batch.images.to_device(device)?,
            labels: batch.labels.to_device(device)?,
            classes: self.dataset.class_names().to_vec(),
        })
    }
}

impl TestImages {
    /// Some of the images, by their rows.
    ///
    /// # Errors
    /// If a row is not there.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let index: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let index = Tensor::from_vec(index, rows.len(), self.images.device())?;
        Ok(Self {
            images: self.images.index_select(&index, 0)?,
            labels: self.labels.index_select(&index, 0)?,
            label_values: rows.iter().map(|row| self.label_values[*row]).collect(),
            classes: self.classes.clone(),
        })
    }
}

/// Where a network computes, and in which arithmetic.
#[derive(Clone, Debug)]
pub struct Compute {
    /// Where its tensors live.
    pub device: Device,
    /// The device's name: `cpu`, `cuda:0`, `metal`.
    pub device_name: String,
    /// Arithmetic of convolutions.
    pub precision: Precision,
}

impl Default for Compute {
    /// Single precision on the CPU.
    fn default() -> Self {
        Self { device: Device::Cpu, device_name: "cpu".into(), precision: Precision::F32 }
    }
}

impl Compute {
    /// On a device, under its usual name.
    pub fn on(device: &Device, precision: Precision) -> Self {
        let device_name = match device.location() {
            DeviceLocation::Cpu => "cpu".into(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { .. } => "metal".into(),
        };
        Self { device: device.clone(), device_name, precision }
    }
}

/// A network, ready to be judged, and the images that judge it.
pub struct Subject {
    /// What it is called in plots; its architecture, unless something else is said.
    pub label: String,
    /// As loaded; a foreign model has none.
    pub network: Option<Network>,
    /// For predictions and gradients; a network of ours is frozen and folded.
    pub classifier: Arc<dyn Classifier>,
    /// The images.
    pub data: TestSet,
    /// Where the network computes.
    pub device: Device,
    /// For its records.
    pub provenance: Provenance,
    /// What makes all numbers of this network on these images doubtful.
    pub warnings: Vec<String>,
}

impl Subject {
    /// Loads a network and checks that it and the images belong together.
    ///
    /// # Errors
    /// If the weights do not fit ([`ModelSource::load`]), or if network and images have different channels or
    /// classes, or the same class names in another order. With [`ModelSource::allow_mismatch`], fewer or other classes
    /// are a warning.
    pub fn load(source: &ModelSource, data: &TestSet, compute: &Compute) -> Result<Self> {
        Self::of_network(source.load(&compute.device)?, source.allow_mismatch, data, compute)
    }

    /// A network that is loaded already, on the device of `compute`; otherwise as [`Subject::load`].
    ///
    /// # Errors
    /// If network and images do not belong together.
    pub fn of_network(
        mut loaded: LoadedNetwork,
        allow_mismatch: bool,
        data: &TestSet,
        compute: &Compute,
    ) -> Result<Self> {
        check_channels(&loaded.network, data)?;
        let known = loaded.network.model.shape().classes;
        let doubts = check_classes(known, &loaded.network.class_names, data, allow_mismatch)?;
        loaded.network.model.set_precision(compute.precision)?;
        let classifier = FrozenModel::folded(&loaded.network.model)?;
        let mut provenance = provenance(&loaded);
        judged_by(&mut provenance, data);
        provenance.device = compute.device_name.clone();
        provenance.precision = compute.precision.to_string();
        let algorithms = loaded.network.model.algorithms()?;
        let algorithms: Vec<&str> = algorithms.into_iter().map(|(algorithm, _)| algorithm.name()).collect();
        provenance.algorithm = algorithms.join(", ");
        let LoadedNetwork { network, mut warnings, .. } = loaded;
        warnings.extend(doubts);
        let (data, device) = (data.clone(), compute.device.clone());
        let label = network.config.architecture.clone();
        let (network, classifier) = (Some(network), Arc::new(classifier));
        Ok(Self { label, network, classifier, data, device, provenance, warnings })
    }

    /// A classifier that is no network of ours, under the identity that records and journals give it.
    ///
    /// # Errors
    /// If the images have more classes than it knows.
    pub fn foreign(classifier: Arc<dyn Classifier>, identity: &Identity, data: &TestSet) -> Result<Self> {
        let doubts = check_classes(classifier.num_classes(), &[], data, false)?;
        let short = &identity.sha256[..identity.sha256.len().min(12)];
        let mut provenance = Provenance {
            model: identity.name.clone(),
            weights_sha256: identity.sha256.clone(),
            subject: format!("{} ({}, {short})", identity.name, identity.kind),
            configuration: json!({ "model": {
                "architecture": identity.name,
                "classes": classifier.num_classes(),
                "kind": identity.kind,
            } }),
            device: identity.device.clone(),
            precision: identity.precision.clone(),
            ..Provenance::default()
        };
        judged_by(&mut provenance, data);
        let mut warnings = identity.warnings.clone();
        warnings.extend(doubts);
        let (label, data, device) = (identity.name.clone(), data.clone(), Device::Cpu);
        Ok(Self { label, network: None, classifier, data, device, provenance, warnings })
    }

    /// Refuses a classifier without gradients for an analysis that follows them.
    ///
    /// # Errors
    /// [`Error::Model`] that names the analysis.
    pub fn needs_gradients(&self, analysis: &str) -> Result<()> {
        match self.classifier.has_gradients() {
            true => Ok(()),
            false => Err(Error::model(format!("{analysis} needs gradients, but {NO_GRADIENTS}"))),
        }
    }

    /// One line: which network, with which normalization, on which images. The same stands in all records.
    pub fn describe(&self) -> &str {
        &self.provenance.subject
    }

    /// How many images are judged.
    pub fn count(&self) -> usize {
        self.data.count()
    }

    /// The record with what it was measured on, and the warnings that go with that.
    pub fn sign(&self, record: Record) -> Record {
        self.warn(record.with_provenance(&self.provenance))
    }

    /// The record with the warnings that go with this network and these images.
    pub fn warn(&self, record: Record) -> Record {
        with_warnings(record, &self.warnings)
    }
}

/// Who a foreign classifier is: what tells it from others in records, tables and journals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// What it is called; stands where the architecture of a network does.
    pub name: String,
    /// What it is: `torch.nn.Module`, `callable`.
    pub kind: String,
    /// SHA-256 of everything about it that can be hashed; empty if nothing can.
    pub sha256: String,
    /// Where it computes: `cpu`, `cuda:0`.
    pub device: String,
    /// Its number format: `f32`, `bf16`.
    pub precision: String,
    /// What makes its numbers doubtful.
    pub warnings: Vec<String>,
}

/// Says which images judge.
fn judged_by(provenance: &mut Provenance, data: &TestSet) {
    provenance.subject = format!("{}; {}", provenance.subject, data.describe());
    provenance.data = data.name.clone();
    provenance.data_sha256 = data.dataset.fingerprint().to_string();
    provenance.split = data.split.to_string();
    provenance.configuration["limit"] = data.limit.into();
}

/// What is known of a network without images.
pub fn provenance(loaded: &LoadedNetwork) -> Provenance {
    let mut configuration = json!({ "model": loaded.network.config });
    if !loaded.report.is_exact() {
        configuration["mismatch"] = loaded.report.mismatch().into();
    }
    Provenance {
        model: loaded.network.config.architecture.clone(),
        weights_sha256: loaded.sha256.clone(),
        subject: loaded.describe(),
        configuration,
        ..Provenance::default()
    }
}

/// The record with more warnings.
pub fn with_warnings(mut record: Record, warnings: &[String]) -> Record {
    record.warnings.extend(
        warnings.iter().filter(|warning| !record.warnings.contains(warning)).cloned().collect::<Vec<_>>(),
    );
    record
}

fn check_channels(network: &Network, data: &TestSet) -> Result<()> {
    let [_, _, there] = data.dataset.first_shape()?;
    fit::channels(network.model.shape().channels, there, &data.name).map_err(Error::model)
}

/// Compares the classes of a network and of images; returns what is remarkable.
fn check_classes(known: usize, names: &[String], data: &TestSet, allow: bool) -> Result<Vec<String>> {
    match fit::classes(known, names, data.dataset.as_ref(), &data.name) {
        Classes::Fit(remarks) => Ok(remarks),
        Classes::Doubtful(doubt) if allow => Ok(vec![doubt]),
        Classes::Doubtful(doubt) => Err(Error::model(format!(
            "{doubt}; the data option map=FILE brings classes together (lines `own class, number of the network's \
             class`), --allow-mismatch takes labels as they are"
        ))),
        Classes::TooMany(reason) => Err(Error::model(format!(
            "{reason}; the data option map=FILE brings classes together, classes=a|b|c chooses some"
        ))),
    }
}

#[cfg(test)]
#[path = "subject_tests.rs"]
mod tests;
