//! A small network for demonstrations and two-core experiments: four 3×3 convolutions.

use super::ModelShape;
use crate::Result;
use crate::nn::build::{Builder, Initialization, stage};
use crate::nn::layer::Layer;

/// Stages of width, 2·width, 4·width and 4·width (16 by default); all but the first halve the map.
pub fn build(builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::HeFanOut;
    let width = shape.width.unwrap_or(16);
    let widths = [width, 2 * width, 4 * width, 4 * width];
    let mut layers = Vec::new();
    let mut inputs = shape.channels;
    for (index, &outputs) in widths.iter().enumerate() {
        let number = index + 1;
        let stride = if index == 0 { 1 } else { 2 };
        let unit = vec![
            builder.convolution(&format!("conv{number}"), [inputs, outputs], 3, stride, 1)?,
            builder.batch_norm(&format!("bn{number}"), outputs, true)?,
        ];
        layers.push(stage(&format!("stage{number}"), outputs, unit));
        inputs = outputs;
    }
    layers.push(Layer::GlobalAveragePool);
    layers.push(builder.linear("fc", inputs, shape.classes, true)?);
    Ok(layers)
}
