//! The explicit context of one forward pass.

use std::sync::Mutex;

use candle_core::Tensor;

use super::dropout::Randomness;

/// Which statistics batch norm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics; running statistics are updated.
    Train,
    /// Batch statistics; running statistics are left alone.
    BatchStatistics,
    /// Running statistics.
    Eval,
}

/// Everything a layer may know about the pass it takes part in.
#[derive(Clone, Copy, Debug)]
pub struct ForwardContext<'a> {
    /// Which statistics batch norm uses.
    pub mode: Mode,
    /// How far training has come, in [0, 1]; blocks with a schedule (FPCM's cut-off) follow it.
    pub progress: f64,
    /// Where stages leave their feature maps, for analyses.
    pub recorder: Option<&'a Recorder>,
    /// Where dropout decides, outside evaluation; without, nothing is left out.
    pub randomness: Option<Randomness<'a>>,
}

impl ForwardContext<'_> {
    /// A training pass at `progress` in [0, 1].
    pub fn train(progress: f64) -> Self {
        Self { mode: Mode::Train, progress, recorder: None, randomness: None }
    }

    /// A pass with batch statistics that leaves running statistics alone.
    pub fn batch_statistics(progress: f64) -> Self {
        Self { mode: Mode::BatchStatistics, progress, recorder: None, randomness: None }
    }

    /// An evaluation pass: running statistics, training complete.
    pub fn eval() -> Self {
        Self { mode: Mode::Eval, progress: 1.0, recorder: None, randomness: None }
    }
}

/// Collects named intermediate tensors of a pass.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<(String, Tensor)>>);

impl Recorder {
    /// An empty recorder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a tensor, detached from the graph.
    pub fn record(&self, name: &str, tensor: &Tensor) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).push((name.to_string(), tensor.detach()));
    }

    /// What was recorded, in order.
    pub fn take(&self) -> Vec<(String, Tensor)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(|e| e.into_inner()))
    }
}
