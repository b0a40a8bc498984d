//! What is evaluated: a network and the images that it is judged by, loaded and checked in one place.

use std::sync::Arc;

use bandwise_kernels::Precision;
use candle_core::Device;
use serde_json::json;

use super::record::{Provenance, Record};
use crate::attack::FrozenModel;
use crate::corruption::{ChangedDataset, Shift};
use crate::data::{DataSpec, Dataset, Split};
use crate::method::{LoadedNetwork, ModelSource, Network};
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
    /// Only the first so many images are judged.
    pub limit: Option<usize>,
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
        let set = Self { dataset, name, split, limit };
        match set.count() {
            0 => Err(Error::config(format!("{}: there are no images to evaluate", set.name))),
            _ => Ok(set),
        }
    }

    /// The same images, changed first.
    pub fn shifted(self, shift: Shift, seed: u64) -> Self {
        let name = format!("{} {shift}", self.name);
        Self { dataset: Arc::new(ChangedDataset::shifted(self.dataset, shift, seed)), name, ..self }
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

/// A network, ready to be judged, and the images that judge it.
pub struct Subject {
    /// What it is called in plots; its architecture, unless something else is said.
    pub label: String,
    /// As loaded.
    pub network: Network,
    /// Frozen and folded, for predictions and gradients.
    pub classifier: FrozenModel,
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
        let mut loaded = source.load(&compute.device)?;
        check_channels(&loaded.network, data)?;
        let doubts = check_classes(&loaded.network, data, source.allow_mismatch)?;
        loaded.network.model.set_precision(compute.precision)?;
        let classifier = FrozenModel::folded(&loaded.network.model)?;
        let mut provenance = provenance(&loaded);
        provenance.subject = format!("{}; {}", provenance.subject, data.describe());
        provenance.data = data.name.clone();
        provenance.data_sha256 = data.dataset.fingerprint().to_string();
        provenance.split = data.split.to_string();
        provenance.device = compute.device_name.clone();
        provenance.precision = compute.precision.to_string();
        provenance.configuration["limit"] = data.limit.into();
        let LoadedNetwork { network, mut warnings, .. } = loaded;
        warnings.extend(doubts);
        let (data, device) = (data.clone(), compute.device.clone());
        let label = network.config.architecture.clone();
        Ok(Self { label, network, classifier, data, device, provenance, warnings })
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
        with_warnings(record.with_provenance(&self.provenance), &self.warnings)
    }
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
    let wanted = network.model.interface().channels;
    if there == wanted {
        return Ok(());
    }
    let remedy = if wanted == 1 { "; the data option gray=true makes one channel" } else { "" };
    Err(Error::model(format!(
        "the network takes images of {}, those of {} have {there}{remedy}",
        counted(wanted, "channel"),
        data.name
    )))
}

/// Compares the classes of a network and of images.
///
/// Names that are numbers say nothing beyond the label, and the count of such classes is often read from the largest
/// label: fewer are no contradiction.
fn check_classes(network: &Network, data: &TestSet, allow: bool) -> Result<Vec<String>> {
    let (ours, theirs) = (&network.class_names[..], data.dataset.class_names());
    let (known, there) = (network.model.interface().classes, theirs.len());
    let numbered =
        |names: &[String]| names.iter().enumerate().all(|(index, name)| *name == index.to_string());
    let comparable = !numbered(ours) && !numbered(theirs);
    if there > known {
        return Err(Error::model(format!(
            "the network knows {}, {} has {there} ({}); the data option map=FILE brings classes together, \
             classes=a|b|c chooses some",
            counted(known, "class"),
            data.name,
            few(theirs)
        )));
    }
    let moved = theirs.iter().enumerate().find_map(|(here, name)| {
        let mut places = ours.iter().enumerate().filter(|(_, other)| *other == name);
        let place = places.next().filter(|_| places.next().is_none())?.0;
        (place != here).then_some((name, here, place))
    });
    let doubt = if let Some((name, here, place)) = moved.filter(|_| comparable) {
        format!(
            "the classes are in another order than those the network was trained with: `{name}` is number {here} in {} \
             and number {place} for the network",
            data.name
        )
    } else if there < known && !numbered(theirs) && !(comparable && ours.starts_with(theirs)) {
        let names = if ours.is_empty() { String::new() } else { format!(" ({})", few(ours)) };
        format!("the network knows {known} classes{names}, {} has {there} ({})", data.name, few(theirs))
    } else {
        let other: Vec<_> = theirs.iter().zip(ours).filter(|(theirs, ours)| theirs != ours).collect();
        return Ok(match other.first() {
            Some((theirs, ours)) if comparable => vec![format!(
                "{} classes have another name in the data than for the network, for example `{theirs}` and `{ours}`",
                other.len()
            )],
            _ => Vec::new(),
        });
    };
    match allow {
        true => Ok(vec![doubt]),
        false => Err(Error::model(format!(
            "{doubt}; the data option map=FILE brings classes together (lines `own class, number of the network's \
             class`), --allow-mismatch takes labels as they are"
        ))),
    }
}

/// The first few names.
fn few(names: &[String]) -> String {
    let shown = names[..names.len().min(4)].join(", ");
    if names.len() > 4 { shown + ", …" } else { shown }
}

#[cfg(test)]
#[path = "subject_tests.rs"]
mod tests;
