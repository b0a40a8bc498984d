//! The safetensors container.
//!
//! Reading is the `safetensors` crate's. Writing is ours: the crate takes the metadata as a
//! `HashMap` and so writes a header whose bytes differ from run to run, while equal weights should
//! make equal files (results name them by hash).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::element::{Element, bytes_of};
use super::{AVERAGE_COUNT, AVERAGE_PART, CHECKPOINT_MARK, Container, StateDict, StateFile, check_count};
use crate::{Result, files};

/// Reads a safetensors file: one part of it (names that begin with `entry.`), by default the model
/// of a training checkpoint and everything of any other file.
pub(super) fn read(bytes: &[u8], entry: Option<&str>) -> Result<StateFile, String> {
    let mut file = read_all(bytes)?;
    let is_checkpoint = file.metadata.contains_key(CHECKPOINT_MARK);
    if let Some(taken) = entry.or(is_checkpoint.then_some("model")) {
        let prefix = format!("{taken}.");
        let average = format!("{AVERAGE_PART}.");
        // The count alone is no average yet.
        let is_averaged =
            |name: &String| name.starts_with(&average) && name[average.len()..] != *AVERAGE_COUNT;
        if is_checkpoint && entry.is_none() && file.tensors.keys().any(is_averaged) {
            file.others.push(AVERAGE_PART.to_owned());
        }
        let part = |(name, tensor): (String, Tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor));
        file.tensors = file.tensors.into_iter().filter_map(part).collect();
        if is_checkpoint && taken == AVERAGE_PART {
            file.tensors.remove(AVERAGE_COUNT);
        }
        file.entry = taken.to_owned();
        if file.tensors.is_empty() {
            return Err(format!("no tensor of this file begins with {prefix:?}"));
        }
    }
    Ok(file)
}

/// Reads all tensors of a safetensors file.
pub(super) fn read_all(bytes: &[u8]) -> Result<StateFile, String> {
    let damaged = |e| {
        format!("not a whole safetensors file ({e}); expected header and tensors as its header announces")
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    check_count(header.tensors().len())?;
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut tensors = StateDict::new();
    for (name, view) in file.iter() {
        let element = Element::of_safetensors(view.dtype())
            .ok_or_else(|| format!("tensor {name:?} is of type {:?}, which is not read", view.dtype()))?;
        let tensor =
            element.tensor(view.data(), view.shape()).map_err(|e| format!("tensor {name:?}: {e}"))?;
        tensors.insert(name.to_owned(), tensor);
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(StateFile {
        path: PathBuf::new(),
        container: Container::Safetensors,
        entry: String::new(),
        others: Vec::new(),
        tensors,
        metadata,
        sha256: String::new(),
    })
}

/// Writes tensors and metadata to a safetensors file, atomically. Equal content makes equal bytes.
///
/// # Errors
/// The file cannot be written, or a tensor has a type that safetensors has not.
pub fn write_safetensors(
    path: &Path,
    tensors: &StateDict,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    files::write_atomic(path, &safetensors_bytes(tensors, metadata)?)
}

/// The bytes of a safetensors file with these tensors and metadata.
///
/// # Errors
/// A tensor has a type that safetensors has not.
pub fn safetensors_bytes(tensors: &StateDict, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    // Wide numbers first, as the crate does: every tensor is then aligned to its own type.
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size_in_bytes()));

    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), json!(metadata));
    }
    let mut data = Vec::new();
    for (name, tensor) in order {
        let begin = data.len();
        let (dtype, bytes) = bytes_of(tensor)?;
        data.extend(bytes);
        let entry = json!({ "dtype": dtype, "shape": tensor.dims(), "data_offsets": [begin, data.len()] });
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = Vec::with_capacity(8 + header.len() + data.len());
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    file.extend(data);
    Ok(file)
}

/// SHA-256 over the names, types, shapes and numbers of tensors, and over `text`, as hexadecimal digits.
///
/// # Errors
/// A tensor has a type that safetensors has not.
pub fn digest(tensors: &StateDict, text: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for (name, tensor) in tensors {
        let (dtype, bytes) = bytes_of(tensor)?;
        // Lengths first: no two lists of tensors run together to the same bytes.
        hash.update(json!([name, dtype, tensor.dims(), bytes.len()]).to_string());
        hash.update(bytes);
    }
    hash.update(text);
    Ok(files::hex(&hash.finalize()))
}
