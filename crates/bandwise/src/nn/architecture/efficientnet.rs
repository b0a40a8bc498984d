//! EfficientNet-B0 (Tan and Le 2019) with torchvision's names. For low resolution, as in filter frequency
//! regularization, its first convolution does not stride. Dropout and stochastic depth are left out: the network that
//! filter frequency regularization trains is [`super::efficientnet_pytorch`].

use bandwise_kernels::ConvConfig;

use super::ModelShape;
use crate::Result;
use crate::nn::build::{Builder, Initialization, residual, stage};
use crate::nn::layer::{Activation, Layer};

/// Channels of the stem as published; `ModelShape::width` scales all others with it.
const STEM: usize = 32;
const HEAD: usize = 1280;

/// (expansion, kernel, stride, channels, blocks) of each stage.
pub(super) const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];

/// Builds the network; `stem_stride` is 1 for low resolution, 2 as published.
pub fn build(stem_stride: usize, builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::HeFanOut;
    let scaled = |channels: usize| (channels * shape.width.unwrap_or(STEM) / STEM).max(1);
    let mut inputs = scaled(STEM);
    let stem = ConvConfig { stride: stem_stride, padding: 1, ..ConvConfig::default() };
    let mut layers = unit(builder, "features.0", [shape.channels, inputs], 3, stem, true)?;
    for (index, (expansion, kernel, stride, channels, count)) in STAGES.into_iter().enumerate() {
        let name = format!("features.{}", index + 1);
        let outputs = scaled(channels);
        let mut blocks = Vec::new();
        for block in 0..count {
            let stride = if block == 0 { stride } else { 1 };
            let prefix = format!("{name}.{block}.block");
            let main = inverted_bottleneck(builder, &prefix, [inputs, outputs], expansion, kernel, stride)?;
            if stride == 1 && inputs == outputs {
                blocks.push(residual(main, vec![], false));
            } else {
                blocks.extend(main);
            }
            inputs = outputs;
        }
        layers.push(stage(&name, outputs, blocks));
    }
    let head = scaled(HEAD);
    layers.extend(unit(builder, "features.8", [inputs, head], 1, ConvConfig::default(), true)?);
    layers.push(Layer::GlobalAveragePool);
    builder.initialization = Initialization::PyTorch;
    layers.push(builder.linear("classifier.1", head, shape.classes, true)?);
    Ok(layers)
}

/// Convolution, batch norm and, if asked for, swish.
fn unit(
    builder: &mut Builder,
    name: &str,
    channels: [usize; 2],
    kernel: usize,
    config: ConvConfig,
    swish: bool,
) -> Result<Vec<Layer>> {
    let mut layers = vec![
        builder.convolution_with(&format!("{name}.0"), channels, kernel, config, false)?,
        builder.batch_norm(&format!("{name}.1"), channels[1], false)?,
    ];
    layers.extend(swish.then_some(Layer::Activation(Activation::Silu)));
    Ok(layers)
}

/// 1×1 expansion, depthwise convolution, squeeze and excitation, 1×1 projection.
fn inverted_bottleneck(
    builder: &mut Builder,
    prefix: &str,
    [inputs, outputs]: [usize; 2],
    expansion: usize,
    kernel: usize,
    stride: usize,
) -> Result<Vec<Layer>> {
    let expanded = inputs * expansion;
    let mut layers = Vec::new();
    let mut number = 0..;
    let mut name = || format!("{prefix}.{}", number.next().unwrap_or(0));
    if expansion != 1 {
        layers.extend(unit(builder, &name(), [inputs, expanded], 1, ConvConfig::default(), true)?);
    }
    let depthwise = ConvConfig { stride, padding: kernel / 2, groups: expanded, ..ConvConfig::default() };
    layers.extend(unit(builder, &name(), [expanded, expanded], kernel, depthwise, true)?);
    layers.push(squeeze_excitation(builder, &name(), expanded, (inputs / 4).max(1))?);
    layers.extend(unit(builder, &name(), [expanded, outputs], 1, ConvConfig::default(), false)?);
    Ok(layers)
}

/// A factor in (0, 1) for each channel, computed from the means of all.
fn squeeze_excitation(builder: &mut Builder, name: &str, channels: usize, squeezed: usize) -> Result<Layer> {
    Ok(Layer::Gate(vec![
        Layer::GlobalAveragePool,
        builder.pointwise(&format!("{name}.fc1"), channels, squeezed)?,
        Layer::Activation(Activation::Silu),
        builder.pointwise(&format!("{name}.fc2"), squeezed, channels)?,
        Layer::Activation(Activation::Sigmoid),
    ]))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use crate::nn::{Model, ModelShape};

    /// torchvision's `efficientnet_b0` has 5 288 548 parameters with 1000 classes.
    #[test]
    fn size_and_names_are_torchvisions() {
        let shape = ModelShape { channels: 3, classes: 1000, width: None };
        let model = Model::new("efficientnet_b0", shape, None, 0, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(model.parameter_count(), 5_288_548);
        let state: std::collections::HashMap<_, _> = model.state().into_iter().collect();
        for (name, shape) in [
            ("features.0.0.weight", vec![32, 3, 3, 3]),
            ("features.1.0.block.0.0.weight", vec![32, 1, 3, 3]),
            ("features.1.0.block.1.fc1.weight", vec![8, 32, 1, 1]),
            ("features.1.0.block.2.0.weight", vec![16, 32, 1, 1]),
            ("features.4.2.block.2.fc2.bias", vec![480]),
            ("features.6.3.block.1.0.weight", vec![1152, 1, 5, 5]),
            ("features.7.0.block.3.1.running_var", vec![320]),
            ("features.8.0.weight", vec![1280, 320, 1, 1]),
            ("classifier.1.weight", vec![1000, 1280]),
        ] {
            assert_eq!(state.get(name).map(|t| t.dims().to_vec()), Some(shape), "{name}");
        }
    }
}
