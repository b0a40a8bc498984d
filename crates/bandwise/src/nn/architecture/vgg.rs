//! VGG with batch norm (Simonyan and Zisserman 2015): torchvision's `features`, and either its head of
//! three linear layers or one linear layer on the globally averaged map, as is usual for small images.

use bandwise_kernels::ConvConfig;

use super::ModelShape;
use crate::Result;
use crate::nn::build::{Builder, Initialization, max_pool, relu, stage};
use crate::nn::layer::Layer;

/// Convolutions per stage of VGG-11.
pub const VGG11: [usize; 5] = [1, 1, 2, 2, 2];
/// Convolutions per stage of VGG-16.
pub const VGG16: [usize; 5] = [2, 2, 3, 3, 3];

/// Stages of width, 2·width, 4·width, 8·width and 8·width (64 as published), each ended by max pooling,
/// then the mean of the map and one linear layer.
pub fn build(convolutions: [usize; 5], builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
    let (mut layers, outputs) = features(convolutions, builder, shape)?;
    layers.push(Layer::GlobalAveragePool);
    layers.push(builder.linear("classifier", outputs, shape.classes, true)?);
    Ok(layers)
}

/// The same stages with torchvision's head under its names: a 7×7 map and layers of 64·width outputs.
/// Dropout is left out.
pub fn build_imagenet(
    convolutions: [usize; 5],
    builder: &mut Builder,
    shape: ModelShape,
) -> Result<Vec<Layer>> {
    let (mut layers, outputs) = features(convolutions, builder, shape)?;
    let hidden = 64 * shape.width.unwrap_or(64);
    layers.extend([
        Layer::AdaptiveAveragePool(7),
        Layer::Flatten,
        builder.linear("classifier.0", 49 * outputs, hidden, true)?,
        relu(),
        builder.linear("classifier.3", hidden, hidden, true)?,
        relu(),
        builder.linear("classifier.6", hidden, shape.classes, true)?,
    ]);
    Ok(layers)
}

/// The stages, and the channels that leave them.
fn features(
    convolutions: [usize; 5],
    builder: &mut Builder,
    shape: ModelShape,
) -> Result<(Vec<Layer>, usize)> {
    builder.initialization = Initialization::HeFanOut;
    let width = shape.width.unwrap_or(64);
    let mut layers = Vec::new();
    let (mut inputs, mut index) = (shape.channels, 0);
    for (number, &count) in convolutions.iter().enumerate() {
        let outputs = width << number.min(3);
        let mut stage_layers = Vec::new();
        for _ in 0..count {
            let config = ConvConfig { padding: 1, ..ConvConfig::default() };
            let name = format!("features.{index}");
            stage_layers.push(builder.convolution_with(&name, [inputs, outputs], 3, config, true)?);
            stage_layers.push(builder.batch_norm(&format!("features.{}", index + 1), outputs, true)?);
            inputs = outputs;
            index += 3;
        }
        stage_layers.push(max_pool(2));
        index += 1;
        layers.push(stage(&format!("stage{}", number + 1), outputs, stage_layers));
    }
    Ok((layers, inputs))
}
