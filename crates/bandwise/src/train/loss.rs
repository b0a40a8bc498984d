//! The whole training loss of a batch: the objective, penalties of the weights, penalties of the input gradient.
//!
//! Penalties of the input gradient share their work: J at the clean images comes from one frozen
//! pass, all penalties of J are summed before the one dual pass that differentiates them, and where the
//! objective looks at clean images only, its own gradient comes out of that same pass (see
//! [`crate::method::input_gradient`]).

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use rand::RngCore;

use super::objective::{CROSS_ENTROPY, Objective, Outcome, Terms};
use super::regularizers::{Kinds, Regularizers};
use super::step::Step;
use crate::attack::Epsilon;
use crate::method::InputPenalty;
use crate::method::grad_align::uniform_noise;
use crate::method::input_gradient::{InputGradient, Penalty, joint_gradients, penalty_gradients};
use crate::nn::{ForwardContext, Mode};
use crate::{Result, random};

/// What a run minimizes.
#[derive(Clone, Copy, Debug)]
pub struct TrainingLoss<'a> {
    /// What is to be learned.
    pub objective: &'a Objective,
    /// What is added to it.
    pub regularizers: &'a Regularizers,
}

impl TrainingLoss<'_> {
    /// Loss (with all penalties), logits and weight gradients of one batch, whose images
    /// [`Objective::attack`] has made `adversarial`. The outcome is detached.
    pub fn backward(&self, step: &Step, adversarial: &Tensor) -> Result<(Outcome, GradStore)> {
        let Penalties { at_clean, elsewhere, values } = self.penalties(step)?;
        let (Outcome { loss, logits, mut terms }, mut gradients) = match (&at_clean, self.objective) {
            (Some(penalty), Objective::Standard(standard)) => {
                let mut terms = Terms::new();
                let loss = |logits: &Tensor| {
                    let loss = standard.loss_of(logits, &step.labels)?;
                    terms.push((CROSS_ENTROPY, loss.detach()));
                    self.with_filters(loss, step, &mut terms)
                };
                let (direction, train) = (&penalty.derivative, step.pass(Mode::Train));
                let joint = joint_gradients(step.model, &step.images, &step.labels, direction, &train, loss)?;
                (Outcome { loss: joint.loss, logits: joint.logits, terms }, joint.parameters)
            }
            _ => {
                let Outcome { loss, logits, mut terms } = self.objective.loss(step, adversarial)?;
                let loss = self.with_filters(loss, step, &mut terms)?;
                let mut gradients = loss.backward()?;
                // Detached: the graph of this pass is gone before the dual pass needs memory.
                let outcome = Outcome { loss: loss.detach(), logits: logits.detach(), terms };
                drop(loss);
                if let Some(penalty) = &at_clean {
                    gradients.extend(pulled_back(step, &step.images, penalty)?)?;
                }
                (outcome, gradients)
            }
        };
        let mut total = at_clean.map_or(0.0, |penalty| penalty.value);
        for (images, penalty) in elsewhere {
            gradients.extend(pulled_back(step, &images, &penalty)?)?;
            total += penalty.value;
        }
        for (name, value) in values {
            terms.push((name, Tensor::new(value, loss.device())?));
        }
        Ok((Outcome { loss: (loss + total)?, logits, terms }, gradients))
    }

    /// Adds the penalties of the weights themselves.
    fn with_filters(&self, loss: Tensor, step: &Step, terms: &mut Terms) -> Result<Tensor> {
        let Some(penalty) = &self.regularizers.filter_frequency else { return Ok(loss) };
        let value = penalty.unweighted(step.model)?;
        terms.push(("penalty/filter_frequency", value.detach()));
        Ok((loss + (value * penalty.lambda)?)?)
    }

    /// The penalties of the input gradient, by the images it is taken at.
    fn penalties(&self, step: &Step) -> Result<Penalties> {
        // The filters' penalty is of the weights: see `with_filters`.
        let Kinds { filter_frequency: _, grad_align, gradient_noise, of_input_gradient } =
            self.regularizers.by_kind();
        let on: Vec<(&'static str, &dyn InputPenalty)> =
            of_input_gradient.into_iter().filter(|(_, penalty)| step.epoch >= penalty.warmup()).collect();
        let mut found = Penalties::default();
        if on.is_empty() && grad_align.is_none() {
            return Ok(found);
        }
        let clean = match gradient_noise {
            Some(noise) if !on.is_empty() => {
                let moved = moved_images("gradient_noise", noise, step)?;
                let penalty = found.sum_of(&on, &input_gradient(step, &moved)?)?;
                found.elsewhere.extend(penalty.map(|penalty| (moved, penalty)));
                None
            }
            _ => {
                let clean = input_gradient(step, &step.images)?;
                found.at_clean = found.sum_of(&on, &clean)?;
                Some(clean)
            }
        };
        if let Some(align) = grad_align {
            let clean = clean.map_or_else(|| input_gradient(step, &step.images), Ok)?;
            let moved = moved_images("grad_align", align.epsilon, step)?;
            let (first, second) = align.penalty(&clean, &input_gradient(step, &moved)?)?;
            if let Some(first) = first {
                // Its value is that of `second`, and counts once.
                found.add_at_clean(Penalty { value: 0.0, ..first })?;
            }
            found.note("penalty/grad_align", second.value, align.lambda);
            found.elsewhere.push((moved, second));
        }
        Ok(found)
    }
}

/// Penalties of the gradient at the clean images, summed, and of that at others.
#[derive(Default)]
struct Penalties {
    at_clean: Option<Penalty>,
    elsewhere: Vec<(Tensor, Penalty)>,
    /// By name, without λ.
    values: Vec<(&'static str, f64)>,
}

impl Penalties {
    /// Keeps the value of a penalty without its λ, for the log; with λ = 0 it is not known.
    fn note(&mut self, name: &'static str, weighted: f64, lambda: f64) {
        if lambda != 0.0 {
            self.values.push((name, weighted / lambda));
        }
    }

    /// The sum of penalties of J, if there are any; each is noted by itself.
    fn sum_of(
        &mut self,
        penalties: &[(&'static str, &dyn InputPenalty)],
        gradient: &Tensor,
    ) -> Result<Option<Penalty>> {
        let mut sum: Option<Penalty> = None;
        for (name, function) in penalties {
            let penalty = function.penalty(gradient)?;
            self.note(name, penalty.value, function.lambda());
            sum = Some(match sum {
                None => penalty,
                Some(sum) => sum.plus(penalty)?,
            });
        }
        Ok(sum)
    }

    fn add_at_clean(&mut self, penalty: Penalty) -> Result<()> {
        self.at_clean = Some(match self.at_clean.take() {
            Some(sum) => sum.plus(penalty)?,
            None => penalty,
        });
        Ok(())
    }
}

/// Batch statistics, running ones untouched.
fn pass<'a>(step: &Step<'a>) -> ForwardContext<'a> {
    step.pass(Mode::BatchStatistics)
}

fn input_gradient(step: &Step, images: &Tensor) -> Result<Tensor> {
    Ok(InputGradient::of(&step.model.frozen(), images, &step.labels, &pass(step))?.gradient)
}

fn pulled_back(step: &Step, images: &Tensor, penalty: &Penalty) -> Result<GradStore> {
    penalty_gradients(step.model, images, &step.labels, &penalty.derivative, &pass(step))
}

/// The clean images moved by uniform noise in ±`radius`, new in each epoch and for each `purpose`.
fn moved_images(purpose: &str, radius: Epsilon, step: &Step) -> Result<Tensor> {
    let seed = random::stream(step.seed, &[random::tag(purpose), step.epoch]).next_u64();
    let noise = uniform_noise(&step.images, radius.value(), seed, step.image_ids)?;
    Ok((&step.images + noise)?)
}

#[cfg(test)]
mod tests;
