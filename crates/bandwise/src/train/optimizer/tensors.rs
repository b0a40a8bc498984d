//! The same updates as tensor operations, for other devices and number types.

use candle_core::{Tensor, Var};

use super::{OptimizerConfig, Update};
use crate::Result;

/// Updates `var` and its state slots; `diagonal` is the Hessian's, for the optimizer that wants it.
pub(super) fn update(
    config: &OptimizerConfig,
    update: Update,
    var: &Var,
    gradient: &Tensor,
    diagonal: Option<&Tensor>,
    slots: &mut [Tensor],
) -> Result<()> {
    let weights = var.as_detached_tensor();
    let mut gradient = gradient.to_dtype(weights.dtype())?;
    if update.gradient_scale != 1.0 {
        gradient = (gradient * update.gradient_scale)?;
    }
    let decoupled = matches!(config, OptimizerConfig::AdamW { .. } | OptimizerConfig::AdaHessian { .. });
    if update.weight_decay != 0.0 && !decoupled {
        gradient = (gradient + (&weights * update.weight_decay)?)?;
    }
    let rate = update.learning_rate;
    let new = match *config {
        OptimizerConfig::Sgd { momentum: 0.0, .. } => (weights - (gradient * rate)?)?,
        OptimizerConfig::Sgd { momentum, nesterov, .. } => {
            let velocity = ((&slots[0] * momentum)? + &gradient)?;
            let direction = if nesterov { (gradient + (&velocity * momentum)?)? } else { velocity.clone() };
            slots[0] = velocity;
            (weights - (direction * rate)?)?
        }
        OptimizerConfig::Adam { betas, epsilon, .. } => {
            (weights - adam(update, betas, epsilon, &gradient, slots)?)?
        }
        OptimizerConfig::AdamW { betas, epsilon, .. } => {
            let kept = (weights * (1.0 - rate * update.weight_decay))?;
            (kept - adam(update, betas, epsilon, &gradient, slots)?)?
        }
        OptimizerConfig::AdaHessian { betas, epsilon, hessian_power, .. } => {
            let curvature =
                diagonal.map_or_else(|| gradient.zeros_like(), |d| d.to_dtype(weights.dtype()))?;
            let correction = corrections(betas, update.step);
            slots[0] = ((&slots[0] * betas[0])? + (gradient * (1.0 - betas[0]))?)?;
            slots[1] = ((&slots[1] * betas[1])? + (curvature.sqr()? * (1.0 - betas[1]))?)?;
            let size = (slots[1].sqrt()?.powf(hessian_power)? / correction[1].sqrt().powf(hessian_power))?;
            let step = ((&slots[0] / correction[0])? / (size + epsilon)?)?;
            let kept = (&weights * (1.0 - rate * update.weight_decay))?;
            (kept - (step * rate)?)?
        }
        OptimizerConfig::Adagrad { learning_rate_decay, epsilon, .. } => {
            let rate = rate / (1.0 + (update.step - 1) as f64 * learning_rate_decay);
            slots[0] = (&slots[0] + gradient.sqr()?)?;
            (weights - ((gradient * rate)? / (slots[0].sqrt()? + epsilon)?)?)?
        }
        OptimizerConfig::RmsProp { smoothing, epsilon, momentum, centered, .. } => {
            slots[0] = ((&slots[0] * smoothing)? + (gradient.sqr()? * (1.0 - smoothing))?)?;
            let spread = if centered {
                slots[2] = (&slots[2] + ((&gradient - &slots[2])? * (1.0 - smoothing))?)?;
                (&slots[0] - slots[2].sqr()?)?.relu()?
            } else {
                slots[0].clone()
            };
            slots[1] = ((&slots[1] * momentum)? + (gradient / (spread.sqrt()? + epsilon)?)?)?;
            (weights - (&slots[1] * rate)?)?
        }
    };
    // State must not keep the graph that gradients may carry.
    slots.iter_mut().for_each(|slot| *slot = slot.detach());
    Ok(var.set(&new.detach())?)
}

/// What makes up for moments that start at zero.
fn corrections(betas: [f64; 2], step: u64) -> [f64; 2] {
    betas.map(|beta| 1.0 - beta.powi(step.min(i32::MAX as u64) as i32))
}

/// The step of Adam, to be subtracted from the weights.
fn adam(
    update: Update,
    betas: [f64; 2],
    epsilon: f64,
    gradient: &Tensor,
    slots: &mut [Tensor],
) -> candle_core::Result<Tensor> {
    slots[0] = (&slots[0] + ((gradient - &slots[0])? * (1.0 - betas[0]))?)?;
    slots[1] = ((&slots[1] * betas[1])? + (gradient.sqr()? * (1.0 - betas[1]))?)?;
    let correction = corrections(betas, update.step);
    let denominator = ((slots[1].sqrt()? / correction[1].sqrt())? + epsilon)?;
    (&slots[0] * (update.learning_rate / correction[0]))? / denominator
}
