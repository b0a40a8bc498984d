//! The indirect matrix product behind forward pass and data gradient: every target pixel sums over the source
//! pixels under its taps, through a pointer per pixel and tap, so that nothing is copied and padding is a row of
//! zeros.

use rayon::prelude::*;

use super::gather_plan::{GatherPlan, TapOffsets};
use super::kernel::{DotTile, Kernels};
use super::pack::{Block, Packed, Panels};
use crate::element::Element;
use crate::memory::SharedMut;

/// What happens to a sum before it is stored: `relu(sum + bias + residual)`, and 0 where the mask is not positive.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a, T> {
    /// One value per target channel.
    pub bias: Option<&'a [T]>,
    /// In the target's shape.
    pub residual: Option<&'a [T]>,
    pub relu: bool,
    /// In the target's shape: where it is not positive, 0 is stored. This is how the gradient of a ReLU goes into
    /// the pass that computes its argument, given the ReLU's result.
    pub relu_mask: Option<&'a [T]>,
}

impl<T> Epilogue<'_, T> {
    pub(crate) const NONE: Self = Self { bias: None, residual: None, relu: false, relu_mask: None };
}

/// Most columns that one task computes.
const TASK_COLUMNS: usize = 128;
/// Target pixels per task.
const TASK_ROWS: usize = 240;

/// Computes all target pixels of `plan` into `target`.
///
/// # Safety
/// No other thread touches the pixels of this plan in `target`, which has `target_channels` values per pixel.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn gather<T: Element>(
    kernels: &Kernels<T>,
    plan: &GatherPlan,
    source: &[T],
    source_channels: usize,
    packed: &Packed<T>,
    epilogue: Epilogue<'_, T>,
    target: &SharedMut<'_, T>,
    target_channels: usize,
) {
    let blocks = &packed.blocks;
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match &packed.panels {
            Panels::Plain(panels) => {
                Call { kernels, dot: kernels.dot, plan, source, source_channels, panels, blocks, epilogue }
                    .run(target, target_channels);
            }
            Panels::Narrow(panels, dot) => {
                Call { kernels, dot: *dot, plan, source, source_channels, panels, blocks, epilogue }
                    .run(target, target_channels);
            }
            Panels::Bf16(panels, bf16) => {
                let source = &bf16.pairs(source);
                let source_channels = source_channels / 2;
                Call { kernels, dot: bf16.dot, plan, source, source_channels, panels, blocks, epilogue }
                    .run(target, target_channels);
            }
        }
    }
}

/// Pointers that the tasks of one thread fill in turn.
struct Pointers<T, F> {
    /// `[tile][tap][row]` to the source pixels of a task's target pixels.
    inputs: Vec<*const F>,
    outputs: Vec<*mut T>,
    residuals: Vec<*const T>,
    masks: Vec<*const T>,
    /// Where the target pixels start.
    pixels: Vec<usize>,
    bias: Vec<T>,
}

impl<T, F> Default for Pointers<T, F> {
    fn default() -> Self {
        let (inputs, outputs, residuals, masks) = (vec![], vec![], vec![], vec![]);
        Self { inputs, outputs, residuals, masks, pixels: vec![], bias: vec![] }
    }
}

/// Rows and range of blocks per task; depends on shapes alone.
fn tasks(plan: &GatherPlan, blocks: &[Block]) -> Vec<(usize, usize, (usize, usize))> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < blocks.len() {
        let group = blocks[start].group;
        let mut end = start;
        let mut columns = 0;
        while end < blocks.len() && blocks[end].group == group && columns < TASK_COLUMNS {
            columns += blocks[end].width;
            end += 1;
        }
        ranges.push((start, end));
        start = end;
    }
    let rows = plan.rows();
    let mut tasks = Vec::new();
    for range in ranges {
        for first in (0..rows).step_by(TASK_ROWS) {
            tasks.push((first, TASK_ROWS.min(rows - first), range));
        }
    }
    tasks
}

/// One call, with sums of type `T` and factors of type `F`.
struct Call<'a, T, F> {
    kernels: &'a Kernels<T>,
    dot: unsafe fn(&DotTile<T, F>),
    plan: &'a GatherPlan,
    source: &'a [F],
    /// Factors per pixel.
    source_channels: usize,
    panels: &'a [F],
    blocks: &'a [Block],
    epilogue: Epilogue<'a, T>,
}

/// What the tasks of a call read besides.
struct Shared<F> {
    /// Factors per tap.
    depth: usize,
    offsets: TapOffsets,
    zeros: Vec<F>,
}

impl<T: Element, F: Copy + Default + Send + Sync> Call<'_, T, F> {
    /// # Safety
    /// See [`gather`].
    unsafe fn run(&self, target: &SharedMut<'_, T>, target_channels: usize) {
        let plan = self.plan;
        assert!(self.source.len() == plan.batch * plan.source[0] * plan.source[1] * self.source_channels);
        let groups = self.blocks.last().map_or(1, |block| block.group + 1);
        let depth = self.source_channels / groups;
        let shared = Shared { depth, offsets: plan.offsets(), zeros: vec![F::default(); depth] };
        let tasks = tasks(plan, self.blocks).into_par_iter();
        tasks.for_each_init(Pointers::default, |pointers, (first, count, (from, to))| {
            // SAFETY: tasks cover disjoint rows and columns; the rest is the caller's promise.
            unsafe {
                self.task(&shared, pointers, first, count, &self.blocks[from..to], target, target_channels)
            }
        });
    }

    /// # Safety
    /// Rows and blocks belong to this task alone.
    #[allow(clippy::too_many_arguments)]
    unsafe fn task(
        &self,
        shared: &Shared<F>,
        pointers: &mut Pointers<T, F>,
        first: usize,
        count: usize,
        blocks: &[Block],
        target: &SharedMut<'_, T>,
        target_channels: usize,
    ) {
        let Some(group) = blocks.first().map(|b| b.group) else { return };
        self.point(shared, pointers, first, count, group, target_channels);
        let Pointers { inputs, outputs, residuals, masks, pixels, bias } = pointers;
        let taps = self.plan.taps.len();
        bias.resize(self.kernels.columns, T::ZERO);
        outputs.resize(self.kernels.rows, std::ptr::null_mut());
        residuals.resize(self.kernels.rows, std::ptr::null());
        masks.resize(self.kernels.rows, std::ptr::null());
        for block in blocks {
            if let Some(values) = self.epilogue.bias {
                bias[..block.columns].copy_from_slice(&values[block.first..][..block.columns]);
            }
            for (tile_index, pixels) in pixels.chunks(self.kernels.rows).enumerate() {
                for (r, &pixel) in pixels.iter().enumerate() {
                    // SAFETY: the pixel lies inside the target, and this task owns these channels of it.
                    outputs[r] = unsafe { target.at(pixel + block.first) };
                    if let Some(values) = self.epilogue.residual {
                        residuals[r] = values[pixel + block.first..][..block.columns].as_ptr();
                    }
                    if let Some(values) = self.epilogue.relu_mask {
                        masks[r] = values[pixel + block.first..][..block.columns].as_ptr();
                    }
                }
                let tile = DotTile {
                    rows: pixels.len(),
                    columns: block.columns,
                    width: block.width,
                    taps,
                    depth: shared.depth,
                    inputs: inputs[tile_index * taps * self.kernels.rows..].as_ptr(),
                    row_stride: self.kernels.rows,
                    panel: self.panels[block.offset..].as_ptr(),
                    outputs: outputs.as_ptr(),
                    bias: if self.epilogue.bias.is_some() { bias.as_ptr() } else { std::ptr::null() },
                    residuals: match self.epilogue.residual {
                        Some(_) => residuals.as_ptr(),
                        None => std::ptr::null(),
                    },
                    relu: self.epilogue.relu,
                    relu_masks: match self.epilogue.relu_mask {
                        Some(_) => masks.as_ptr(),
                        None => std::ptr::null(),
                    },
                };
                // SAFETY: `inputs` holds `depth` readable values per pointer, the panel has
                // `taps * depth * width` values, outputs, residuals and masks `columns` each; the table comes from
                // feature detection.
                unsafe { (self.dot)(&tile) };
            }
        }
    }

    /// Finds the source pixels and the place of this task's target pixels.
    fn point(
        &self,
        shared: &Shared<F>,
        to: &mut Pointers<T, F>,
        first: usize,
        count: usize,
        group: usize,
        target_channels: usize,
    ) {
        let rows = self.kernels.rows;
        let taps = &self.plan.taps;
        to.inputs.resize(count.div_ceil(rows) * rows * taps.len(), shared.zeros.as_ptr());
        to.pixels.clear();
        let channel = group * shared.depth;
        let mut position = self.plan.position(first);
        for row in 0..count {
            to.pixels.push(self.plan.target_pixel(&position) * target_channels);
            let base = (row / rows) * taps.len() * rows + row % rows;
            let inputs = to.inputs.iter_mut().skip(base).step_by(rows);
            match self.plan.inner_pixel(&position, &shared.offsets) {
                Some(pixel) => {
                    let own = (pixel * self.source_channels + channel) as isize;
                    for (input, &offset) in inputs.zip(&shared.offsets.pixels) {
                        let start = own + offset * self.source_channels as isize;
                        *input = self.source.as_ptr().wrapping_offset(start);
                    }
                }
                None => {
                    for (input, tap) in inputs.zip(taps) {
                        *input = match self.plan.source_pixel(&position, tap) {
                            Some(pixel) => self.source[pixel * self.source_channels + channel..].as_ptr(),
                            None => shared.zeros.as_ptr(),
                        };
                    }
                }
            }
            self.plan.advance(&mut position);
        }
    }
}
