//! Projected gradient ascent: the loop behind FGSM, PGD, MI-FGSM and CW-L∞.

use std::str::FromStr;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, pick, select_all};
use super::geometry::{Noise, noise, normalized, norms, project};
use super::method::PassCount;
use super::oracle::{LossTargets, Objective, Oracle};
use super::{AttackContext, AttackResult, Band, Classifier, Norm};
use crate::nn::loss;
use crate::{Error, Result};

/// Where an attack starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the clean image.
    Zero,
    /// Uniformly in the ε-ball.
    #[default]
    Random,
    /// At the clean image plus normal noise of standard deviation 0.001 (TRADES).
    Gaussian,
}

impl FromStr for Start {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "zero" => Ok(Self::Zero),
            "random" => Ok(Self::Random),
            "gaussian" => Ok(Self::Gaussian),
            _ => Err(Error::config(format!("unknown start `{text}`; expected zero, random or gaussian"))),
        }
    }
}

/// All settings of the loop; the attacks of this family fill it in.
pub(crate) struct Ascent {
    /// Name whose tag keeps the random starts of different attacks apart.
    pub name: &'static str,
    pub norm: Norm,
    pub epsilon: f64,
    pub step_size: f64,
    pub steps: usize,
    pub start: Start,
    pub restarts: usize,
    pub objective: Objective,
    /// Decay of MI-FGSM's accumulated gradient.
    pub momentum: Option<f64>,
    /// Frequencies to which gradient and perturbation are confined.
    pub band: Option<Band>,
}

/// The rows still alive.
struct State {
    origin: Tensor,
    x: Tensor,
    velocity: Option<Tensor>,
    goal: LossTargets,
}

impl State {
    fn keep(&mut self, stay: &Tensor) -> Result<()> {
        select_all(&mut [&mut self.origin, &mut self.x], stay)?;
        if let Some(velocity) = &mut self.velocity {
            *velocity = velocity.index_select(stay, 0)?;
        }
        self.goal = self.goal.select(stay)?;
        Ok(())
    }
}

/// What all attacks of this family answer alike, in terms of `self.ascent()`.
macro_rules! answered_by_ascent {
    () => {
        fn objective(&self) -> Option<$crate::attack::oracle::Objective> {
            Some(self.ascent().objective)
        }

        fn passes(&self, _: usize) -> $crate::attack::method::PassCount {
            self.ascent().passes()
        }

        fn run(
            &self,
            model: &dyn $crate::attack::Classifier,
            images: &candle_core::Tensor,
            labels: &candle_core::Tensor,
            context: &$crate::attack::AttackContext,
        ) -> $crate::Result<$crate::attack::AttackResult> {
            self.ascent().run(model, images, labels, context)
        }
    };
}
pub(super) use answered_by_ascent;

impl Ascent {
    /// The most that it spends on one image.
    pub fn passes(&self) -> PassCount {
        PassCount::new(&[self.restarts], &[self.restarts, self.steps])
    }

    /// Attacks all images and judges the results.
    pub fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let oracle = Oracle::new(model, context);
        let mut active = ActiveBatch::new(images, labels)?;
        let mut goal = LossTargets::new(labels);
        if self.objective == Objective::Divergence {
            goal.clean_logits = Some(oracle.logits(images)?);
        }
        let mut state = State { origin: images.detach(), x: images.detach(), velocity: None, goal };
        let mut strongest = Strongest::default();
        for restart in 0..self.restarts {
            state.x =
                self.starting_point(&state.origin, &active.ids(context.image_ids), context.seed, restart)?;
            state.velocity = None;
            self.climb(&oracle, &mut active, &mut state, restart, context)?;
            if active.alive.is_empty() {
                break;
            }
            self.look_at_the_end(&oracle, &mut active, &mut state, &mut strongest, restart, context)?;
            if active.alive.is_empty() {
                break;
            }
        }
        active.finish(&state.x)
    }

    /// All steps of one restart; with `early_stop`, images leave as soon as they are misclassified.
    fn climb(
        &self,
        oracle: &Oracle,
        active: &mut ActiveBatch,
        state: &mut State,
        restart: usize,
        context: &AttackContext,
    ) -> Result<()> {
        for _ in 0..self.steps {
            let slope = oracle.slope(&state.x, &state.goal, self.objective)?;
            active.count_gradients(1);
            let mut gradient = slope.gradient;
            if context.judge {
                active.note_gradients(&gradient)?;
            }
            if context.early_stop {
                let verdicts = active.judge(&slope.logits)?;
                active.record(&verdicts, restart as u32);
                let broken: Vec<bool> = verdicts.iter().map(|v| v.wrong).collect();
                if let Some(stay) = active.retire(&broken, &state.x)? {
                    if active.alive.is_empty() {
                        return Ok(());
                    }
                    state.keep(&stay)?;
                    gradient = gradient.index_select(&stay, 0)?;
                }
            }
            self.step(state, gradient)?;
        }
        Ok(())
    }

    fn step(&self, state: &mut State, mut gradient: Tensor) -> Result<()> {
        if let Some(band) = &self.band {
            gradient = band.filter(&gradient)?;
        }
        if let Some(decay) = self.momentum {
            // Dong et al. 2018, eq. 6: the mean absolute value scales each image's gradient.
            let unit = gradient.broadcast_div(&(norms(&gradient, Norm::L1)? + 1e-12)?)?;
            let velocity = match &state.velocity {
                Some(velocity) => (velocity.affine(decay, 0.0)? + unit)?,
                None => unit,
            };
            state.velocity = Some(velocity.clone());
            gradient = velocity;
        }
        if self.norm == Norm::Linf && self.band.is_none() {
            state.x = bandwise_kernels::sign_step(
                &state.x,
                &gradient,
                &state.origin,
                self.step_size,
                self.epsilon,
            )?;
            return Ok(());
        }
        let direction = match self.norm {
            Norm::Linf => gradient.sign()?,
            _ => normalized(&gradient, Norm::L2)?,
        };
        let moved = (&state.x + direction.affine(self.step_size, 0.0)?)?;
        state.x = match &self.band {
            Some(band) => band.confine(&moved, &state.origin, self.norm, self.epsilon)?,
            None => project(&moved, &state.origin, self.norm, self.epsilon)?,
        };
        Ok(())
    }

    /// Judges the last iterate. With `early_stop`, broken images leave and the others go on to the
    /// next restart; without, every restart is run and the iterate with the highest loss is kept.
    fn look_at_the_end(
        &self,
        oracle: &Oracle,
        active: &mut ActiveBatch,
        state: &mut State,
        strongest: &mut Strongest,
        restart: usize,
        context: &AttackContext,
    ) -> Result<()> {
        if !context.judge && self.restarts <= 1 {
            return Ok(());
        }
        let logits = oracle.logits(&state.x)?;
        active.count_queries(1);
        let verdicts = active.judge(&logits)?;
        if context.early_stop {
            active.record(&verdicts, restart as u32);
            let broken: Vec<bool> = verdicts.iter().map(|v| v.wrong).collect();
            if let Some(stay) = active.retire(&broken, &state.x)?
                && !active.alive.is_empty()
            {
                state.keep(&stay)?;
            }
            return Ok(());
        }
        let losses = loss::to_host(&loss::cross_entropy(&logits, &state.goal.labels)?)?;
        strongest.take_better(active, &verdicts, &losses, &mut state.x, restart as u32)
    }

    fn starting_point(&self, origin: &Tensor, ids: &[u64], seed: u64, restart: usize) -> Result<Tensor> {
        let tag = crate::random::tag(self.name);
        let tags: Vec<[u64; 3]> = ids.iter().map(|&id| [tag, id, restart as u64]).collect();
        let kind = match (self.start, self.norm) {
            (Start::Zero, _) => return Ok(origin.clone()),
            (Start::Gaussian, _) => Noise::Normal,
            (Start::Random, Norm::Linf) => Noise::Uniform,
            (Start::Random, _) => Noise::Ball,
        };
        let scale = if self.start == Start::Gaussian { 0.001 } else { self.epsilon };
        let moved = (origin + noise(origin, seed, &tags, kind)?.affine(scale, 0.0)?)?;
        match &self.band {
            Some(band) => band.confine(&moved, origin, self.norm, self.epsilon),
            None => Ok(moved.clamp(0.0, 1.0)?),
        }
    }
}

/// The strongest end points over restarts when nobody leaves early.
#[derive(Default)]
struct Strongest {
    x: Option<Tensor>,
    losses: Vec<f64>,
}

impl Strongest {
    fn take_better(
        &mut self,
        active: &mut ActiveBatch,
        verdicts: &[super::active_batch::Verdict],
        losses: &[f64],
        x: &mut Tensor,
        restart: u32,
    ) -> Result<()> {
        let Some(previous) = &self.x else {
            active.record(verdicts, restart);
            (self.x, self.losses) = (Some(x.clone()), losses.to_vec());
            return Ok(());
        };
        let better: Vec<bool> = losses.iter().zip(&self.losses).map(|(new, old)| new > old).collect();
        for (row, _) in better.iter().enumerate().filter(|(_, better)| **better) {
            self.losses[row] = losses[row];
            let outcome = &mut active.outcomes[active.alive[row]];
            (outcome.broken, outcome.margin) = (verdicts[row].wrong, verdicts[row].margin);
            outcome.restart = verdicts[row].wrong.then_some(restart);
        }
        *x = pick(&better, x, previous)?;
        self.x = Some(x.clone());
        Ok(())
    }
}
