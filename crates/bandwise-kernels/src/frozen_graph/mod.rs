//! A frozen network as one operator.
//!
//! Layer by layer, every result is written to memory and read again by the next layer's pass, every ReLU costs a
//! pass of its own in the backward pass, and candle adds each gradient to a tensor of zeros. As one operator, a few
//! images go through all layers while their activations are in the cache, ReLU masks and the sums of residual
//! branches are part of the convolution that computes the gradient, and only what the backward pass needs is kept.

mod compute;
mod operator;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

use crate::backend::Backend;
use crate::cpu::pool::Windows;
use crate::frozen::{FrozenConv2d, Weights};
use crate::geometry::Geometry;
use crate::pool::windows;
use operator::Pass;

/// Bytes of the largest activation of the images that go through the network together.
const TOGETHER: usize = 1 << 18;
/// Networks with more bytes of weights in one layer take the whole batch at once: reading them again for every few
/// images would cost more than the activations.
const LARGE_LAYER: usize = 1 << 19;

/// Frozen layers that run as one differentiable operator on the CPU, in f32 or f64.
///
/// Built by adding operations, each on the results of earlier ones; the last result is that of the graph.
#[derive(Default)]
pub struct FrozenGraph {
    nodes: Vec<Node>,
}

/// A result inside a [`FrozenGraph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(usize);

struct Node {
    operation: Operation,
    input: usize,
    /// Added to the result, before a ReLU.
    residual: Option<usize>,
}

enum Operation {
    Convolution {
        weights: Arc<Weights>,
        relu: bool,
    },
    /// `relu(x · scale + shift + residual)`; without constants `relu(x + residual)`.
    Affine {
        constants: Option<[Vec<f64>; 2]>,
        relu: bool,
    },
    Pool {
        maximum: bool,
        kernel: usize,
        stride: usize,
        padding: usize,
    },
    GlobalAverage,
    /// Every `stride`-th pixel, with zero channels in front and behind.
    Subsample {
        stride: usize,
        channels: usize,
    },
}

/// `[batch, height, width, channels]`
type Shape4 = [usize; 4];

impl Operation {
    fn relu(&self) -> bool {
        matches!(self, Self::Convolution { relu: true, .. } | Self::Affine { relu: true, .. })
    }

    fn shape(&self, input: Shape4) -> Result<Shape4> {
        let [batch, height, width, channels] = input;
        Ok(match self {
            Self::Convolution { weights, .. } => geometry(weights, input)?.output_shape(),
            Self::Affine { constants, .. } => match constants {
                Some([scale, _]) if scale.len() != channels => {
                    bail!("FrozenGraph: {} constants for an input {input:?}", scale.len())
                }
                _ => input,
            },
            Self::Pool { .. } => self.windows(input)?.output_shape(),
            Self::GlobalAverage if height * width == 0 => bail!("FrozenGraph: empty images in {input:?}"),
            Self::GlobalAverage => [batch, 1, 1, channels],
            Self::Subsample { stride, channels: added } => {
                [batch, height.div_ceil(*stride), width.div_ceil(*stride), channels + 2 * added]
            }
        })
    }

    fn windows(&self, input: Shape4) -> Result<Windows> {
        match *self {
            Self::Pool { kernel, stride, padding, .. } => windows(input, kernel, stride, padding),
            _ => bail!("internal error: not a pooling"),
        }
    }
}

fn geometry(weights: &Weights, input: Shape4) -> Result<Geometry> {
    Geometry::new(&input, weights.weight.dims(), &weights.config)
}

impl FrozenGraph {
    /// A graph without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the graph is run on.
    pub fn input(&self) -> Value {
        Value(0)
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no operations.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn push(&mut self, operation: Operation, input: Value, residual: Option<Value>) -> Value {
        let known = |value: Value| value.0 <= self.nodes.len();
        assert!(known(input) && residual.is_none_or(known), "a value of another graph");
        self.nodes.push(Node { operation, input: input.0, residual: residual.map(|r| r.0) });
        Value(self.nodes.len())
    }

    /// `relu(convolution(x) + bias + residual)`, ReLU only where asked.
    pub fn convolution(
        &mut self,
        convolution: &FrozenConv2d,
        input: Value,
        residual: Option<Value>,
        relu: bool,
    ) -> Value {
        let weights = convolution.weights.clone();
        self.push(Operation::Convolution { weights, relu }, input, residual)
    }

    /// `relu(x · scale + shift + residual)` with constants `[channels]`, ReLU only where asked: batch norm in
    /// evaluation mode.
    ///
    /// # Errors
    /// If the constants are not vectors of one length.
    pub fn affine(
        &mut self,
        scale: &Tensor,
        shift: &Tensor,
        input: Value,
        residual: Option<Value>,
        relu: bool,
    ) -> Result<Value> {
        let vector = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
        let constants = [vector(scale)?, vector(shift)?];
        if constants[0].len() != constants[1].len() {
            bail!("FrozenGraph: {} scales and {} shifts", constants[0].len(), constants[1].len());
        }
        Ok(self.push(Operation::Affine { constants: Some(constants), relu }, input, residual))
    }

    /// `relu(x + residual)`, each only where asked.
    pub fn sum(&mut self, input: Value, residual: Option<Value>, relu: bool) -> Value {
        self.push(Operation::Affine { constants: None, relu }, input, residual)
    }

    /// Maximum or mean (padding counts as zeros) of windows, see [`max_pool2d`](crate::max_pool2d).
    pub fn pool(
        &mut self,
        maximum: bool,
        kernel: usize,
        stride: usize,
        padding: usize,
        input: Value,
    ) -> Value {
        self.push(Operation::Pool { maximum, kernel, stride, padding }, input, None)
    }

    /// The mean over height and width. As the last operation it gives `[batch, channels]`.
    pub fn global_average(&mut self, input: Value) -> Value {
        self.push(Operation::GlobalAverage, input, None)
    }

    /// Every `stride`-th pixel, with `channels` zero channels in front and behind.
    pub fn subsample(&mut self, stride: usize, channels: usize, input: Value) -> Value {
        self.push(Operation::Subsample { stride: stride.max(1), channels }, input, None)
    }

    /// Runs the graph on `x` `[batch, height, width, channels]`; differentiable in `x`.
    ///
    /// # Errors
    /// If shapes do not fit, or `x` is not an f32 or f64 tensor on the CPU.
    pub fn run(self: &Arc<Self>, x: &Tensor) -> Result<Tensor> {
        let Backend::Cpu = Backend::of(x) else {
            bail!("FrozenGraph: runs on the CPU, the input is on {:?}", x.device().location())
        };
        let (batch, height, width, channels) = x.dims4()?;
        let shapes = self.shapes([1, height, width, channels])?;
        let step = self.images_together(&shapes, x.dtype().size_in_bytes());
        let pass = Pass::new(self.clone(), shapes, batch, step, x.track_op());
        let x = x.contiguous()?;
        if pass.keep { x.apply_op1(pass) } else { x.apply_op1_no_bwd(&pass) }
    }

    /// The shapes of all values for an input of one image.
    fn shapes(&self, input: Shape4) -> Result<Vec<Shape4>> {
        let mut shapes = vec![input];
        for node in &self.nodes {
            let shape = node.operation.shape(shapes[node.input])?;
            if let Some(residual) = node.residual.map(|r| shapes[r])
                && residual != shape
            {
                bail!("FrozenGraph: residual {residual:?} for a result {shape:?}");
            }
            shapes.push(shape);
        }
        Ok(shapes)
    }

    fn images_together(&self, shapes: &[Shape4], bytes: usize) -> usize {
        let large = |node: &Node| match &node.operation {
            Operation::Convolution { weights, .. } => weights.weight.elem_count() * bytes > LARGE_LAYER,
            _ => false,
        };
        if self.nodes.iter().any(large) {
            return usize::MAX;
        }
        let largest = shapes.iter().map(|shape| shape.iter().product::<usize>()).max().unwrap_or(1);
        (TOGETHER / (largest * bytes).max(1)).max(1)
    }
}
