//! One optimizer update: attack, weight perturbation, gradients in parts, step.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use rand::RngCore;

use super::loss::TrainingLoss;
use super::objective::{Objective, Outcome, Terms};
use super::optimizer::{Optimizer, hessian_diagonal, random_signs};
use super::recipe::Recipe;
use super::step::Step;
use crate::nn::Mode;
use crate::{Result, random};

/// What an update has seen.
#[derive(Debug)]
pub struct StepOutput {
    /// Loss with all penalties (at the perturbed weights, if they were), and logits.
    pub outcome: Outcome,
    /// The objective's loss at the weights themselves, if they were perturbed.
    pub unperturbed_loss: Option<Tensor>,
    /// The perturbation for the next step of free adversarial training.
    pub carried_delta: Option<Tensor>,
}

/// Updates the weights of `step.model` by one step of `optimizer`.
pub fn update(
    recipe: &Recipe,
    step: &Step,
    optimizer: &mut Optimizer,
    learning_rate: f64,
) -> Result<StepOutput> {
    let parts = Part::of(step, recipe)?;
    let ascent = recipe.awp.as_ref().filter(|awp| awp.is_on(step.epoch));
    let ascent = match ascent {
        Some(awp) => {
            let (outcome, gradients) = accumulate(&parts, |part| part.at_the_weights(&recipe.objective))?;
            Some((awp.perturbation(step.model, &gradients)?, outcome.loss))
        }
        None => None,
    };
    let (perturbation, unperturbed_loss) = ascent.unzip();
    perturbation.iter().try_for_each(|perturbation| perturbation.add())?;
    let loss = TrainingLoss { objective: &recipe.objective, regularizers: &recipe.regularizers };
    let (outcome, gradients) = accumulate(&parts, |part| loss.backward(&part.step, &part.adversarial))?;
    match optimizer.config().needs_hessian() {
        false => optimizer.step(&gradients, learning_rate)?,
        true => {
            let diagonal = curvature(&parts, &loss, step)?;
            optimizer.step_with_hessian(&gradients, &diagonal, learning_rate)?;
        }
    }
    perturbation.iter().try_for_each(|perturbation| perturbation.remove())?;
    let deltas = parts.iter().filter_map(|part| {
        recipe.objective.next_delta(&part.step, gradients.get(&part.adversarial)).transpose()
    });
    let deltas: Vec<Tensor> = deltas.collect::<Result<_>>()?;
    let carried_delta = if deltas.is_empty() { None } else { Some(Tensor::cat(&deltas, 0)?) };
    Ok(StepOutput { outcome, unperturbed_loss, carried_delta })
}

/// The diagonal of the Hessian of the whole loss on the batch, without touching running statistics.
fn curvature(parts: &[Part], loss: &TrainingLoss, step: &Step) -> Result<GradStore> {
    let seed = random::stream(step.seed, &[random::tag("hessian"), step.time.to_bits()]).next_u64();
    let still = |part: &Part| {
        let step = Step { mode: Mode::BatchStatistics, ..part.step.clone() };
        loss.backward(&step, &part.adversarial)
    };
    let signs = |name: &str, var: &Var| random_signs(seed, name, var);
    hessian_diagonal(&step.model.trainable(), signs, || Ok(accumulate(parts, still)?.1))
}

/// A part of the batch and its adversarial images.
struct Part<'a> {
    step: Step<'a>,
    adversarial: Tensor,
}

impl<'a> Part<'a> {
    /// All parts of a batch, attacked.
    fn of(step: &Step<'a>, recipe: &Recipe) -> Result<Vec<Self>> {
        let attacked = |step: Step<'a>| {
            let adversarial = recipe.objective.attack(&step)?;
            Ok(Self { step, adversarial })
        };
        step.parts(recipe.accumulate)?.into_iter().map(attacked).collect()
    }

    /// The objective alone, without touching running statistics.
    fn at_the_weights(&self, objective: &Objective) -> Result<(Outcome, GradStore)> {
        let step = Step { mode: Mode::BatchStatistics, ..self.step.clone() };
        let Outcome { loss, logits, terms } = objective.loss(&step, &self.adversarial.detach())?;
        let gradients = loss.backward()?;
        Ok((Outcome { loss: loss.detach(), logits: logits.detach(), terms }, gradients))
    }
}

/// Mean loss and gradients over all images, one part after another.
fn accumulate(
    parts: &[Part],
    backward: impl Fn(&Part) -> Result<(Outcome, GradStore)>,
) -> Result<(Outcome, GradStore)> {
    if let [whole] = parts {
        return backward(whole);
    }
    let all: usize = parts.iter().map(|part| part.step.image_ids.len()).sum();
    let mut sum: Option<(Tensor, GradStore)> = None;
    let mut terms = Terms::new();
    let mut logits = Vec::with_capacity(parts.len());
    for part in parts {
        let share = part.step.image_ids.len() as f64 / all as f64;
        let (outcome, gradients) = backward(part)?;
        let (loss, gradients) = ((outcome.loss * share)?, scaled(gradients, share)?);
        logits.push(outcome.logits);
        for (name, term) in outcome.terms {
            let term = (term * share)?;
            match terms.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum = (&*sum + term)?,
                None => terms.push((name, term)),
            }
        }
        sum = Some(match sum.take() {
            None => (loss, gradients),
            Some((loss_sum, mut gradient_sum)) => {
                gradient_sum.extend(gradients)?;
                ((loss_sum + loss)?, gradient_sum)
            }
        });
    }
    let (loss, gradients) = sum.ok_or_else(|| crate::Error::config("a batch without images"))?;
    Ok((Outcome { loss, logits: Tensor::cat(&logits, 0)?, terms }, gradients))
}

fn scaled(mut gradients: GradStore, factor: f64) -> Result<GradStore> {
    let ids: Vec<_> = gradients.get_ids().copied().collect();
    for id in ids {
        if let Some(gradient) = gradients.get_id(id) {
            let gradient = (gradient * factor)?;
            gradients.insert_id(id, gradient);
        }
    }
    Ok(gradients)
}

#[cfg(test)]
mod tests;
