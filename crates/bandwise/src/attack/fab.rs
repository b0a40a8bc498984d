//! FAB, the fast adaptive boundary attack (Croce and Hein 2020), untargeted and targeted.
//!
//! A minimum-norm attack: it walks along the decision boundary towards the clean image. Follows the
//! official `fab_base.py`. An image is broken if the smallest perturbation found is at most ε; with
//! `early_stop` it leaves as soon as that is known, otherwise the distance is refined to the end.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, judge_logits, pick, select_all, select_host};
use super::apgd::need_classes;
use super::boundary::{Boundary, nearest, towards_targets};
use super::geometry::{Noise, column, host_norms, noise, normalized};
use super::method::{AttackMethod, PassCount, Settings, Wording, check_number};
use super::oracle::{LossTargets, Objective, Oracle};
use super::projection::onto_hyperplane_and_box;
use super::{AttackContext, AttackResult, Classifier, Epsilon, Norm};
use crate::{Result, random};

/// FAB (`fab`: the nearest of all classes) and FAB-T (`fab-t`: the strongest wrong classes in turn).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fab {
    /// L∞, L2 or L1.
    pub norm: Norm,
    /// Radius within which a perturbation counts.
    pub epsilon: Epsilon,
    /// Iterations of one start (official `n_iter`).
    pub steps: usize,
    /// Starts; the first at the clean image, the others random, on the survivors.
    pub restarts: usize,
    /// FAB-T: number of target classes; at most the number of classes − 1 are used.
    pub targets: usize,
    /// Largest pull towards the clean image.
    pub alpha_max: f64,
    /// Overshoot past the hyperplane.
    pub eta: f64,
    /// How far the search goes back after a success.
    pub beta: f64,
}

impl Default for Fab {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            steps: 100,
            restarts: 1,
            targets: 9,
            alpha_max: 0.1,
            eta: 1.05,
            beta: 0.9,
        }
    }
}

/// `fab`: the nearest of all classes.
pub(crate) struct Untargeted;
/// `fab-t`: the strongest wrong classes in turn.
pub(crate) struct Targeted;

/// Whether target classes are chosen.
pub(crate) trait Targeting {
    const TARGETED: bool;
}

impl Targeting for Untargeted {
    const TARGETED: bool = false;
}

impl Targeting for Targeted {
    const TARGETED: bool = true;
}

impl<T: Targeting> AttackMethod<T> for Fab {
    const SUMMARY: &'static str = match T::TARGETED {
        true => "FAB towards the strongest wrong classes in turn",
        false => "fast adaptive boundary attack: smallest perturbation",
    };
    const SOURCE: &'static str = "Croce & Hein 2020";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, steps, restarts, targets, alpha_max: _, eta: _, beta: _ } = self;
        Settings {
            norm: Some(norm),
            steps: Some(steps),
            restarts: Some(restarts),
            targets: T::TARGETED.then_some(targets),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        let name = if T::TARGETED { "fab-t" } else { "fab" };
        let (alpha, beta) = (self.alpha_max, self.beta);
        check_number(name, "alpha_max", alpha, (0.0..=1.0).contains(&alpha), "in [0, 1]")?;
        check_number(name, "eta", self.eta, self.eta > 0.0, "positive")?;
        check_number(name, "beta", beta, (0.0..=1.0).contains(&beta), "in [0, 1]")
    }

    fn objective(&self) -> Option<Objective> {
        Some(Objective::Margin)
    }

    fn passes(&self, classes: usize) -> PassCount {
        let (starts, slopes) = match T::TARGETED {
            true => (self.targets.min(classes.saturating_sub(1)), 1),
            false => (1, classes),
        };
        let steps = [starts, self.restarts, self.steps];
        PassCount::new(&steps, &[&steps[..], &[slopes]].concat())
    }

    fn protocol(&self) -> Wording {
        let default = Self::default();
        let wording = Wording::new(if T::TARGETED { "FAB-T" } else { "FAB" }, self.norm, self.epsilon)
            .count(self.steps, "step");
        let wording = match T::TARGETED {
            true => wording.count(self.targets, "target"),
            false => wording.unusual("targets", self.targets, default.targets),
        };
        wording
            .count(self.restarts, "restart")
            .unusual("α_max", self.alpha_max, default.alpha_max)
            .unusual("η", self.eta, default.eta)
            .unusual("β", self.beta, default.beta)
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let targeted = T::TARGETED;
        need_classes(model, 2, "fab", "a model with at least two classes")?;
        let oracle = Oracle::new(model, context);
        let mut active = ActiveBatch::new(images, labels)?;
        let logits = oracle.logits(images)?;
        active.count_queries(1);
        let judged = active.judge(&logits)?;
        active.record(&judged, 0);
        for (outcome, verdict) in active.outcomes.iter_mut().zip(&judged) {
            outcome.distance = verdict.wrong.then_some(0.0);
        }
        let mut state = State {
            origin: images.detach(),
            best: images.detach(),
            labels: labels.clone(),
            order: logits.contiguous()?.arg_sort_last_dim(false)?,
        };
        state.leave(&mut active, &judged.iter().map(|v| v.wrong).collect::<Vec<_>>())?;
        let ranks: Vec<Option<usize>> = match targeted {
            true => (1..=self.targets.min(model.num_classes() - 1)).map(Some).collect(),
            false => vec![None],
        };
        for rank in ranks {
            for restart in 0..self.restarts {
                if !active.alive.is_empty() {
                    self.start(&oracle, &mut active, &mut state, context, rank, restart)?;
                }
            }
        }
        active.finish(&state.best)
    }
}

impl Fab {
    /// One start on all survivors; updates their best perturbation.
    fn start(
        &self,
        oracle: &Oracle,
        active: &mut ActiveBatch,
        state: &mut State,
        context: &AttackContext,
        rank: Option<usize>,
        restart: usize,
    ) -> Result<()> {
        let number = (rank.unwrap_or(0) * 1000 + restart) as u64;
        let mut x =
            self.starting_point(&state.origin, &active.ids(context.image_ids), context.seed, number)?;
        let mut goal = LossTargets::new(&state.labels);
        if let Some(rank) = rank {
            goal.targets = Some(state.order.narrow(1, rank, 1)?.squeeze(1)?.contiguous()?);
        }
        // The official code compares within one start only; so the walk starts afresh each time.
        let mut smallest = vec![f64::INFINITY; active.alive.len()];
        for _ in 0..self.steps {
            let labels = active.labels();
            let boundary = match rank {
                Some(_) => towards_targets(oracle, &x, &goal)?,
                None => nearest(oracle, &x, &labels, self.norm)?,
            };
            let passes = if rank.is_some() { 1 } else { oracle.model.num_classes() as u64 };
            active.count_gradients(passes);
            active.note_gradients(&boundary.slope)?;
            x = self.step(&x, &state.origin, &boundary)?;
            let judged = judge_logits(&oracle.logits(&x)?, &labels)?;
            active.count_queries(1);
            let sizes = host_norms(&(&x - &state.origin)?, self.norm)?;
            let mut smaller = vec![false; sizes.len()];
            for row in 0..sizes.len() {
                if !judged[row].wrong || sizes[row] >= smallest[row] {
                    continue;
                }
                smallest[row] = sizes[row];
                let outcome = &mut active.outcomes[active.alive[row]];
                if outcome.distance.is_none_or(|distance| sizes[row] < distance) {
                    smaller[row] = true;
                    outcome.distance = Some(sizes[row]);
                    outcome.margin = judged[row].margin;
                    outcome.broken = sizes[row] <= self.epsilon.value();
                    outcome.restart = Some(rank.map_or(restart, |rank| rank - 1) as u32);
                }
            }
            state.best = pick(&smaller, &x, &state.best)?;
            let wrong: Vec<f64> = judged.iter().map(|v| if v.wrong { self.beta } else { 1.0 }).collect();
            x = (&state.origin + (&x - &state.origin)?.broadcast_mul(&column(&wrong, &x)?)?)?;
            if context.early_stop {
                let done: Vec<bool> =
                    active.alive.iter().map(|&image| active.outcomes[image].broken).collect();
                if let Some(stay) = state.leave(active, &done)? {
                    if active.alive.is_empty() {
                        return Ok(());
                    }
                    x = x.index_select(&stay, 0)?;
                    goal = goal.select(&stay)?;
                    select_host(&mut smallest, &stay)?;
                }
            }
        }
        Ok(())
    }

    /// Moves towards the hyperplane from the current point and from the clean image, and mixes.
    fn step(&self, x: &Tensor, origin: &Tensor, boundary: &Boundary) -> Result<Tensor> {
        let products = (&boundary.slope * x)?.flatten_from(1)?.to_dtype(candle_core::DType::F64)?.sum(1)?;
        let offsets: Vec<f64> = products
            .to_vec1::<f64>()?
            .iter()
            .zip(&boundary.gap)
            .map(|(product, gap)| product - gap)
            .collect();
        let from_x = onto_hyperplane_and_box(x, &boundary.slope, &offsets, self.norm)?;
        let from_origin = onto_hyperplane_and_box(origin, &boundary.slope, &offsets, self.norm)?;
        let length = |d: &Tensor| -> Result<Vec<f64>> {
            Ok(host_norms(d, self.norm)?.into_iter().map(|length| length.max(1e-8)).collect())
        };
        let pull: Vec<f64> = length(&from_x)?
            .iter()
            .zip(length(&from_origin)?)
            .map(|(near, far)| (near / (near + far)).clamp(0.0, self.alpha_max))
            .collect();
        let pull = column(&pull, x)?;
        let ahead = (x + from_x.affine(self.eta, 0.0)?)?.broadcast_mul(&pull.affine(-1.0, 1.0)?)?;
        let back = (origin + from_origin.affine(self.eta, 0.0)?)?.broadcast_mul(&pull)?;
        Ok((ahead + back)?.clamp(0.0, 1.0)?)
    }

    fn starting_point(&self, origin: &Tensor, ids: &[u64], seed: u64, number: u64) -> Result<Tensor> {
        if number.is_multiple_of(1000) {
            return Ok(origin.clone());
        }
        let tag = random::tag("fab");
        let tags: Vec<[u64; 3]> = ids.iter().map(|&id| [tag, id, number]).collect();
        let kind = if self.norm == Norm::Linf { Noise::Uniform } else { Noise::Normal };
        let direction = normalized(&noise(origin, seed, &tags, kind)?, self.norm)?;
        Ok((origin + direction.affine(0.5 * self.epsilon.value(), 0.0)?)?.clamp(0.0, 1.0)?)
    }
}

/// What stays with each image over all starts.
struct State {
    origin: Tensor,
    best: Tensor,
    labels: Tensor,
    order: Tensor,
}

impl State {
    fn leave(&mut self, active: &mut ActiveBatch, leaving: &[bool]) -> Result<Option<Tensor>> {
        let stay = active.retire(leaving, &self.best)?;
        if let Some(stay) = &stay
            && !active.alive.is_empty()
        {
            select_all(&mut [&mut self.origin, &mut self.best, &mut self.labels, &mut self.order], stay)?;
        }
        Ok(stay)
    }
}
