//! Auto-PGD (Croce and Hein 2020): PGD with momentum that halves its own step size.
//!
//! Follows the official `autopgd_base.py` to the letter: checkpoints, oscillation count (including
//! its wrap-around at the first checkpoint), momentum, restarts on the survivors only. For L1 it is
//! the sparse variant of "Mind the box" (Croce and Hein 2021). `run` is one start of the attack.

mod run;
#[cfg(test)]
mod tests;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub(crate) use run::{Run, Schedule};

use super::active_batch::{ActiveBatch, pick, select_all};
use super::ascent::Start;
use super::geometry::{Noise, noise, normalized};
use super::method::{AttackMethod, PassCount, Settings, Wording, check_count, check_number};
use super::oracle::{LossTargets, Objective, Oracle};
use super::projection::onto_l1_ball_and_box;
use super::{AttackContext, AttackResult, Classifier, Epsilon, Norm};
use crate::{Error, Result, random};

/// APGD on the cross-entropy (`apgd-ce`) or the DLR loss (`apgd-dlr`, at least three classes).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Apgd {
    /// L∞, L2 or L1.
    pub norm: Norm,
    /// Radius of the ball.
    pub epsilon: Epsilon,
    /// Gradient steps of one start (official `n_iter`).
    pub steps: usize,
    /// Starts; later ones see the survivors only.
    pub restarts: usize,
    /// Share of improving steps below which the step size is halved (official `rho`).
    pub rho: f64,
    /// Gradients averaged per step, for randomized models (official `eot_iter`).
    pub averaged_gradients: usize,
    /// Random on the surface of the ball, or zero.
    pub start: Start,
    /// L1 only: spend 30 % of the steps at 3ε and 30 % at 2ε first (official `use_largereps`).
    pub shrinking_radius: bool,
}

impl Default for Apgd {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            steps: 100,
            restarts: 1,
            rho: 0.75,
            averaged_gradients: 1,
            start: Start::Random,
            shrinking_radius: false,
        }
    }
}

/// Targeted APGD on the targeted DLR loss (`apgd-t`, at least four classes): each of the strongest
/// wrong classes in turn, on the survivors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApgdTargeted {
    /// L∞, L2 or L1.
    pub norm: Norm,
    /// Radius of the ball.
    pub epsilon: Epsilon,
    /// Gradient steps of one start (official `n_iter`).
    pub steps: usize,
    /// Starts per target.
    pub restarts: usize,
    /// Target classes (official `n_target_classes`); at most the number of classes − 1 are used.
    pub targets: usize,
    /// Share of improving steps below which the step size is halved.
    pub rho: f64,
    /// Gradients averaged per step.
    pub averaged_gradients: usize,
    /// L1 only: begin at larger radii.
    pub shrinking_radius: bool,
}

impl Default for ApgdTargeted {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            steps: 100,
            restarts: 1,
            targets: 9,
            rho: 0.75,
            averaged_gradients: 1,
            shrinking_radius: false,
        }
    }
}

/// The loss of `apgd-ce`.
pub(crate) struct OnCrossEntropy;
/// The loss of `apgd-dlr`.
pub(crate) struct OnDlr;

/// What APGD climbs.
pub(crate) trait Climbs {
    const NAME: &'static str;
    const TITLE: &'static str;
    const SUMMARY: &'static str;
    const OBJECTIVE: Objective;
}

impl Climbs for OnCrossEntropy {
    const NAME: &'static str = "apgd-ce";
    const TITLE: &'static str = "APGD-CE";
    const SUMMARY: &'static str = "PGD that sets its own step size, on the cross-entropy";
    const OBJECTIVE: Objective = Objective::CrossEntropy;
}

impl Climbs for OnDlr {
    const NAME: &'static str = "apgd-dlr";
    const TITLE: &'static str = "APGD-DLR";
    const SUMMARY: &'static str = "APGD on the difference of logits ratio";
    const OBJECTIVE: Objective = Objective::Dlr;
}

impl<L: Climbs> AttackMethod<L> for Apgd {
    const SUMMARY: &'static str = L::SUMMARY;
    const SOURCE: &'static str = "Croce & Hein 2020, 2021 (l1)";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

    fn settings(&mut self) -> Settings<'_> {
        let Self {
            norm,
            epsilon,
            steps,
            restarts,
            rho: _,
            averaged_gradients: _,
            start,
            shrinking_radius: _,
        } = self;
        Settings {
            norm: Some(norm),
            steps: Some(steps),
            restarts: Some(restarts),
            start: Some(start),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        if self.start == Start::Gaussian {
            return Err(Error::config(format!("{} starts at `random` or `zero`, not `gaussian`", L::NAME)));
        }
        self.schedule().validate(L::NAME)?;
        check_radius(L::NAME, self.norm, self.shrinking_radius)
    }

    fn objective(&self) -> Option<Objective> {
        Some(L::OBJECTIVE)
    }

    fn passes(&self, _: usize) -> PassCount {
        PassCount::new(&[1], &[self.restarts, self.steps + 1, self.averaged_gradients])
    }

    fn protocol(&self) -> Wording {
        let wording = Wording::new(L::TITLE, self.norm, self.epsilon)
            .count(self.steps, "step")
            .start(self.start)
            .count(self.restarts, "restart");
        unusual(wording, self.rho, self.averaged_gradients, self.shrinking_radius)
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        if L::OBJECTIVE == Objective::Dlr {
            need_classes(model, 3, L::NAME, "apgd-ce")?;
        }
        self.climb(L::OBJECTIVE, model, images, labels, context)
    }
}

impl Schedule {
    fn validate(&self, name: &str) -> Result<()> {
        check_count(name, "averaged_gradients", self.averaged_gradients)?;
        check_number(name, "rho", self.rho, (0.0..=1.0).contains(&self.rho), "in [0, 1]")
    }
}

/// Refuses larger radii at the start where they are not used.
fn check_radius(name: &str, norm: Norm, shrinking: bool) -> Result<()> {
    if shrinking && norm != Norm::L1 {
        return Err(Error::config(format!("{name}: `shrinking_radius` is for the norm l1")));
    }
    Ok(())
}

/// Parameters of the schedule that are mentioned only if somebody changed them.
fn unusual(wording: Wording, rho: f64, averaged_gradients: usize, shrinking_radius: bool) -> Wording {
    wording
        .unusual("ρ", rho, Apgd::default().rho)
        .when(averaged_gradients != 1, format!("mean of {averaged_gradients} gradients"))
        .when(shrinking_radius, "radius 3ε, 2ε, ε")
}

impl Apgd {
    /// On any untargeted loss: AutoAttack chooses another for models with too few classes.
    pub(crate) fn climb(
        &self,
        objective: Objective,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let name = if objective == Objective::Dlr { OnDlr::NAME } else { OnCrossEntropy::NAME };
        let mut starts = Starts::new(name, self.start, model, images, labels, context, Vec::new())?;
        for restart in 0..self.restarts {
            starts.attack_survivors(&self.schedule(), objective, restart, None)?;
        }
        starts.finish()
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            norm: self.norm,
            epsilon: self.epsilon.value(),
            steps: self.steps,
            rho: self.rho,
            averaged_gradients: self.averaged_gradients,
            shrinking_radius: self.shrinking_radius && self.norm == Norm::L1,
        }
    }
}

impl AttackMethod for ApgdTargeted {
    const SUMMARY: &'static str = "APGD on the targeted DLR loss, the strongest wrong classes in turn";
    const SOURCE: &'static str = "Croce & Hein 2020, 2021 (l1)";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

    fn settings(&mut self) -> Settings<'_> {
        let Self {
            norm,
            epsilon,
            steps,
            restarts,
            targets,
            rho: _,
            averaged_gradients: _,
            shrinking_radius: _,
        } = self;
        Settings {
            norm: Some(norm),
            steps: Some(steps),
            restarts: Some(restarts),
            targets: Some(targets),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        self.plain().schedule().validate("apgd-t")?;
        check_radius("apgd-t", self.norm, self.shrinking_radius)
    }

    fn objective(&self) -> Option<Objective> {
        // The targets are the strongest wrong classes: the first of them makes the margin.
        Some(Objective::Margin)
    }

    fn passes(&self, classes: usize) -> PassCount {
        let targets = self.targets.min(classes.saturating_sub(1));
        PassCount::new(&[1], &[targets, self.restarts, self.steps + 1, self.averaged_gradients])
    }

    fn protocol(&self) -> Wording {
        let wording = Wording::new("APGD-T", self.norm, self.epsilon)
            .count(self.steps, "step")
            .count(self.targets, "target")
            .start(Start::Random)
            .count(self.restarts, "restart");
        unusual(wording, self.rho, self.averaged_gradients, self.shrinking_radius)
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        need_classes(model, 4, "apgd-t", "apgd-ce")?;
        self.climb(Objective::TargetedDlr, model, images, labels, context)
    }
}

impl ApgdTargeted {
    /// The same schedule without targets.
    fn plain(&self) -> Apgd {
        Apgd {
            norm: self.norm,
            epsilon: self.epsilon,
            steps: self.steps,
            rho: self.rho,
            averaged_gradients: self.averaged_gradients,
            shrinking_radius: self.shrinking_radius,
            ..Apgd::default()
        }
    }

    /// With another targeted objective, for models with too few classes.
    pub(crate) fn climb(
        &self,
        objective: Objective,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let ranks: Vec<usize> = (1..=self.targets.min(model.num_classes() - 1)).collect();
        let mut starts = Starts::new("apgd-t", Start::Random, model, images, labels, context, ranks.clone())?;
        for rank in ranks {
            for restart in 0..self.restarts {
                starts.attack_survivors(&self.plain().schedule(), objective, restart, Some(rank))?;
            }
        }
        starts.finish()
    }
}

/// Refuses a model with too few classes and names the way out.
pub(crate) fn need_classes(model: &dyn Classifier, needed: usize, attack: &str, instead: &str) -> Result<()> {
    let classes = model.num_classes();
    if classes >= needed {
        return Ok(());
    }
    Err(Error::config(format!(
        "{attack} needs at least {needed} classes and the model has {classes}; use {instead}"
    )))
}

/// The survivors of a sequence of starts.
struct Starts<'a> {
    name: &'static str,
    start: Start,
    oracle: Oracle<'a>,
    context: &'a AttackContext<'a>,
    active: ActiveBatch,
    origin: Tensor,
    /// Best point so far of each image still alive.
    best: Tensor,
    labels: Tensor,
    /// The classes by falling clean logit, `[n, classes]`.
    order: Tensor,
}

impl<'a> Starts<'a> {
    fn new(
        name: &'static str,
        start: Start,
        model: &'a dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &'a AttackContext<'a>,
        ranks: Vec<usize>,
    ) -> Result<Self> {
        let oracle = Oracle::new(model, context);
        let mut active = ActiveBatch::new(images, labels)?;
        let logits = oracle.logits(images)?;
        active.count_queries(1);
        let verdicts = active.judge(&logits)?;
        active.record(&verdicts, 0);
        let order = if ranks.is_empty() { logits } else { logits.contiguous()?.arg_sort_last_dim(false)? };
        let origin = images.detach();
        let mut starts = Self {
            name,
            start,
            oracle,
            context,
            active,
            best: origin.clone(),
            origin,
            labels: labels.clone(),
            order,
        };
        if context.early_stop {
            starts.retire(&verdicts.iter().map(|v| v.wrong).collect::<Vec<_>>())?;
        }
        Ok(starts)
    }

    fn attack_survivors(
        &mut self,
        schedule: &Schedule,
        objective: Objective,
        restart: usize,
        rank: Option<usize>,
    ) -> Result<()> {
        if self.active.alive.is_empty() {
            return Ok(());
        }
        let mut goal = LossTargets::new(&self.labels);
        if let Some(rank) = rank {
            goal.targets = Some(self.order.narrow(1, rank, 1)?.squeeze(1)?.contiguous()?);
        }
        let number = rank.map_or(0, |rank| rank - 1) * 1000 + restart;
        let begin = self.starting_point(schedule, number as u64)?;
        let end = Run::start(
            &self.oracle,
            schedule,
            objective,
            &self.origin,
            begin,
            goal,
            self.context.early_stop,
        )?;
        let mut better = Vec::with_capacity(self.active.alive.len());
        for (row, &image) in self.active.alive.iter().enumerate() {
            let outcome = &mut self.active.outcomes[image];
            outcome.no_gradient |= end.without_gradient[row];
            outcome.queries += end.gradients[row];
            outcome.gradients += end.gradients[row];
            let newly_broken = end.broken[row] && !outcome.broken;
            let is_better = newly_broken || end.margins[row] < outcome.margin;
            if is_better {
                (outcome.margin, outcome.broken) = (end.margins[row], end.broken[row]);
            }
            if newly_broken {
                outcome.restart = Some(rank.map_or(restart, |rank| rank - 1) as u32);
            }
            better.push(is_better);
        }
        self.best = pick(&better, &end.images, &self.best)?;
        if self.context.early_stop {
            self.retire(&end.broken)?;
        }
        Ok(())
    }

    fn retire(&mut self, leaving: &[bool]) -> Result<()> {
        let Some(stay) = self.active.retire(leaving, &self.best)? else { return Ok(()) };
        if !self.active.alive.is_empty() {
            select_all(&mut [&mut self.origin, &mut self.best, &mut self.labels, &mut self.order], &stay)?;
        }
        Ok(())
    }

    /// A random point on the surface of the ball, as the official code draws it.
    fn starting_point(&self, schedule: &Schedule, number: u64) -> Result<Tensor> {
        if self.start == Start::Zero {
            return Ok(self.origin.clone());
        }
        let tag = random::tag(self.name);
        let tags: Vec<[u64; 3]> =
            self.active.ids(self.context.image_ids).into_iter().map(|id| [tag, id, number]).collect();
        let kind = if schedule.norm == Norm::Linf { Noise::Uniform } else { Noise::Normal };
        let drawn = noise(&self.origin, self.context.seed, &tags, kind)?;
        let delta = match schedule.norm {
            Norm::L1 => {
                let first_radius = if schedule.shrinking_radius { 3.0 } else { 1.0 };
                onto_l1_ball_and_box(&self.origin, &drawn, first_radius * schedule.epsilon)?
            }
            norm => normalized(&drawn, norm)?.affine(schedule.epsilon, 0.0)?,
        };
        Ok((&self.origin + delta)?.clamp(0.0, 1.0)?)
    }

    fn finish(self) -> Result<AttackResult> {
        self.active.finish(&self.best)
    }
}
