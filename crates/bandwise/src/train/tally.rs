//! Running sums of loss and accuracy over an epoch.

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Sums over the pictures of an epoch so far. Values are fetched from the device in order, so the sums
/// do not depend on when they are looked at.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    sums: Sums,
    waiting: Vec<(Tensor, Tensor, usize)>,
}

/// The part of a tally that a checkpoint keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Sum of losses over pictures.
    pub loss: f64,
    /// Number of pictures classified correctly.
    pub correct: f64,
    /// Number of pictures.
    pub count: u64,
}

impl Sums {
    /// Mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count.max(1) as f64
    }

    /// Share of correct pictures.
    pub fn accuracy(&self) -> f64 {
        self.correct / self.count.max(1) as f64
    }
}

impl Tally {
    /// A tally that goes on from `sums`.
    pub fn from_sums(sums: Sums) -> Self {
        Self { sums, waiting: Vec::new() }
    }

    /// Adds one batch: its mean loss and its logits `[batch, classes]`.
    pub fn add(&mut self, loss: &Tensor, logits: &Tensor, labels: &Tensor) -> Result<()> {
        let hits = logits.detach().argmax(D::Minus1)?.eq(labels)?.to_dtype(DType::F32)?.sum_all()?;
        self.waiting.push((loss.detach(), hits, labels.dim(0)?));
        Ok(())
    }

    /// The sums so far; waits for the device.
    pub fn sums(&mut self) -> Result<Sums> {
        for (loss, hits, count) in self.waiting.drain(..) {
            self.sums.loss += loss.to_dtype(DType::F64)?.to_scalar::<f64>()? * count as f64;
            self.sums.correct += f64::from(hits.to_scalar::<f32>()?);
            self.sums.count += count as u64;
        }
        Ok(self.sums)
    }
}
