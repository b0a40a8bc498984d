//! The run folder: everything that a training run leaves behind.
//!
//! `run.toml` (complete configuration), `status.json`, `metrics.jsonl`, TensorBoard events,
//! `checkpoints/`, `model.safetensors` (last) and `best.safetensors`, `results.jsonl`, `report.html`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoints;
use super::recipe::Recipe;
use crate::evaluate::record::{Record, append_jsonl, append_lines};
use crate::lock::Lock;
use crate::{Error, Result, files};

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// `epoch`; `warning` or `note` for a line that carries a message.
    pub kind: String,
    /// Epochs completed.
    pub epoch: u64,
    /// Optimizer steps taken.
    pub step: u64,
    /// Names and values, such as `train/loss`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, f64>,
    /// What a warning or note says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl MetricsLine {
    /// The values of an epoch.
    pub fn epoch(epoch: u64, step: u64, values: BTreeMap<String, f64>) -> Self {
        Self { kind: "epoch".into(), epoch, step, values, message: String::new() }
    }

    /// A `warning` or `note` about an epoch.
    pub fn message(kind: &str, epoch: u64, step: u64, message: &str) -> Self {
        Self { kind: kind.into(), epoch, step, values: BTreeMap::new(), message: message.into() }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Training has not ended (or the process was killed).
    Running,
    /// The user stopped it; `--resume` goes on.
    Interrupted,
    /// Training and the final evaluation have ended.
    Complete,
}

/// A run folder on disk.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Nobody else writes here.
    _lock: Arc<Lock>,
}

impl RunFolder {
    /// Starts a new run, which alone may write in the folder until it is dropped.
    ///
    /// # Errors
    /// If the folder already holds a run, or another process is writing there.
    pub fn create(path: &Path, recipe: &Recipe) -> Result<Self> {
        let folder = Self::locked(path)?;
        folder.check_empty()?;
        folder.set_status(Status::Running)?;
        folder.set_recipe(recipe)?;
        Ok(folder)
    }

    /// Refuses a folder that holds a run already. One that was stopped before it had anything to show is none.
    ///
    /// # Errors
    /// If it does.
    pub fn check_free(path: &Path) -> Result<()> {
        // The lock first: "resume it" is wrong advice while it runs.
        if path.join("run.toml").exists() { Self::locked(path)?.check_empty() } else { Ok(()) }
    }

    fn check_empty(&self) -> Result<()> {
        if self.file("run.toml").exists() && self.has_results()? {
            return Err(Error::config(format!(
                "{}: already holds a run; resume it with --resume, or name another folder with --out",
                self.path.display()
            )));
        }
        Ok(())
    }

    /// Whether anything was trained or measured here.
    fn has_results(&self) -> Result<bool> {
        let written = |name: &str| std::fs::metadata(self.file(name)).is_ok_and(|file| file.len() > 0);
        let any = ["metrics.jsonl", "model.safetensors", "results.jsonl"].into_iter().any(written);
        Ok(any || !self.checkpoints().list()?.is_empty())
    }

    /// Opens an existing run and the recipe it was started with, and removes what killed processes left there.
    ///
    /// # Errors
    /// If there is no run, or another process is writing there.
    pub fn open(path: &Path) -> Result<(Self, Recipe)> {
        let recipe = Self::recipe(path, &[])?;
        Ok((Self::locked(path)?, recipe))
    }

    fn locked(path: &Path) -> Result<Self> {
        let folder = Self { path: path.to_path_buf(), _lock: Arc::new(Lock::folder(path)?) };
        for part in [path.to_path_buf(), folder.file("checkpoints"), folder.file("sections")] {
            files::remove_leftovers(&part)?;
        }
        Ok(folder)
    }

    /// The recipe that the run in `path` was started with, changed by `key=value` overrides.
    ///
    /// # Errors
    /// There is no run, or an override makes no sense.
    pub fn recipe(path: &Path, overrides: &[String]) -> Result<Recipe> {
        let recipe = path.join("run.toml");
        if !recipe.exists() {
            return Err(Error::config(format!(
                "{}: no run.toml there, so there is no run to resume",
                path.display()
            )));
        }
        Recipe::read(&recipe, overrides)
    }

    /// Replaces `run.toml`.
    pub fn set_recipe(&self, recipe: &Recipe) -> Result<()> {
        files::write_atomic(&self.file("run.toml"), recipe.to_toml()?.as_bytes())
    }

    /// Its checkpoints.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.file("checkpoints"))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file of the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Records where the run stands.
    pub fn set_status(&self, status: Status) -> Result<()> {
        let text = serde_json::json!({ "status": status, "version": env!("CARGO_PKG_VERSION") });
        files::write_atomic(&self.file("status.json"), format!("{text}\n").as_bytes())
    }

    /// Where the run stands.
    pub fn status(&self) -> Result<Status> {
        #[derive(Deserialize)]
        struct File {
            status: Status,
        }
        let path = self.file("status.json");
        let file: File = serde_json::from_slice(&files::read(&path)?).map_err(|e| {
            let reason = format!(
                "this file is damaged ({e}); write {{\"status\":\"running\"}} into it, and --resume continues the run \
                 from its last checkpoint"
            );
            Error::format(&path, reason)
        })?;
        Ok(file.status)
    }

    /// Appends the metrics of one epoch.
    pub fn append_metrics(&self, line: &MetricsLine) -> Result<()> {
        append_lines(&self.file("metrics.jsonl"), &(to_json(line)? + "\n"))
    }

    /// All metrics so far; an unfinished last line is passed over.
    pub fn metrics(&self) -> Result<Vec<MetricsLine>> {
        let path = self.file("metrics.jsonl");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = String::from_utf8_lossy(&files::read(&path)?).into_owned();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|e| Error::format(&path, format!("line {}: {e}", number + 1)))
        };
        whole.lines().enumerate().map(parse).collect()
    }

    /// Drops metrics of epochs after `epoch`: what a resumed run will write again.
    pub fn truncate_metrics(&self, epoch: u64) -> Result<()> {
        let kept: Vec<MetricsLine> = self.metrics()?.into_iter().filter(|line| line.epoch <= epoch).collect();
        let lines = kept.iter().map(|line| Ok(to_json(line)? + "\n")).collect::<Result<String>>()?;
        files::write_atomic(&self.file("metrics.jsonl"), lines.as_bytes())
    }

    /// Appends result records.
    pub fn append_results(&self, records: &[Record]) -> Result<()> {
        append_jsonl(&self.file("results.jsonl"), records)
    }
}

fn to_json(line: &MetricsLine) -> Result<String> {
    serde_json::to_string(line).map_err(|e| Error::config(format!("metrics cannot be written: {e}")))
}
