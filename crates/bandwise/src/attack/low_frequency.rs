//! Low-frequency black-box attack: SimBA in the DCT basis (Guo et al. 2019).
//!
//! Each query changes one cosine coefficient of one channel by ± a step and keeps the change if the
//! margin shrinks. Restricting the coefficients to low frequencies makes it query-efficient.

use candle_core::{DType, Tensor};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, select_host};
use super::fourier_basis::attacked_images;
use super::method::{AttackMethod, PassCount, Settings, StepSize, Wording};
use super::oracle::{Objective, Oracle};
use super::{AttackContext, AttackResult, Band, Classifier, Epsilon, Norm};
use crate::{Error, Result, random};

/// Random search over DCT coefficients, in a ball of radius ε.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LowFrequency {
    /// L2 or L∞.
    pub norm: Norm,
    /// Radius of the ball.
    pub epsilon: Epsilon,
    /// Change of one coefficient, in the chosen norm; ε/5 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
    /// Largest number of queries per image.
    pub queries: usize,
    /// Frequencies allowed (coefficient k is k/2 cycles per image); below a quarter of the Nyquist
    /// frequency if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<Band>,
}

impl Default for LowFrequency {
    fn default() -> Self {
        Self {
            norm: Norm::L2,
            epsilon: Norm::L2.default_epsilon(),
            step_size: None,
            queries: 1000,
            band: None,
        }
    }
}

/// Coefficient (vertical, horizontal) and channel.
type Coefficient = (usize, usize, usize);

#[derive(Clone)]
struct Candidate {
    origin: Vec<f32>,
    best: Vec<f32>,
    order: Vec<Coefficient>,
    next: usize,
    negative: bool,
}

impl AttackMethod for LowFrequency {
    const SUMMARY: &'static str = "SimBA in the DCT basis (black box)";
    const SOURCE: &'static str = "Guo et al. 2019";
    const NORMS: &'static [Norm] = &[Norm::L2, Norm::Linf];

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, step_size, queries, band } = self;
        Settings {
            norm: Some(norm),
            step_size: Some(StepSize { given: step_size, default: epsilon.scaled(0.2) }),
            queries: Some(queries),
            band: Some(band),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn check_size(&self, height: usize, width: usize) -> Result<()> {
        self.coefficients(height, width, 1).map(|_| ())
    }

    fn objective(&self) -> Option<Objective> {
        None
    }

    fn passes(&self, _: usize) -> PassCount {
        PassCount::new(&[self.queries], &[0])
    }

    fn protocol(&self) -> Wording {
        Wording::new("SimBA-DCT", self.norm, self.epsilon)
            .step(self.step_size())
            .count(self.queries, "query")
            .band(&self.band)
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let (_, height, width, channels) = images.dims4()?;
        let coefficients = self.coefficients(height, width, channels)?;
        let oracle = Oracle::new(model, context);
        let mut active = ActiveBatch::new(images, labels)?;
        let judged = active.judge(&oracle.logits(images)?)?;
        active.count_queries(1);
        active.record(&judged, 0);
        let tag = random::tag("low-frequency");
        let rows = images.flatten_from(1)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let mut candidates: Vec<Candidate> = rows
            .into_iter()
            .zip(context.image_ids)
            .map(|(origin, &id)| {
                let mut order = coefficients.clone();
                order.shuffle(&mut random::stream(context.seed, &[tag, id]));
                Candidate { best: origin.clone(), origin, order, next: 0, negative: false }
            })
            .collect();
        let mut done: Vec<bool> = judged.iter().map(|v| v.wrong).collect();
        for _ in 0..self.queries {
            let best = attacked_images(candidates.iter().map(|c| &c.best), images)?;
            if let Some(stay) = active.retire(&done, &best)? {
                select_host(&mut candidates, &stay)?;
            }
            if active.alive.is_empty() {
                break;
            }
            let tried: Vec<Vec<f32>> =
                candidates.par_iter().map(|c| self.propose(c, height, width, channels)).collect();
            let judged = active.judge(&oracle.logits(&attacked_images(tried.iter(), images)?)?)?;
            active.count_queries(1);
            for (row, picture) in tried.into_iter().enumerate() {
                let outcome = &mut active.outcomes[active.alive[row]];
                let better = judged[row].margin < outcome.margin || judged[row].wrong;
                if better {
                    (outcome.margin, outcome.broken) = (judged[row].margin, judged[row].wrong);
                    candidates[row].best = picture;
                }
                candidates[row].advance(better);
            }
            done = judged.iter().map(|v| v.wrong).collect();
        }
        if candidates.is_empty() {
            return active.finish(images);
        }
        let rest = attacked_images(candidates.iter().map(|c| &c.best), images)?;
        active.finish(&rest)
    }
}

impl LowFrequency {
    fn step_size(&self) -> Epsilon {
        self.step_size.unwrap_or(self.epsilon.scaled(0.2))
    }

    fn coefficients(&self, height: usize, width: usize, channels: usize) -> Result<Vec<Coefficient>> {
        let quarter = |side: usize| side.div_ceil(4).max(1);
        let allowed = |k: usize, l: usize| match &self.band {
            None => k < quarter(height) && l < quarter(width),
            Some(Band::Ring { from, to }) => (*from..*to).contains(&((k as f64).hypot(l as f64) / 2.0)),
            Some(Band::Frequencies(list)) => list
                .iter()
                .any(|&(i, j)| [i, j].map(|f| f.unsigned_abs().saturating_mul(2)) == [k as u64, l as u64]),
        };
        let all: Vec<Coefficient> = (0..height * width * channels)
            .map(|p| (p / channels / width, p / channels % width, p % channels))
            .filter(|&(k, l, _)| allowed(k, l))
            .collect();
        match all.is_empty() {
            true => {
                Err(Error::config(format!("the band holds no cosine coefficient of {height}×{width} pixels")))
            }
            false => Ok(all),
        }
    }

    /// The best image with one coefficient changed, back in the ball and the box.
    fn propose(&self, candidate: &Candidate, height: usize, width: usize, channels: usize) -> Vec<f32> {
        let (k, l, channel) = candidate.order[candidate.next % candidate.order.len()];
        let cosine = |frequency: usize, position: usize, side: usize| {
            (std::f64::consts::PI * frequency as f64 * (position as f64 + 0.5) / side as f64).cos()
        };
        let basis: Vec<f64> =
            (0..height * width).map(|p| cosine(k, p / width, height) * cosine(l, p % width, width)).collect();
        let size = match self.norm {
            Norm::Linf => basis.iter().fold(0.0f64, |m, v| m.max(v.abs())),
            _ => basis.iter().map(|v| v * v).sum::<f64>().sqrt(),
        };
        let step = self.step_size().value() / size;
        let step = if candidate.negative { -step } else { step };
        let mut delta: Vec<f32> = candidate.best.iter().zip(&candidate.origin).map(|(b, o)| b - o).collect();
        for (p, value) in basis.iter().enumerate() {
            delta[p * channels + channel] += (step * value) as f32;
        }
        let epsilon = self.epsilon.value() as f32;
        if self.norm == Norm::Linf {
            delta.iter_mut().for_each(|d| *d = d.clamp(-epsilon, epsilon));
        } else {
            let length = delta.iter().map(|d| d * d).sum::<f32>().sqrt();
            let factor = (epsilon / length.max(f32::MIN_POSITIVE)).min(1.0);
            delta.iter_mut().for_each(|d| *d *= factor);
        }
        candidate.origin.iter().zip(&delta).map(|(x, d)| (x + d).clamp(0.0, 1.0)).collect()
    }
}

impl Candidate {
    /// After a failure with `+` comes `−`; otherwise the next coefficient.
    fn advance(&mut self, improved: bool) {
        if !improved && !self.negative {
            self.negative = true;
        } else {
            self.negative = false;
            self.next += 1;
        }
    }
}
