//! The graph on slices: forward, saving what backward needs, and backward.

use candle_core::Result;
use rayon::prelude::*;

use super::{FrozenGraph, Operation, Shape4, geometry};
use crate::cpu::batch_norm::affine;
use crate::cpu::elementwise::mask;
use crate::cpu::gather::Epilogue;
use crate::cpu::gather_plan::Direction;
use crate::cpu::pool;
use crate::cpu::signs::Signs;
use crate::frozen::Cached;

impl FrozenGraph {
    /// Packs the weights for the forward pass or, if `back`, the backward pass, before groups of images need them side by side.
    pub(super) fn pack<T: Cached>(&self, shapes: &[Shape4], back: bool) -> Result<()> {
        for node in &self.nodes {
            if let Operation::Convolution { weights, .. } = &node.operation {
                let geometry = geometry(weights, shapes[node.input])?;
                let direction = if back { Direction::Data } else { Direction::Forward };
                weights.packed::<T>(&geometry, direction)?;
            }
        }
        Ok(())
    }

    /// Whether the result is one of a ReLU, so that its own sign tells where its gradient passes.
    fn is_relu(&self, value: usize) -> bool {
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

    /// The result and, if `keep`, what its gradient needs.
    pub(super) fn forward<T: Cached>(
        &self,
        shapes: &[Shape4],
        input: &[T],
        keep: bool,
    ) -> Result<(Vec<T>, Tape)> {
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
    pub(super) fn backward<T: Cached>(
        &self,
        shapes: &[Shape4],
        tape: &Tape,
        gradient: &[T],
    ) -> Result<Vec<T>> {
        let mut sums = Sums::new(self, tape, gradient);
        for (index, node) in self.nodes.iter().enumerate().rev() {
            let Some(gradient) = sums.take(index + 1) else { continue };
            let shape = shapes[node.input];
            match &node.operation {
                Operation::Convolution { weights, .. } => {
                    sums.replace(node.input, |residual, relu_mask| {
                        let epilogue = Epilogue { residual, relu_mask, ..Epilogue::NONE };
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
fn vectors<T: Cached>(constants: &Option<[Vec<f64>; 2]>, channels: usize) -> [Vec<T>; 2] {
    match constants {
        Some(constants) => constants.each_ref().map(|v| v.iter().map(|&value| T::from_f64(value)).collect()),
        None => [vec![T::ONE; channels], vec![T::ZERO; channels]],
    }
}

/// What the backward pass needs of the forward pass: where ReLUs were positive, and where maxima lay.
pub(super) struct Tape {
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
    masked: Vec<bool>,
}

impl<'a, T: Cached> Sums<'a, T> {
    fn new(graph: &'a FrozenGraph, tape: &'a Tape, gradient: &[T]) -> Self {
        let count = graph.nodes.len() + 1;
        let mut open = vec![0; count];
        for node in &graph.nodes {
            std::iter::once(node.input).chain(node.residual).for_each(|value| open[value] += 1);
        }
        let mut gradients = vec![None; count];
        gradients[count - 1] = Some(gradient.to_vec());
        Self { graph, tape, gradients, open, masked: vec![false; count] }
    }

    /// The finished gradient of a value, behind the value's own ReLU.
    fn take(&mut self, value: usize) -> Option<Vec<T>> {
        let gradient = self.gradients[value].take()?;
        let behind = !self.graph.is_relu(value) || self.masked[value];
        Some(if behind { gradient } else { mask(&self.tape.signs[value].mask(), &gradient) })
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
        let masks = self.open[value] == 0 && self.graph.is_relu(value);
        let relu_mask = masks.then(|| self.tape.signs[value].mask());
        let sum = compute(self.gradients[value].as_deref(), relu_mask.as_deref())?;
        self.gradients[value] = Some(sum);
        self.masked[value] = masks;
        Ok(())
    }
}
