//! VGG with batch norm (Simonyan and Zisserman 2015): torchvision's `features` with one linear layer on
//! the globally averaged map, as is usual for small pictures.

use bandwise_kernels::ConvConfig;

use super::Interface;
use crate::Result;
use crate::nn::build::{Builder, Initialization, max_pool, stage};
use crate::nn::layer::Layer;

/// Convolutions per stage of VGG-11.
pub const VGG11: [usize; 5] = [1, 1, 2, 2, 2];
/// Convolutions per stage of VGG-16.
pub const VGG16: [usize; 5] = [2, 2, 3, 3, 3];

/// Stages of width, 2·width, 4·width, 8·width and 8·width (64 as published), each ended by max pooling.
pub fn build(convolutions: [usize; 5], builder: &mut Builder, interface: Interface) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::HeFanOut;
    let width = interface.width.unwrap_or(64);
    let mut layers = Vec::new();
    let (mut inputs, mut index) = (interface.channels, 0);
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
    layers.push(Layer::GlobalAveragePool);
    layers.push(builder.linear("classifier", inputs, interface.classes, true)?);
    Ok(layers)
}
