//! From a file of weights to a network: which architecture it is for, which normalization it was trained with, and
//! whether everything in it was used.

mod guess;
pub(crate) mod stored;

use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::{Deserialize, Serialize};

use guess::{completed, fitting};

use super::{Network, NetworkConfig};
use crate::method::fpcm::Projection;
use crate::nn::decomposed::Domain;
use crate::nn::weights::{self, LoadReport, StateFile};
use crate::nn::{Normalization, zoo};
use crate::{Error, Result};

/// What the official WideResNets of FPCM normalize every data set with, inside the network.
const FPCM_WIDE_MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const FPCM_WIDE_STD: [f64; 3] = [0.2471, 0.2435, 0.2616];
/// An architecture that another one, which is not built in, shares all names and shapes with.
const AMBIGUOUS: &str = "preactresnet18";
/// Architectures that are listed where several fit.
const LISTED: usize = 6;

/// What is said where nobody knows the normalization. A copy says it by itself, until one is given.
const UNKNOWN_NORMALIZATION: &str = "no input normalization is known for this file: pixels in [0, 1] go into the \
    network as they are; if it was trained with a mean and a deviation, give them with --mean and --std";

/// Which weights, and how to read them. What is left open is read from the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSource {
    /// A file of weights in any supported format, or a run folder; `FILE#ENTRY` takes one of several state dicts in it.
    pub weights: PathBuf,
    /// The network, as far as the caller knows it.
    pub architecture: Option<String>,
    /// Number of classes.
    pub classes: Option<usize>,
    /// Channels of the images.
    pub channels: Option<usize>,
    /// Channels of the first stage.
    pub width: Option<usize>,
    /// Input normalization; it goes before the file's own.
    pub normalization: Option<Normalization>,
    /// Load what fits even if something is missing or left over.
    pub allow_mismatch: bool,
}

/// Who said which architecture it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchitectureSource {
    /// The caller.
    Given,
    /// The file, which Bandwise wrote.
    File,
    /// Names and shapes of the file's tensors, which fit no other.
    Guessed,
}

/// Where the input normalization comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalizationSource {
    /// The caller.
    Given,
    /// The file, which Bandwise wrote: as trained, with a normalization or without.
    File,
    /// Tensors beside the network, of this name.
    Buffers(String),
    /// Known for official files like this one.
    BuiltIn(String),
    /// Nobody: pixels in [0, 1] go in as they are.
    None,
}

/// A network out of a file, and what is to be known about how it came out.
#[derive(Clone, Debug)]
pub struct LoadedNetwork {
    /// The network.
    pub network: Network,
    /// What was found in the file, what was not, what was left over.
    pub report: LoadReport,
    /// The file itself.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Who said which architecture it is.
    pub architecture: ArchitectureSource,
    /// Where its normalization comes from.
    pub normalization: NormalizationSource,
    /// What makes numbers of this network doubtful.
    pub warnings: Vec<String>,
    /// What of that stays doubtful in a copy; [`LoadedNetwork::save`] writes it down.
    pub doubts: Vec<String>,
}

/// How much of a network a file of weights must fill, and what may be left over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strictness<'a> {
    /// All of it, and nothing.
    Exact,
    /// All but what training may begin with at random: FPCM blocks that the file does not have, and the last layer of
    /// a network of this configuration, if the file's knows another number of classes. Nothing may be left over.
    ToTrain(&'a NetworkConfig),
    /// Whatever fits.
    Whatever,
}

impl Strictness<'_> {
    /// The parameters that stay random; `None` if the file does not fit well enough.
    pub(crate) fn at_random(self, report: &LoadReport) -> Option<Vec<String>> {
        let fits = match self {
            Self::Whatever => true,
            Self::Exact => report.is_exact(),
            Self::ToTrain(config) => {
                let is_fpcm = |name: &String| config.fpcm.is_some() && name.starts_with("attn");
                let is_head = |expected: &[usize], found: &[usize]| {
                    Some(expected[0]) == config.classes
                        && expected.len() == found.len()
                        && expected[0] != found[0]
                        && expected[1..] == found[1..]
                };
                report.missing.iter().all(is_fpcm)
                    && report.misshaped.iter().all(|m| is_head(&m.expected, &m.found))
                    && report.unexpected.is_empty()
            }
        };
        let misshaped = report.misshaped.iter().map(|m| m.name.clone());
        fits.then(|| report.missing.iter().cloned().chain(misshaped).collect())
    }
}

impl ModelSource {
    /// A file about which the caller says nothing.
    pub fn new(weights: impl Into<PathBuf>) -> Self {
        Self {
            weights: weights.into(),
            architecture: None,
            classes: None,
            channels: None,
            width: None,
            normalization: None,
            allow_mismatch: false,
        }
    }

    /// Reads the network.
    ///
    /// # Errors
    /// If the architecture is neither given, nor stored, nor the only one that fits; if tensors are missing, left
    /// over or of another shape (unless [`ModelSource::allow_mismatch`]). The message says which would fit.
    pub fn load(&self, device: &Device) -> Result<LoadedNetwork> {
        if let Some(normalization) = &self.normalization {
            // Before anything else is said about weights that may be right.
            normalization.check(normalization.mean.len().max(normalization.std.len()))?;
        }
        let file = weights::open(&self.weights)?;
        let stored = NetworkConfig::found_in(&file)?;
        let earlier = stored::doubts(&file)?;
        let (config, architecture) = self.config(&file, stored.as_ref())?;
        let same = |stored: &NetworkConfig| stored.architecture == config.architecture;
        let foreign = !stored.as_ref().is_some_and(same);
        let config = completed(config, &file.tensors)?;
        let plan = config.plan()?;
        let report = weights::compare(plan.tensors(), &file.tensors).report;
        let strictness = if self.allow_mismatch { Strictness::Whatever } else { Strictness::Exact };
        if strictness.at_random(&report).is_none() {
            return Err(self.refusal(&file, &config, &report));
        }
        let matched = file.match_keys(plan.tensors())?;
        let own = match foreign {
            true => report.normalization.as_ref().map(|found| found.constants.clone()),
            false => stored.as_ref().and_then(|stored| stored.normalization.clone()),
        };
        let unknown = !foreign && own.is_none() && stored::is_normalization_unknown(&file);
        let (config, normalization) = match unknown && self.normalization.is_none() {
            true => (config, NormalizationSource::None),
            false => self.normalized(config, &report, foreign),
        };
        let trained_without = !foreign && !unknown && own.is_none();
        let mut network = if report.is_complete() {
            Network::unfilled(config, device)?
        } else {
            Network::new(config, 0, device)?
        };
        network.model.set_present(&matched.tensors)?;
        network.class_names = stored::class_names(&file)?;
        let mut loaded = LoadedNetwork {
            warnings: stored::stale_statistics(&file).into_iter().collect(),
            doubts: Vec::new(),
            sha256: file.sha256,
            network,
            report,
            path: file.path,
            architecture,
            normalization,
        };
        loaded.doubts = loaded.warnings.clone();
        let new = loaded.doubtful(own.as_ref(), trained_without);
        loaded.doubts.extend(new);
        loaded.warnings.clone_from(&loaded.doubts);
        loaded.warnings.extend(stored::warnings(&earlier));
        loaded.doubts.extend(earlier);
        if loaded.normalization == NormalizationSource::None {
            loaded.warnings.push(UNKNOWN_NORMALIZATION.into());
        }
        loaded.warnings.extend(other_copies(&file.entry, &file.others, &loaded.report));
        Ok(loaded)
    }

    /// What the caller says, the file says, or the file's names tell.
    fn config(
        &self,
        file: &StateFile,
        stored: Option<&NetworkConfig>,
    ) -> Result<(NetworkConfig, ArchitectureSource)> {
        let given = self.architecture.as_deref().map(|name| NetworkConfig {
            classes: self.classes,
            channels: self.channels,
            width: self.width,
            normalization: self.normalization.clone(),
            ..NetworkConfig::new(&zoo::canonical(name))
        });
        match (given, stored) {
            (Some(given), Some(stored)) if given.architecture == stored.architecture => {
                let classes = given.classes.or(stored.classes);
                let channels = given.channels.or(stored.channels);
                let config = NetworkConfig { classes, channels, ..given.decided_by(stored) };
                Ok((config, ArchitectureSource::Given))
            }
            (Some(given), _) => {
                given.validate()?;
                Ok((given, ArchitectureSource::Given))
            }
            (None, Some(stored)) => {
                if self.width.is_some_and(|width| stored.width != Some(width)) {
                    return Err(Error::config(format!(
                        "{}: the file says how wide its network is; leave --width out",
                        file.path.display()
                    )));
                }
                let normalization = self.normalization.clone().or_else(|| stored.normalization.clone());
                Ok((NetworkConfig { normalization, ..stored.clone() }, ArchitectureSource::File))
            }
            (None, None) => {
                let config = self.guessed(file)?;
                let normalization = self.normalization.clone();
                Ok((NetworkConfig { normalization, ..config }, ArchitectureSource::Guessed))
            }
        }
    }

    /// The only architecture that fits the file.
    fn guessed(&self, file: &StateFile) -> Result<NetworkConfig> {
        let mut fitting = fitting(&file.tensors);
        let all = fitting.clone();
        fitting.retain(|config| self.width.is_none() || config.width == self.width);
        if let (Some(width), true, [first, ..]) = (self.width, fitting.is_empty(), &all[..]) {
            let usual = match first.width {
                Some(width) => format!("in width {width}"),
                None => "in its usual width".into(),
            };
            return Err(Error::config(format!(
                "{}: --width {width} does not fit the file, which holds {} {usual}; leave --width out, or name another \
                 network with --model",
                file.path.display(),
                first.architecture
            )));
        }
        let names: Vec<&str> = fitting.iter().map(|config| config.architecture.as_str()).collect();
        match names[..] {
            [_] => Ok(fitting.remove(0)),
            [] => Err(guess::nothing_fits(file)),
            _ => Err(Error::model(format!(
                "{}: the names and shapes in the file fit {}; choose with --model",
                file.path.display(),
                names[..names.len().min(LISTED)].join(" and ")
            ))),
        }
    }

    /// The error for a file that does not fit.
    fn refusal(&self, file: &StateFile, config: &NetworkConfig, report: &LoadReport) -> Error {
        let name = &config.architecture;
        let others: Vec<String> = fitting(&file.tensors)
            .into_iter()
            .filter(|other| other.architecture != *name || other.width != config.width)
            .take(LISTED)
            .map(|other| match other.width {
                Some(width) => format!("{} --width {width}", other.architecture),
                None => other.architecture,
            })
            .collect();
        let copies = match &report.alternatives[..] {
            [] => String::new(),
            [first, ..] => format!(
                "; the file holds more than one such network: {} and {}; choose with --weights {}#{first}",
                report.prefix.trim_end_matches('.'),
                report.alternatives.join(" and "),
                file.path.display()
            ),
        };
        let remedy = match others.is_empty() {
            false => format!("they fit --model {}", others.join(" or --model ")),
            true => "no built-in architecture fits them".into(),
        };
        Error::format(
            &file.path,
            format!(
                "the weights do not fit {name} ({}); {remedy}{copies}; --allow-mismatch loads what fits all the same",
                report.mismatch()
            ),
        )
    }

    /// The configuration with its normalization, and where that comes from.
    fn normalized(
        &self,
        mut config: NetworkConfig,
        report: &LoadReport,
        foreign: bool,
    ) -> (NetworkConfig, NormalizationSource) {
        if self.normalization.is_some() {
            return (config, NormalizationSource::Given);
        }
        if !foreign {
            return (config, NormalizationSource::File);
        }
        if let Some(found) = &report.normalization {
            config.normalization = Some(found.constants.clone());
            return (config, NormalizationSource::Buffers(found.name.clone()));
        }
        // Only official files name blocks that nobody configured.
        match &config.fpcm {
            Some(fpcm) if fpcm.projection == Projection::Full && config.channels == Some(3) => {
                config.normalization =
                    Some(Normalization { mean: FPCM_WIDE_MEAN.into(), std: FPCM_WIDE_STD.into() });
                (config, NormalizationSource::BuiltIn("FPCM's official WideResNet".into()))
            }
            Some(_) => (config, NormalizationSource::BuiltIn("FPCM's official ResNet".into())),
            None => (config, NormalizationSource::None),
        }
    }
}

impl LoadedNetwork {
    /// What makes numbers of this network doubtful; `own` is the normalization that the file brings, unless it says
    /// that there is none.
    fn doubtful(&self, own: Option<&Normalization>, trained_without: bool) -> Vec<String> {
        let mut doubts = Vec::new();
        if !self.report.is_exact() {
            let mismatch = self.report.mismatch();
            let random = if self.report.is_complete() { "" } else { "; what is missing is random" };
            doubts.push(format!(
                "the weights do not fit the network, loaded all the same ({mismatch}){random}"
            ));
        }
        if let (NormalizationSource::Given, Some(own)) = (&self.normalization, own)
            && self.network.config.normalization.as_ref() != Some(own)
        {
            doubts.push(format!("the file's own normalization ({own}) is not used: another was given"));
        }
        if self.normalization == NormalizationSource::Given && trained_without {
            doubts.push(
                "the file says that its network was trained without normalization; one was given".into(),
            );
        }
        let config = &self.network.config;
        if self.architecture == ArchitectureSource::Guessed && config.architecture == AMBIGUOUS {
            doubts.push(format!(
                "the file cannot tell {AMBIGUOUS}, whose shortcuts see the raw input of a block, from pytorch-cifar's \
                 PreActResNet18, whose shortcuts see the activated input: of the latter, all numbers are wrong; --model \
                 {AMBIGUOUS} says that it is the former"
            ));
        }
        doubts
    }

    /// Writes the network as safetensors, atomically, with what is doubtful about it and whether its normalization is
    /// known: a file read from it is warned of as this one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut metadata = self.network.metadata()?;
        if !self.doubts.is_empty() {
            let doubts = serde_json::to_string(&self.doubts)
                .map_err(|e| Error::model(format!("the doubts cannot be stored: {e}")))?;
            metadata.insert(stored::DOUBTS_KEY.to_owned(), doubts);
        }
        if self.normalization == NormalizationSource::None {
            metadata.insert(stored::NORMALIZATION_KEY.to_owned(), stored::UNKNOWN.to_owned());
        }
        weights::write_safetensors(path, &self.network.model.state().into_iter().collect(), &metadata)
    }

    /// One line: architecture, size, normalization, and where each comes from.
    pub fn describe(&self) -> String {
        let config = &self.network.config;
        let architecture = match self.architecture {
            ArchitectureSource::Given => "",
            ArchitectureSource::File => " (from the file)",
            ArchitectureSource::Guessed => " (guessed from the file)",
        };
        let width = config.width.map_or(String::new(), |width| format!(" of width {width}"));
        let fpcm = if config.fpcm.is_some() { " with FPCM" } else { "" };
        let decomposition = match config.decomposition.map(|decomposition| decomposition.kind) {
            None => "",
            Some(Domain::Weight) => ", weight-decomposed",
            Some(Domain::Signal) => ", signal-decomposed",
        };
        let millions = self.network.model.parameter_count() as f64 / 1e6;
        let name = &config.architecture;
        format!(
            "{name}{width}{fpcm}{decomposition}{architecture}, {millions:.2} M parameters; {}",
            self.describe_normalization()
        )
    }

    fn describe_normalization(&self) -> String {
        let constants = self.network.config.normalization.as_ref();
        let constants = constants.map_or("no normalization".into(), |n| format!("normalization {n}"));
        match &self.normalization {
            NormalizationSource::None => constants,
            source => format!("{constants} ({source})"),
        }
    }
}

/// What to know about other copies of the network in a file of which `entry` was taken: averaged weights, for example.
fn other_copies(entry: &str, others: &[String], report: &LoadReport) -> Option<String> {
    let taken = if entry.is_empty() { report.prefix.trim_end_matches('.') } else { entry };
    let taken =
        if taken.is_empty() { "those without a name in front".into() } else { format!("those of `{taken}`") };
    let all: Vec<&String> = others.iter().chain(&report.alternatives).collect();
    let first = all.first()?;
    let names = all.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Some(format!(
        "the file holds other weights as well ({names}); {taken} are used; --weights FILE#{first} takes others"
    ))
}

impl fmt::Display for NormalizationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("given"),
            Self::File => f.write_str("from the file"),
            Self::Buffers(name) => write!(f, "from `{name}` in the file"),
            Self::BuiltIn(whose) => write!(f, "built in for {whose}"),
            Self::None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests;
