//! Recipes: the complete, checked configuration of a training run, as TOML.

mod changes;
mod missing;
mod sections;
mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::averaging::AveragingConfig;
use super::awp::Awp;
use super::objective::Objective;
use bandwise_kernels::Precision;

use super::optimizer::OptimizerConfig;
use super::overfitting::Overfitting;
use super::regularizers::Regularizers;
use super::schedule::Schedule;
use crate::attack::Norm;
use crate::data::Augment;
use crate::network::NetworkConfig;
use crate::{Error, Result, files};

pub use changes::{Change, Influence};
pub use sections::{CheckpointConfig, DataConfig, EarlyStopping, EvaluatedWeights, EvaluationConfig};
use text::{apply, explain, fill_default_sections};

/// A training run: what `bandwise train RECIPE.toml` reads and `run.toml` records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// A short name, also of the run folder.
    pub name: String,
    /// What it reproduces: paper, table, official script.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Seed of weights, order, augmentation and attacks.
    #[serde(default)]
    pub seed: u64,
    /// Passes through the training set.
    pub epochs: u64,
    /// Images per step.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// Parts in which a batch goes through the network, one after another: less memory, the same step (but
    /// for batch norm, whose statistics are then those of a part).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub accumulate: usize,
    /// Arithmetic of convolutions.
    #[serde(default)]
    pub precision: Precision,
    /// The learning rate that the schedule scales.
    pub learning_rate: f64,
    /// Images and augmentation.
    #[serde(default)]
    pub data: DataConfig,
    /// The network.
    pub model: NetworkConfig,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// What is minimized.
    #[serde(default)]
    pub objective: Objective,
    /// What is added to it.
    #[serde(default, skip_serializing_if = "Regularizers::is_empty")]
    pub regularizers: Regularizers,
    /// Adversarial weight perturbation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awp: Option<Awp>,
    /// An average of the weights, kept beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub averaging: Option<AveragingConfig>,
    /// Watches for catastrophic overfitting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfitting: Option<Overfitting>,
    /// Ends training that no longer gets better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// What is measured, and when.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// What is kept.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
}

/// More than anybody trains; a typing mistake beyond.
const MAX_EPOCHS: u64 = 1_000_000;

fn default_batch_size() -> usize {
    128
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

impl Recipe {
    /// Reads a recipe and applies `key=value` overrides (`optimizer.momentum=0.8`).
    ///
    /// # Errors
    /// [`Error::Format`] naming file, line and the nearest valid key; [`Error::Config`] for values that
    /// make no sense.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let bytes = files::read(path).map_err(|error| missing::explain(path, error))?;
        let text = String::from_utf8(bytes).map_err(|_| Error::format(path, "a recipe is UTF-8 text"))?;
        Self::parse(&text, overrides).map_err(|e| match e {
            Error::Config(reason) => Error::format(path, reason),
            other => other,
        })
    }

    /// [`Recipe::read`] from text.
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let recipe: Self = if overrides.is_empty() {
            toml::from_str(text).map_err(explain)?
        } else {
            let mut table: toml::Table = toml::from_str(text).map_err(explain)?;
            fill_default_sections(&mut table, text, overrides);
            for change in overrides {
                apply(&mut table, change)?;
            }
            table.try_into().map_err(explain)?
        };
        recipe.validate()?;
        Ok(recipe)
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::config(format!("the recipe cannot be written: {e}")))
    }

    /// How far training has come after `epoch` (from 1), in [0, 1], for blocks with a schedule (FPCM's cut-off).
    pub fn progress(&self, epoch: u64) -> f64 {
        match &self.model.fpcm {
            Some(fpcm) => fpcm.progress(epoch, self.epochs),
            None => epoch as f64 / self.epochs as f64,
        }
    }

    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        let positive = |name: &str, value: usize| match value {
            0 => Err(Error::config(format!("{name} must be at least 1"))),
            _ => Ok(()),
        };
        positive("epochs", self.epochs as usize)?;
        if self.epochs > MAX_EPOCHS {
            return Err(Error::config(format!(
                "epochs must be at most {MAX_EPOCHS}, not {}: is a digit too many?",
                self.epochs
            )));
        }
        positive("batch_size", self.batch_size)?;
        positive("data.train_limit", self.data.train_limit.unwrap_or(usize::MAX))?;
        positive("evaluation.batch_size", self.evaluation.batch_size)?;
        positive("checkpoint.every", self.checkpoint.every as usize)?;
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(Error::config("learning_rate must be a positive number"));
        }
        if self.name.is_empty() || self.name.contains(['/', '\\']) {
            return Err(Error::config("name must not be empty or contain slashes"));
        }
        self.data.augment.iter().try_for_each(Augment::validate)?;
        self.optimizer.check()?;
        self.schedule.check()?;
        self.objective.validate()?;
        self.regularizers.validate()?;
        self.model.validate()?;
        self.evaluation.validate()?;
        self.awp.iter().try_for_each(Awp::validate)?;
        self.averaging.iter().try_for_each(AveragingConfig::check)?;
        self.overfitting.iter().try_for_each(Overfitting::validate)?;
        self.validate_together()
    }

    /// Refuses settings that make no sense beside each other.
    fn validate_together(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::config(reason));
        if self.accumulate == 0 || self.accumulate > self.batch_size {
            return refuse(format!(
                "accumulate must lie between 1 and batch_size ({}), not {}: it is the number of parts of a batch",
                self.batch_size, self.accumulate
            ));
        }
        if !self.objective.is_adversarial() {
            let needs = [("awp", self.awp.is_some()), ("overfitting", self.overfitting.is_some())];
            if let Some((table, _)) = needs.iter().find(|(_, given)| *given) {
                return refuse(format!(
                    "[{table}] needs an adversarial objective (adversarial, free, trades or mart), not standard"
                ));
            }
        }
        if self.optimizer.needs_hessian()
            && (self.awp.is_some() || matches!(self.objective, Objective::Free(_)))
        {
            return refuse(
                "optimizer adahessian goes neither with [awp] nor with the objective free: the gradient that they share \
                 belongs to other weights"
                    .into(),
            );
        }
        let norm = self.objective.ball().map(|(norm, _)| norm);
        if norm == Some(Norm::L1) && self.overfitting.as_ref().is_some_and(|config| config.attack.is_none()) {
            return refuse("overfitting.attack must be given: there is no PGD for the L1 norm".into());
        }
        let warmup = self.objective.epsilon_warmup();
        if warmup > self.epochs as f64 {
            return refuse(format!(
                "objective.epsilon_warmup: {warmup} epochs are more than the {} that are trained, so the full ε is never reached",
                self.epochs
            ));
        }
        if let Some(EarlyStopping { patience }) = self.early_stopping {
            if patience == 0 {
                return refuse("early_stopping.patience must be at least 1 epoch".into());
            }
            if self.evaluation.every == 0 && self.evaluation.every_after.is_none() {
                return refuse(
                    "[early_stopping] needs evaluations: set evaluation.every to 1 or more".into(),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod official_tests;
#[cfg(test)]
mod tests;
