//! The indirect matrix product behind forward pass and data gradient: every target pixel sums over the source
//! pixels under its taps, through a pointer per pixel and tap, so that nothing is copied and padding is a row of
//! zeros.

use rayon::prelude::*;

use super::geometry::{Offsets, Walk};
use super::kernel::{DotTile, Kernels};
use super::pack::{Block, Packed};
use crate::element::Element;
use crate::memory::SharedMut;

/// What happens to a sum before it is stored: `relu(sum + bias + residual)`, and 0 behind a closed gate.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a, T> {
    /// One value per target channel.
    pub bias: Option<&'a [T]>,
    /// In the target's shape.
    pub residual: Option<&'a [T]>,
    pub relu: bool,
    /// In the target's shape: where it is not positive, 0 is stored. This is how the gradient of a ReLU goes into
    /// the pass that computes its argument, given the ReLU's result.
    pub gate: Option<&'a [T]>,
}

impl<T> Epilogue<'_, T> {
    pub(crate) const NONE: Self = Self { bias: None, residual: None, relu: false, gate: None };
}

/// Most columns that one task computes.
const TASK_COLUMNS: usize = 128;
/// Target pixels per task.
const TASK_ROWS: usize = 240;

/// Computes all target pixels of `walk` into `target`.
///
/// # Safety
/// No other thread touches the pixels of this walk in `target`, which has `target_channels` values per pixel.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn gather<T: Element>(
    kernels: &Kernels<T>,
    walk: &Walk,
    source: &[T],
    source_channels: usize,
    packed: &Packed<T>,
    epilogue: Epilogue<'_, T>,
    target: &SharedMut<'_, T>,
    target_channels: usize,
) {
    let zeros = vec![T::ZERO; packed.depth];
    let tasks = tasks(walk, packed);
    let halves = kernels.halves.as_ref().filter(|_| packed.halved);
    let pairs = halves.map(|halves| halves.pairs(source));
    let (source, source_channels, dot) = match (&pairs, halves, kernels.thin) {
        (Some(pairs), Some(halves), _) => (pairs.as_slice(), source_channels / 2, halves.dot),
        (_, _, Some(thin)) if packed.thin => (source, source_channels, thin),
        _ => (source, source_channels, kernels.dot),
    };
    assert!(source.len() == walk.batch * walk.source[0] * walk.source[1] * source_channels);
    let offsets = walk.offsets();
    let call = Call { kernels, dot, walk, offsets, source, source_channels, packed, epilogue, zeros: &zeros };
    tasks.into_par_iter().for_each_init(Pointers::default, |pointers, (first, count, blocks)| {
        let blocks = &packed.blocks[blocks.0..blocks.1];
        // SAFETY: tasks cover disjoint rows and columns; the rest is the caller's promise.
        unsafe { call.run(pointers, first, count, blocks, target, target_channels) }
    });
}

/// Pointers that the tasks of one thread fill in turn.
struct Pointers<T> {
    /// `[tile][tap][row]` to the source pixels of a task's target pixels.
    inputs: Vec<*const T>,
    outputs: Vec<*mut T>,
    residuals: Vec<*const T>,
    gates: Vec<*const T>,
    /// Where the target pixels start.
    pixels: Vec<usize>,
    bias: Vec<T>,
}

impl<T> Default for Pointers<T> {
    fn default() -> Self {
        let (inputs, outputs, residuals, gates) = (vec![], vec![], vec![], vec![]);
        Self { inputs, outputs, residuals, gates, pixels: vec![], bias: vec![] }
    }
}

/// Rows and range of blocks per task; depends on shapes alone.
fn tasks<T>(walk: &Walk, packed: &Packed<T>) -> Vec<(usize, usize, (usize, usize))> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < packed.blocks.len() {
        let group = packed.blocks[start].group;
        let mut end = start;
        let mut columns = 0;
        while end < packed.blocks.len() && packed.blocks[end].group == group && columns < TASK_COLUMNS {
            columns += packed.blocks[end].width;
            end += 1;
        }
        ranges.push((start, end));
        start = end;
    }
    let rows = walk.rows();
    let mut tasks = Vec::new();
    for range in ranges {
        for first in (0..rows).step_by(TASK_ROWS) {
            tasks.push((first, TASK_ROWS.min(rows - first), range));
        }
    }
    tasks
}

struct Call<'a, T> {
    kernels: &'a Kernels<T>,
    dot: unsafe fn(&DotTile<T>),
    walk: &'a Walk,
    offsets: Offsets,
    source: &'a [T],
    source_channels: usize,
    packed: &'a Packed<T>,
    epilogue: Epilogue<'a, T>,
    zeros: &'a [T],
}

impl<T: Element> Call<'_, T> {
    /// # Safety
    /// Rows and blocks belong to this task alone.
    unsafe fn run(
        &self,
        pointers: &mut Pointers<T>,
        first: usize,
        count: usize,
        blocks: &[Block],
        target: &SharedMut<'_, T>,
        target_channels: usize,
    ) {
        let Some(group) = blocks.first().map(|b| b.group) else { return };
        self.point(pointers, first, count, group, target_channels);
        let Pointers { inputs, outputs, residuals, gates, pixels, bias } = pointers;
        let taps = self.walk.taps.len();
        bias.resize(self.kernels.columns, T::ZERO);
        outputs.resize(self.kernels.rows, std::ptr::null_mut());
        residuals.resize(self.kernels.rows, std::ptr::null());
        gates.resize(self.kernels.rows, std::ptr::null());
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
                    if let Some(values) = self.epilogue.gate {
                        gates[r] = values[pixel + block.first..][..block.columns].as_ptr();
                    }
                }
                let tile = DotTile {
                    rows: pixels.len(),
                    columns: block.columns,
                    width: block.width,
                    taps,
                    depth: self.packed.depth,
                    inputs: inputs[tile_index * taps * self.kernels.rows..].as_ptr(),
                    row_stride: self.kernels.rows,
                    panel: self.packed.values[block.offset..].as_ptr(),
                    outputs: outputs.as_ptr(),
                    bias: if self.epilogue.bias.is_some() { bias.as_ptr() } else { std::ptr::null() },
                    residuals: match self.epilogue.residual {
                        Some(_) => residuals.as_ptr(),
                        None => std::ptr::null(),
                    },
                    relu: self.epilogue.relu,
                    gates: if self.epilogue.gate.is_some() { gates.as_ptr() } else { std::ptr::null() },
                };
                // SAFETY: `inputs` holds `depth` readable values per pointer, the panel has
                // `taps * depth * width` values, outputs, residuals and gates `columns` each; the table comes from
                // feature detection.
                unsafe { (self.dot)(&tile) };
            }
        }
    }

    /// Finds the source pixels and the place of this task's target pixels.
    fn point(&self, to: &mut Pointers<T>, first: usize, count: usize, group: usize, target_channels: usize) {
        let rows = self.kernels.rows;
        let taps = &self.walk.taps;
        to.inputs.resize(count.div_ceil(rows) * rows * taps.len(), self.zeros.as_ptr());
        to.pixels.clear();
        let channel = group * self.packed.depth;
        let mut position = self.walk.position(first);
        for row in 0..count {
            to.pixels.push(self.walk.target_pixel(&position) * target_channels);
            let base = (row / rows) * taps.len() * rows + row % rows;
            let inputs = to.inputs.iter_mut().skip(base).step_by(rows);
            match self.walk.inner_pixel(&position, &self.offsets) {
                Some(pixel) => {
                    let own = (pixel * self.source_channels + channel) as isize;
                    for (input, &offset) in inputs.zip(&self.offsets.pixels) {
                        let start = own + offset * self.source_channels as isize;
                        *input = self.source.as_ptr().wrapping_offset(start);
                    }
                }
                None => {
                    for (input, tap) in inputs.zip(taps) {
                        *input = match self.walk.source_pixel(&position, tap) {
                            Some(pixel) => self.source[pixel * self.source_channels + channel..].as_ptr(),
                            None => self.zeros.as_ptr(),
                        };
                    }
                }
            }
            self.walk.advance(&mut position);
        }
    }
}
