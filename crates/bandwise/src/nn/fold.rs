//! Frozen networks: batch norm folds into the convolution before it, weights are packed once.

use bandwise_kernels::FrozenConv2d;

use super::batch_norm::BatchNorm;
use super::convolution::Convolution;
use super::layer::{Folded, Layer};
use crate::Result;

/// The same function in evaluation mode, constant to autodiff, with every convolution packed and every
/// batch norm that directly follows a convolution folded into it.
pub fn fold(layers: &[Layer]) -> Result<Vec<Layer>> {
    let mut folded = Vec::with_capacity(layers.len());
    let mut rest = layers.iter().peekable();
    while let Some(layer) = rest.next() {
        folded.push(match layer {
            Layer::Convolution(convolution) => {
                let norm = rest.next_if(|next| matches!(next, Layer::BatchNorm(_)));
                match norm {
                    Some(Layer::BatchNorm(norm)) => fold_norm(convolution, norm)?,
                    _ => pack(convolution)?,
                }
            }
            // It changes nothing in evaluation.
            Layer::Dropout(_) => continue,
            other => {
                let mut copy = other.frozen();
                for group in copy.children_mut() {
                    *group = fold(group)?;
                }
                copy
            }
        });
    }
    Ok(folded)
}

fn pack(convolution: &Convolution) -> Result<Layer> {
    let frozen = convolution.frozen();
    let bias = frozen.bias.as_ref().map(|b| b.tensor());
    let convolution = FrozenConv2d::new(&frozen.weight()?, bias, &frozen.config)?;
    Ok(Layer::Folded(Folded { convolution, relu: false }))
}

fn fold_norm(convolution: &Convolution, norm: &BatchNorm) -> Result<Layer> {
    let (frozen, norm) = (convolution.frozen(), norm.frozen());
    let scale = norm.scale()?;
    let weight = frozen.weight()?.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
    let shift = norm.shift()?;
    let shift = match &frozen.bias {
        Some(bias) => (shift + (bias.tensor() * &scale)?)?,
        None => shift,
    };
    let convolution = FrozenConv2d::new(&weight, Some(&shift), &frozen.config)?;
    Ok(Layer::Folded(Folded { convolution, relu: norm.relu }))
}
