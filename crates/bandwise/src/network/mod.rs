//! A model together with the configuration that rebuilds it.
//!
//! ```
//! use bandwise::candle_core::Device;
//! use bandwise::network::{Network, NetworkConfig};
//!
//! # fn main() -> bandwise::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("bandwise-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).map_err(|e| bandwise::Error::config(e.to_string()))?;
//! # let path = folder.join("small.safetensors");
//! let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(5, 1);
//! let network = Network::new(config, 0, &Device::Cpu)?;
//! network.save(&path)?;
//! let loaded = Network::load(&path, &Device::Cpu)?;
//! assert_eq!(loaded.config, network.config);
//! assert_eq!(loaded.model.parameter_count(), network.model.parameter_count());
//! # std::fs::remove_dir_all(&folder).map_err(|e| bandwise::Error::config(e.to_string()))?;
//! # Ok(())
//! # }
//! ```

pub mod loading;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::method::filter_frequency::{self, Decomposition};
use crate::method::fpcm::{self, FpcmConfig};
use crate::nn::architecture::BuildFn;
use crate::nn::weights::{self, StateDict, StateFile};
use crate::nn::{Model, ModelShape, Normalization, Plan, zoo};
use crate::{Error, Result};

pub use loading::{ArchitectureSource, LoadedNetwork, ModelSource, NormalizationSource};

/// The key of the safetensors header that holds the configuration.
pub(super) const CONFIG_KEY: &str = "bandwise.network";
/// The key that holds the names of the classes, as a JSON list.
pub(super) const CLASSES_KEY: &str = "bandwise.classes";

/// Everything that defines a network: the `[model]` table of a recipe. Files of weights hold it without `weights`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// A name from `bandwise models`.
    pub architecture: String,
    /// Number of classes; taken from the data if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Channels of the images; taken from the data if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Channels of the first stage; as published if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Input normalization, a part of the model; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// FPCM blocks behind stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fpcm: Option<FpcmConfig>,
    /// Convolutions as coefficients in the cosine basis (filter frequency regularization).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decomposition: Option<Decomposition>,
    /// A file of weights that training starts from; random ones if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl NetworkConfig {
    /// An architecture with everything else left open.
    pub fn new(architecture: &str) -> Self {
        let architecture = architecture.into();
        Self {
            architecture,
            classes: None,
            channels: None,
            width: None,
            normalization: None,
            fpcm: None,
            decomposition: None,
            weights: None,
        }
    }

    /// The configuration that a file of ours holds, weights or a checkpoint; `None` for others.
    ///
    /// # Errors
    /// It is damaged.
    pub fn found_in(file: &StateFile) -> Result<Option<Self>> {
        loading::stored::config(file)
    }

    /// What is left open here, as in a file: in its stored configuration, or as its tensors' names tell.
    pub fn completed_by_file(self, stored: Option<&Self>, tensors: &StateDict) -> Self {
        let mut config = match stored {
            Some(stored) => self.completed_by(stored.clone()),
            None => self,
        };
        config.decomposition = config.decomposition.or_else(|| filter_frequency::decomposition_of(tensors));
        config.fpcm = config.fpcm.or_else(|| FpcmConfig::found_in(tensors));
        config
    }

    /// Fills in what only the data knows.
    pub fn resolved(mut self, classes: usize, channels: usize) -> Self {
        self.classes.get_or_insert(classes);
        self.channels.get_or_insert(channels);
        self
    }

    /// Channels of color images, where nothing else is said.
    pub(super) const USUAL_CHANNELS: usize = 3;

    /// Channels, classes and width; three channels and ten classes where nothing else is said.
    pub fn shape(&self) -> ModelShape {
        ModelShape {
            channels: self.channels.unwrap_or(Self::USUAL_CHANNELS),
            classes: self.classes.unwrap_or(10),
            width: self.width,
        }
    }

    /// Names and shapes of the network's tensors, without making them.
    ///
    /// # Errors
    /// For unknown architectures, stages that do not exist, and networks too large to be built.
    pub fn plan(&self) -> Result<Plan> {
        let mut plan = Model::plan(&self.architecture, self.shape())?;
        if let Some(decomposition) = &self.decomposition {
            filter_frequency::plan(&mut plan, decomposition)?;
        }
        if let Some(config) = &self.fpcm {
            fpcm::plan(&mut plan, config)?;
        }
        Ok(plan)
    }

    /// What is left open here, as in `other`.
    pub(super) fn completed_by(self, other: Self) -> Self {
        Self {
            width: self.width.or(other.width),
            normalization: self.normalization.or(other.normalization),
            fpcm: self.fpcm.or(other.fpcm),
            decomposition: self.decomposition.or(other.decomposition),
            ..self
        }
    }

    /// What is left open here, as in `other`, but for classes and channels, which the data decide.
    pub fn decided_by(self, other: &Self) -> Self {
        self.completed_by(other.clone())
    }

    /// Refuses names and values that make no sense.
    pub fn validate(&self) -> Result<()> {
        let _: BuildFn = zoo::find(&self.architecture)?;
        self.fpcm.iter().try_for_each(FpcmConfig::validate)?;
        self.decomposition.iter().try_for_each(Decomposition::validate)
    }

    /// A freshly initialized model; three channels and ten classes where nothing else is said.
    ///
    /// # Errors
    /// As [`NetworkConfig::plan`], before anything is allocated.
    pub fn build(&self, seed: u64, dtype: DType, device: &Device) -> Result<Model> {
        self.plan()?;
        let normalization = self.normalization.as_ref();
        let model = Model::new(&self.architecture, self.shape(), normalization, seed, dtype, device)?;
        self.finished(model, seed)
    }

    /// The model with blocks plugged in and convolutions decomposed.
    fn finished(&self, mut model: Model, seed: u64) -> Result<Model> {
        if let Some(config) = &self.fpcm {
            fpcm::install(&mut model, config, seed)?;
        }
        if let Some(decomposition) = &self.decomposition {
            filter_frequency::decompose(&mut model, decomposition, seed)?;
        }
        Ok(model)
    }
}

/// A model and its configuration.
#[derive(Clone, Debug)]
pub struct Network {
    /// What rebuilds it.
    pub config: NetworkConfig,
    /// The model itself.
    pub model: Model,
    /// The names of its classes, in order; empty where they are not known.
    pub class_names: Vec<String>,
}

impl Network {
    /// A freshly initialized network.
    pub fn new(config: NetworkConfig, seed: u64, device: &Device) -> Result<Self> {
        let model = config.build(seed, DType::F32, device)?;
        Ok(Self { config, model, class_names: Vec::new() })
    }

    /// A network full of zeros, whose weights are about to be read.
    pub(super) fn unfilled(config: NetworkConfig, device: &Device) -> Result<Self> {
        let shape = config.shape();
        let model = Model::zeros(&config.architecture, shape, config.normalization.as_ref(), device)?;
        let model = config.finished(model, 0)?;
        Ok(Self { config, model, class_names: Vec::new() })
    }

    /// Reads a network in any supported format, strictly; what the file does not say is read from its names and
    /// shapes. [`ModelSource`] can say more.
    ///
    /// # Errors
    /// If no built-in architecture, or more than one, fits the file exactly.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        Ok(ModelSource::new(path).load(device)?.network)
    }

    /// The same network, with the names of its classes.
    pub fn with_class_names(mut self, names: &[String]) -> Self {
        self.class_names = names.to_vec();
        self
    }

    /// The same function with plain convolutions, under PyTorch's usual names.
    pub fn recomposed(mut self) -> Result<Self> {
        filter_frequency::recompose(&mut self.model)?;
        self.config.decomposition = None;
        Ok(self)
    }

    /// Writes weights and configuration as safetensors, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        weights::write_safetensors(path, &self.model.state().into_iter().collect(), &self.metadata()?)
    }

    /// What the file header says about the network.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let config = serde_json::to_string(&self.config)
            .map_err(|e| Error::model(format!("the model configuration cannot be stored: {e}")))?;
        let version = env!("CARGO_PKG_VERSION").to_string();
        let mut entries: BTreeMap<String, String> =
            [(CONFIG_KEY, config), ("bandwise.version", version), ("format", "pt".into())]
                .map(|(key, value)| (key.to_string(), value))
                .into();
        if !self.class_names.is_empty() {
            let names = serde_json::to_string(&self.class_names)
                .map_err(|e| Error::model(format!("the class names cannot be stored: {e}")))?;
            entries.insert(CLASSES_KEY.to_string(), names);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests;
