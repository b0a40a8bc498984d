//! The lines of a journal: what they hold, and the checksum that each one ends with.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::header::Header;
use crate::attack::{Attack, Outcome, Warning};
use crate::{Error, Result, files};

/// One judgment: of an image under an attack, or under one part of AutoAttack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Index in the data set.
    pub image: usize,
    /// Label of the attack in the header, or [`CLEAN`](super::CLEAN).
    pub attack: String,
    /// The part of AutoAttack that was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The image is classified correctly (and the attack did not break it).
    pub correct: bool,
    /// `z_label − max_{j≠label} z_j` at the end.
    pub margin: f64,
    /// Forward passes of this image.
    pub queries: u64,
    /// Backward passes of this image.
    pub gradients: u64,
    /// The restart or target that broke it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<u32>,
    /// Smallest perturbation found, for minimum-norm attacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
    /// The part of AutoAttack, or the frequency, that broke it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// It met a gradient of zero, or one that is not a number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_gradient: bool,
}

impl Entry {
    /// The judgment that the outcome of an attack, or of a part of it, amounts to.
    pub fn of(image: usize, attack: &str, part: Option<&str>, outcome: Outcome) -> Self {
        let Outcome { broken, margin, queries, gradients, restart, distance, by, no_gradient } = outcome;
        let (attack, part) = (attack.to_string(), part.map(str::to_string));
        let correct = !broken;
        Self { image, attack, part, correct, margin, queries, gradients, restart, distance, by, no_gradient }
    }

    /// What the attack did.
    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            broken: !self.correct,
            margin: self.margin,
            queries: self.queries,
            gradients: self.gradients,
            restart: self.restart,
            distance: self.distance,
            by: self.by.clone(),
            no_gradient: self.no_gradient,
        }
    }
}

/// Something that a reader of the results must know, of one attack or of the model as such.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    /// Label of the attack; `None` for what was found before any attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<String>,
    /// The warning itself.
    #[serde(flatten)]
    pub warning: Warning,
}

impl fmt::Display for Noted {
    /// The warning, behind the attack that it is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.attack {
            Some(attack) => write!(f, "{attack}: {}", self.warning),
            None => self.warning.fmt(f),
        }
    }
}

/// Images that an attack began to work on at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// Label of the attack.
    pub attack: String,
    /// The part of AutoAttack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// How many images.
    pub images: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(super) enum Line {
    #[serde(rename = "journal")]
    Header(Box<Header>),
    /// The evaluation was continued with more images or attacks, or by other algorithms: the new values.
    #[serde(rename = "extension")]
    Extension {
        images: usize,
        attacks: Vec<Attack>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        algorithm: String,
    },
    #[serde(rename = "begun")]
    Begun(Begun),
    #[serde(rename = "warning")]
    Warning(Noted),
    #[serde(rename = "image")]
    Entry(Entry),
}

/// What every journal begins with.
pub(super) const MARK: &str = "{\"kind\":\"journal\",";

const SUM: &str = ",\"sum\":\"";

impl Line {
    /// The line as written, checksum and line end included.
    pub fn sealed(&self) -> Result<String> {
        let text = serde_json::to_string(self)
            .map_err(|e| Error::config(format!("a journal line could not be written as JSON: {e}")))?;
        Ok(format!("{}{SUM}{}\"}}\n", &text[..text.len() - 1], checksum(&text)))
    }

    /// Reads a line (without its end).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(line: &str) -> Result<Self, String> {
        let content = line.rfind(SUM).map(|at| (format!("{}}}", &line[..at]), &line[at..]));
        match content {
            Some((text, sum)) if sum == format!("{SUM}{}\"}}", checksum(&text)) => {
                serde_json::from_str(&text)
                    .map_err(|e| format!("is no line of a journal that this version knows ({})", plain(&e)))
            }
            _ if serde_json::from_str::<serde_json::Value>(line).is_err() => Err("is not valid JSON".into()),
            _ => Err("was changed after it was written (its checksum does not fit)".into()),
        }
    }
}

/// A JSON error without its position in the line.
pub(super) fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_string()
}

/// Finds damage and careless edits; whoever wants to forge a line can make it as well.
fn checksum(text: &str) -> String {
    files::sha256(text.as_bytes())[..8].to_string()
}
