//! Running sums of loss and accuracy over an epoch.

use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use super::objective::Terms;
use super::update::StepOutput;
use crate::Result;

/// Sums over the images of an epoch so far. Values are fetched from the device in order, so the sums
/// do not depend on when they are looked at.
#[derive(Clone, Debug, Default)]
pub struct EpochMetrics {
    sums: Sums,
    waiting: Vec<Waiting>,
}

/// A batch whose numbers are still on the device.
#[derive(Clone, Debug)]
struct Waiting {
    loss: Tensor,
    unperturbed_loss: Option<Tensor>,
    terms: Terms,
    hits: Tensor,
    count: usize,
}

/// The part of the metrics that a checkpoint keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Sum of losses over images.
    pub loss: f64,
    /// Number of images classified correctly.
    pub correct: f64,
    /// Number of images.
    pub count: u64,
    /// Sum of losses at unperturbed weights, over images whose step perturbed them.
    #[serde(default)]
    pub unperturbed_loss: f64,
    /// Number of those images.
    #[serde(default)]
    pub perturbed: u64,
    /// Sums of the parts of the loss over images, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub terms: BTreeMap<String, f64>,
}

impl Sums {
    /// Mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.count.max(1) as f64
    }

    /// Mean loss at unperturbed weights, if any were perturbed.
    pub fn mean_unperturbed_loss(&self) -> Option<f64> {
        (self.perturbed > 0).then(|| self.unperturbed_loss / self.perturbed as f64)
    }

    /// Means of the parts of the loss, by name, without their weights: `cross_entropy`, `penalty/jafr`, …
    pub fn mean_terms(&self) -> impl Iterator<Item = (&str, f64)> {
        self.terms.iter().map(|(name, sum)| (name.as_str(), sum / self.count.max(1) as f64))
    }

    /// Share of correct images.
    pub fn accuracy(&self) -> f64 {
        self.correct / self.count.max(1) as f64
    }
}

impl EpochMetrics {
    /// Metrics that continue from `sums`.
    pub fn from_sums(sums: Sums) -> Self {
        Self { sums, waiting: Vec::new() }
    }

    /// Adds what an update with these labels has seen.
    pub fn add(&mut self, updated: &StepOutput, labels: &Tensor) -> Result<()> {
        let logits = updated.outcome.logits.detach();
        self.waiting.push(Waiting {
            loss: updated.outcome.loss.detach(),
            unperturbed_loss: updated.unperturbed_loss.clone(),
            terms: updated.outcome.terms.clone(),
            hits: logits.argmax(D::Minus1)?.eq(labels)?.to_dtype(DType::F32)?.sum_all()?,
            count: labels.dim(0)?,
        });
        Ok(())
    }

    /// The sums so far; waits for the device.
    pub fn sums(&mut self) -> Result<&Sums> {
        let sum = |mean: &Tensor, count: usize| -> Result<f64> {
            Ok(mean.to_dtype(DType::F64)?.to_scalar::<f64>()? * count as f64)
        };
        for Waiting { loss, unperturbed_loss, terms, hits, count } in self.waiting.drain(..) {
            self.sums.loss += sum(&loss, count)?;
            if let Some(loss) = unperturbed_loss {
                self.sums.unperturbed_loss += sum(&loss, count)?;
                self.sums.perturbed += count as u64;
            }
            for (name, term) in terms {
                *self.sums.terms.entry(name.to_owned()).or_default() += sum(&term, count)?;
            }
            self.sums.correct += f64::from(hits.to_scalar::<f32>()?);
            self.sums.count += count as u64;
        }
        Ok(&self.sums)
    }
}
