//! A frozen network as one operator.
//!
//! Layer by layer, every result is written to memory and read again by the next layer's pass, every ReLU costs a
//! pass of its own on the way back, and candle adds each gradient to a tensor of zeros. As one operator, a few
//! images go through all layers while their activations are in the cache, ReLU masks and the sums of residual
//! branches are part of the convolution that computes the gradient, and only what the way back needs is kept.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::conv::wrap;
use crate::cpu::batch_norm::affine;
use crate::cpu::elementwise::mask;
use crate::cpu::gather::Epilogue;
use crate::cpu::geometry::Geometry;
use crate::cpu::pool::{self, Windows};
use crate::cpu::signs::Signs;
use crate::element::{elements, with_element};
use crate::frozen::{FrozenConv2d, Slotted, Weights};
use crate::pool::windows;

/// Bytes of the largest activation of the images that go through the network together.
const TOGETHER: usize = 1 << 18;
/// Networks with more bytes of weights take the whole batch at once: reading the weights again for every few images
/// would cost more than the activations.
const LARGE_WEIGHTS: usize = 1 << 23;

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
        if !x.device().is_cpu() {
            bail!("FrozenGraph: runs on the CPU, the input is on {:?}", x.device().location());
        }
        let (batch, height, width, channels) = x.dims4()?;
        let shapes = self.shapes([1, height, width, channels])?;
        let step = self.images_together(&shapes, x.dtype().size_in_bytes());
        let pass =
            Pass { graph: self.clone(), shapes, batch, step, keep: x.track_op(), tapes: OnceLock::new() };
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
        let weights: usize = self
            .nodes
            .iter()
            .map(|node| match &node.operation {
                Operation::Convolution { weights, .. } => weights.weight.elem_count(),
                _ => 0,
            })
            .sum();
        if weights * bytes > LARGE_WEIGHTS {
            return usize::MAX;
        }
        let largest = shapes.iter().map(|shape| shape.iter().product::<usize>()).max().unwrap_or(1);
        (TOGETHER / (largest * bytes).max(1)).max(1)
    }

    /// Whether the result is one of a ReLU, so that its own sign tells where its gradient passes.
    fn gates(&self, value: usize) -> bool {
        value > 0 && self.nodes[value - 1].operation.relu()
    }

    /// The operation that reads each value last.
    fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![usize::MAX; self.nodes.len() + 1];
        for (index, node) in self.nodes.iter().enumerate() {
            for value in std::iter::once(node.input).chain(node.residual) {
                last[value] = index;
            }
        }
        last
    }

    fn forward<T: Slotted>(&self, shapes: &[Shape4], input: &[T], keep: bool) -> Result<(Vec<T>, Tape)> {
        let last_uses = self.last_uses();
        let mut values: Vec<Vec<T>> = vec![Vec::new(); self.nodes.len() + 1];
        let mut signs: Vec<Signs> = values.iter().map(|_| Signs::none()).collect();
        let mut positions = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            let value = |v: usize| if v == 0 { input } else { values[v].as_slice() };
            let (x, shape) = (value(node.input), shapes[node.input]);
            let residual = node.residual.map(value);
            let relu = node.operation.relu();
            let result = match &node.operation {
                Operation::Convolution { weights, .. } => {
                    let epilogue = Epilogue { residual, relu, ..Epilogue::NONE };
                    weights.forward(&geometry(weights, shape)?, x, epilogue)?
                }
                Operation::Affine { constants, .. } => {
                    let [scale, shift] = vectors(constants, shape[3]);
                    affine(x, &scale, &shift, residual, relu)
                }
                Operation::Pool { maximum: true, .. } => {
                    let windows = node.operation.windows(shape)?;
                    positions[index] = pool::argmax(&windows, x);
                    pool::gather(&windows, x, &positions[index])
                }
                Operation::Pool { .. } => pool::average(&node.operation.windows(shape)?, x),
                Operation::GlobalAverage => pool::global_average(shape, x),
                Operation::Subsample { stride, channels } => pool::subsample(shape, *stride, *channels, x),
            };
            if keep && relu {
                signs[index + 1] = Signs::new(&result);
            }
            if !keep {
                positions[index] = Vec::new();
            }
            values[index + 1] = result;
            for v in std::iter::once(node.input).chain(node.residual) {
                if last_uses[v] == index {
                    values[v] = Vec::new();
                }
            }
        }
        let result = match self.nodes.len() {
            0 => input.to_vec(),
            last => std::mem::take(&mut values[last]),
        };
        Ok((result, Tape { signs, positions }))
    }

    /// The gradient with respect to the input.
    fn backward<T: Slotted>(&self, shapes: &[Shape4], tape: &Tape, gradient: &[T]) -> Result<Vec<T>> {
        let mut sums = Sums::new(self, tape, gradient);
        for (index, node) in self.nodes.iter().enumerate().rev() {
            let Some(gradient) = sums.take(index + 1) else { continue };
            let shape = shapes[node.input];
            match &node.operation {
                Operation::Convolution { weights, .. } => {
                    sums.replace(node.input, |residual, gate| {
                        let epilogue = Epilogue { residual, gate, ..Epilogue::NONE };
                        weights.data_gradient(&geometry(weights, shape)?, &gradient, epilogue)
                    })?;
                }
                Operation::Affine { constants: None, .. } => sums.add(node.input, gradient.clone()),
                Operation::Affine { constants, .. } => {
                    let [scale, _] = vectors(constants, shape[3]);
                    let shift = vec![T::ZERO; scale.len()];
                    sums.add(node.input, affine(&gradient, &scale, &shift, None, false));
                }
                Operation::Pool { maximum, .. } => {
                    let windows = node.operation.windows(shape)?;
                    sums.add(
                        node.input,
                        match maximum {
                            true => pool::scatter(&windows, &gradient, &tape.positions[index]),
                            false => pool::average_gradient(&windows, &gradient),
                        },
                    );
                }
                Operation::GlobalAverage => {
                    sums.add(node.input, pool::global_average_gradient(shape, &gradient));
                }
                Operation::Subsample { stride, channels } => {
                    sums.add(node.input, pool::subsample_gradient(shape, *stride, *channels, &gradient));
                }
            }
            if let Some(residual) = node.residual {
                sums.add(residual, gradient);
            }
        }
        let length = shapes[0].iter().product();
        Ok(sums.take(0).unwrap_or_else(|| vec![T::ZERO; length]))
    }
}

/// The constants of an affine operation, or those of the identity.
fn vectors<T: Slotted>(constants: &Option<[Vec<f64>; 2]>, channels: usize) -> [Vec<T>; 2] {
    match constants {
        Some(constants) => constants.each_ref().map(|v| v.iter().map(|&value| T::from_f64(value)).collect()),
        None => [vec![T::ONE; channels], vec![T::ZERO; channels]],
    }
}

/// What the way back needs of the way there: where ReLUs were open, and where maxima lay.
struct Tape {
    signs: Vec<Signs>,
    positions: Vec<Vec<u32>>,
}

/// The gradients of all values, summed up from the operations that read them.
struct Sums<'a, T> {
    graph: &'a FrozenGraph,
    tape: &'a Tape,
    gradients: Vec<Option<Vec<T>>>,
    /// Operations that have still to add to a gradient.
    open: Vec<usize>,
    /// Whether the value's own ReLU has been applied to its gradient.
    gated: Vec<bool>,
}

impl<'a, T: Slotted> Sums<'a, T> {
    fn new(graph: &'a FrozenGraph, tape: &'a Tape, gradient: &[T]) -> Self {
        let count = graph.nodes.len() + 1;
        let mut open = vec![0; count];
        for node in &graph.nodes {
            std::iter::once(node.input).chain(node.residual).for_each(|value| open[value] += 1);
        }
        let mut gradients = vec![None; count];
        gradients[count - 1] = Some(gradient.to_vec());
        Self { graph, tape, gradients, open, gated: vec![false; count] }
    }

    /// The finished gradient of a value, behind the value's own ReLU.
    fn take(&mut self, value: usize) -> Option<Vec<T>> {
        let gradient = self.gradients[value].take()?;
        let behind = !self.graph.gates(value) || self.gated[value];
        Some(if behind { gradient } else { mask(&self.tape.signs[value].gate(), &gradient) })
    }

    fn add(&mut self, value: usize, gradient: Vec<T>) {
        self.open[value] -= 1;
        match &mut self.gradients[value] {
            Some(sum) => sum.par_iter_mut().zip(gradient).with_min_len(1 << 14).for_each(|(a, b)| *a += b),
            none => *none = Some(gradient),
        }
    }

    /// Adds what `compute` makes of the sum so far and, if nothing comes after it, of the value's ReLU.
    fn replace(
        &mut self,
        value: usize,
        compute: impl FnOnce(Option<&[T]>, Option<&[T]>) -> Result<Vec<T>>,
    ) -> Result<()> {
        self.open[value] -= 1;
        let gates = self.open[value] == 0 && self.graph.gates(value);
        let gate = gates.then(|| self.tape.signs[value].gate());
        let sum = compute(self.gradients[value].as_deref(), gate.as_deref())?;
        self.gradients[value] = Some(sum);
        self.gated[value] = gates;
        Ok(())
    }
}

/// One run on a batch.
struct Pass {
    graph: Arc<FrozenGraph>,
    /// Of one image.
    shapes: Vec<Shape4>,
    batch: usize,
    /// Images that go through together.
    step: usize,
    keep: bool,
    /// One per group of images.
    tapes: OnceLock<Vec<Tape>>,
}

impl Pass {
    fn result_shape(&self) -> Shape {
        let [_, height, width, channels] = self.shapes[self.graph.nodes.len()];
        match self.graph.nodes.last() {
            Some(Node { operation: Operation::GlobalAverage, .. }) => Shape::from((self.batch, channels)),
            _ => Shape::from((self.batch, height, width, channels)),
        }
    }

    /// The shapes for `batch` images.
    fn shapes(&self, batch: usize) -> Vec<Shape4> {
        self.shapes.iter().map(|&[_, height, width, channels]| [batch, height, width, channels]).collect()
    }

    /// Cuts the images into groups, and each of `parts` accordingly.
    fn groups(&self) -> Vec<std::ops::Range<usize>> {
        let step = self.step.min(self.batch).max(1);
        (0..self.batch).step_by(step).map(|first| first..self.batch.min(first + step)).collect()
    }

    fn forward<T: Slotted>(&self, input: &[T]) -> Result<CpuStorage> {
        let length: usize = self.shapes[0].iter().product();
        let run = |images: std::ops::Range<usize>| {
            let part = &input[images.start * length..images.end * length];
            self.graph.forward(&self.shapes(images.len()), part, self.keep)
        };
        let (parts, tapes): (Vec<Vec<T>>, Vec<Tape>) =
            self.groups().into_par_iter().map(run).collect::<Result<Vec<_>>>()?.into_iter().unzip();
        if self.keep {
            let _ = self.tapes.set(tapes);
        }
        Ok(wrap(joined(parts)))
    }
}

fn joined<T: Clone>(mut parts: Vec<Vec<T>>) -> Vec<T> {
    if parts.len() == 1 { parts.swap_remove(0) } else { parts.concat() }
}

impl CustomOp1 for Pass {
    fn name(&self) -> &'static str {
        "frozen network"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let values = with_element!(storage, self.name(), T => self.forward::<T>(elements(storage, layout)?))?;
        Ok((values, self.result_shape()))
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&Gradient { pass: self })?))
    }
}

/// The way back.
struct Gradient<'a> {
    pass: &'a Pass,
}

impl Gradient<'_> {
    fn run<T: Slotted>(&self, gradient: &[T]) -> Result<CpuStorage> {
        let Some(tapes) = self.pass.tapes.get() else {
            bail!("internal error: the frozen network kept nothing for its gradient")
        };
        let length: usize = self.pass.shapes[self.pass.graph.nodes.len()].iter().product();
        let run = |(images, tape): (std::ops::Range<usize>, &Tape)| {
            let part = &gradient[images.start * length..images.end * length];
            self.pass.graph.backward(&self.pass.shapes(images.len()), tape, part)
        };
        let parts = self.pass.groups().into_par_iter().zip(tapes).map(run).collect::<Result<Vec<_>>>()?;
        Ok(wrap(joined(parts)))
    }
}

impl CustomOp1 for Gradient<'_> {
    fn name(&self) -> &'static str {
        "frozen network gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let values = with_element!(storage, self.name(), T => self.run::<T>(elements(storage, layout)?))?;
        let [_, height, width, channels] = self.pass.shapes[0];
        Ok((values, Shape::from((self.pass.batch, height, width, channels))))
    }
}
