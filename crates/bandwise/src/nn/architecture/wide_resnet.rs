//! WideResNet-depth-widen (Zagoruyko and Komodakis 2016), with the names used by TRADES and RobustBench.

use super::ModelShape;
use crate::Result;
use crate::nn::build::{Builder, Initialization, residual, stage};
use crate::nn::layer::Layer;

/// Three stages of 16·widen, 32·widen and 64·widen channels; depth = 6n + 4.
pub fn build(depth: usize, widen: usize, builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::HeFanOut;
    let width = shape.width.unwrap_or(16);
    let blocks = (depth - 4) / 6;
    let mut layers = vec![builder.convolution("conv1", [shape.channels, width], 3, 1, 1)?];
    let mut inputs = width;
    for index in 0..3 {
        let outputs = (width << index) * widen;
        let mut stage_layers = Vec::new();
        for block in 0..blocks {
            let stride = if block == 0 && index > 0 { 2 } else { 1 };
            let name = |part: &str| format!("block{}.layer.{block}.{part}", index + 1);
            let entry = builder.batch_norm(&name("bn1"), inputs, true)?;
            let mut main = vec![
                builder.convolution(&name("conv1"), [inputs, outputs], 3, stride, 1)?,
                builder.batch_norm(&name("bn2"), outputs, true)?,
                builder.convolution(&name("conv2"), [outputs, outputs], 3, 1, 1)?,
            ];
            if inputs == outputs {
                main.insert(0, entry);
                stage_layers.push(residual(main, vec![], false));
            } else {
                // Where the width changes, both branches see the activated input.
                let shortcut = builder.convolution(&name("convShortcut"), [inputs, outputs], 1, stride, 0)?;
                stage_layers.extend([entry, residual(main, vec![shortcut], false)]);
            }
            inputs = outputs;
        }
        layers.push(stage(&format!("block{}", index + 1), outputs, stage_layers));
    }
    layers.push(builder.batch_norm("bn1", inputs, true)?);
    layers.push(Layer::GlobalAveragePool);
    layers.push(builder.linear("fc", inputs, shape.classes, true)?);
    Ok(layers)
}
