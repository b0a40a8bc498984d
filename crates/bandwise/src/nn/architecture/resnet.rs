//! ResNet (He et al. 2016): basic and bottleneck blocks, with the CIFAR stem (3×3, no pooling; names as
//! in the widespread `pytorch-cifar` code) or the ImageNet stem (7×7 and max pooling; torchvision's names).

use super::ModelShape;
use crate::Result;
use crate::nn::build::{Builder, Initialization, residual, stage};
use crate::nn::layer::{Layer, Pool};

/// A member of the family.
#[derive(Clone, Copy, Debug)]
pub struct ResNet {
    /// Blocks per stage.
    pub blocks: [usize; 4],
    /// 1×1, 3×3, 1×1 blocks with four times the channels, instead of two 3×3.
    pub bottleneck: bool,
    /// Stem and names of torchvision, for images of 64 pixels and more.
    pub imagenet_stem: bool,
}

impl ResNet {
    /// Stages of width, 2·width, 4·width and 8·width (64 as published).
    pub fn build(self, builder: &mut Builder, shape: ModelShape) -> Result<Vec<Layer>> {
        builder.initialization =
            if self.imagenet_stem { Initialization::HeFanOut } else { Initialization::PyTorch };
        let width = shape.width.unwrap_or(64);
        let mut layers = self.stem(builder, shape.channels, width)?;
        let mut inputs = width;
        for (index, &count) in self.blocks.iter().enumerate() {
            let name = format!("layer{}", index + 1);
            let planes = width << index;
            let outputs = if self.bottleneck { 4 * planes } else { planes };
            let mut blocks = Vec::new();
            for block in 0..count {
                let stride = if block == 0 && index > 0 { 2 } else { 1 };
                let prefix = format!("{name}.{block}");
                let shortcut = self.shortcut(builder, &prefix, [inputs, outputs], stride)?;
                let main = self.block(builder, &prefix, [inputs, planes, outputs], stride)?;
                blocks.push(residual(main, shortcut, true));
                inputs = outputs;
            }
            layers.push(stage(&name, outputs, blocks));
        }
        layers.push(Layer::GlobalAveragePool);
        let head = if self.imagenet_stem { "fc" } else { "linear" };
        layers.push(builder.linear(head, inputs, shape.classes, true)?);
        Ok(layers)
    }

    fn stem(self, builder: &mut Builder, channels: usize, width: usize) -> Result<Vec<Layer>> {
        let (kernel, stride, padding) = if self.imagenet_stem { (7, 2, 3) } else { (3, 1, 1) };
        let mut layers = vec![
            builder.convolution("conv1", [channels, width], kernel, stride, padding)?,
            builder.batch_norm("bn1", width, true)?,
        ];
        if self.imagenet_stem {
            layers.push(Layer::Pool(Pool { maximum: true, kernel: 3, stride: 2, padding: 1 }));
        }
        Ok(layers)
    }

    fn block(
        self,
        builder: &mut Builder,
        prefix: &str,
        [inputs, planes, outputs]: [usize; 3],
        stride: usize,
    ) -> Result<Vec<Layer>> {
        let name = |part: &str| format!("{prefix}.{part}");
        // (in, out, kernel, stride) of each convolution; torchvision and pytorch-cifar stride in the 3×3.
        let shapes: &[_] = if self.bottleneck {
            &[([inputs, planes], 1, 1), ([planes, planes], 3, stride), ([planes, outputs], 1, 1)]
        } else {
            &[([inputs, planes], 3, stride), ([planes, outputs], 3, 1)]
        };
        let mut layers = Vec::new();
        for (index, &(channels, kernel, stride)) in shapes.iter().enumerate() {
            let last = index + 1 == shapes.len();
            let number = index + 1;
            layers.push(builder.convolution(
                &name(&format!("conv{number}")),
                channels,
                kernel,
                stride,
                kernel / 2,
            )?);
            layers.push(builder.batch_norm(&name(&format!("bn{number}")), channels[1], !last)?);
        }
        Ok(layers)
    }

    fn shortcut(
        self,
        builder: &mut Builder,
        prefix: &str,
        [inputs, outputs]: [usize; 2],
        stride: usize,
    ) -> Result<Vec<Layer>> {
        if stride == 1 && inputs == outputs {
            return Ok(vec![]);
        }
        let module = if self.imagenet_stem { "downsample" } else { "shortcut" };
        Ok(vec![
            builder.convolution(&format!("{prefix}.{module}.0"), [inputs, outputs], 1, stride, 0)?,
            builder.batch_norm(&format!("{prefix}.{module}.1"), outputs, false)?,
        ])
    }
}
