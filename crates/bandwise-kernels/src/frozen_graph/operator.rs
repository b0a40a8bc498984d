//! The graph as candle's operator.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::compute::Tape;
use super::{FrozenGraph, Node, Operation, Shape4};
use crate::conv::wrap;
use crate::element::{elements, with_element};
use crate::frozen::Cached;

/// One run on a batch.
pub(super) struct Pass {
    graph: Arc<FrozenGraph>,
    /// Of one image.
    shapes: Vec<Shape4>,
    batch: usize,
    /// Images that go through together.
    step: usize,
    pub(super) keep: bool,
    /// One per group of images.
    tapes: OnceLock<Vec<Tape>>,
}

impl Pass {
    pub(super) fn new(
        graph: Arc<FrozenGraph>,
        shapes: Vec<Shape4>,
        batch: usize,
        step: usize,
        keep: bool,
    ) -> Self {
        Self { graph, shapes, batch, step, keep, tapes: OnceLock::new() }
    }

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

    /// The images that go through together.
    fn groups(&self) -> Vec<Range<usize>> {
        let step = self.step.min(self.batch).max(1);
        (0..self.batch).step_by(step).map(|first| first..self.batch.min(first + step)).collect()
    }

    fn forward<T: Cached>(&self, input: &[T]) -> Result<CpuStorage> {
        let length: usize = self.shapes[0].iter().product();
        self.graph.pack::<T>(&self.shapes, false)?;
        let run = |images: Range<usize>| {
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

/// Backward pass.
struct Gradient<'a> {
    pass: &'a Pass,
}

impl Gradient<'_> {
    fn run<T: Cached>(&self, gradient: &[T]) -> Result<CpuStorage> {
        let Some(tapes) = self.pass.tapes.get() else {
            bail!("internal error: the frozen network kept nothing for its gradient")
        };
        let length: usize = self.pass.shapes[self.pass.graph.nodes.len()].iter().product();
        self.pass.graph.pack::<T>(&self.pass.shapes, true)?;
        let run = |(images, tape): (Range<usize>, &Tape)| {
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
