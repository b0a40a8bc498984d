//! The thin ResNets for CIFAR (He et al. 2016, section 4.2): three stages of width, 2·width and 4·width,
//! depth 6n + 2.

use super::Interface;
use crate::Result;
use crate::nn::build::{Builder, Initialization, pad_shortcut, residual, stage};
use crate::nn::layer::Layer;

/// What joins two stages of different width, and whose names are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Parameter-free shortcuts; names of `pytorch_resnet_cifar10` (akamaster).
    A,
    /// 1×1 convolution and batch norm; the same names.
    B,
    /// 1×1 convolution and batch norm; names of OpenLTH's `cifar_resnet_N_W`.
    OpenLth,
}

/// Builds the network of the given depth.
pub fn build(
    variant: Variant,
    depth: usize,
    builder: &mut Builder,
    interface: Interface,
) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::HeFanIn;
    let lth = variant == Variant::OpenLth;
    let width = interface.width.unwrap_or(16);
    let blocks = (depth - 2) / 6;
    let mut layers = vec![
        builder.convolution(if lth { "conv" } else { "conv1" }, [interface.channels, width], 3, 1, 1)?,
        builder.batch_norm(if lth { "bn" } else { "bn1" }, width, true)?,
    ];
    let mut inputs = width;
    for segment in 0..3 {
        let outputs = width << segment;
        let mut stage_layers = Vec::new();
        for block in 0..blocks {
            let prefix = if lth {
                format!("blocks.{}", segment * blocks + block)
            } else {
                format!("layer{}.{block}", segment + 1)
            };
            let stride = if block == 0 && segment > 0 { 2 } else { 1 };
            let name = |part: &str| format!("{prefix}.{part}");
            let main = vec![
                builder.convolution(&name("conv1"), [inputs, outputs], 3, stride, 1)?,
                builder.batch_norm(&name("bn1"), outputs, true)?,
                builder.convolution(&name("conv2"), [outputs, outputs], 3, 1, 1)?,
                builder.batch_norm(&name("bn2"), outputs, false)?,
            ];
            let shortcut = if stride == 1 && inputs == outputs {
                vec![]
            } else if variant == Variant::A {
                vec![pad_shortcut(stride, (outputs - inputs) / 2)]
            } else {
                vec![
                    builder.convolution(&name("shortcut.0"), [inputs, outputs], 1, stride, 0)?,
                    builder.batch_norm(&name("shortcut.1"), outputs, false)?,
                ]
            };
            stage_layers.push(residual(main, shortcut, true));
            inputs = outputs;
        }
        layers.push(stage(&format!("layer{}", segment + 1), outputs, stage_layers));
    }
    layers.push(Layer::GlobalAveragePool);
    layers.push(builder.linear(if lth { "fc" } else { "linear" }, inputs, interface.classes, true)?);
    Ok(layers)
}
