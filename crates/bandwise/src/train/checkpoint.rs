//! Checkpoints: everything that a run needs to go on with bit-identical results.
//!
//! A checkpoint is one safetensors file: weights and buffers under `model.`, the optimiser's tensors
//! under `optimizer.`, and the position as JSON in the header. It is written to a temporary name and
//! renamed, and older ones go only then; a process killed at any moment leaves a valid one behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::optimizer::Optimizer;
use super::trainer::Position;
use crate::method::Network;
use crate::nn::Model;
use crate::nn::weights::{StateDict, safetensors_bytes};
use crate::{Error, Result, files};

const POSITION_KEY: &str = "bandwise.position";
/// Checkpoints kept beside the newest one, in case the disk damages that.
const SPARE: usize = 1;

/// A run between two steps.
pub struct Checkpoint {
    tensors: StateDict,
    metadata: BTreeMap<String, String>,
    position: Position,
}

impl Checkpoint {
    /// The present state of a run.
    pub fn capture(network: &Network, optimizer: &Optimizer, position: &Position) -> Result<Self> {
        let model = network.model.state().into_iter().map(|(name, tensor)| (format!("model.{name}"), tensor));
        let state = optimizer.state()?.into_iter().map(|(name, tensor)| (format!("optimizer.{name}"), tensor));
        let mut metadata = network.metadata()?;
        let text = serde_json::to_string(position)
            .map_err(|e| Error::config(format!("the training position cannot be stored: {e}")))?;
        metadata.insert(POSITION_KEY.into(), text);
        Ok(Self { tensors: model.chain(state).collect(), metadata, position: position.clone() })
    }

    /// Puts the state into a model and an optimiser.
    pub fn restore(self, model: &Model, optimizer: &mut Optimizer) -> Result<Position> {
        let part = |prefix: &str| -> BTreeMap<String, Tensor> {
            self.tensors
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_string(), tensor.clone())))
                .collect()
        };
        model.set_state(&part("model."))?;
        optimizer.load_state(&part("optimizer."))?;
        Ok(self.position)
    }
}

/// Writes a checkpoint and removes superseded ones.
pub fn write(folder: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let name = format!("step-{:09}.safetensors", checkpoint.position.step);
    files::write_atomic(&folder.join(name), &safetensors_bytes(&checkpoint.tensors, &checkpoint.metadata)?)?;
    let mut paths = list(folder)?;
    paths.truncate(paths.len().saturating_sub(1 + SPARE));
    for old in paths {
        std::fs::remove_file(&old).map_err(|e| Error::io(&old, e))?;
    }
    Ok(())
}

/// The newest readable checkpoint. A damaged one is passed over, loudly.
pub fn latest(folder: &Path) -> Result<Option<Checkpoint>> {
    for path in list(folder)?.into_iter().rev() {
        match read(&path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error) => tracing::warn!("checkpoint passed over: {error}"),
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Checkpoint> {
    let file = crate::nn::weights::read(path)?;
    let text = file.metadata.get(POSITION_KEY).ok_or_else(|| Error::format(path, "holds no training position"))?;
    let position = serde_json::from_str(text)
        .map_err(|e| Error::format(path, format!("its training position is not readable: {e}")))?;
    Ok(Checkpoint { tensors: file.tensors, metadata: file.metadata, position })
}

/// All checkpoints, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder, error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("step-") && name.ends_with(".safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
