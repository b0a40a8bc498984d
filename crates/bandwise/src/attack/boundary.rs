//! The linearized decision boundary around a point, for FAB and DeepFool.

use candle_core::{DType, Tensor};

use super::Norm;
use super::geometry::host_norms;
use super::oracle::{LossTargets, Objective, Oracle};
use crate::Result;
use crate::nn::loss;

/// `z_other − z_label ≈ gap + ⟨slope, x' − x⟩` per image, for one other class.
pub(crate) struct Boundary {
    /// `[n]` on the host.
    pub gap: Vec<f64>,
    /// `[n, height, width, channels]`.
    pub slope: Tensor,
}

/// The norm in which a slope measures the distance to its hyperplane.
pub(crate) fn dual(norm: Norm) -> Norm {
    match norm {
        Norm::Linf => Norm::L1,
        Norm::L2 => Norm::L2,
        Norm::L1 => Norm::Linf,
    }
}

/// The boundary towards given target classes (one backward pass).
pub(crate) fn towards_targets(oracle: &Oracle, x: &Tensor, goal: &LossTargets) -> Result<Boundary> {
    let answer = oracle.slope(x, goal, Objective::TargetedMargin)?;
    Ok(Boundary { gap: loss::to_host(&answer.losses)?, slope: answer.gradient })
}

/// The nearest of the boundaries towards all other classes (one backward pass per class).
pub(crate) fn nearest(oracle: &Oracle, x: &Tensor, labels: &[u32], norm: Norm) -> Result<Boundary> {
    let (mut gaps, mut slopes) = (Vec::new(), Vec::new());
    for (start, count) in oracle.batches(x)? {
        let part =
            nearest_in_batch(oracle, &x.narrow(0, start, count)?, &labels[start..start + count], norm)?;
        gaps.extend(part.gap);
        slopes.push(part.slope);
    }
    Ok(Boundary { gap: gaps, slope: Tensor::cat(&slopes, 0)? })
}

fn nearest_in_batch(oracle: &Oracle, x: &Tensor, labels: &[u32], norm: Norm) -> Result<Boundary> {
    let (logits, gradients) = oracle.jacobian(x)?;
    let logits = logits.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let count = labels.len();
    let mask = |wanted: &dyn Fn(usize) -> bool| -> Result<Tensor> {
        let mask: Vec<u8> = (0..count).map(|i| u8::from(wanted(i))).collect();
        Ok(Tensor::from_vec(mask, (count, 1, 1, 1), x.device())?.broadcast_as(x.shape())?)
    };
    let mut own = gradients[0].clone();
    for (class, gradient) in gradients.iter().enumerate().skip(1) {
        own = mask(&|i| labels[i] as usize == class)?.where_cond(gradient, &own)?;
    }
    let mut nearest = vec![f64::INFINITY; count];
    let mut gap = vec![0.0; count];
    let mut slope = own.zeros_like()?;
    for (class, gradient) in gradients.iter().enumerate() {
        let difference = (gradient - &own)?;
        let lengths = host_norms(&difference, dual(norm))?;
        let mut closer = vec![false; count];
        for i in 0..count {
            let difference = logits[i][class] - logits[i][labels[i] as usize];
            let distance = difference.abs() / (1e-12 + lengths[i]);
            closer[i] = labels[i] as usize != class && distance < nearest[i];
            if closer[i] {
                (nearest[i], gap[i]) = (distance, difference);
            }
        }
        slope = mask(&|i| closer[i])?.where_cond(&difference, &slope)?;
    }
    Ok(Boundary { gap, slope })
}
