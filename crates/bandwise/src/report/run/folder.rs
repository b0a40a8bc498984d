//! Reads what a run left in its folder.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::evaluate::record::{self, Record};
use crate::report::Section;
use crate::{Error, Result, files};

/// A run folder's content, as far as a report needs it.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// The name that the report uses.
    pub(super) name: String,
    /// `run.toml`, as dotted keys and values in the file's order.
    pub(super) configuration: Vec<(String, String)>,
    /// The curves of `metrics.jsonl`.
    pub(super) metrics: Metrics,
    /// The numbers of `results.jsonl`.
    pub(super) records: Vec<Record>,
    /// The section files of `sections/` and `analysis/`.
    pub(super) sections: Vec<Section>,
}

/// What training wrote down, epoch by epoch.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    /// Epoch and its values, in order; of an epoch that was repeated after a resume, the last.
    pub(super) epochs: Vec<(f64, Map<String, Value>)>,
    /// Messages of `{"kind": "warning", "message": ...}` lines.
    pub(super) warnings: Vec<String>,
    /// Messages of `{"kind": "note", "message": ...}` lines.
    pub(super) notes: Vec<String>,
}

impl Run {
    /// Reads a run folder.
    ///
    /// # Errors
    /// When it is no folder, holds nothing that a run leaves, or a file in it is malformed; the message
    /// names the file and the line.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::format(folder, "expected the folder of a run, but there is none"));
        }
        let [run_toml, metrics, results] =
            ["run.toml", "metrics.jsonl", "results.jsonl"].map(|name| folder.join(name));
        let section_files = section_files(folder)?;
        if ![&run_toml, &metrics, &results].iter().any(|path| path.is_file()) && section_files.is_empty() {
            let reason = "no run.toml, metrics.jsonl, results.jsonl or sections/*.json in it; name the folder that \
                          `bandwise train --out` or an evaluation wrote";
            return Err(Error::format(folder, reason));
        }
        let table = if run_toml.is_file() { read_toml(&run_toml)? } else { toml::Table::new() };
        let mut configuration = Vec::new();
        flatten("", &toml::Value::Table(table), &mut configuration);
        let mut sections = Vec::new();
        for path in section_files {
            sections.extend(Section::read_json(&path)?);
        }
        Ok(Self {
            name: run_name(folder),
            configuration,
            metrics: if metrics.is_file() { Metrics::read(&metrics)? } else { Metrics::default() },
            records: if results.is_file() { record::read(&results)? } else { Vec::new() },
            sections,
        })
    }

    /// The value of a dotted configuration key.
    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        self.configuration.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// The folder's own name, also for `.` and `runs/plain/`.
fn run_name(folder: &Path) -> String {
    let resolved = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    resolved.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned())
}

fn read_toml(path: &Path) -> Result<toml::Table> {
    let text = String::from_utf8(files::read(path)?)
        .map_err(|_| Error::format(path, "expected TOML text, but the file is not UTF-8"))?;
    text.parse::<toml::Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Error::format(path, format!("line {line}: not valid TOML: {}", e.message()))
    })
}

/// Writes nested tables as dotted keys.
fn flatten(prefix: &str, value: &toml::Value, flat: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, flat);
            }
        }
        toml::Value::String(text) => flat.push((prefix.to_owned(), text.clone())),
        other => flat.push((prefix.to_owned(), other.to_string())),
    }
}

/// The section files of a run, by name.
fn section_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for folder in ["sections", "analysis"].map(|name| folder.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
            let path = entry.map_err(|e| Error::io(&folder, e))?.path();
            if path.extension().is_some_and(|e| e == "json") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    Ok(paths)
}

#[derive(Deserialize)]
struct MetricsLine {
    #[serde(default)]
    kind: String,
    epoch: Option<f64>,
    #[serde(default)]
    values: Map<String, Value>,
    #[serde(default)]
    message: String,
}

impl Metrics {
    fn read(path: &Path) -> Result<Self> {
        let text = String::from_utf8(files::read(path)?)
            .map_err(|_| Error::format(path, "expected JSON lines, but the file is not UTF-8"))?;
        let mut metrics = Self::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let line: MetricsLine = match serde_json::from_str(line) {
                Ok(line) => line,
                // Training was stopped in the middle of this line, or is writing it now.
                Err(_) if !line.ends_with('\n') => break,
                Err(e) => {
                    return Err(Error::format(
                        path,
                        format!("line {}: not a line of metrics: {e}", index + 1),
                    ));
                }
            };
            metrics
                .add(line)
                .map_err(|reason| Error::format(path, format!("line {}: {reason}", index + 1)))?;
        }
        metrics.epochs.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(metrics)
    }

    fn add(&mut self, line: MetricsLine) -> Result<(), &'static str> {
        match line.kind.as_str() {
            "warning" | "note" => {
                let text =
                    line.epoch.map_or(line.message.clone(), |e| format!("epoch {e}: {}", line.message));
                let list = if line.kind == "note" { &mut self.notes } else { &mut self.warnings };
                if !list.contains(&text) {
                    list.push(text);
                }
            }
            "epoch" => {
                let epoch = line.epoch.ok_or("an epoch's line needs its number, \"epoch\": 1")?;
                self.epochs.retain(|(known, _)| *known != epoch);
                self.epochs.push((epoch, line.values));
            }
            _ => {}
        }
        Ok(())
    }
}
