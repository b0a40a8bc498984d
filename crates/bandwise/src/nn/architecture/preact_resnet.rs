//! Pre-activation ResNet-18 (He et al. 2016b) in the two forms that the robustness literature uses.

use super::ModelShape;
use crate::Result;
use crate::nn::build::{Builder, Initialization, residual, stage};
use crate::nn::layer::Layer;

/// The published forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// JaFR's: shortcuts see the raw block input, no batch norm after the last stage.
    Jafr,
    /// That of fast adversarial training and RobustBench: shortcuts see the activated input, a batch
    /// norm and ReLU follow the last stage.
    FinalNorm,
}

/// Stages of width, 2·width, 4·width and 8·width (64 as published), two blocks each.
pub fn build(variant: Variant, builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::HeFanOut;
    let width = shape.width.unwrap_or(64);
    let mut layers = vec![builder.convolution("conv1", [shape.channels, width], 3, 1, 1)?];
    let mut inputs = width;
    for index in 0..4 {
        let outputs = width << index;
        let name = format!("layer{}", index + 1);
        let mut blocks = Vec::new();
        for block in 0..2 {
            let stride = if block == 0 && index > 0 { 2 } else { 1 };
            let prefix = format!("{name}.{block}");
            blocks.extend(pre_activation_block(variant, builder, &prefix, [inputs, outputs], stride)?);
            inputs = outputs;
        }
        layers.push(stage(&name, outputs, blocks));
    }
    if variant == Variant::FinalNorm {
        layers.push(builder.batch_norm("bn", inputs, true)?);
    }
    layers.push(Layer::GlobalAveragePool);
    layers.push(builder.linear("linear", inputs, shape.classes, true)?);
    Ok(layers)
}

fn pre_activation_block(
    variant: Variant,
    builder: &mut Builder,
    prefix: &str,
    [inputs, outputs]: [usize; 2],
    stride: usize,
) -> Result<Vec<Layer>> {
    let name = |part: &str| format!("{prefix}.{part}");
    let entry = builder.batch_norm(&name("bn1"), inputs, true)?;
    let mut main = vec![
        builder.convolution(&name("conv1"), [inputs, outputs], 3, stride, 1)?,
        builder.batch_norm(&name("bn2"), outputs, true)?,
        builder.convolution(&name("conv2"), [outputs, outputs], 3, 1, 1)?,
    ];
    if stride == 1 && inputs == outputs {
        main.insert(0, entry);
        return Ok(vec![residual(main, vec![], false)]);
    }
    let shortcut = vec![builder.convolution(&name("shortcut.0"), [inputs, outputs], 1, stride, 0)?];
    Ok(match variant {
        Variant::Jafr => {
            main.insert(0, entry);
            vec![residual(main, shortcut, false)]
        }
        Variant::FinalNorm => vec![entry, residual(main, shortcut, false)],
    })
}
