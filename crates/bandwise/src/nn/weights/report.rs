//! What happened when weights were matched to a model.

use std::fmt;

use crate::nn::Normalization;

/// A tensor of the right name and the wrong shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// Its name in the model.
    pub name: String,
    /// The shape that the model has.
    pub expected: Vec<usize>,
    /// The shape in the file.
    pub found: Vec<usize>,
}

/// Input normalization that a checkpoint carries as a layer of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundNormalization {
    /// The name of its mean, such as `0.mean` or `mu`.
    pub name: String,
    /// Its constants.
    pub constants: Normalization,
}

/// What was found, what was not, and what was left over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadReport {
    /// Names of the model that were found in the right shape.
    pub loaded: usize,
    /// What stands before the names of the model in the file, such as `module.`.
    pub prefix: String,
    /// Names of the model that the file does not have.
    pub missing: Vec<String>,
    /// Names of the file that the model does not have.
    pub unexpected: Vec<String>,
    /// Names that both have, in different shapes.
    pub misshaped: Vec<Misshaped>,
    /// Names of the file that are harmless to leave out: see [`HARMLESS`](super::HARMLESS).
    pub ignored: Vec<String>,
    /// What stands before other copies of the network in the file, with other numbers, without the dot: `model_ema`.
    pub alternatives: Vec<String>,
    /// Layers that go by another name in the file: (there, here).
    pub renamed: Vec<(String, String)>,
    /// Input normalization found beside the network.
    pub normalization: Option<FoundNormalization>,
}

impl LoadReport {
    /// Whether every tensor of the model was found in the right shape.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.misshaped.is_empty()
    }

    /// Whether the file also holds nothing else, but for what is harmless.
    pub fn is_exact(&self) -> bool {
        self.is_complete() && self.unexpected.is_empty()
    }

    /// What does not fit, in one sentence part; empty for an exact fit.
    pub fn mismatch(&self) -> String {
        if self.loaded == 0 && self.misshaped.is_empty() && !self.missing.is_empty() {
            let few = |names: &[String]| names[..names.len().min(3)].join(", ");
            return format!(
                "none of the model's {} tensors, {}, …, is among the file's, {}, …",
                self.missing.len(),
                few(&self.missing),
                few(&self.unexpected)
            );
        }
        let shapes: Vec<String> = self
            .misshaped
            .iter()
            .map(|m| format!("{} {:?} instead of {:?}", m.name, m.found, m.expected))
            .collect();
        let parts = [
            ("the model has no", &self.unexpected),
            ("the file has no", &self.missing),
            ("of another shape", &shapes),
        ];
        let part = |(what, names): &(&str, &Vec<String>)| {
            const SHOWN: usize = 3;
            let few = names[..names.len().min(SHOWN)].join(", ");
            let rest = if names.len() > SHOWN { ", …" } else { "" };
            format!("{what}: {few}{rest} ({})", names.len())
        };
        let told: Vec<String> = parts.iter().filter(|(_, names)| !names.is_empty()).map(part).collect();
        told.join("; ")
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = self.loaded + self.missing.len() + self.misshaped.len();
        write!(f, "{} of {expected} tensors loaded", self.loaded)?;
        if !self.prefix.is_empty() {
            write!(f, " (under the prefix {:?})", self.prefix)?;
        }
        for (there, here) in &self.renamed {
            write!(f, "\n  {there} in the file is {here} in the model")?;
        }
        names(f, "missing from the file", &self.missing)?;
        let shapes: Vec<String> = self
            .misshaped
            .iter()
            .map(|m| format!("{} is {:?}, the model has {:?}", m.name, m.found, m.expected))
            .collect();
        names(f, "of another shape", &shapes)?;
        names(f, "unexpected in the file", &self.unexpected)?;
        if let Some(FoundNormalization { name, constants }) = &self.normalization {
            write!(f, "\n  the file normalizes its input with {name:?}: {constants}")?;
        }
        Ok(())
    }
}

/// A line per list: its count and the first few.
fn names(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    const SHOWN: usize = 6;
    if names.is_empty() {
        return Ok(());
    }
    write!(f, "\n  {} {what}: {}", names.len(), names[..names.len().min(SHOWN)].join(", "))?;
    if names.len() > SHOWN {
        write!(f, ", …")?;
    }
    Ok(())
}
