//! EfficientNet-B0 to B8 (Tan and Le 2019) as in the package `efficientnet_pytorch`, which filter frequency
//! regularization uses: its names, dropout before the last layer, drop-connect that grows with depth, batch norm with
//! ε 1e-3 and momentum 0.01.
//!
//! Convolutions are padded as for the published input size ("static same padding"), whatever the size of the images:
//! with stride 2 by one more pixel at the lower right. For low resolution the first convolution's stride becomes 1
//! *afterwards*: 32×32 images are padded at the lower right alone, and 31×31 maps leave it.

use bandwise_kernels::ConvConfig;

use super::ModelShape;
use super::efficientnet::STAGES;
use crate::Result;
use crate::nn::build::{Builder, Initialization, residual, stage};
use crate::nn::dropout::{Dropout, Unit};
use crate::nn::layer::{Activation, Layer};

/// A model's width, depth, input size and dropout rate.
struct Scaling {
    width: f64,
    depth: f64,
    size: usize,
    dropout: f64,
}

const fn scaling(width: f64, depth: f64, size: usize, dropout: f64) -> Scaling {
    Scaling { width, depth, size, dropout }
}

/// B0 to B8.
const MODELS: [Scaling; 9] = [
    scaling(1.0, 1.0, 224, 0.2),
    scaling(1.0, 1.1, 240, 0.2),
    scaling(1.1, 1.2, 260, 0.3),
    scaling(1.2, 1.4, 300, 0.3),
    scaling(1.4, 1.8, 380, 0.4),
    scaling(1.6, 2.2, 456, 0.4),
    scaling(1.8, 2.6, 528, 0.5),
    scaling(2.0, 3.1, 600, 0.5),
    scaling(2.2, 3.6, 672, 0.5),
];

const STEM: usize = 32;
const HEAD: usize = 1280;
/// Share of the images that lose the last block's branch; blocks before it lose less, in proportion to their depth.
const DROP_CONNECT: f64 = 0.2;
/// Channels are multiples of this.
const DIVISOR: usize = 8;
const NORM_EPSILON: f64 = 1e-3;
const NORM_MOMENTUM: f64 = 0.01;

/// Number of models: B0 to B8.
pub const COUNT: usize = MODELS.len();

/// Builds model B`number`; `stem_stride` is 1 for low resolution, 2 as in the package.
pub fn build(
    number: usize,
    stem_stride: usize,
    builder: &mut Builder,
    shape: ModelShape,
) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::PyTorch;
    let Scaling { width, depth, size, dropout } = MODELS[number.min(COUNT - 1)];
    let width = shape.width.map_or(width, |channels| channels as f64 / STEM as f64);
    let repeats = |count: usize| (depth * count as f64).ceil() as usize;
    let blocks: usize = STAGES.iter().map(|(.., count)| repeats(*count)).sum();

    let mut inputs = rounded(STEM, width);
    let pads = same_padding(size, 3, 2);
    let mut size = size.div_ceil(2);
    let mut layers = convolution(builder, "_conv_stem", [shape.channels, inputs], 3, [stem_stride, 1], pads)?;
    layers.extend(norm(builder, "_bn0", inputs, true)?);
    let mut index = 0;
    for (number, (expansion, kernel, stride, channels, count)) in STAGES.into_iter().enumerate() {
        let outputs = rounded(channels, width);
        let mut inside = Vec::new();
        for repeat in 0..repeats(count) {
            let stride = if repeat == 0 { stride } else { 1 };
            let name = format!("_blocks.{index}");
            let pads = same_padding(size, kernel, stride);
            let mut main =
                inverted_bottleneck(builder, &name, [inputs, outputs], expansion, kernel, stride, pads)?;
            if repeat == 0 {
                // The package compares the first block's stride in a way that never holds: it has no shortcut.
                inside.extend(main);
            } else {
                let rate = DROP_CONNECT * index as f64 / blocks as f64;
                main.push(Layer::Dropout(Dropout { name, rate, unit: Unit::Image }));
                inside.push(residual(main, vec![], false));
            }
            size = size.div_ceil(stride);
            inputs = outputs;
            index += 1;
        }
        layers.push(stage(&format!("stage{}", number + 1), outputs, inside));
    }
    let head = rounded(HEAD, width);
    layers.extend(convolution(builder, "_conv_head", [inputs, head], 1, [1, 1], (0, 0))?);
    layers.extend(norm(builder, "_bn1", head, true)?);
    layers.push(Layer::GlobalAveragePool);
    layers.push(Layer::Dropout(Dropout { name: "_dropout".into(), rate: dropout, unit: Unit::Value }));
    layers.push(builder.linear("_fc", head, shape.classes, true)?);
    Ok(layers)
}

/// `channels · width` as the nearest multiple of eight, but not less than 90 % of it.
fn rounded(channels: usize, width: f64) -> usize {
    let wanted = channels as f64 * width;
    let nearest = ((wanted + DIVISOR as f64 / 2.0) as usize / DIVISOR * DIVISOR).max(DIVISOR);
    if (nearest as f64) < 0.9 * wanted { nearest + DIVISOR } else { nearest }
}

/// Zeros before and after a map of side `size`, so that ⌈size / stride⌉ windows fit.
fn same_padding(size: usize, kernel: usize, stride: usize) -> (usize, usize) {
    let all = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
    (all / 2, all - all / 2)
}

/// A convolution without bias, in front of it zeros where the two sides differ.
fn convolution(
    builder: &mut Builder,
    name: &str,
    channels: [usize; 2],
    kernel: usize,
    [stride, groups]: [usize; 2],
    (before, after): (usize, usize),
) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let padding = if before == after { before } else { 0 };
    if before != after {
        layers.push(Layer::ZeroPad([before, after, before, after]));
    }
    let config = ConvConfig { stride, padding, groups, ..ConvConfig::default() };
    layers.push(builder.convolution_with(name, channels, kernel, config, false)?);
    Ok(layers)
}

/// Batch norm with the package's constants and, if asked for, swish.
fn norm(builder: &mut Builder, name: &str, channels: usize, swish: bool) -> Result<Vec<Layer>> {
    let mut layer = builder.batch_norm(name, channels, false)?;
    if let Layer::BatchNorm(norm) = &mut layer {
        (norm.epsilon, norm.momentum) = (NORM_EPSILON, NORM_MOMENTUM);
    }
    Ok(std::iter::once(layer).chain(swish.then_some(Layer::Activation(Activation::Silu))).collect())
}

/// 1×1 expansion, depthwise convolution, squeeze and excitation, 1×1 projection.
fn inverted_bottleneck(
    builder: &mut Builder,
    name: &str,
    [inputs, outputs]: [usize; 2],
    expansion: usize,
    kernel: usize,
    stride: usize,
    pads: (usize, usize),
) -> Result<Vec<Layer>> {
    let part = |part: &str| format!("{name}.{part}");
    let expanded = inputs * expansion;
    let mut layers = Vec::new();
    if expansion != 1 {
        layers.extend(convolution(builder, &part("_expand_conv"), [inputs, expanded], 1, [1, 1], (0, 0))?);
        layers.extend(norm(builder, &part("_bn0"), expanded, true)?);
    }
    let depthwise = part("_depthwise_conv");
    layers.extend(convolution(builder, &depthwise, [expanded, expanded], kernel, [stride, expanded], pads)?);
    layers.extend(norm(builder, &part("_bn1"), expanded, true)?);
    let squeezed = (inputs / 4).max(1);
    layers.push(Layer::Gate(vec![
        Layer::GlobalAveragePool,
        builder.pointwise(&part("_se_reduce"), expanded, squeezed)?,
        Layer::Activation(Activation::Silu),
        builder.pointwise(&part("_se_expand"), squeezed, expanded)?,
        Layer::Activation(Activation::Sigmoid),
    ]));
    layers.extend(convolution(builder, &part("_project_conv"), [expanded, outputs], 1, [1, 1], (0, 0))?);
    layers.extend(norm(builder, &part("_bn2"), outputs, false)?);
    Ok(layers)
}

#[cfg(test)]
mod tests;
