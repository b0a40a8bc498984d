//! What is asked for: which corruptions, how severe, how made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Corruption, Corruptor, FrostTextures, Protocol, Severity};
use crate::Result;
use crate::data::Dataset;

/// Corruptions to make or to evaluate on; by default the whole benchmark (Hendrycks and Dietterich 2019): all at
/// five severities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorruptionConfig {
    /// Names, or the groups `main`, `extra` and `all`.
    pub corruptions: Vec<String>,
    /// How strong.
    pub severities: Vec<Severity>,
    /// Whose constants; `None` for those made for the nearest image size.
    pub protocol: Option<Protocol>,
    /// Seed of everything random.
    pub seed: u64,
    /// Folder with `frost1.png` to `frost5.jpg` of the published set; without it, frost is procedural and marked so.
    pub frost: Option<PathBuf>,
}

impl Default for CorruptionConfig {
    fn default() -> Self {
        Self {
            corruptions: vec!["all".into()],
            severities: Severity::all().collect(),
            protocol: None,
            seed: 0,
            frost: None,
        }
    }
}

impl CorruptionConfig {
    /// The corruptions that are named.
    ///
    /// # Errors
    /// For unknown names.
    pub fn list(&self) -> Result<Vec<Corruption>> {
        Corruption::parse_list(&self.corruptions)
    }

    /// Makes corruptions of the images of `dataset`.
    ///
    /// # Errors
    /// If the set is empty or frost textures cannot be read.
    pub fn corruptor(&self, dataset: &dyn Dataset) -> Result<Corruptor> {
        let [height, width, _] = dataset.first_shape()?;
        let corruptor = Corruptor::new(self.protocol.unwrap_or(Protocol::for_size(height, width)), self.seed);
        match &self.frost {
            Some(folder) => Ok(corruptor.with_frost(FrostTextures::from_folder(folder)?)),
            None => Ok(corruptor),
        }
    }
}
