//! Recipes: the complete, checked configuration of a training run, as TOML.

use std::path::Path;

use bandwise_kernels::Precision;
use serde::{Deserialize, Serialize};

use super::objective::Objective;
use super::optimizer::OptimizerConfig;
use super::regularizers::Regularizers;
use super::schedule::Schedule;
use crate::attack::Attack;
use crate::data::{Augment, DataSpec};
use crate::method::NetworkConfig;
use crate::{Error, Result, files};

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
    /// Pictures per step.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// Arithmetic of convolutions.
    #[serde(default)]
    pub precision: PrecisionName,
    /// The learning rate that the schedule scales.
    pub learning_rate: f64,
    /// Pictures and augmentation.
    #[serde(default)]
    pub data: DataConfig,
    /// The network.
    pub model: NetworkConfig,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// What is minimised.
    #[serde(default)]
    pub objective: Objective,
    /// What is added to it.
    #[serde(default, skip_serializing_if = "Regularizers::is_empty")]
    pub regularizers: Regularizers,
    /// What is measured, and when.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
    /// What is kept.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
}

/// The `[data]` table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The data set; its training split is learned, its test split evaluated.
    #[serde(default)]
    pub source: DataSpec,
    /// Random changes of training pictures, in order.
    #[serde(default)]
    pub augment: Vec<Augment>,
    /// Only the first so many training pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Leave out an incomplete last batch.
    #[serde(default)]
    pub drop_last: bool,
}

/// The `[evaluation]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Epochs between evaluations on the test split (0: only at the end).
    pub every: u64,
    /// Only the first so many test pictures during training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Also measure robust accuracy under this attack, and keep the best by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<Attack>,
    /// Follow the input gradients (low-frequency bias, norm, alignment) of the first so many test pictures;
    /// 0 for none.
    pub track_gradients: usize,
    /// Pictures per pass.
    pub batch_size: usize,
    /// Attacks measured on the whole test split when training has ended.
    #[serde(rename = "final")]
    pub final_attacks: Vec<Attack>,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            every: 1,
            limit: None,
            attack: None,
            track_gradients: 0,
            batch_size: 250,
            final_attacks: Vec::new(),
        }
    }
}

/// The `[checkpoint]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Epochs between checkpoints from which training can go on.
    pub every: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 1 }
    }
}

/// Arithmetic of convolutions by its name in recipes and on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionName {
    /// Single precision.
    #[default]
    F32,
    /// Three-term bfloat16: near-f32 results on matrix units.
    F32x3,
    /// bfloat16 products, f32 sums.
    Bf16,
}

impl PrecisionName {
    /// The name itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F32x3 => "f32x3",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::F32x3 => Self::F32x3,
            PrecisionName::Bf16 => Self::Bf16,
        }
    }
}

fn default_batch_size() -> usize {
    128
}

impl Recipe {
    /// Reads a recipe and applies `key=value` overrides (`optimizer.momentum=0.8`).
    ///
    /// # Errors
    /// [`Error::Format`] naming file, line and the nearest valid key; [`Error::Config`] for values that
    /// make no sense.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let bytes = files::read(path)?;
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

    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        let positive = |name: &str, value: usize| match value {
            0 => Err(Error::config(format!("{name} must be at least 1"))),
            _ => Ok(()),
        };
        positive("epochs", self.epochs as usize)?;
        positive("batch_size", self.batch_size)?;
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
        self.evaluation.attack.iter().chain(&self.evaluation.final_attacks).try_for_each(Attack::validate)
    }
}

/// Writes out the sections that the recipe leaves at their default and an override reaches into, so
/// that `optimizer.momentum=0.8` changes the default optimiser. An override that names another one
/// (`optimizer.name="adam"`) starts from nothing instead.
fn fill_default_sections(table: &mut toml::Table, text: &str, overrides: &[String]) {
    let whole = toml::from_str::<Recipe>(text).ok().and_then(|recipe| toml::Table::try_from(recipe).ok());
    let Some(mut defaults) = whole else { return };
    for (section, _) in overrides.iter().filter_map(|change| change.split_once('=')?.0.trim().split_once('.'))
    {
        let renamed = format!("{section}.name");
        let is_renamed =
            |change: &String| change.split_once('=').is_some_and(|(key, _)| key.trim() == renamed);
        if !table.contains_key(section) && !overrides.iter().any(is_renamed) {
            table.extend(defaults.remove(section).map(|value| (section.to_owned(), value)));
        }
    }
}

/// Sets one dotted key to a TOML value; what is not TOML is taken as text.
fn apply(table: &mut toml::Table, change: &str) -> Result<()> {
    let (key, text) = change.split_once('=').ok_or_else(|| {
        Error::config(format!("--set {change}: expected key=value, for example optimizer.momentum=0.8"))
    })?;
    let value = toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()));
    let (parents, last) = key.trim().rsplit_once('.').unwrap_or(("", key.trim()));
    let mut place = table;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        place = place
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| Error::config(format!("--set {change}: {part} is a value, not a table")))?;
    }
    place.insert(last.to_string(), value);
    Ok(())
}

/// Adds the nearest valid key to a complaint about an unknown one.
fn explain(error: toml::de::Error) -> Error {
    let message = error.to_string();
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_string).collect() };
    let hint = message
        .split_once("unknown field ")
        .or_else(|| message.split_once("unknown variant "))
        .and_then(|(_, rest)| {
            let names = quoted(rest);
            let (wrong, valid) = names.split_first()?;
            let near = valid
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(wrong, a).total_cmp(&strsim::jaro_winkler(wrong, b)))?;
            Some(format!("\ndid you mean `{near}`?"))
        });
    Error::config(format!("{}{}", message.trim_end(), hint.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "name = \"test\"\nepochs = 2\nlearning_rate = 0.1\n[model]\narchitecture = \"smallcnn\"\n";

    #[test]
    fn a_minimal_recipe_survives_writing_and_reading() {
        let recipe = Recipe::parse(MINIMAL, &[]).unwrap();
        assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
    }

    /// Every file in `recipes/`, as it is and after a round trip.
    #[test]
    fn all_recipes_of_the_repository_are_valid() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "toml") {
                    let recipe = Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
                    assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
                    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap();
                    assert!(recipe.name.ends_with(stem), "{} is called {}", path.display(), recipe.name);
                    count += 1;
                }
            }
        }
        assert!(count > 2, "{count} recipes");
    }

    #[test]
    fn overrides_reach_nested_keys() {
        let changes = [
            "epochs=5",
            "data.source=synthetic:shape=0.5",
            "objective={name=\"standard\",label_smoothing=0.1}",
        ];
        let recipe = Recipe::parse(MINIMAL, &changes.map(str::to_string)).unwrap();
        assert_eq!(recipe.epochs, 5);
        assert!(recipe.data.source.to_string().contains("shape=0.5"));
        assert!(matches!(recipe.objective, Objective::Standard(s) if s.label_smoothing == 0.1));
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let text = MINIMAL.replace("epochs", "epocs");
        let message = Recipe::parse(&text, &[]).unwrap_err().to_string();
        assert!(message.contains("did you mean `epochs`"), "{message}");
        let message = Recipe::parse(MINIMAL, &["optimizer.momentun=0.5".into()]).unwrap_err().to_string();
        assert!(message.contains("did you mean `momentum`"), "{message}");
    }

    #[test]
    fn overrides_reach_into_default_sections() {
        let recipe = Recipe::parse(MINIMAL, &["optimizer.momentum=0.8".into()]).unwrap();
        assert!(matches!(recipe.optimizer, OptimizerConfig::Sgd { momentum: 0.8, weight_decay: 5e-4, .. }));
        let recipe = Recipe::parse(MINIMAL, &["optimizer.name=\"adam\"".into()]).unwrap();
        assert!(matches!(recipe.optimizer, OptimizerConfig::Adam { .. }));
    }

    #[test]
    fn impossible_values_are_refused() {
        for change in ["epochs=0", "batch_size=0", "learning_rate=-1", "learning_rate=nan", "name=\"a/b\""] {
            assert!(Recipe::parse(MINIMAL, &[change.into()]).is_err(), "{change}");
        }
    }
}
