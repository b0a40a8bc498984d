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
use super::regularizers::{Kinds, Regularizers, Tracked};
use super::step::Step;
use crate::attack::Epsilon;
use crate::method::InputPenalty;
use crate::method::filter_frequency::Penalty as FilterPenalty;
use crate::method::grad_align::{alignment, uniform_noise};
use crate::method::input_gradient::{InputGradient, Penalty, joint_gradients, penalty_gradients, scalar};
use crate::nn::{ForwardContext, Mode};
use crate::{Result, random};

/// The name of the filters' penalty in logs.
const FILTER_FREQUENCY: &str = "penalty/filter_frequency";

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
                let (direction, train) = (&penalty.derivative, step.pass(step.mode));
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
        let Kinds { filter_frequency, track, .. } = self.regularizers.by_kind();
        if let Some(penalty) = filter_frequency {
            let value = penalty.unweighted(step.model)?;
            terms.push((FILTER_FREQUENCY, value.detach()));
            return Ok((loss + (value * penalty.lambda)?)?);
        }
        if track.contains(&Tracked::FilterFrequency) {
            let value = FilterPenalty::default().unweighted(&step.model.frozen())?;
            terms.push((FILTER_FREQUENCY, value.detach()));
        }
        Ok(loss)
    }

    /// The penalties of the input gradient, by the images it is taken at.
    fn penalties(&self, step: &Step) -> Result<Penalties> {
        // The filters' penalty is of the weights: see `with_filters`.
        let Kinds { filter_frequency: _, grad_align, gradient_noise, track, of_input_gradient } =
            self.regularizers.by_kind();
        let follows = track.iter().any(|tracked| *tracked != Tracked::FilterFrequency);
        let looks_at_it = follows || !of_input_gradient.is_empty();
        let mut found = Penalties::default();
        if !looks_at_it && grad_align.is_none() {
            return Ok(found);
        }
        let clean = match gradient_noise {
            Some(noise) if looks_at_it => {
                let moved = moved_images("gradient_noise", noise, step)?;
                let penalty =
                    found.sum_of(&of_input_gradient, track, &input_gradient(step, &moved)?, step.epoch)?;
                found.elsewhere.extend(penalty.map(|penalty| (moved, penalty)));
                None
            }
            _ => {
                let clean = input_gradient(step, &step.images)?;
                found.at_clean = found.sum_of(&of_input_gradient, track, &clean, step.epoch)?;
                Some(clean)
            }
        };
        if let Some(align) = grad_align {
            let clean = clean.map_or_else(|| input_gradient(step, &step.images), Ok)?;
            let moved = moved_images("grad_align", align.epsilon, step)?;
            let gradient = input_gradient(step, &moved)?;
            found.values.push(("penalty/grad_align", 1.0 - scalar(&alignment(&clean, &gradient)?)?));
            if align.lambda == 0.0 {
                return Ok(found);
            }
            let (first, second) = align.penalty(&clean, &gradient)?;
            if let Some(first) = first {
                // Its value is that of `second`, and counts once.
                found.add_at_clean(Penalty { value: 0.0, ..first })?;
            }
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
    /// The sum of penalties of J, if there are any. Each is noted by itself, without its λ; one whose λ is 0, or that
    /// still waits for its warm-up, is noted only. So is what is tracked.
    fn sum_of(
        &mut self,
        penalties: &[(&'static str, &dyn InputPenalty)],
        track: &[Tracked],
        gradient: &Tensor,
        epoch: u64,
    ) -> Result<Option<Penalty>> {
        for tracked in track {
            self.values.extend(tracked.of_input_gradient(gradient)?);
        }
        let mut sum: Option<Penalty> = None;
        for (name, function) in penalties {
            if function.lambda() == 0.0 || epoch < function.warmup() {
                self.values.push((name, scalar(&function.unweighted(gradient)?)?));
                continue;
            }
            let penalty = function.penalty(gradient)?;
            self.values.push((name, penalty.value / function.lambda()));
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
