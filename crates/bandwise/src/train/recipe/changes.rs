//! What differs between two recipes, key by key.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::{Error, Result};

/// A setting that differs, as TOML text; `None` where it is not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The dotted key, such as `optimizer.momentum`.
    pub key: String,
    /// The value before.
    pub from: Option<String>,
    /// The value after.
    pub to: Option<String>,
}

/// What a change of a setting can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Influence {
    /// No number: names, how often checkpoints are written, how many images are evaluated at a time.
    Nothing,
    /// The evaluation after training, whose records name their parameters.
    FinalEvaluation,
    /// Training, or what is measured and kept during it.
    Training,
}

impl Change {
    /// What the setting can change.
    pub fn influence(&self) -> Influence {
        match self.key.as_str() {
            "name" | "source" | "checkpoint.every" | "evaluation.batch_size" => Influence::Nothing,
            "evaluation.final" => Influence::FinalEvaluation,
            _ => Influence::Training,
        }
    }

    /// The value before, readable.
    pub fn before(&self) -> &str {
        self.from.as_deref().unwrap_or("nothing")
    }

    /// The value after, readable.
    pub fn after(&self) -> &str {
        self.to.as_deref().unwrap_or("nothing")
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} → {}", self.key, self.before(), self.after())
    }
}

impl Recipe {
    /// Every setting in which `other` differs, by key.
    ///
    /// # Errors
    /// A recipe cannot be written as TOML.
    pub fn changes_to(&self, other: &Self) -> Result<Vec<Change>> {
        let (before, after) = (self.settings()?, other.settings()?);
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let change = |key: &String| Change {
            key: key.clone(),
            from: before.get(key).cloned(),
            to: after.get(key).cloned(),
        };
        Ok(keys.into_iter().map(change).filter(|change| change.from != change.to).collect())
    }

    /// Every setting as TOML text under its dotted key; arrays count as one setting.
    fn settings(&self) -> Result<BTreeMap<String, String>> {
        let table = toml::Table::try_from(self)
            .map_err(|e| Error::config(format!("the recipe cannot be written: {e}")))?;
        let mut settings = BTreeMap::new();
        flatten("", &table, &mut settings);
        Ok(settings)
    }
}

fn flatten(prefix: &str, table: &toml::Table, settings: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, settings),
            other => drop(settings.insert(key, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str =
        "name = \"a\"\nepochs = 3\nlearning_rate = 0.05\n[model]\narchitecture = \"smallcnn\"\n";

    #[test]
    fn recipes_are_compared_key_by_key() {
        let recipe = |changes: &[&str]| {
            Recipe::parse(RECIPE, &changes.iter().map(|c| c.to_string()).collect::<Vec<_>>()).unwrap()
        };
        let differing = |changes: &[&str]| recipe(&[]).changes_to(&recipe(changes)).unwrap();
        assert!(differing(&[]).is_empty());
        let found = differing(&["learning_rate=0.5", "optimizer.momentum=0.8", "name=\"b\""]);
        let shown: Vec<String> = found.iter().map(Change::to_string).collect();
        assert_eq!(shown, ["learning_rate 0.05 → 0.5", "name \"a\" → \"b\"", "optimizer.momentum 0.9 → 0.8"]);
        let influences: Vec<Influence> = found.iter().map(Change::influence).collect();
        assert_eq!(influences, [Influence::Training, Influence::Nothing, Influence::Training]);
        // What was not set before is named, too, and so is a change deep down.
        let attack = "objective={name=\"adversarial\",attack={name=\"fgsm\",epsilon=\"8/255\"}}";
        let keys: Vec<String> = differing(&[attack]).into_iter().map(|change| change.key).collect();
        assert!(keys.iter().any(|key| key == "objective.attack.epsilon"), "{keys:?}");
        assert_eq!(differing(&["model.width=8"])[0].before(), "nothing");
        let last = differing(&["evaluation.final=[{name=\"fgsm\"}]"]);
        assert_eq!(last.iter().map(Change::influence).collect::<Vec<_>>(), [Influence::FinalEvaluation]);
    }
}
