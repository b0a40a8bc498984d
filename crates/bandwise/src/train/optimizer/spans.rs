//! Updates on the CPU in `f32`: one parallel pass over weights, gradient and state.

use std::sync::Mutex;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor, Var};
use rayon::prelude::*;

use super::{OptimizerConfig, Update};
use crate::Result;

/// Elements per task: large enough to hide the cost of a task, small enough for the cache.
const SPAN: usize = 1 << 14;

/// The same stretch of a parameter's weights, gradient and up to three state slots.
struct Span<'a> {
    weights: &'a mut [f32],
    gradient: &'a [f32],
    slots: [&'a mut [f32]; 3],
}

/// Updates `var` and its state slots in place.
pub(super) fn update(
    config: &OptimizerConfig,
    update: Update,
    var: &Var,
    gradient: &Tensor,
    slots: &mut [Vec<f32>],
) -> Result<()> {
    let gradient = gradient.to_dtype(DType::F32)?.contiguous()?;
    let operation = Operation { config, update, slots: Mutex::new(slots) };
    Ok(var.as_tensor().inplace_op2(&gradient, &operation)?)
}

/// The bridge to the storage of a tensor: candle lends it mutably to in-place operations only.
struct Operation<'a> {
    config: &'a OptimizerConfig,
    update: Update,
    slots: Mutex<&'a mut [Vec<f32>]>,
}

impl InplaceOp2 for Operation<'_> {
    fn name(&self) -> &'static str {
        "optimizer step"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(weights), CpuStorage::F32(gradient)) = (weights, gradient) else {
            candle_core::bail!("the optimizer step on spans wants f32")
        };
        if weights_layout.shape() != gradient_layout.shape() {
            candle_core::bail!(
                "a gradient of {:?} for weights of {:?}",
                gradient_layout.shape(),
                weights_layout.shape()
            )
        }
        let (Some(weights_at), Some(gradient_at)) =
            (weights_layout.contiguous_offsets(), gradient_layout.contiguous_offsets())
        else {
            candle_core::bail!("the optimizer step on spans wants contiguous weights")
        };
        let mut slots = self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut slots = slots.iter_mut().map(|slot| slot.chunks_mut(SPAN));
        let mut slots: [_; 3] = std::array::from_fn(|_| slots.next());
        let spans: Vec<Span> = weights[weights_at.0..weights_at.1]
            .chunks_mut(SPAN)
            .zip(gradient[gradient_at.0..gradient_at.1].chunks(SPAN))
            .map(|(weights, gradient)| {
                let slots =
                    slots.each_mut().map(|slot| slot.as_mut().and_then(Iterator::next).unwrap_or_default());
                Span { weights, gradient, slots }
            })
            .collect();
        spans.into_par_iter().for_each(|span| update_span(self.config, self.update, span));
        Ok(())
    }
}

/// The optimizers' formulas, in the order of operations of `torch.optim`.
fn update_span(config: &OptimizerConfig, update: Update, span: Span) {
    let Span { weights, gradient, slots: [first, second, third] } = span;
    let rate = update.learning_rate as f32;
    let decay = update.weight_decay as f32;
    let scale = update.gradient_scale as f32;
    let gradients = |weight: f32, gradient: f32| scale * gradient + decay * weight;
    match *config {
        OptimizerConfig::Sgd { momentum: 0.0, .. } => {
            for (w, &g) in weights.iter_mut().zip(gradient) {
                *w -= rate * gradients(*w, g);
            }
        }
        OptimizerConfig::Sgd { momentum, nesterov, .. } => {
            let momentum = momentum as f32;
            for ((w, &g), velocity) in weights.iter_mut().zip(gradient).zip(first) {
                let g = gradients(*w, g);
                *velocity = momentum * *velocity + g;
                *w -= rate * if nesterov { g + momentum * *velocity } else { *velocity };
            }
        }
        OptimizerConfig::Adam { betas, epsilon, .. } => {
            adam(update, betas, epsilon, weights, gradient, [first, second], gradients);
        }
        OptimizerConfig::AdamW { betas, epsilon, .. } => {
            let keep = (1.0 - update.learning_rate * update.weight_decay) as f32;
            weights.iter_mut().for_each(|w| *w *= keep);
            adam(update, betas, epsilon, weights, gradient, [first, second], |_, g| scale * g);
        }
        // Goes through tensors: it wants the Hessian, too.
        OptimizerConfig::AdaHessian { .. } => {}
        OptimizerConfig::Adagrad { learning_rate_decay, epsilon, .. } => {
            let rate = update.learning_rate / (1.0 + (update.step - 1) as f64 * learning_rate_decay);
            let (rate, epsilon) = (rate as f32, epsilon as f32);
            for ((w, &g), sum) in weights.iter_mut().zip(gradient).zip(first) {
                let g = gradients(*w, g);
                *sum += g * g;
                *w -= rate * g / (sum.sqrt() + epsilon);
            }
        }
        OptimizerConfig::RmsProp { smoothing, epsilon, momentum, centered, .. } => {
            let (keep, new) = (smoothing as f32, (1.0 - smoothing) as f32);
            let (epsilon, momentum) = (epsilon as f32, momentum as f32);
            let state = first.iter_mut().zip(second).zip(third);
            for ((w, &g), ((square, velocity), mean)) in weights.iter_mut().zip(gradient).zip(state) {
                let g = gradients(*w, g);
                *square = keep * *square + new * g * g;
                let spread = if centered {
                    *mean += new * (g - *mean);
                    *square - *mean * *mean
                } else {
                    *square
                };
                // Rounding can take the spread of a constant gradient below zero.
                *velocity = momentum * *velocity + g / (spread.max(0.0).sqrt() + epsilon);
                *w -= rate * *velocity;
            }
        }
    }
}

fn adam(
    update: Update,
    betas: [f64; 2],
    epsilon: f64,
    weights: &mut [f32],
    gradient: &[f32],
    [first, second]: [&mut [f32]; 2],
    gradients: impl Fn(f32, f32) -> f32,
) {
    let correction = betas.map(|beta| 1.0 - beta.powi(update.step.min(i32::MAX as u64) as i32));
    let step_size = (update.learning_rate / correction[0]) as f32;
    let root = correction[1].sqrt() as f32;
    let (new_first, keep_second, new_second) =
        ((1.0 - betas[0]) as f32, betas[1] as f32, (1.0 - betas[1]) as f32);
    let epsilon = epsilon as f32;
    for ((w, &g), (m, v)) in weights.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)) {
        let g = gradients(*w, g);
        *m += new_first * (g - *m);
        *v = keep_second * *v + new_second * g * g;
        *w -= step_size * *m / (v.sqrt() / root + epsilon);
    }
}

/// Whether a tensor is a span of numbers in main memory, to be changed in place.
pub(in crate::train) fn is_span(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32
}

/// `‖t‖²`, summed in an order that does not depend on the number of threads.
pub(in crate::train) fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
    if is_span(tensor) {
        let tensor = tensor.contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        {
            let square = |span: &[f32]| span.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
            let partial: Vec<f64> = values[start..end].par_chunks(SPAN).map(square).collect();
            return Ok(partial.into_iter().sum());
        }
    }
    let wide = if tensor.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    Ok(tensor.to_dtype(wide)?.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar()?)
}
