//! Reads what a run left in its folder.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::evaluate::overview::Source;
use crate::evaluate::sources;
use crate::report::Section;
use crate::{Error, Result, files};

/// A run folder's content, as far as a report needs it.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Its name, `run.toml` and result records.
    pub(super) source: Source,
    /// The curves of `metrics.jsonl`.
    pub(super) metrics: Metrics,
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
        if folder.is_file() {
            let source = Source::read(folder)?;
            return Ok(Self { source, metrics: Metrics::default(), sections: Vec::new() });
        }
        if !folder.is_dir() {
            return Err(Error::format(folder, "expected the folder of a run, but there is none"));
        }
        let [run_toml, metrics] = ["run.toml", "metrics.jsonl"].map(|name| folder.join(name));
        let section_files = section_files(folder)?;
        let has_results = !sources::result_files(folder)?.is_empty();
        if ![&run_toml, &metrics].iter().any(|path| path.is_file())
            && !has_results
            && section_files.is_empty()
        {
            let reason = "no run.toml, metrics.jsonl, results.jsonl or sections/*.json in it; name the folder that \
                          `bandwise train --out` or an evaluation wrote";
            return Err(Error::format(folder, reason));
        }
        let mut sections = Vec::new();
        for path in section_files {
            sections.extend(Section::read_json(&path)?);
        }
        let run = Self {
            source: Source::read(folder)?,
            metrics: if metrics.is_file() { Metrics::read(&metrics)? } else { Metrics::default() },
            sections,
        };
        let source = &run.source;
        if source.settings.is_empty()
            && source.records.is_empty()
            && run.metrics.epochs.is_empty()
            && run.sections.is_empty()
        {
            return Err(Error::format(folder, "its files hold no results yet: there is nothing to report"));
        }
        Ok(run)
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
