//! A model together with the configuration that rebuilds it; how model files are read and written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use super::filter_frequency::{self, Decomposition};
use super::fpcm::{self, FpcmConfig};
use crate::nn::architecture::Construct;
use crate::nn::weights::{self, LoadReport, StateDict, StateFile};
use crate::nn::{Interface, Model, Normalization, zoo};
use crate::{Error, Result};

/// The key of the safetensors header that holds the configuration.
const METADATA_KEY: &str = "bandwise.network";

/// Everything that defines a network: the `[model]` table of a recipe. Files of weights hold it without `weights`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// A name from `bandwise models`.
    pub architecture: String,
    /// Number of classes; taken from the data if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// Channels of the pictures; taken from the data if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Channels of the first stage; as published if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Input normalisation, a part of the model; none if absent.
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

    /// The configuration that a file of ours holds; `None` for others.
    ///
    /// # Errors
    /// It is damaged.
    pub fn found_in(file: &StateFile) -> Result<Option<Self>> {
        let Some(text) = file.metadata.get(METADATA_KEY) else { return Ok(None) };
        let config = serde_json::from_str(text).map_err(|e| {
            Error::format(&file.path, format!("its stored model configuration is not readable: {e}"))
        })?;
        Ok(Some(config))
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

    /// What is left open here, as in `other`.
    fn completed_by(self, other: Self) -> Self {
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
        let _: Construct = zoo::find(&self.architecture)?;
        self.fpcm.iter().try_for_each(FpcmConfig::validate)?;
        self.decomposition.iter().try_for_each(Decomposition::validate)
    }

    /// A freshly initialised model; three channels and ten classes where nothing else is said.
    pub fn build(&self, seed: u64, dtype: DType, device: &Device) -> Result<Model> {
        let interface = Interface {
            channels: self.channels.unwrap_or(3),
            classes: self.classes.unwrap_or(10),
            width: self.width,
        };
        let normalization = self.normalization.as_ref();
        let mut model = Model::new(&self.architecture, interface, normalization, seed, dtype, device)?;
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
}

impl Network {
    /// A freshly initialised network.
    pub fn new(config: NetworkConfig, seed: u64, device: &Device) -> Result<Self> {
        let model = config.build(seed, DType::F32, device)?;
        Ok(Self { config, model })
    }

    /// Reads weights in any supported format. `config` may be left out where the file is one of ours; what it
    /// leaves open is taken from the file: from its stored configuration, or from the names of its tensors
    /// (official state dicts with FPCM, decomposed convolutions).
    ///
    /// # Errors
    /// If the file says nothing about its architecture and neither does the caller, or if weights do not
    /// fit; the message lists missing, unexpected and mis-shaped names.
    pub fn load(path: &Path, config: Option<NetworkConfig>, device: &Device) -> Result<(Self, LoadReport)> {
        let file = weights::read(path)?;
        let stored = NetworkConfig::found_in(&file)?;
        let config = match (config, stored) {
            (Some(given), Some(stored)) if given.architecture == stored.architecture => {
                Some(given.completed_by(stored))
            }
            (given, stored) => given.or(stored),
        };
        let mut config = config.ok_or_else(|| {
            Error::model(format!(
                "{}: the file does not say which architecture it is for; name it with --model (see `bandwise models`)",
                path.display()
            ))
        })?;
        // What the file's names say about the model counts where the configuration leaves it open.
        config.decomposition =
            config.decomposition.or_else(|| filter_frequency::decomposition_of(&file.tensors));
        config.fpcm = config.fpcm.or_else(|| FpcmConfig::found_in(&file.tensors));
        let expected = weights::shapes(&config.build(0, DType::F32, &Device::Cpu)?);
        let matched = file.match_keys(&expected)?;
        let report = matched.report.clone();
        let tensors = matched.complete().map_err(|e| Error::format(path, e.to_string()))?;
        if config.normalization.is_none() {
            config.normalization = report.normalization.as_ref().map(|found| found.constants.clone());
        }
        let network = Self::new(config, 0, device)?;
        network.model.set_state(&tensors)?;
        Ok((network, report))
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
        Ok([(METADATA_KEY, config), ("bandwise.version", version), ("format", "pt".into())]
            .map(|(key, value)| (key.to_string(), value))
            .into())
    }
}
