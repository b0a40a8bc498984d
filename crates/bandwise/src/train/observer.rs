//! Callbacks for training progress.

use super::epoch_metrics::Sums;
use super::recipe::Recipe;
use super::run_folder::MetricsLine;

/// Watches a run: progress bars, log lines. All methods default to silence.
pub trait Observer: Sync {
    /// Training begins or goes on at `epoch` (0-based) of `epochs`.
    fn started(&self, _recipe: &Recipe, _parameters: usize, _epoch: u64) {}
    /// A batch has been learned; `done` of `batches` in this epoch.
    fn step(&self, _epoch: u64, _done: usize, _batches: usize, _sums: &Sums) {}
    /// An epoch has ended; its metrics are saved.
    fn epoch(&self, _line: &MetricsLine, _epochs: u64, _seconds: f64) {}
    /// Something that the user should know.
    fn message(&self, _text: &str) {}
}

/// Watches nothing.
pub struct Silent;

impl Observer for Silent {}
