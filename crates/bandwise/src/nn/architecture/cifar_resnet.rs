//! The thin ResNets for CIFAR (He et al. 2016, section 4.2): three stages of width, 2·width and 4·width,
//! depth 6n + 2.

use bandwise_kernels::ConvConfig;

use super::ModelShape;
use crate::nn::build::{Builder, Initialization, average_pool, pad_shortcut, residual, stage};
use crate::nn::layer::Layer;
use crate::{Error, Result};

/// What joins two stages of different width, and whose names are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Parameter-free shortcuts; names of `pytorch_resnet_cifar10` (akamaster).
    A,
    /// 1×1 convolution and batch norm; the same names.
    B,
    /// 1×1 convolution and batch norm; names of OpenLTH's `cifar_resnet_N_W`.
    OpenLth(Filters),
}

/// What stands for the 3×3 convolutions of an OpenLTH network in filter frequency regularization's official code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filters {
    /// They themselves.
    #[default]
    Square,
    /// `_dw`: a depthwise one, batch norm, and a 1×1 convolution.
    Depthwise,
    /// `_sp`: 1×3, then 3×1.
    Separable,
    /// `_dw_sp`: both of these depthwise, batch norm, and a 1×1 convolution.
    DepthwiseSeparable,
    /// `_di`: no spatial filter at all: batch norm and a 1×1 convolution, means of 2×2 pixels where the map shrinks.
    Pointwise,
}

impl Filters {
    /// By the end of a network's name.
    pub fn from_suffix(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "" => Self::Square,
            "_dw" => Self::Depthwise,
            "_sp" => Self::Separable,
            "_dw_sp" | "_sp_dw" => Self::DepthwiseSeparable,
            "_di" => Self::Pointwise,
            _ => return None,
        })
    }

    /// The layers that stand for a 3×3 convolution `name`.
    fn layers(
        self,
        builder: &mut Builder,
        name: &str,
        [inputs, outputs]: [usize; 2],
        stride: usize,
    ) -> Result<Vec<Layer>> {
        let part = |index: usize| format!("{name}.{index}");
        let mut layers = match self {
            Self::Square => return Ok(vec![builder.convolution(name, [inputs, outputs], 3, stride, 1)?]),
            Self::Depthwise => {
                let config = ConvConfig { stride, padding: 1, groups: inputs, ..ConvConfig::default() };
                vec![builder.convolution_with(&part(0), [inputs, inputs], 3, config, false)?]
            }
            Self::Separable => return separable(builder, name, [inputs, outputs], stride, 1),
            Self::DepthwiseSeparable => separable(builder, name, [inputs, inputs], stride, inputs)?,
            Self::Pointwise if stride > 1 => vec![average_pool(stride)],
            Self::Pointwise => vec![],
        };
        let next = if self == Self::DepthwiseSeparable { 2 } else { 1 };
        layers.push(builder.batch_norm(&part(next), inputs, false)?);
        layers.push(builder.convolution(&part(next + 1), [inputs, outputs], 1, 1, 0)?);
        Ok(layers)
    }
}

/// 1×3 along the rows, 3×1 along the columns. Strides come last: the second convolution works column by column, so that
/// it is the same as striding in between.
fn separable(
    builder: &mut Builder,
    name: &str,
    [inputs, outputs]: [usize; 2],
    stride: usize,
    groups: usize,
) -> Result<Vec<Layer>> {
    let config = ConvConfig { groups, ..ConvConfig::default() };
    let mut layers = Vec::new();
    let parts = [([1, 3], [0, 0, 1, 1], [inputs, outputs]), ([3, 1], [1, 1, 0, 0], [outputs, outputs])];
    for (index, (kernel, pads, channels)) in parts.into_iter().enumerate() {
        layers.push(Layer::ZeroPad(pads));
        layers.push(builder.rectangular_convolution(
            &format!("{name}.{index}"),
            channels,
            kernel,
            config,
            false,
        )?);
    }
    layers.extend((stride > 1).then(|| pad_shortcut(stride, 0)));
    Ok(layers)
}

/// Builds the network of the given depth.
///
/// # Errors
/// For an odd width with the parameter-free shortcuts, which pad the new channels half before and half behind.
pub fn build(variant: Variant, depth: usize, builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
    builder.initialization = Initialization::HeFanIn;
    let lth = matches!(variant, Variant::OpenLth(_));
    let filters = if let Variant::OpenLth(filters) = variant { filters } else { Filters::Square };
    let width = shape.width.unwrap_or(16);
    if variant == Variant::A && width % 2 == 1 {
        return Err(Error::config(format!(
            "the shortcuts of this network pad equally many channels on both sides: its width must be even, not {width}"
        )));
    }
    let blocks = (depth - 2) / 6;
    let first = if lth { "conv" } else { "conv1" };
    let mut layers = filters.layers(builder, first, [shape.channels, width], 1)?;
    layers.push(builder.batch_norm(if lth { "bn" } else { "bn1" }, width, true)?);
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
            let mut main = filters.layers(builder, &name("conv1"), [inputs, outputs], stride)?;
            main.push(builder.batch_norm(&name("bn1"), outputs, true)?);
            main.extend(filters.layers(builder, &name("conv2"), [outputs, outputs], 1)?);
            main.push(builder.batch_norm(&name("bn2"), outputs, false)?);
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
    layers.push(builder.linear(if lth { "fc" } else { "linear" }, inputs, shape.classes, true)?);
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use candle_core::{DType, Device};

    use crate::golden;
    use crate::nn::tests::noise;
    use crate::nn::{ForwardContext, Model, ModelShape};

    fn model(name: &str) -> Model {
        let shape = ModelShape { channels: 3, classes: 10, width: None };
        Model::new(name, shape, None, 0, DType::F64, &Device::Cpu).unwrap()
    }

    #[test]
    fn an_odd_width_that_cannot_be_padded_is_a_message() {
        let shape = |width| ModelShape { channels: 3, classes: 10, width: Some(width) };
        let message = Model::plan("resnet20", shape(1)).unwrap_err().to_string();
        assert!(message.contains("its width must be even, not 1"), "{message}");
        let smallest = Model::new("resnet20", shape(2), None, 0, DType::F64, &Device::Cpu).unwrap();
        let logits = smallest.logits(&noise(&[1, 8, 8, 3], DType::F64, 1), &ForwardContext::eval()).unwrap();
        assert_eq!(logits.dims(), [1, 10]);
    }

    /// Names and shapes of `ResNet.get_model_from_name`.
    #[test]
    fn variants_have_the_official_names() {
        for (name, expected) in [
            (
                "cifar_resnet_8_4_dw",
                &[("conv.0.weight", vec![3, 1, 3, 3]), ("conv.2.weight", vec![4, 3, 1, 1])][..],
            ),
            (
                "cifar_resnet_8_4_sp",
                &[("conv.0.weight", vec![4, 3, 1, 3]), ("conv.1.weight", vec![4, 4, 3, 1])],
            ),
            (
                "cifar_resnet_8_4_dw_sp",
                &[
                    ("blocks.1.conv1.1.weight", vec![4, 1, 3, 1]),
                    ("blocks.1.conv1.3.weight", vec![8, 4, 1, 1]),
                ],
            ),
            (
                "cifar_resnet_8_4_di",
                &[("conv.1.running_var", vec![3]), ("blocks.2.conv2.2.weight", vec![16, 16, 1, 1])],
            ),
        ] {
            let state: BTreeMap<_, _> = model(name).state().into_iter().collect();
            for (key, shape) in expected {
                assert_eq!(state.get(*key).map(|t| t.dims().to_vec()).as_ref(), Some(shape), "{name}: {key}");
            }
            let images = noise(&[2, 16, 16, 3], DType::F64, 1);
            let logits = golden::values(&model(name).logits(&images, &ForwardContext::eval()).unwrap());
            assert!(logits.len() == 20 && logits.iter().all(|v| v.is_finite()), "{name}");
        }
        let state: BTreeMap<_, _> = model("cifar_resnet_8_4_di").state().into_iter().collect();
        assert!(state.values().all(|tensor| tensor.rank() < 4 || tensor.dims()[2..] == [1, 1]));
    }
}
