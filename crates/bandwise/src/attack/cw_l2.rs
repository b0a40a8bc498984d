//! Carlini and Wagner's L2 attack (2017): the smallest perturbation by Adam in tanh space.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, pick, select_all, select_host};
use super::geometry::{Norm, column, host_norms};
use super::method::{AttackMethod, PassCount, Settings, Wording, check_count, check_number};
use super::oracle::{LossTargets, Objective, Oracle};
use super::{AttackContext, AttackResult, Classifier, Epsilon};
use crate::Result;

/// Minimizes `‖x' − x‖² + c·max(z_label − max z_other + confidence, 0)` with a binary search over `c`.
/// An image is broken if the smallest perturbation found is at most ε.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CwL2 {
    /// Radius (L2) within which a perturbation counts.
    pub epsilon: Epsilon,
    /// Adam steps for every `c`. The authors use up to 10,000; most of the gain comes early.
    pub steps: usize,
    /// Values of `c` tried.
    pub search_steps: usize,
    /// First `c`.
    pub initial_constant: f64,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Margin by which the wrong class shall win.
    pub confidence: f64,
}

impl Default for CwL2 {
    fn default() -> Self {
        Self {
            epsilon: Norm::L2.default_epsilon(),
            steps: 200,
            search_steps: 9,
            initial_constant: 1e-3,
            learning_rate: 0.01,
            confidence: 0.0,
        }
    }
}

/// Binary search over `c` for one image.
#[derive(Clone)]
struct Constant {
    value: f64,
    below: f64,
    above: f64,
    succeeded: bool,
}

/// The rows still alive.
struct State {
    origin: Tensor,
    best: Tensor,
    goal: LossTargets,
    constants: Vec<Constant>,
}

/// Adam's variables for the rows still alive.
struct Adam {
    w: Tensor,
    mean: Tensor,
    square: Tensor,
}

const NAME: &str = "cw-l2";

impl AttackMethod for CwL2 {
    const SUMMARY: &'static str = "smallest perturbation by Adam in tanh space";
    const SOURCE: &'static str = "Carlini & Wagner 2017";
    const NORMS: &'static [Norm] = &[Norm::L2];

    fn settings(&mut self) -> Settings<'_> {
        let Self { epsilon, steps, search_steps: _, initial_constant: _, learning_rate: _, confidence: _ } =
            self;
        Settings { steps: Some(steps), ..Settings::new(epsilon) }
    }

    fn validate(&self) -> Result<()> {
        check_count(NAME, "search_steps", self.search_steps)?;
        let (constant, rate) = (self.initial_constant, self.learning_rate);
        check_number(NAME, "initial_constant", constant, constant > 0.0, "positive")?;
        check_number(NAME, "learning_rate", rate, rate > 0.0, "positive")?;
        check_number(NAME, "confidence", self.confidence, self.confidence >= 0.0, "at least 0")
    }

    fn objective(&self) -> Option<Objective> {
        Some(Objective::Margin)
    }

    fn passes(&self, _: usize) -> PassCount {
        PassCount::new(&[1], &[self.search_steps, self.steps])
    }

    fn protocol(&self) -> Wording {
        let default = Self::default();
        Wording::new("CW", Norm::L2, self.epsilon)
            .with(format!("{} × {} Adam steps", self.search_steps, self.steps))
            .with(format!("learning rate {}", self.learning_rate))
            .with(format!("confidence {}", self.confidence))
            .unusual("first constant", self.initial_constant, default.initial_constant)
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
        let first =
            Constant { value: self.initial_constant, below: 0.0, above: f64::INFINITY, succeeded: false };
        let mut state = State {
            origin: images.detach(),
            best: images.detach(),
            goal: LossTargets::new(labels),
            constants: vec![first; labels.dim(0)?],
        };
        let judged = active.judge(&oracle.logits(images)?)?;
        active.count_queries(1);
        active.record(&judged, 0);
        let wrong: Vec<bool> = judged.iter().map(|v| v.wrong).collect();
        for (outcome, &wrong) in active.outcomes.iter_mut().zip(&wrong) {
            outcome.distance = wrong.then_some(0.0);
        }
        state.leave(&mut active, &wrong, None)?;
        for _ in 0..self.search_steps {
            if active.alive.is_empty() {
                break;
            }
            self.descend(&oracle, &mut active, &mut state, context.early_stop)?;
            state.constants.iter_mut().for_each(Constant::next);
        }
        active.finish(&state.best)
    }
}

impl CwL2 {
    /// One value of `c` per image: all Adam steps from the clean image.
    fn descend(
        &self,
        oracle: &Oracle,
        active: &mut ActiveBatch,
        state: &mut State,
        early_stop: bool,
    ) -> Result<()> {
        let zeros = state.origin.zeros_like()?;
        let mut adam = Adam { w: into_tanh_space(&state.origin)?, mean: zeros.clone(), square: zeros };
        for step in 1..=self.steps {
            let tanh = adam.w.tanh()?;
            let x = tanh.affine(0.5, 0.5)?;
            let slope = oracle.slope(&x, &state.goal, Objective::Margin)?;
            active.count_gradients(1);
            active.note_gradients(&slope.gradient)?;
            let judged = active.judge(&slope.logits)?;
            let sizes = host_norms(&(&x - &state.origin)?, Norm::L2)?;
            let mut smaller = vec![false; sizes.len()];
            let mut weights = vec![0.0; sizes.len()];
            for row in 0..sizes.len() {
                let constant = &mut state.constants[row];
                if judged[row].margin + self.confidence > 0.0 {
                    weights[row] = -constant.value;
                } else {
                    constant.succeeded = true;
                }
                let outcome = &mut active.outcomes[active.alive[row]];
                let success = judged[row].wrong && judged[row].margin <= -self.confidence;
                if success && outcome.distance.is_none_or(|distance| sizes[row] < distance) {
                    smaller[row] = true;
                    outcome.distance = Some(sizes[row]);
                    outcome.margin = judged[row].margin;
                    outcome.broken = sizes[row] <= self.epsilon.value();
                }
            }
            state.best = pick(&smaller, &x, &state.best)?;
            let pixel_gradient = ((&x - &state.origin)?.affine(2.0, 0.0)?
                + slope.gradient.broadcast_mul(&column(&weights, &x)?)?)?;
            // dx/dw = (1 − tanh²)/2
            let gradient = (pixel_gradient * tanh.sqr()?.affine(-0.5, 0.5)?)?;
            adam.step(&gradient, step, self.learning_rate)?;
            if early_stop {
                let done: Vec<bool> =
                    active.alive.iter().map(|&image| active.outcomes[image].broken).collect();
                state.leave(active, &done, Some(&mut adam))?;
                if active.alive.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn leave(&mut self, active: &mut ActiveBatch, leaving: &[bool], adam: Option<&mut Adam>) -> Result<()> {
        let Some(stay) = active.retire(leaving, &self.best)? else { return Ok(()) };
        if active.alive.is_empty() {
            return Ok(());
        }
        select_all(&mut [&mut self.origin, &mut self.best], &stay)?;
        if let Some(adam) = adam {
            select_all(&mut [&mut adam.w, &mut adam.mean, &mut adam.square], &stay)?;
        }
        self.goal = self.goal.select(&stay)?;
        select_host(&mut self.constants, &stay)
    }
}

impl Constant {
    /// Smaller after a success, larger after a failure.
    fn next(&mut self) {
        if self.succeeded {
            self.above = self.value;
        } else {
            self.below = self.value;
        }
        self.value = if self.above.is_finite() { 0.5 * (self.below + self.above) } else { self.value * 10.0 };
        self.succeeded = false;
    }
}

impl Adam {
    fn step(&mut self, gradient: &Tensor, step: usize, learning_rate: f64) -> Result<()> {
        self.mean = (self.mean.affine(0.9, 0.0)? + gradient.affine(0.1, 0.0)?)?;
        self.square = (self.square.affine(0.999, 0.0)? + gradient.sqr()?.affine(0.001, 0.0)?)?;
        let mean = self.mean.affine(1.0 / (1.0 - 0.9f64.powi(step as i32)), 0.0)?;
        let square = self.square.affine(1.0 / (1.0 - 0.999f64.powi(step as i32)), 0.0)?;
        let change = (mean / (square.sqrt()? + 1e-8)?)?;
        self.w = (&self.w - change.affine(learning_rate, 0.0)?)?;
        Ok(())
    }
}

/// `atanh(2x − 1)`, kept away from the ends where it is infinite.
fn into_tanh_space(x: &Tensor) -> Result<Tensor> {
    let y = x.affine(2.0, -1.0)?.affine(0.999_999, 0.0)?;
    let ratio = (y.affine(1.0, 1.0)? / y.affine(-1.0, 1.0)?)?;
    Ok(ratio.log()?.affine(0.5, 0.0)?)
}
