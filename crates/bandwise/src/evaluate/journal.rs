//! The journal of an evaluation: one line per (image, attack), appended and never rewritten.
//!
//! It lives in `results.jsonl`: a header line (`"kind": "journal"`) with everything that the outcomes
//! depend on, then one line per judgement (`"kind": "image"`). Lines of other kinds (records) may
//! stand between them. A killed process loses at most an unfinished line; the evaluation continues
//! with the missing judgements. Journals of shards merge into one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::append_lines;
use super::shard::Shard;
use crate::attack::{Attack, Outcome};
use crate::{Error, Result, files};

/// The name under which clean predictions are journalled.
pub const CLEAN: &str = "none";

/// Everything that the outcomes depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Architecture name.
    pub model: String,
    /// SHA-256 of the weights file.
    pub weights_sha256: String,
    /// The data set as named by the user (not compared: files may move).
    pub data: String,
    /// Fingerprint of the data set.
    pub data_sha256: String,
    /// Its split.
    pub split: String,
    /// The first so many images are judged.
    pub images: usize,
    /// Seed of all random streams.
    pub seed: u64,
    /// The attacks with all parameters, in order.
    pub attacks: Vec<Attack>,
    /// Number format of the computation.
    pub precision: String,
    /// Kind of device: `cpu`, `cuda`, `metal`.
    pub device: String,
    /// Which share of the images this journal holds.
    pub shard: Shard,
    /// Version of Bandwise.
    pub version: String,
}

impl Header {
    /// The name of each attack in the journal: its own, with `#2`, `#3` … where it is repeated.
    pub fn labels(&self) -> Vec<String> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        self.attacks
            .iter()
            .map(|attack| {
                let times = seen.entry(attack.name()).and_modify(|n| *n += 1).or_insert(1);
                if *times == 1 { attack.name().to_string() } else { format!("{}#{times}", attack.name()) }
            })
            .collect()
    }

    /// Images of this share, in order.
    pub fn image_numbers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.images).filter(|&image| self.shard.contains(image))
    }

    /// The fields in which `other` differs, `name: here → there`.
    fn differences(&self, other: &Self, ignored: &[&str]) -> Vec<String> {
        // Through text and back, so that both sides went through the same number parser.
        let flat = |header: &Self| -> Value {
            serde_json::to_string(header)
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default()
        };
        let (ours, theirs) = (flat(self), flat(other));
        let fields = ours.as_object().into_iter().flatten();
        fields
            .filter(|(name, value)| !ignored.contains(&name.as_str()) && theirs.get(name) != Some(value))
            .map(|(name, value)| format!("{name}: {} → {value}", theirs.get(name).unwrap_or(&Value::Null)))
            .collect()
    }
}

/// One judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Index in the data set.
    pub image: usize,
    /// Label of the attack in the header, or [`CLEAN`].
    pub attack: String,
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
}

impl Entry {
    /// The judgement that an attack's outcome amounts to.
    pub fn of(image: usize, attack: &str, outcome: Outcome) -> Self {
        let Outcome { broken, margin, queries, gradients, restart, distance, by } = outcome;
        let attack = attack.to_string();
        Self { image, attack, correct: !broken, margin, queries, gradients, restart, distance, by }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Line {
    #[serde(rename = "journal")]
    Header(Header),
    #[serde(rename = "image")]
    Entry(Entry),
}

/// A journal on disk and what it holds.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
    header: Header,
    /// Entry and its line as written, so that merging never re-formats a number.
    entries: HashMap<(String, usize), (Entry, String)>,
}

impl Journal {
    /// Starts a journal at `path`, or continues the one that is there.
    ///
    /// # Errors
    /// [`Error::Config`] if the journal there belongs to an evaluation with other parameters: the
    /// message names each of them.
    pub fn open(path: &Path, header: Header) -> Result<Self> {
        if path.exists()
            && let Some(journal) = Self::read_if_any(path)?
        {
            let changed = header.differences(&journal.header, &["data"]);
            if changed.is_empty() {
                return Ok(journal);
            }
            return Err(Error::config(format!(
                "{} holds another evaluation ({}); choose another file, or repeat the old settings to continue it",
                path.display(),
                changed.join("; ")
            )));
        }
        append_lines(path, &text_of(path, &Line::Header(header.clone()))?)?;
        Ok(Self { path: path.to_path_buf(), header, entries: HashMap::new() })
    }

    /// A journal that is not kept on disk.
    pub fn in_memory(header: Header) -> Self {
        Self { path: PathBuf::new(), header, entries: HashMap::new() }
    }

    /// Reads the journal in a `results.jsonl`.
    ///
    /// # Errors
    /// [`Error::Format`] for a file without a header, or lines that do not belong to it.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_if_any(path)?.ok_or_else(|| {
            Error::format(
                path,
                "expected the journal of an evaluation, but there is no line of kind `journal`",
            )
        })
    }

    fn read_if_any(path: &Path) -> Result<Option<Self>> {
        let text = String::from_utf8(files::read(path)?)
            .map_err(|_| Error::format(path, "expected lines of JSON, but the file is not UTF-8"))?;
        let mut journal: Option<Self> = None;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let invalid = |reason: String| Error::format(path, format!("line {}: {reason}", index + 1));
            if !line.ends_with('\n') {
                break; // a killed writer's last line; whoever appends removes it
            }
            if line.trim().is_empty() {
                continue;
            }
            let value: Value =
                serde_json::from_str(line).map_err(|e| invalid(format!("not valid JSON: {e}")))?;
            if !matches!(value.get("kind").and_then(Value::as_str), Some("journal" | "image")) {
                continue;
            }
            let line_read: Line = serde_json::from_value(value).map_err(|e| invalid(e.to_string()))?;
            match (line_read, &mut journal) {
                (Line::Header(header), None) => {
                    journal = Some(Self { path: path.to_path_buf(), header, entries: HashMap::new() });
                }
                (Line::Header(_), Some(_)) => return Err(invalid("a second journal begins here".into())),
                (Line::Entry(_), None) => return Err(invalid("a judgement stands before the header".into())),
                (Line::Entry(entry), Some(journal)) => {
                    journal.take(entry, line.trim_end()).map_err(invalid)?
                }
            }
        }
        Ok(journal)
    }

    /// The file; empty for a journal in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the outcomes depend on.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The judgement of `image` under the attack with this label.
    pub fn get(&self, attack: &str, image: usize) -> Option<&Entry> {
        self.entries.get(&(attack.to_string(), image)).map(|(entry, _)| entry)
    }

    /// Appends judgements and flushes them to the disk.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<()> {
        let lines: Vec<String> = entries
            .iter()
            .map(|entry| text_of(&self.path, &Line::Entry(entry.clone())))
            .collect::<Result<_>>()?;
        if !self.path.as_os_str().is_empty() {
            append_lines(&self.path, &lines.concat())?;
        }
        for (entry, line) in entries.into_iter().zip(lines) {
            self.take(entry, line.trim_end()).map_err(Error::Config)?;
        }
        Ok(())
    }

    /// Correctness of every image of the share under an attack (or [`CLEAN`]), in order. An image
    /// that is wrong without any attack counts as wrong.
    ///
    /// # Errors
    /// [`Error::Format`] naming what is missing.
    pub fn flags(&self, attack: &str) -> Result<Vec<bool>> {
        let missing = self.missing(attack);
        if !missing.is_empty() {
            return Err(self.incomplete(attack, &missing));
        }
        let right = |attack: &str, image| self.get(attack, image).is_some_and(|entry| entry.correct);
        Ok(self.header.image_numbers().map(|image| right(CLEAN, image) && right(attack, image)).collect())
    }

    /// Images still to be judged under an attack: those without a judgement, except where the clean
    /// image is already wrong.
    pub fn missing(&self, attack: &str) -> Vec<usize> {
        let wrong = |image| attack != CLEAN && self.get(CLEAN, image).is_some_and(|entry| !entry.correct);
        self.header
            .image_numbers()
            .filter(|&image| self.get(attack, image).is_none() && !wrong(image))
            .collect()
    }

    fn incomplete(&self, attack: &str, missing: &[usize]) -> Error {
        let first: Vec<String> = missing.iter().take(5).map(usize::to_string).collect();
        Error::format(
            &self.path,
            format!(
                "{} images were not judged under `{attack}` (first: {}); run the same evaluation again to finish it",
                missing.len(),
                first.join(", ")
            ),
        )
    }

    /// Puts a judgement in its place; a different one for the same image is an error.
    fn take(&mut self, entry: Entry, line: &str) -> Result<(), String> {
        let known = entry.attack == CLEAN || self.header.labels().contains(&entry.attack);
        if !known || entry.image >= self.header.images {
            return Err(format!("image {} under `{}` is not in the header", entry.image, entry.attack));
        }
        let key = (entry.attack.clone(), entry.image);
        match self.entries.get(&key) {
            Some((_, written)) if written != line => {
                Err(format!("image {} under `{}` was judged twice, differently", entry.image, entry.attack))
            }
            _ => {
                self.entries.insert(key, (entry, line.to_string()));
                Ok(())
            }
        }
    }

    /// The journal as text in its canonical order: header, clean images, then attack by attack.
    fn canonical(&self) -> Result<String> {
        let mut text = text_of(&self.path, &Line::Header(self.header.clone()))?;
        for attack in std::iter::once(CLEAN.to_string()).chain(self.header.labels()) {
            for image in self.header.image_numbers() {
                if let Some((_, line)) = self.entries.get(&(attack.clone(), image)) {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }
}

/// Merges the journals of shards (or of interrupted runs) into one at `out`, which is returned.
///
/// The result does not depend on how the work was divided: it equals the journal of an uninterrupted
/// run of the whole.
///
/// # Errors
/// [`Error::Config`] if they belong to different evaluations, [`Error::Format`] if judgements are
/// missing or contradict each other.
pub fn merge(inputs: &[PathBuf], out: &Path) -> Result<Journal> {
    let mut journals = inputs.iter().map(|path| Journal::read(path)).collect::<Result<Vec<_>>>()?.into_iter();
    let Some(first) = journals.next() else {
        return Err(Error::config("there are no journals to merge"));
    };
    let header = Header { shard: Shard::WHOLE, ..first.header.clone() };
    let mut merged = Journal { path: out.to_path_buf(), header, entries: HashMap::new() };
    for journal in std::iter::once(first).chain(journals) {
        let changed = journal.header.differences(&merged.header, &["shard", "data"]);
        if !changed.is_empty() {
            return Err(Error::config(format!(
                "{} belongs to another evaluation ({})",
                journal.path.display(),
                changed.join("; ")
            )));
        }
        for (entry, line) in journal.entries.values() {
            merged.take(entry.clone(), line).map_err(|reason| Error::format(&journal.path, reason))?;
        }
    }
    for attack in std::iter::once(CLEAN.to_string()).chain(merged.header.labels()) {
        let missing = merged.missing(&attack);
        if !missing.is_empty() {
            return Err(merged.incomplete(&attack, &missing));
        }
    }
    files::write_atomic(out, merged.canonical()?.as_bytes())?;
    Ok(merged)
}

fn text_of(path: &Path, line: &Line) -> Result<String> {
    let text = serde_json::to_string(line)
        .map_err(|e| Error::format(path, format!("a journal line could not be written: {e}")))?;
    Ok(text + "\n")
}
