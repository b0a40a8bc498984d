//! Checkpoints: everything a run needs to go on, one file per point in training.
//!
//! ```text
//! checkpoints/
//!   epoch-0004.safetensors            after four whole epochs
//!   epoch-0004-step-000120.safetensors  interrupted 120 updates into the fifth
//!   last.json, best-robust.json       which of them is which
//! ```
//!
//! A file holds the tensors of the model, the optimizer, the average and a carried perturbation under the
//! prefixes `model.`, `optimizer.`, `average.` and `perturbation.`, and the rest of the state as JSON in its header,
//! the recipe among it. It is an ordinary safetensors file: [`weights::read`] takes the model out of it, and its
//! metadata say what those of `model.safetensors` do.
//! Files appear under their names only when whole, so that a run killed at any moment keeps its
//! former checkpoint. A SHA-256 sum over tensors and state is stored with them: a file that a disk has damaged
//! is passed over, loudly, in favor of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::nn::weights::{self, CHECKPOINT_MARK, StateDict};
use crate::{Error, Result, files};

const EXTENSION: &str = "safetensors";
/// The entry of the metadata with the checksum of everything else.
const CHECKSUM: &str = "bandwise.checksum";
const PARTS: [&str; 4] = ["model", "optimizer", "average", "perturbation"];

/// Where in training a checkpoint was taken. Later points are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Point {
    /// Whole epochs done.
    pub epoch: u64,
    /// Updates made since, in the epoch that was interrupted; 0 at its end.
    pub step: u64,
}

impl Point {
    /// After this many whole epochs.
    pub fn after(epoch: u64) -> Self {
        Self { epoch, step: 0 }
    }

    fn file_name(self) -> String {
        match self {
            Self { epoch, step: 0 } => format!("epoch-{epoch:04}.{EXTENSION}"),
            Self { epoch, step } => format!("epoch-{epoch:04}-step-{step:06}.{EXTENSION}"),
        }
    }

    fn of_file_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.strip_prefix("epoch-")?;
        let (epoch, step) = stem.split_once("-step-").unwrap_or((stem, "0"));
        Some(Self { epoch: epoch.parse().ok()?, step: step.parse().ok()? })
    }
}

/// The state of a run at one point.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where in training it was taken.
    pub point: Point,
    /// Parameters and buffers.
    pub model: StateDict,
    /// State of the optimizer.
    pub optimizer: StateDict,
    /// State of the average of weights; empty where none is kept.
    pub average: StateDict,
    /// The carried perturbation of free adversarial training; empty in other training.
    pub perturbation: StateDict,
    /// Whatever else the run needs: architecture, best values so far, …
    pub metadata: Value,
    /// What a file of the network's weights says in its metadata; empty in checkpoints of versions that stored none.
    pub network: BTreeMap<String, String>,
    /// The recipe that it was made with, as TOML; `None` in checkpoints of versions that did not store it.
    pub recipe: Option<String>,
}

/// A checkpoint that could not be read and was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Pointer {
    file: String,
    #[serde(default)]
    details: Value,
}

#[derive(Serialize, Deserialize)]
struct Header {
    point: Point,
    metadata: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    /// SHA-256 of the recipe: tells at a glance whether two checkpoints belong together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipe_sha256: Option<String>,
}

/// The latest checkpoint that is whole.
#[derive(Debug)]
pub struct Latest {
    /// What it holds.
    pub snapshot: Snapshot,
    /// Whether it has a checksum; versions before 0.2 stored none.
    pub verified: bool,
    /// Later ones, which were damaged and passed over (tell the user).
    pub skipped: Vec<Skipped>,
}

/// The folder of a run's checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The folder at `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a point, whether it exists or not.
    pub fn path(&self, point: Point) -> PathBuf {
        self.folder.join(point.file_name())
    }

    /// Writes a checkpoint, atomically, and returns its file.
    ///
    /// # Errors
    /// The file cannot be written; checkpoints before it are untouched.
    pub fn save(&self, snapshot: &Snapshot) -> Result<PathBuf> {
        let Snapshot { model, optimizer, average, perturbation, .. } = snapshot;
        let parts = PARTS.iter().zip([model, optimizer, average, perturbation]);
        let tensors: StateDict = parts
            .flat_map(|(part, state)| {
                state.iter().map(move |(name, t)| (format!("{part}.{name}"), t.clone()))
            })
            .collect();
        let header = Header {
            point: snapshot.point,
            metadata: snapshot.metadata.clone(),
            recipe: snapshot.recipe.clone(),
            recipe_sha256: snapshot.recipe.as_ref().map(|text| files::sha256(text.as_bytes())),
        };
        let header = serde_json::to_string(&header).map_err(|e| Error::config(format!("checkpoint: {e}")))?;
        let path = self.path(snapshot.point);
        let checksum = weights::digest(&tensors, &state(&header, &snapshot.network)?)?;
        let mut metadata = snapshot.network.clone();
        metadata.extend([(CHECKPOINT_MARK.to_owned(), header), (CHECKSUM.to_owned(), checksum)]);
        weights::write_safetensors(&path, &tensors, &metadata)?;
        Ok(path)
    }

    /// The points of all checkpoints, earliest first.
    ///
    /// # Errors
    /// The folder exists but cannot be read.
    pub fn list(&self) -> Result<Vec<Point>> {
        let mut points: Vec<Point> =
            self.file_names()?.iter().filter_map(|name| Point::of_file_name(name)).collect();
        points.sort_unstable();
        Ok(points)
    }

    /// The latest checkpoint that is whole; `None` where there is no checkpoint at all.
    ///
    /// # Errors
    /// There are checkpoints, and every one is damaged.
    pub fn latest(&self) -> Result<Option<Latest>> {
        let mut skipped = Vec::new();
        for point in self.list()?.into_iter().rev() {
            let path = self.path(point);
            match read_verified(&path) {
                Ok((snapshot, verified)) => return Ok(Some(Latest { snapshot, verified, skipped })),
                Err(error) => {
                    tracing::warn!("damaged checkpoint passed over: {error}");
                    skipped.push(Skipped { path, reason: error.to_string() });
                }
            }
        }
        match skipped.first() {
            None => Ok(None),
            Some(first) => Err(Error::format(
                &self.folder,
                format!(
                    "none of the {} checkpoints can be read; the latest: {}",
                    skipped.len(),
                    first.reason
                ),
            )),
        }
    }

    /// Makes `name` (`last`, `best-robust`, …) mean the checkpoint at `point`; `details` say why,
    /// such as the accuracy it had.
    ///
    /// # Errors
    /// The pointer cannot be written.
    pub fn point(&self, name: &str, point: Point, details: Value) -> Result<()> {
        let pointer = Pointer { file: point.file_name(), details };
        let text =
            serde_json::to_string_pretty(&pointer).map_err(|e| Error::config(format!("checkpoint: {e}")))?;
        files::write_atomic(&self.folder.join(format!("{name}.json")), text.as_bytes())
    }

    /// The file that `name` means and the details given with it; `None` where the name means nothing.
    ///
    /// # Errors
    /// The pointer is damaged or its checkpoint is gone.
    pub fn pointed(&self, name: &str) -> Result<Option<(PathBuf, Value)>> {
        let path = self.folder.join(format!("{name}.json"));
        if !path.exists() {
            return Ok(None);
        }
        let pointer: Pointer = serde_json::from_slice(&files::read(&path)?)
            .map_err(|e| Error::format(&path, format!("expected the name of a checkpoint: {e}")))?;
        let inside = Point::of_file_name(&pointer.file).map(|point| self.path(point));
        match inside.filter(|target| target.exists()) {
            Some(target) => Ok(Some((target, pointer.details))),
            None => Err(Error::format(&path, format!("its checkpoint {:?} does not exist", pointer.file))),
        }
    }

    /// Removes all checkpoints but the `keep` latest and those that a name means, and what
    /// interrupted writes have left behind. Returns what was removed.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn prune(&self, keep: usize) -> Result<Vec<PathBuf>> {
        let names = self.file_names()?;
        let mut kept = BTreeSet::new();
        for name in names.iter().filter_map(|name| name.strip_suffix(".json")) {
            // A damaged pointer must not cost the checkpoint it may have meant: then nothing goes.
            let Ok(target) = self.pointed(name) else { return Ok(vec![]) };
            kept.extend(target.map(|(path, _)| path));
        }
        kept.extend(self.list()?.into_iter().rev().take(keep.max(1)).map(|point| self.path(point)));
        let unwanted = |name: &String| {
            let path = self.folder.join(name);
            // What killed processes of earlier versions have left.
            let unfinished = name.starts_with(".tmp");
            (unfinished || (Point::of_file_name(name).is_some() && !kept.contains(&path))).then_some(path)
        };
        files::remove_leftovers(&self.folder)?;
        let removed: Vec<PathBuf> = names.iter().filter_map(unwanted).collect();
        for path in &removed {
            std::fs::remove_file(path).map_err(|e| Error::io(path, e))?;
        }
        Ok(removed)
    }

    fn file_names(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(e) => return Err(Error::io(&self.folder, e)),
        };
        entries
            .map(|entry| {
                Ok(entry.map_err(|e| Error::io(&self.folder, e))?.file_name().to_string_lossy().into_owned())
            })
            .collect()
    }
}

/// Reads one checkpoint and compares it with its checksum.
///
/// # Errors
/// The file is damaged or no checkpoint.
pub fn read(path: &Path) -> Result<Snapshot> {
    read_verified(path).map(|(snapshot, _)| snapshot)
}

/// A checkpoint, and whether it has a checksum.
fn read_verified(path: &Path) -> Result<(Snapshot, bool)> {
    let mut file = weights::read_all(path)?;
    let header = &file.metadata.remove(CHECKPOINT_MARK).ok_or_else(|| {
        Error::format(path, "expected a checkpoint of a training run; this file holds weights only")
    })?;
    let checksum = file.metadata.remove(CHECKSUM);
    let network = file.metadata;
    if let Some(expected) = &checksum
        && *expected != weights::digest(&file.tensors, &state(header, &network)?)?
    {
        return Err(Error::format(
            path,
            "this checkpoint is damaged: its content does not have the checksum it was written with",
        ));
    }
    let Header { point, metadata, recipe, recipe_sha256 } = serde_json::from_str(header)
        .map_err(|e| Error::format(path, format!("the header of this checkpoint is damaged: {e}")))?;
    // Versions that wrote recipes wrote checksums: one without has lost it.
    if recipe_sha256.is_some() && checksum.is_none() {
        return Err(Error::format(path, "this checkpoint is damaged: its checksum is gone"));
    }
    let verified = checksum.is_some();
    let mut parts = PARTS.map(|_| StateDict::new());
    for (name, tensor) in file.tensors {
        let (index, rest) = split(&name).ok_or_else(|| {
            Error::format(path, format!("{name:?} is no part of a checkpoint of this version"))
        })?;
        parts[index].insert(rest.to_owned(), tensor);
    }
    let [model, optimizer, average, perturbation] = parts;
    Ok((Snapshot { point, model, optimizer, average, perturbation, metadata, network, recipe }, verified))
}

/// What the checksum covers beside the tensors: the header and, where there is any, what is said of the network.
fn state(header: &str, network: &BTreeMap<String, String>) -> Result<String> {
    if network.is_empty() {
        return Ok(header.to_owned());
    }
    serde_json::to_string(&(header, network)).map_err(|e| Error::config(format!("checkpoint: {e}")))
}

/// Which part a tensor belongs to, and its name there.
fn split(name: &str) -> Option<(usize, &str)> {
    PARTS.iter().enumerate().find_map(|(i, part)| Some((i, name.strip_prefix(part)?.strip_prefix('.')?)))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use serde_json::json;

    use super::*;

    fn state(name: &str, value: f32) -> StateDict {
        StateDict::from([(name.to_owned(), Tensor::new(&[value; 100], &Device::Cpu).unwrap())])
    }

    fn snapshot(point: Point) -> Snapshot {
        Snapshot {
            point,
            model: state("conv1.weight", point.epoch as f32),
            optimizer: state("momentum/conv1.weight", 0.5),
            average: StateDict::new(),
            perturbation: StateDict::new(),
            metadata: json!({ "best": 0.25, "architecture": "resnet20" }),
            network: BTreeMap::from([("bandwise.network".into(), "{\"architecture\":\"resnet20\"}".into())]),
            recipe: Some("name = \"test\"\n".into()),
        }
    }

    fn first(state: &StateDict, name: &str) -> f32 {
        state[name].to_vec1::<f32>().unwrap()[0]
    }

    fn folder() -> (tempfile::TempDir, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path().join("checkpoints"));
        (folder, checkpoints)
    }

    #[test]
    fn the_latest_point_comes_back_whole() {
        let (_guard, checkpoints) = folder();
        assert!(checkpoints.latest().unwrap().is_none());
        let interrupted = Point { epoch: 9, step: 12 };
        for point in [Point::after(10), interrupted, Point::after(9), Point { epoch: 9, step: 3 }] {
            checkpoints.save(&snapshot(point)).unwrap();
        }
        assert_eq!(
            checkpoints.list().unwrap(),
            [Point::after(9), Point { epoch: 9, step: 3 }, interrupted, Point::after(10)]
        );
        let Latest { snapshot: latest, verified, skipped } = checkpoints.latest().unwrap().unwrap();
        assert_eq!((latest.point, skipped.len(), verified), (Point::after(10), 0, true));
        assert_eq!(latest.recipe.as_deref(), Some("name = \"test\"\n"));
        assert_eq!(first(&latest.model, "conv1.weight"), 10.0);
        assert_eq!(first(&latest.optimizer, "momentum/conv1.weight"), 0.5);
        assert!(latest.average.is_empty());
        assert_eq!(latest.metadata, json!({ "best": 0.25, "architecture": "resnet20" }));
    }

    #[test]
    fn damaged_checkpoints_are_survived() {
        let (_folder, checkpoints) = folder();
        let path = checkpoints.save(&snapshot(Point::after(1))).unwrap();
        let whole = std::fs::read(&path).unwrap();
        crate::fuzz::survive("checkpoints", &[whole], |bytes| {
            std::fs::write(&path, bytes).unwrap();
            drop(read(&path));
        });
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_and_said() {
        let (_guard, checkpoints) = folder();
        checkpoints.save(&snapshot(Point::after(1))).unwrap();
        let damaged = checkpoints.save(&snapshot(Point::after(2))).unwrap();
        let bytes = std::fs::read(&damaged).unwrap();
        for length in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&damaged, &bytes[..length]).unwrap();
            let Latest { snapshot: latest, skipped, .. } = checkpoints.latest().unwrap().unwrap();
            assert_eq!((latest.point, skipped.len()), (Point::after(1), 1), "cut at {length}");
            assert!(skipped[0].reason.contains("epoch-0002.safetensors"), "{}", skipped[0].reason);
        }
        std::fs::write(checkpoints.path(Point::after(1)), b"").unwrap();
        assert!(checkpoints.latest().unwrap_err().to_string().contains("none of the 2 checkpoints"));
    }

    /// Every byte counts: numbers, names and state.
    #[test]
    fn a_flipped_bit_is_found() {
        let (_guard, checkpoints) = folder();
        checkpoints.save(&snapshot(Point::after(1))).unwrap();
        let damaged = checkpoints.save(&snapshot(Point::after(2))).unwrap();
        let bytes = std::fs::read(&damaged).unwrap();
        // All of the header and the tensors; only padding blanks may change unseen.
        for at in (8..bytes.len()).step_by(3) {
            let mut copy = bytes.clone();
            copy[at] ^= 4;
            std::fs::write(&damaged, &copy).unwrap();
            let latest = checkpoints.latest().unwrap().unwrap();
            let padding = bytes[at] == b' ';
            assert!(padding || latest.snapshot.point == Point::after(1), "byte {at} of {}", bytes.len());
        }
    }

    /// Checkpoints of earlier versions have neither checksum nor recipe: they are read, and it is said.
    #[test]
    fn a_checkpoint_without_a_checksum_is_not_called_verified() {
        let (_guard, checkpoints) = folder();
        let path = checkpoints.path(Point::after(1));
        let tensors = state("model.conv1.weight", 1.0);
        let write = |header: &str| {
            let metadata = BTreeMap::from([(CHECKPOINT_MARK.to_owned(), header.to_owned())]);
            weights::write_safetensors(&path, &tensors, &metadata).unwrap();
        };
        write(r#"{"point":{"epoch":1,"step":0},"metadata":null}"#);
        let latest = checkpoints.latest().unwrap().unwrap();
        assert!(!latest.verified && latest.snapshot.recipe.is_none());
        write(r#"{"point":{"epoch":1,"step":0},"metadata":null,"recipe":"","recipe_sha256":"00"}"#);
        assert!(checkpoints.latest().unwrap_err().to_string().contains("its checksum is gone"));
    }

    #[test]
    fn pruning_keeps_the_latest_and_the_named() {
        let (_guard, checkpoints) = folder();
        for epoch in 1..=5 {
            checkpoints.save(&snapshot(Point::after(epoch))).unwrap();
        }
        checkpoints.point("best-robust", Point::after(2), json!({ "accuracy": 0.5 })).unwrap();
        checkpoints.point("last", Point::after(5), Value::Null).unwrap();
        std::fs::write(checkpoints.folder().join(".tmpAbCdEf"), b"half a file").unwrap();
        assert_eq!(checkpoints.prune(2).unwrap().len(), 3);
        let left = checkpoints.list().unwrap();
        assert_eq!(left, [2, 4, 5].map(Point::after));
        let (path, details) = checkpoints.pointed("best-robust").unwrap().unwrap();
        assert_eq!((read(&path).unwrap().point, details), (Point::after(2), json!({ "accuracy": 0.5 })));
        assert!(checkpoints.pointed("best-clean").unwrap().is_none());
        std::fs::remove_file(path).unwrap();
        assert!(checkpoints.pointed("best-robust").unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn weights_are_read_from_a_checkpoint_and_plain_weights_are_no_checkpoint() {
        let (_guard, checkpoints) = folder();
        let path = checkpoints.save(&snapshot(Point::after(3))).unwrap();
        let file = weights::read(&path).unwrap();
        assert_eq!(file.entry, "model");
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["conv1.weight"]);
        let momenta = weights::read_entry(&path, "optimizer").unwrap();
        assert_eq!(momenta.tensors.keys().collect::<Vec<_>>(), ["momentum/conv1.weight"]);

        let plain = checkpoints.folder().join("plain.safetensors");
        weights::write_safetensors(&plain, &state("w", 1.0), &BTreeMap::new()).unwrap();
        assert!(read(&plain).unwrap_err().to_string().contains("holds weights only"));
    }
}
