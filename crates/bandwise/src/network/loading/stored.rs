//! What a file that Bandwise wrote says beside its tensors: the configuration, the names of the classes, and what was
//! doubtful when it was written.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::{CLASSES_KEY, CONFIG_KEY, NetworkConfig};
use crate::nn::weights::{AVERAGE_PART, CHECKPOINT_MARK, StateFile};
use crate::{Error, Result};

/// The key of what was doubtful when a file was converted, as a JSON list of texts.
pub(super) const DOUBTS_KEY: &str = "bandwise.doubts";
/// The key that says that nobody knew the normalization; files without it mean what their configuration says.
pub(super) const NORMALIZATION_KEY: &str = "bandwise.normalization";
/// Its value.
pub(super) const UNKNOWN: &str = "unknown";

/// The configuration in a file of weights, or in the recipe of a checkpoint that was written before checkpoints
/// had one of their own; `None` in files of others.
pub(in crate::network) fn config(file: &StateFile) -> Result<Option<NetworkConfig>> {
    if let Some(config) = entry(file, CONFIG_KEY, "model configuration")? {
        return Ok(Some(config));
    }
    let Some(mut recipe) = recipe(file) else { return Ok(None) };
    let Some(model) = recipe.remove("model") else { return Ok(None) };
    let config: NetworkConfig = model.try_into().map_err(|e: toml::de::Error| {
        Error::format(&file.path, format!("the recipe in this checkpoint is not readable: {}", e.message()))
    })?;
    Ok(Some(NetworkConfig { weights: None, ..config }))
}

/// The class names; empty if there are none.
pub(super) fn class_names(file: &StateFile) -> Result<Vec<String>> {
    Ok(entry(file, CLASSES_KEY, "class names")?.unwrap_or_default())
}

/// Whether the file says that its normalization is not known.
pub(super) fn is_normalization_unknown(file: &StateFile) -> bool {
    file.metadata.get(NORMALIZATION_KEY).is_some_and(|value| value == UNKNOWN)
}

/// What was doubtful when the file was converted.
///
/// # Errors
/// The entry is damaged.
pub(crate) fn doubts(file: &StateFile) -> Result<Vec<String>> {
    Ok(entry(file, DOUBTS_KEY, "doubts")?.unwrap_or_default())
}

/// The stored doubts as warnings.
pub(crate) fn warnings(doubts: &[String]) -> impl Iterator<Item = String> {
    doubts.iter().map(|doubt| format!("said when this file was converted: {doubt}"))
}

/// What to know about the average in a checkpoint whose statistics training computes anew.
pub(crate) fn stale_statistics(file: &StateFile) -> Option<String> {
    let recipe = recipe(file).filter(|_| file.entry == AVERAGE_PART)?;
    let recomputed = recipe.get("averaging")?.get("statistics")?.as_str()? == "recomputed";
    recomputed.then(|| {
        "batch norm's statistics of this average are averaged ones; the run computes them anew for what it evaluates \
         and saves: the files in its folder are to be preferred"
            .into()
    })
}

fn entry<T: DeserializeOwned>(file: &StateFile, key: &str, what: &str) -> Result<Option<T>> {
    let Some(text) = file.metadata.get(key) else { return Ok(None) };
    let value = serde_json::from_str(text)
        .map_err(|e| Error::format(&file.path, format!("its stored {what} cannot be read: {e}")))?;
    Ok(Some(value))
}

/// The recipe in the header of a checkpoint.
fn recipe(file: &StateFile) -> Option<toml::Table> {
    #[derive(Deserialize)]
    struct Header {
        recipe: Option<String>,
    }
    let header: Header = serde_json::from_str(file.metadata.get(CHECKPOINT_MARK)?).ok()?;
    toml::from_str(&header.recipe?).ok()
}
