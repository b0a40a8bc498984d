//! Weights in and out: safetensors (ours) and PyTorch checkpoints, read without executing anything.
//!
//! Names and layouts are PyTorch's on both sides, so nothing is transposed here. What users of
//! PyTorch meet in practice is handled in one place:
//! * the three containers, told apart by content and not by file name: safetensors, the zip format
//!   of PyTorch 1.6 and later, and the older sequence of pickles (`.th` files);
//! * the dictionary around the state dict (`state_dict`, `model`, `net`, …) and the prefixes that
//!   wrappers leave in its keys (`module.`, `attacker.model.`, `1.` of a `Sequential`): [`read`] and
//!   [`match_keys`];
//! * weights that do not fit: a [`LoadReport`] of what is missing, unexpected or mis-shaped. What may be left over
//!   without harm stands in one table, [`HARMLESS`].

mod element;
mod leftovers;
mod matching;
mod rebuild;
mod report;
mod safetensors;
#[cfg(test)]
mod tests;
mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Shape, Tensor};

use super::Model;
use crate::{Error, Result, files};

pub use leftovers::HARMLESS;
pub use matching::{Matched, match_keys};
pub(crate) use matching::{Names, compare, locate};
pub use report::{FoundNormalization, LoadReport, Misshaped};
pub use safetensors::{digest, safetensors_bytes, write_safetensors};

/// The entry of a safetensors file's metadata that marks a checkpoint of a training run: its tensors
/// are in parts (`model.`, `optimizer.`, `average.`), of which weights are read from the first.
pub const CHECKPOINT_MARK: &str = "bandwise.checkpoint";

/// The part of a checkpoint with the average of the weights.
pub(crate) const AVERAGE_PART: &str = "average";
/// Name of the count among the tensors of that part, which is no weight.
pub(crate) const AVERAGE_COUNT: &str = "count";

/// The file of weights in a run folder.
pub const MODEL_FILE: &str = "model.safetensors";

/// A file with more tensors than this is refused: networks have hundreds.
const MAX_TENSORS: usize = 50_000;

/// Parameters and buffers by name.
pub type StateDict = BTreeMap<String, Tensor>;

/// Which container a file of weights is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// A safetensors file.
    Safetensors,
    /// PyTorch 1.6 and later: a zip archive with a pickle and one file per storage.
    TorchZip,
    /// PyTorch before 1.6: pickles one after another, then the storages.
    TorchLegacy,
}

impl std::fmt::Display for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "PyTorch (zip)",
            Self::TorchLegacy => "PyTorch (before 1.6)",
        })
    }
}

/// What a file of weights holds.
#[derive(Debug)]
pub struct StateFile {
    /// The file.
    pub path: PathBuf,
    /// Its container.
    pub container: Container,
    /// The entry of the checkpoint that held the state dict, such as `state_dict`; empty where the
    /// file is the state dict itself.
    pub entry: String,
    /// Other entries of the checkpoint that hold the same names, such as `ema_state_dict`.
    pub others: Vec<String>,
    /// The tensors, on the CPU, in the number type of the file (`bool` as `u8`).
    pub tensors: StateDict,
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// safetensors: the header's metadata. PyTorch: plain numbers and texts that lay beside the
    /// state dict, such as `epoch`.
    pub metadata: BTreeMap<String, String>,
}

impl StateFile {
    /// [`match_keys`] with the file named in errors.
    ///
    /// # Errors
    /// No name fits, or a weight is not a finite number.
    pub fn match_keys(&self, expected: &[(String, Shape)]) -> Result<Matched> {
        match_keys(expected, &self.tensors).map_err(|error| match error {
            Error::Model(reason) => Error::format(&self.path, reason),
            other => other,
        })
    }
}

/// The file of weights that a path means: a run folder stands for the `model.safetensors` in it.
///
/// # Errors
/// For a folder without such a file.
pub fn locate_file(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let file = path.join(MODEL_FILE);
    match file.is_file() {
        true => Ok(file),
        false => Err(Error::format(path, format!("a folder without `{MODEL_FILE}`; name a file of weights"))),
    }
}

/// Reads the weights that a path means: a file, a run folder, or `FILE#ENTRY` for one of several state dicts in a file.
///
/// # Errors
/// As [`locate_file`] and [`read_entry`].
pub fn open(path: &Path) -> Result<StateFile> {
    let text = path.to_string_lossy();
    match text.rsplit_once('#') {
        Some((file, entry)) if !path.exists() && !entry.is_empty() => {
            read_entry(&locate_file(Path::new(file))?, entry)
        }
        _ => read(&locate_file(path)?),
    }
}

/// Reads a file of weights, whichever its container.
///
/// # Errors
/// The file cannot be read, is of another kind or damaged, or holds something else than a state dict.
pub fn read(path: &Path) -> Result<StateFile> {
    read_bytes(path, &files::read(path)?, None)
}

/// Like [`read`], for a checkpoint that holds several state dicts: takes the one called `entry`
/// (a path like `ema.state_dict` where they are nested).
///
/// # Errors
/// As [`read`], and when there is no such entry.
pub fn read_entry(path: &Path, entry: &str) -> Result<StateFile> {
    read_bytes(path, &files::read(path)?, Some(entry))
}

/// Reads all tensors of a safetensors file under their full names.
///
/// # Errors
/// The file cannot be read or is no safetensors file.
pub fn read_all(path: &Path) -> Result<StateFile> {
    let mut file =
        safetensors::read_all(&files::read(path)?).map_err(|reason| Error::format(path, reason))?;
    file.path = path.to_path_buf();
    Ok(file)
}

/// Reads a file of weights into a model, all or nothing.
///
/// # Errors
/// As [`read`], and when a tensor of the model is missing, of another shape or holds no finite number.
pub fn load(model: &Model, path: &Path) -> Result<LoadReport> {
    let matched = read(path)?.match_keys(&shapes(model))?;
    let report = matched.report.clone();
    let tensors = matched.complete().map_err(|error| Error::format(path, error.to_string()))?;
    for parameter in model.parameters() {
        if let Some(value) = tensors.get(parameter.name()) {
            parameter.set(value)?;
        }
    }
    Ok(report)
}

/// Names and shapes of a model's parameters and buffers, as [`match_keys`] wants them.
pub fn shapes(model: &Model) -> Vec<(String, Shape)> {
    model.parameters().iter().map(|p| (p.name().to_owned(), p.var().shape().clone())).collect()
}

fn read_bytes(path: &Path, bytes: &[u8], entry: Option<&str>) -> Result<StateFile> {
    let result = match recognize(bytes) {
        Ok(Container::Safetensors) => safetensors::read(bytes, entry),
        Ok(Container::TorchZip) => torch::read_zip(bytes, entry),
        Ok(Container::TorchLegacy) => torch::read_legacy(bytes, entry),
        Err(reason) => Err(reason),
    };
    let mut file = result.map_err(|reason| Error::format(path, reason))?;
    file.path = path.to_path_buf();
    file.sha256 = files::sha256(bytes);
    Ok(file)
}

/// Refuses numbers of tensors that no network has.
fn check_count(count: usize) -> Result<(), String> {
    match count > MAX_TENSORS {
        true => Err(format!("{count} tensors are no network's; at most {MAX_TENSORS} are read")),
        false => Ok(()),
    }
}

/// Tells the container from the first bytes, or says what the file seems to be instead.
fn recognize(bytes: &[u8]) -> Result<Container, String> {
    const EXPECTED: &str = "expected weights: a safetensors file or a PyTorch checkpoint (.pt, .pth, .th)";
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).trim_start().to_lowercase();
    let seems = if bytes.is_empty() {
        "the file is empty"
    } else if starts(b"PK\x03\x04") {
        return Ok(Container::TorchZip);
    } else if bytes.get(8) == Some(&b'{') && bytes[6..8] == [0, 0] {
        return Ok(Container::Safetensors);
    } else if torch::is_legacy(bytes) {
        return Ok(Container::TorchLegacy);
    } else if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") {
        "this is a web page: the download went wrong, fetch the file again"
    } else if text.starts_with("version https://git-lfs") {
        "this is a Git LFS pointer: fetch the file itself with `git lfs pull`"
    } else if starts(b"\x80") {
        "this is a Python pickle, but not one that torch.save wrote"
    } else if starts(b"\x1f\x8b") {
        "this is gzipped: unpack it first"
    } else if bytes.get(257..262) == Some(b"ustar") {
        "this is a tar archive: unpack it first (a PyTorch checkpoint of before 2017 must be saved anew)"
    } else if starts(b"\x89HDF") {
        "this is an HDF5 file, as Keras writes them"
    } else {
        "the first bytes belong to neither"
    };
    Err(format!("{EXPECTED}; {seems}"))
}
