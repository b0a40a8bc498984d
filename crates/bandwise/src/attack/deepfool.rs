//! DeepFool (Moosavi-Dezfooli et al. 2016), in its L2 and L∞ forms.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, select_all};
use super::boundary::{Boundary, dual, nearest};
use super::geometry::{column, host_norms};
use super::method::{AttackMethod, PassCount, Settings, Wording, check_number};
use super::oracle::{Objective, Oracle};
use super::{AttackContext, AttackResult, Classifier, Epsilon, Norm};
use crate::Result;
use crate::wording::counted;

/// Steps onto the nearest linearized boundary until the class changes; an image counts as broken if
/// the perturbation found is at most ε.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeepFool {
    /// L2 or L∞.
    pub norm: Norm,
    /// Radius within which a perturbation counts.
    pub epsilon: Epsilon,
    /// Largest number of steps.
    pub steps: usize,
    /// How far the boundary is overstepped.
    pub overshoot: f64,
}

impl Default for DeepFool {
    fn default() -> Self {
        Self { norm: Norm::L2, epsilon: Norm::L2.default_epsilon(), steps: 50, overshoot: 0.02 }
    }
}

impl AttackMethod for DeepFool {
    const SUMMARY: &'static str = "steps onto the nearest linearized boundary";
    const SOURCE: &'static str = "Moosavi-Dezfooli et al. 2016";
    const NORMS: &'static [Norm] = &[Norm::L2, Norm::Linf];

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, steps, overshoot: _ } = self;
        Settings { norm: Some(norm), steps: Some(steps), ..Settings::new(epsilon) }
    }

    fn validate(&self) -> Result<()> {
        check_number("deepfool", "overshoot", self.overshoot, self.overshoot >= 0.0, "at least 0")
    }

    fn objective(&self) -> Option<Objective> {
        Some(Objective::Margin)
    }

    fn passes(&self, classes: usize) -> PassCount {
        PassCount::new(&[self.steps + 1], &[self.steps, classes])
    }

    fn protocol(&self) -> Wording {
        Wording::new("DeepFool", self.norm, self.epsilon)
            .with(format!("at most {}", counted(self.steps, "step")))
            .with(format!("overshoot {}", self.overshoot))
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let oracle = Oracle::new(model, context);
        let mut active = ActiveBatch::new(images, labels)?;
        let (mut origin, mut total) = (images.detach(), images.zeros_like()?);
        for step in 0..=self.steps {
            let x = (&origin + total.affine(1.0 + self.overshoot, 0.0)?)?.clamp(0.0, 1.0)?;
            let judged = active.judge(&oracle.logits(&x)?)?;
            active.count_queries(1);
            active.record(&judged, 0);
            let sizes = host_norms(&(&x - &origin)?, self.norm)?;
            for ((&image, verdict), size) in active.alive.iter().zip(&judged).zip(sizes) {
                let outcome = &mut active.outcomes[image];
                outcome.distance = verdict.wrong.then_some(size);
                outcome.broken = verdict.wrong && size <= self.epsilon.value();
            }
            let done: Vec<bool> = judged.iter().map(|v| v.wrong || step == self.steps).collect();
            if let Some(stay) = active.retire(&done, &x)? {
                if active.alive.is_empty() {
                    break;
                }
                select_all(&mut [&mut origin, &mut total], &stay)?;
            }
            let x = (&origin + total.affine(1.0 + self.overshoot, 0.0)?)?.clamp(0.0, 1.0)?;
            let boundary = nearest(&oracle, &x, &active.labels(), self.norm)?;
            active.note_gradients(&boundary.slope)?;
            total = (total + self.shortest_step(&boundary, &x)?)?;
            active.count_gradients(model.num_classes() as u64);
        }
        active.finish(&origin)
    }
}

impl DeepFool {
    /// The smallest step to the nearest linearized boundary.
    fn shortest_step(&self, boundary: &Boundary, x: &Tensor) -> Result<Tensor> {
        let lengths = host_norms(&boundary.slope, dual(self.norm))?;
        // 1e-4 as in the authors' code: land past the boundary, not on it.
        let distance =
            boundary.gap.iter().zip(&lengths).map(|(gap, length)| (gap.abs() + 1e-4) / (length + 1e-12));
        let (direction, factors): (Tensor, Vec<f64>) = match self.norm {
            Norm::Linf => (boundary.slope.sign()?, distance.collect()),
            _ => (
                boundary.slope.clone(),
                distance.zip(&lengths).map(|(d, length)| d / (length + 1e-12)).collect(),
            ),
        };
        Ok(direction.broadcast_mul(&column(&factors, x)?)?)
    }
}
