//! What the records of a run must say beside its recipe: where its weights began, and what was changed on the way.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::recipe::Change;

/// The past of a run, stored in its checkpoints and in every record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The file that training started from; random weights where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_weights: Option<InitialWeights>,
    /// Settings that were changed on the way (`--accept-changes`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<AcceptedChange>,
}

/// A file that training started from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InitialWeights {
    /// Its path, as it was given.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Parameters that it does not have: they started at random.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_random: Vec<String>,
}

/// A setting that was changed when a run was resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcceptedChange {
    /// Whole epochs that were trained before.
    pub epoch: u64,
    /// Batches of the next one that were.
    #[serde(default)]
    pub batch: usize,
    /// The setting and both values.
    #[serde(flatten)]
    pub change: Change,
}

impl History {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As records hold it; null where there is nothing to say.
    pub fn to_json(&self) -> Value {
        if self.is_empty() { Value::Null } else { serde_json::json!(self) }
    }
}
