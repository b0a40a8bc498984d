//! Training that starts from the weights of a file: `model.weights` in a recipe, `--init` on the command line.
//!
//! Whatever `[model]` leaves open is taken from the file: width, normalization, decomposition, FPCM. Plain weights go
//! into decomposed networks as their coefficients (and coefficients of one kind into the other), so that the network
//! computes what the file's does. Two things may start at random, and it is said: FPCM blocks that the file does not
//! have, and the last layer where the data have another number of classes.

use std::path::Path;

use candle_core::{DType, Device};

use super::history::InitialWeights;
use crate::method::filter_frequency::{self, Decomposition, Init};
use crate::network::loading::{Strictness, stored};
use crate::network::{Network, NetworkConfig};
use crate::nn::weights::{self, LoadReport};
use crate::{Error, Result};

/// A network that starts from a file.
#[derive(Debug)]
pub struct Started {
    /// The network; its configuration holds what was taken from the file.
    pub network: Network,
    /// Which file.
    pub initial: InitialWeights,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// The network that `wanted` (with classes and channels) describes, with the weights of the file at `path`. What the
/// file does not have is drawn from `seed`.
///
/// # Errors
/// The file cannot be read or holds another network.
pub fn start_from(wanted: &NetworkConfig, path: &Path, seed: u64, device: &Device) -> Result<Started> {
    let file = weights::open(path)?;
    let path = &file.path.clone();
    let known = NetworkConfig::found_in(&file)?;
    if let Some(stored) = &known
        && stored.architecture != wanted.architecture
    {
        return Err(Error::format(
            path,
            format!(
                "these are weights of {}, and model.architecture is {}; choose the same",
                stored.architecture, wanted.architecture
            ),
        ));
    }
    let mut config = NetworkConfig { weights: None, ..wanted.clone() };
    config = config.completed_by_file(known.as_ref(), &file.tensors);
    let target = config.decomposition;
    let in_file = known
        .as_ref()
        .and_then(|stored| stored.decomposition)
        .or_else(|| filter_frequency::decomposition_of(&file.tensors));
    let as_in_file = NetworkConfig { decomposition: in_file, normalization: None, ..config.clone() };
    let shapes = weights::shapes(&as_in_file.build(seed, DType::F32, &Device::Cpu)?);
    let matched = file.match_keys(&shapes)?;
    let report = &matched.report;
    let at_random = Strictness::ToTrain(&config)
        .at_random(report)
        .ok_or_else(|| Error::format(path, format!("the weights do not fit the model: {report}")))?;
    let from_file = config.normalization.is_none();
    if from_file {
        config.normalization = report.normalization.as_ref().map(|found| found.constants.clone());
    }
    let mut notes = notes(path, &config, wanted, report, &at_random);
    notes.extend(stored::warnings(&stored::doubts(&file)?));
    notes.extend(stored::stale_statistics(&file));
    if let [first, ..] = &file.others[..] {
        notes.push(format!("{}#{first} would take other weights of the same file", path.display()));
    }
    let mut network = Network::new(NetworkConfig { decomposition: in_file, ..config.clone() }, seed, device)?;
    for parameter in network.model.parameters() {
        if let Some(value) = matched.tensors.get(parameter.name()) {
            parameter.set(value)?;
        }
    }
    let kind = |decomposition: Option<Decomposition>| decomposition.map(|d| (d.kind, d.min_kernel_size));
    if kind(in_file) != kind(target) {
        if in_file.is_some() {
            filter_frequency::recompose(&mut network.model)?;
        }
        if let Some(decomposition) = target {
            let keep = Decomposition { init: Init::Keep, ..decomposition };
            filter_frequency::decompose(&mut network.model, &keep, seed)?;
        }
    }
    network.config = config;
    let sha256 = file.sha256;
    let initial = InitialWeights { file: path.display().to_string(), sha256, at_random };
    Ok(Started { network, initial, notes })
}

fn notes(
    path: &Path,
    config: &NetworkConfig,
    wanted: &NetworkConfig,
    report: &LoadReport,
    at_random: &[String],
) -> Vec<String> {
    let normalization = match (&wanted.normalization, &config.normalization) {
        (Some(_), _) => "as given",
        (None, Some(_)) => "from the file",
        (None, None) => "none, neither given nor in the file",
    };
    let mut notes = vec![format!(
        "starting from {} ({} tensors); normalization: {normalization}",
        path.display(),
        report.loaded
    )];
    if !at_random.is_empty() {
        notes.push(format!("not in the file, or of another shape: {} start at random", at_random.join(", ")));
    }
    for (name, taken) in [
        ("model.width", wanted.width.is_none() && config.width.is_some()),
        ("model.fpcm", wanted.fpcm.is_none() && config.fpcm.is_some()),
        ("model.decomposition", wanted.decomposition.is_none() && config.decomposition.is_some()),
    ] {
        if taken {
            notes.push(format!("{name} is taken from the file"));
        }
    }
    notes
}

#[cfg(test)]
mod tests;
