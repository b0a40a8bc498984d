//! ResNet-9 for low resolution, as in filter frequency regularization (names of the official code):
//! the ReLU of a residual block comes before the sum, none after it.

use super::ModelShape;
use crate::Result;
use crate::nn::build::{Builder, Initialization, max_pool, residual, stage};
use crate::nn::layer::Layer;

/// Stages of width, 2·width, 4·width and 8·width (64 as published).
pub fn build(builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::PyTorch;
    let w = shape.width.unwrap_or(64);
    let mut unit = |index: usize, inputs: usize, outputs: usize| -> Result<Vec<Layer>> {
        Ok(vec![
            builder.convolution(&format!("conv.{index}"), [inputs, outputs], 3, 1, 1)?,
            builder.batch_norm(&format!("conv.{}", index + 1), outputs, true)?,
        ])
    };
    let first = unit(0, shape.channels, w)?;
    let mut second = unit(3, w, 2 * w)?;
    let mut third = unit(8, 2 * w, 4 * w)?;
    let mut fourth = unit(12, 4 * w, 8 * w)?;
    second.extend([max_pool(2), block(builder, "conv.7", 2 * w)?]);
    third.push(max_pool(2));
    fourth.extend([max_pool(2), block(builder, "conv.16", 8 * w)?]);
    Ok(vec![
        stage("stage1", w, first),
        stage("stage2", 2 * w, second),
        stage("stage3", 4 * w, third),
        stage("stage4", 8 * w, fourth),
        max_pool(4),
        Layer::Flatten,
        builder.linear("fc", 8 * w, shape.classes, false)?,
    ])
}

fn block(builder: &mut Builder, prefix: &str, channels: usize) -> Result<Layer> {
    let mut main = Vec::new();
    for part in ["conv_res1", "conv_res2"] {
        main.push(builder.convolution(&format!("{prefix}.{part}"), [channels, channels], 3, 1, 1)?);
        main.push(builder.batch_norm(&format!("{prefix}.{part}_bn"), channels, true)?);
    }
    Ok(residual(main, vec![], false))
}
