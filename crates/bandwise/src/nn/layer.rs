//! Networks as trees of layers, and the one forward pass that runs them all.
//!
//! An architecture only says which layers stand where (`architecture/`). Everything that walks a
//! network (forward, dual forward, folding, freezing, decomposing, listing parameters) is written once,
//! for the tree.

use std::fmt::Debug;
use std::sync::Arc;

use bandwise_kernels as kernels;
use candle_core::{D, Tensor};

use super::batch_norm::BatchNorm;
use super::context::ForwardContext;
use super::convolution::Convolution;
use super::dropout::Dropout;
use super::dual_tensor::DualTensor;
use super::linear::Linear;
use super::parameter::Parameter;
use crate::Result;

/// One layer of a network, or a group of them.
#[derive(Clone, Debug)]
pub enum Layer {
    /// Convolution (any parametrization of its filters).
    Convolution(Convolution),
    /// Batch norm, with an optional ReLU.
    BatchNorm(BatchNorm),
    /// Fully connected.
    Linear(Linear),
    /// A pointwise function.
    Activation(Activation),
    /// A window that slides over the map.
    Pool(Pool),
    /// Mean over the map: `[batch, h, w, c]` to `[batch, c]`.
    GlobalAveragePool,
    /// Average pooling to an n×n grid, whatever the size of the map (PyTorch's
    /// `AdaptiveAvgPool2d`).
    AdaptiveAveragePool(usize),
    /// Zeros around a map: so many rows above and below, columns to the left and right.
    ZeroPad([usize; 4]),
    /// Leaves something out at random while the network is trained.
    Dropout(Dropout),
    /// `[batch, h, w, c]` to `[batch, c·h·w]`, in PyTorch's (channel-major) order.
    Flatten,
    /// `relu?(main(x) + shortcut(x))`; an empty shortcut is the identity.
    Residual(Residual),
    /// ResNet's parameter-free shortcut "A".
    PadShortcut(PadShortcut),
    /// `x · branch(x)`, the branch broadcast over the map (squeeze and excitation).
    Gate(Vec<Layer>),
    /// A named stage, and a block behind it where one is plugged in.
    Stage(Stage),
    /// A frozen convolution with batch norm (and more) folded in.
    Folded(Folded),
    /// A run of frozen layers as one operator.
    Fused(Fused),
}

/// Pointwise functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x·sigmoid(x), also called swish.
    Silu,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
}

/// Maximum or mean over a sliding square window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Maximum (else mean, padding counted as zeros).
    pub maximum: bool,
    /// Side of the window.
    pub kernel: usize,
    /// Step of the window.
    pub stride: usize,
    /// Pixels added on each side.
    pub padding: usize,
}

/// A residual block's skeleton.
#[derive(Clone, Debug)]
pub struct Residual {
    /// The computing branch.
    pub main: Vec<Layer>,
    /// The other branch; empty for the identity.
    pub shortcut: Vec<Layer>,
    /// Whether a ReLU follows the sum.
    pub relu: bool,
}

/// Takes every `stride`-th pixel and pads channels with zeros on both sides (He et al. 2016, option A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PadShortcut {
    /// Subsampling.
    pub stride: usize,
    /// Zero channels in front and behind.
    pub channels: usize,
}

/// A named group of layers with an optional block after it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// PyTorch's module name, such as `layer1`.
    pub name: String,
    /// The stage itself.
    pub layers: Vec<Layer>,
    /// Number of channels that leave it.
    pub channels: usize,
    /// What is plugged in after it.
    pub post_block: Option<Arc<dyn StageBlock>>,
}

/// A block that can be plugged in behind a stage (FPCM).
pub trait StageBlock: Debug + Send + Sync {
    /// Maps the stage's output to one of the same shape.
    fn forward(&self, input: &DualTensor, pass: &ForwardContext) -> Result<DualTensor>;
    /// Its parameters, in PyTorch's order.
    fn parameters(&self) -> Vec<&Parameter>;
    /// A copy that shares storage and is constant to autodiff.
    fn frozen(&self) -> Arc<dyn StageBlock>;
}

/// `relu?(convolution(x) + bias + residual?)` with weights packed once.
#[derive(Clone)]
pub struct Folded {
    /// The packed convolution.
    pub convolution: kernels::FrozenConv2d,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl Debug for Folded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folded").field("relu", &self.relu).finish_non_exhaustive()
    }
}

/// Layers of a folded network that run as one operator.
#[derive(Clone)]
pub struct Fused {
    /// The operations.
    pub graph: Arc<kernels::FrozenGraph>,
}

impl Debug for Fused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fused").field("operations", &self.graph.len()).finish()
    }
}

/// Runs layers one after another.
pub fn forward(layers: &[Layer], input: &DualTensor, pass: &ForwardContext) -> Result<DualTensor> {
    let mut signal = input.clone();
    for layer in layers {
        signal = layer.forward(&signal, pass)?;
    }
    Ok(signal)
}

impl Layer {
    /// Runs the layer on a tensor or a dual number.
    pub fn forward(&self, input: &DualTensor, pass: &ForwardContext) -> Result<DualTensor> {
        match self {
            Self::Convolution(convolution) => convolution.forward(input),
            Self::BatchNorm(norm) => norm.forward(input, None, false, pass),
            Self::Linear(linear) => linear.forward(input),
            Self::Activation(activation) => activation.forward(input),
            Self::Pool(pool) => pool.forward(input),
            Self::GlobalAveragePool => input.linear(|x| Ok(kernels::global_avg_pool(x)?)),
            Self::AdaptiveAveragePool(side) => input.linear(|x| adaptive_average_pool(x, *side)),
            Self::ZeroPad([above, below, left, right]) => input.linear(|x| {
                Ok(x.pad_with_zeros(1, *above, *below)?.pad_with_zeros(2, *left, *right)?.contiguous()?)
            }),
            Self::Dropout(dropout) => dropout.forward(input, pass),
            Self::Flatten => input.linear(flatten),
            Self::Residual(residual) => residual.forward(input, pass),
            Self::PadShortcut(shortcut) => input.linear(|x| shortcut.apply(x)),
            Self::Gate(branch) => {
                let gate = forward(branch, input, pass)?;
                let gate = gate.linear(|g| Ok(g.unsqueeze(1)?.unsqueeze(1)?))?;
                input.multiply(&gate)
            }
            Self::Stage(stage) => stage.forward(input, pass),
            Self::Folded(folded) => folded.forward(input, None, folded.relu),
            Self::Fused(fused) => Ok(DualTensor::plain(fused.graph.run(&input.value)?)),
        }
    }

    /// The groups of layers directly below this one.
    pub fn children(&self) -> Vec<&Vec<Layer>> {
        match self {
            Self::Residual(residual) => vec![&residual.main, &residual.shortcut],
            Self::Gate(branch) => vec![branch],
            Self::Stage(stage) => vec![&stage.layers],
            Self::Convolution(_) | Self::BatchNorm(_) | Self::Linear(_) | Self::Activation(_) => vec![],
            Self::Pool(_) | Self::GlobalAveragePool | Self::AdaptiveAveragePool(_) => vec![],
            Self::Flatten | Self::PadShortcut(_) | Self::Folded(_) | Self::Fused(_) => vec![],
            Self::ZeroPad(_) | Self::Dropout(_) => vec![],
        }
    }

    /// The same, to change.
    pub fn children_mut(&mut self) -> Vec<&mut Vec<Layer>> {
        match self {
            Self::Residual(residual) => vec![&mut residual.main, &mut residual.shortcut],
            Self::Gate(branch) => vec![branch],
            Self::Stage(stage) => vec![&mut stage.layers],
            Self::Convolution(_) | Self::BatchNorm(_) | Self::Linear(_) | Self::Activation(_) => vec![],
            Self::Pool(_) | Self::GlobalAveragePool | Self::AdaptiveAveragePool(_) => vec![],
            Self::Flatten | Self::PadShortcut(_) | Self::Folded(_) | Self::Fused(_) => vec![],
            Self::ZeroPad(_) | Self::Dropout(_) => vec![],
        }
    }

    /// Parameters and buffers of this layer and all below it, in PyTorch's order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        match self {
            Self::Convolution(convolution) => convolution.parameters(),
            Self::BatchNorm(norm) => norm.parameters(),
            Self::Linear(linear) => linear.parameters(),
            Self::Residual(_) | Self::Gate(_) => self.parameters_below(),
            Self::Stage(stage) => {
                let mut all = self.parameters_below();
                all.extend(stage.post_block.iter().flat_map(|block| block.parameters()));
                all
            }
            Self::Activation(_) | Self::Pool(_) | Self::GlobalAveragePool => vec![],
            Self::AdaptiveAveragePool(_) | Self::Flatten | Self::PadShortcut(_) => vec![],
            Self::ZeroPad(_) | Self::Dropout(_) => vec![],
            // their weights are constants
            Self::Folded(_) | Self::Fused(_) => vec![],
        }
    }

    fn parameters_below(&self) -> Vec<&Parameter> {
        self.children().into_iter().flatten().flat_map(Layer::parameters).collect()
    }

    /// A copy that shares storage and is constant to autodiff.
    pub fn frozen(&self) -> Self {
        match self {
            Self::Convolution(convolution) => Self::Convolution(convolution.frozen()),
            Self::BatchNorm(norm) => Self::BatchNorm(norm.frozen()),
            Self::Linear(linear) => Self::Linear(linear.frozen()),
            Self::Residual(Residual { main, shortcut, relu }) => {
                Self::Residual(Residual { main: frozen(main), shortcut: frozen(shortcut), relu: *relu })
            }
            Self::Gate(branch) => Self::Gate(frozen(branch)),
            Self::Stage(Stage { name, layers, channels, post_block }) => Self::Stage(Stage {
                name: name.clone(),
                layers: frozen(layers),
                channels: *channels,
                post_block: post_block.as_ref().map(|block| block.frozen()),
            }),
            Self::Activation(_) | Self::Pool(_) | Self::GlobalAveragePool => self.clone(),
            Self::AdaptiveAveragePool(_) | Self::Flatten | Self::PadShortcut(_) => self.clone(),
            Self::ZeroPad(_) | Self::Dropout(_) => self.clone(),
            Self::Folded(_) | Self::Fused(_) => self.clone(),
        }
    }
}

fn frozen(layers: &[Layer]) -> Vec<Layer> {
    layers.iter().map(Layer::frozen).collect()
}

/// Visits every convolution in module order.
pub fn visit_convolutions<'a>(layers: &'a [Layer], visit: &mut dyn FnMut(&'a Convolution)) {
    for layer in layers {
        if let Layer::Convolution(convolution) = layer {
            visit(convolution);
        }
        layer.children().into_iter().for_each(|group| visit_convolutions(group, visit));
    }
}

/// Visits every convolution in module order, to change it.
pub fn visit_convolutions_mut(
    layers: &mut [Layer],
    visit: &mut dyn FnMut(&mut Convolution) -> Result<()>,
) -> Result<()> {
    for layer in layers {
        if let Layer::Convolution(convolution) = layer {
            visit(convolution)?;
        }
        for group in layer.children_mut() {
            visit_convolutions_mut(group, visit)?;
        }
    }
    Ok(())
}

/// Visits every batch norm in module order, to change it.
pub fn visit_batch_norms_mut(layers: &mut [Layer], visit: &mut dyn FnMut(&mut BatchNorm)) {
    for layer in layers {
        if let Layer::BatchNorm(norm) = layer {
            visit(norm);
        }
        layer.children_mut().into_iter().for_each(|group| visit_batch_norms_mut(group, visit));
    }
}

/// Visits every stage in order.
pub fn visit_stages<'a>(layers: &'a [Layer], visit: &mut dyn FnMut(&'a Stage)) {
    for layer in layers {
        layer.children().into_iter().for_each(|group| visit_stages(group, visit));
        if let Layer::Stage(stage) = layer {
            visit(stage);
        }
    }
}

/// Visits every stage in order, to change it.
pub fn visit_stages_mut(layers: &mut [Layer], visit: &mut dyn FnMut(&mut Stage) -> Result<()>) -> Result<()> {
    for layer in layers {
        for group in layer.children_mut() {
            visit_stages_mut(group, visit)?;
        }
        if let Layer::Stage(stage) = layer {
            visit(stage)?;
        }
    }
    Ok(())
}

/// A product with one averaging matrix per axis: `[batch, h, w, c]` to `[batch, side, side, c]`.
fn adaptive_average_pool(x: &Tensor, side: usize) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let windows = |length: usize| -> Result<Tensor> {
        let mut weights = vec![0.0f64; side * length];
        for window in 0..side {
            let (start, end) = (window * length / side, ((window + 1) * length).div_ceil(side));
            weights[window * length + start..window * length + end].fill(1.0 / (end - start) as f64);
        }
        Ok(Tensor::from_vec(weights, (1, side, length), x.device())?.to_dtype(x.dtype())?)
    };
    let rows =
        windows(height)?.broadcast_matmul(&x.contiguous()?.reshape((batch, height, width * channels))?)?;
    let both = windows(width)?.broadcast_matmul(&rows.reshape((batch * side, width, channels))?)?;
    Ok(both.reshape((batch, side, side, channels))?)
}

fn flatten(x: &Tensor) -> Result<Tensor> {
    Ok(if x.rank() == 4 { x.permute((0, 3, 1, 2))?.flatten_from(1)? } else { x.flatten_from(1)? })
}

impl Activation {
    fn forward(self, input: &DualTensor) -> Result<DualTensor> {
        match self {
            Self::Relu => input.map(|x| Ok(kernels::relu(x)?), |_, y, t| Ok(kernels::relu_tangent(y, t)?)),
            Self::Tanh => input.map(|x| Ok(x.tanh()?), |_, y, t| Ok((t * (1.0 - y.sqr()?)?)?)),
            Self::Sigmoid => input.map(sigmoid, |_, y, t| Ok((t * (y * (1.0 - y)?)?)?)),
            // d/dx x·s(x) = s + x·s·(1 − s) = s + y·(1 − s)
            Self::Silu => input.map(
                |x| Ok((x * sigmoid(x)?)?),
                |x, y, t| {
                    let s = sigmoid(x)?;
                    Ok((t * (&s + (y * (1.0 - &s)?)?)?)?)
                },
            ),
        }
    }
}

/// `1/(1 + e⁻ˣ)` out of operators that autodiff knows; the tanh form cannot overflow.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((((x * 0.5)?.tanh()? + 1.0)? * 0.5)?)
}

impl Pool {
    fn forward(self, input: &DualTensor) -> Result<DualTensor> {
        let Self { kernel, stride, padding, .. } = self;
        if self.maximum {
            input.map(
                |x| Ok(kernels::max_pool2d(x, kernel, stride, padding)?),
                |x, _, t| Ok(kernels::max_pool2d_tangent(x, t, kernel, stride, padding)?),
            )
        } else {
            input.linear(|x| Ok(kernels::avg_pool2d(x, kernel, stride, padding)?))
        }
    }
}

impl Residual {
    fn forward(&self, input: &DualTensor, pass: &ForwardContext) -> Result<DualTensor> {
        let shortcut = forward(&self.shortcut, input, pass)?;
        // Where the branch ends in batch norm or a folded convolution, sum and ReLU are fused into it.
        let Some((last, rest)) = self.main.split_last() else { return Ok(shortcut) };
        let before = forward(rest, input, pass)?;
        match last {
            Layer::BatchNorm(norm) if !norm.relu => norm.forward(&before, Some(&shortcut), self.relu, pass),
            Layer::Folded(folded) if !folded.relu => folded.forward(&before, Some(&shortcut), self.relu),
            other => {
                let sum = other.forward(&before, pass)?.add(&shortcut)?;
                if self.relu { Activation::Relu.forward(&sum) } else { Ok(sum) }
            }
        }
    }
}

impl PadShortcut {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        let x = if self.stride == 1 {
            x.clone()
        } else {
            let picks = |size: usize| {
                let indices: Vec<u32> = (0..size).step_by(self.stride).map(|i| i as u32).collect();
                Tensor::new(indices, x.device())
            };
            x.index_select(&picks(x.dim(1)?)?, 1)?.index_select(&picks(x.dim(2)?)?, 2)?
        };
        Ok(x.pad_with_zeros(D::Minus1, self.channels, self.channels)?)
    }
}

impl Stage {
    fn forward(&self, input: &DualTensor, pass: &ForwardContext) -> Result<DualTensor> {
        let mut output = forward(&self.layers, input, pass)?;
        if let Some(block) = &self.post_block {
            output = block.forward(&output, pass)?;
        }
        if let Some(recorder) = pass.recorder {
            recorder.record(&self.name, &output.value);
        }
        Ok(output)
    }
}

impl Folded {
    fn forward(&self, input: &DualTensor, residual: Option<&DualTensor>, relu: bool) -> Result<DualTensor> {
        let value = self.convolution.forward(&input.value, residual.map(|r| &r.value), relu)?;
        Ok(DualTensor::plain(value))
    }
}
