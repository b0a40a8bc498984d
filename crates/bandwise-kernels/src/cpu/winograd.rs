//! 3×3 convolutions of stride 1 by Winograd's minimal filtering: tiles of pixels are transformed, multiplied by
//! the transformed kernel (one matrix product per position of the transform), and transformed back.

use rayon::prelude::*;

use super::gather::Epilogue;
use super::geometry::Geometry;
use super::kernel::{DotTile, Halves, Kernels, OuterTile};
use super::pack::can_halve;
use super::winograd_kernel::{Spectrum, back};
use super::winograd_tile::{CollectTile, SpreadTile, Transforms};
use crate::conv::Precision;
use crate::element::Element;
use crate::memory::{SharedMut, produce};

/// Most tiles per task of the forward pass.
const TASK_TILES: usize = 96;
/// Tiles per round of the weight gradient.
const ROUND_TILES: usize = 384;
/// Fewer channels than this do not pay for the transforms.
const LEAST_CHANNELS: usize = 32;

/// Most pairs of channels for tiles of 4 × 4.
const LARGEST_FOR_FOUR: usize = 320 * 320;

/// The transforms to use for a convolution, if it can be done this way.
pub(crate) fn suitable<'a, T>(kernels: &'a Kernels<T>, geometry: &Geometry) -> Option<&'a Transforms<T>> {
    let config = geometry.config;
    let transforms = match config.precision {
        Precision::F32 | Precision::Tf32 | Precision::Bf16 => kernels.transforms[0].as_ref()?,
        // Without matrix units, near-f32 accuracy is had fastest by the larger tile, unless its transformed
        // kernel (four times the weights) is too large for the caches.
        Precision::F32x3 => {
            let large = geometry.in_channels * geometry.out_channels > LARGEST_FOR_FOUR;
            kernels.transforms[usize::from(!large)].as_ref()?
        }
    };
    let fits = |channels: usize| channels.is_multiple_of(transforms.lanes) && channels >= LEAST_CHANNELS;
    let plain = config.stride == 1 && config.dilation == 1 && config.groups == 1 && config.padding <= 2;
    let square = geometry.kernel_height == 3 && geometry.kernel_width == 3;
    (plain && square && fits(geometry.in_channels) && fits(geometry.out_channels)).then_some(transforms)
}

/// The bf16 kernels, where the convolution is to use them.
pub(crate) fn halves<'a, T>(kernels: &'a Kernels<T>, geometry: &Geometry) -> Option<&'a Halves<T>> {
    kernels.halves.as_ref().filter(|_| {
        geometry.config.precision == Precision::Bf16
            && can_halve(geometry.in_channels)
            && can_halve(geometry.out_channels)
    })
}

/// The convolution whose forward pass is the data gradient of `geometry` (stride 1, 3×3).
pub(crate) fn mirrored(geometry: &Geometry) -> Geometry {
    let mut config = geometry.config;
    config.padding = 2 - config.padding;
    Geometry {
        in_height: geometry.out_height,
        in_width: geometry.out_width,
        in_channels: geometry.out_channels,
        out_height: geometry.in_height,
        out_width: geometry.in_width,
        out_channels: geometry.in_channels,
        config,
        ..*geometry
    }
}

/// Tiles of `outputs × outputs` target pixels.
struct Tiling<'a> {
    geometry: &'a Geometry,
    outputs: usize,
    rows: usize,
    columns: usize,
}

impl<'a> Tiling<'a> {
    fn new(geometry: &'a Geometry, outputs: usize) -> Self {
        let (rows, columns) = (geometry.out_height.div_ceil(outputs), geometry.out_width.div_ceil(outputs));
        Self { geometry, outputs, rows, columns }
    }

    fn tiles(&self) -> usize {
        self.geometry.batch * self.rows * self.columns
    }

    /// Image, and top left output pixel.
    fn corner(&self, tile: usize) -> (usize, usize, usize) {
        let (image, rest) = (tile / (self.rows * self.columns), tile % (self.rows * self.columns));
        (image, rest / self.columns * self.outputs, rest % self.columns * self.outputs)
    }

    /// Calls `each(k, pixel index)` for the input pixels of a tile, `None` in the padding.
    fn inputs(&self, tile: usize, mut each: impl FnMut(usize, Option<usize>)) {
        let (image, top, left) = self.corner(tile);
        let Geometry { in_height, in_width, config, .. } = *self.geometry;
        let size = self.outputs + 2;
        for y in 0..size {
            let iy = (top + y).wrapping_sub(config.padding);
            for x in 0..size {
                let ix = (left + x).wrapping_sub(config.padding);
                let inside = iy < in_height && ix < in_width;
                each(y * size + x, inside.then(|| (image * in_height + iy) * in_width + ix));
            }
        }
    }

    /// Calls `each(k, pixel index)` for the output pixels of a tile, `None` outside the image.
    fn outputs(&self, tile: usize, mut each: impl FnMut(usize, Option<usize>)) {
        let (image, top, left) = self.corner(tile);
        let Geometry { out_height, out_width, .. } = *self.geometry;
        for y in 0..self.outputs {
            for x in 0..self.outputs {
                let (oy, ox) = (top + y, left + x);
                let inside = oy < out_height && ox < out_width;
                each(y * self.outputs + x, inside.then(|| (image * out_height + oy) * out_width + ox));
            }
        }
    }
}

/// Elements from one position of the transform to the next: rows of all tiles, and a cache line more, lest the
/// positions of a tile compete for the same few places of the cache.
fn padded(length: usize) -> usize {
    length + 16
}

/// Transforms tiles `first ..` of `values` into `out` `[position][tile][channels]`, one row per tile.
///
/// # Safety
/// `out` has `positions · tiles · channels` elements that no other task touches at these tiles; `pixels` yields
/// pixels inside `values`.
unsafe fn spread<T: Element>(
    transform: unsafe fn(&SpreadTile<T>),
    channels: usize,
    values: &[T],
    zeros: &[T],
    pixels: impl Fn(&mut dyn FnMut(usize, Option<usize>)),
    out: *mut T,
    stride: usize,
) {
    let mut pointers = [std::ptr::null(); 36];
    pixels(&mut |k, pixel| {
        pointers[k] = match pixel {
            Some(pixel) => values[pixel * channels..][..channels].as_ptr(),
            None => zeros.as_ptr(),
        };
    });
    // SAFETY: every pointer has `channels` values, `out` the caller's promise; the table comes from feature
    // detection.
    unsafe { transform(&SpreadTile { pixels: pointers.as_ptr(), channels, out, stride }) }
}

/// The forward pass with its epilogue.
pub(crate) fn forward<T: Element>(
    kernels: &Kernels<T>,
    transforms: &Transforms<T>,
    geometry: &Geometry,
    spectrum: &Spectrum<T>,
    input: &[T],
    epilogue: Epilogue<'_, T>,
) -> Vec<T> {
    let tiling = Tiling::new(geometry, transforms.outputs);
    let tiles = tiling.tiles();
    let per_task = tiles.div_ceil(16).next_multiple_of(kernels.rows).min(TASK_TILES);
    let halves = halves(kernels, geometry);
    let pass = Forward {
        kernels,
        transforms,
        halves,
        tiling,
        spectrum,
        input,
        epilogue,
        zeros: vec![T::ZERO; geometry.in_channels],
    };
    let fill = |out: &SharedMut<'_, T>| {
        (0..tiles.div_ceil(per_task)).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
            let first = task * per_task;
            // SAFETY: tasks own disjoint tiles, hence disjoint output pixels.
            unsafe { pass.run(first, per_task.min(tiles - first), scratch, out) }
        });
    };
    // SAFETY: the tiles cover all output pixels, each with all channels.
    unsafe { produce(geometry.output_shape().iter().product(), fill) }
}

struct Forward<'a, T> {
    kernels: &'a Kernels<T>,
    transforms: &'a Transforms<T>,
    halves: Option<&'a Halves<T>>,
    tiling: Tiling<'a>,
    spectrum: &'a Spectrum<T>,
    input: &'a [T],
    epilogue: Epilogue<'a, T>,
    zeros: Vec<T>,
}

/// Buffers that tasks of one thread share.
#[derive(Default)]
struct Scratch<T> {
    spread: Vec<T>,
    sums: Vec<T>,
    pairs: Vec<T>,
}

impl<T: Element> Forward<'_, T> {
    /// # Safety
    /// No other task writes the pixels of these tiles.
    unsafe fn run(&self, first: usize, count: usize, scratch: &mut Scratch<T>, out: &SharedMut<'_, T>) {
        let Geometry { in_channels, out_channels, .. } = *self.tiling.geometry;
        let positions = self.transforms.kernel.len() * self.transforms.kernel.len();
        let (spread_stride, sums_stride) = (padded(count * in_channels), padded(count * out_channels));
        scratch.spread.resize(positions * spread_stride, T::ZERO);
        scratch.sums.resize(positions * sums_stride, T::ZERO);
        for t in 0..count {
            let row = scratch.spread[t * in_channels..].as_mut_ptr();
            let pixels = |each: &mut dyn FnMut(usize, Option<usize>)| self.tiling.inputs(first + t, each);
            // SAFETY: the buffer holds `positions · count` rows.
            unsafe {
                spread(
                    self.transforms.input,
                    in_channels,
                    self.input,
                    &self.zeros,
                    pixels,
                    row,
                    spread_stride,
                )
            };
        }
        self.multiply(positions, count, scratch);
        for t in 0..count {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.collect(first + t, t, count, &scratch.sums, out) };
        }
    }

    /// One matrix product per position of the transform.
    fn multiply(&self, positions: usize, count: usize, scratch: &mut Scratch<T>) {
        let Geometry { in_channels, out_channels, .. } = *self.tiling.geometry;
        let rows = self.kernels.rows;
        let mut inputs = vec![std::ptr::null(); rows];
        let mut outputs = vec![std::ptr::null_mut(); rows];
        let (dot, depth) = match self.halves {
            Some(halves) => (halves.dot, in_channels / 2),
            None => (self.kernels.dot, in_channels),
        };
        scratch.pairs.resize(if self.halves.is_some() { count * depth } else { 0 }, T::ZERO);
        for position in 0..positions {
            let spread = &scratch.spread[position * padded(count * in_channels)..][..count * in_channels];
            if let Some(halves) = self.halves {
                // SAFETY: half as many pairs as values; the table comes from feature detection.
                unsafe { (halves.pair_columns)(spread.as_ptr(), scratch.pairs.as_mut_ptr(), spread.len()) };
            }
            let spread = if self.halves.is_some() { &scratch.pairs } else { spread };
            for block in &self.spectrum.blocks {
                let panel = &self.spectrum.values[block.offset + position * depth * block.width..];
                for start in (0..count).step_by(rows) {
                    let tile_rows = rows.min(count - start);
                    for r in 0..tile_rows {
                        let sums = position * padded(count * out_channels) + (start + r) * out_channels;
                        inputs[r] = spread[(start + r) * depth..][..depth].as_ptr();
                        outputs[r] = scratch.sums[sums + block.first..].as_mut_ptr();
                    }
                    let tile = DotTile {
                        rows: tile_rows,
                        columns: block.columns,
                        width: block.width,
                        taps: 1,
                        depth,
                        inputs: inputs.as_ptr(),
                        row_stride: rows,
                        panel: panel[..depth * block.width].as_ptr(),
                        outputs: outputs.as_ptr(),
                        bias: std::ptr::null(),
                        residuals: std::ptr::null(),
                        relu: false,
                        gates: std::ptr::null(),
                    };
                    // SAFETY: inputs have `depth` values, outputs the block's columns, the panel was
                    // checked; the table comes from feature detection.
                    unsafe { dot(&tile) };
                }
            }
        }
    }

    /// # Safety
    /// No other task writes the pixels of this tile.
    unsafe fn collect(&self, tile: usize, row: usize, count: usize, sums: &[T], out: &SharedMut<'_, T>) {
        let channels = self.tiling.geometry.out_channels;
        let mut outputs = [std::ptr::null_mut(); 16];
        let mut residuals = [std::ptr::null(); 16];
        let mut gates = [std::ptr::null(); 16];
        self.tiling.outputs(tile, |k, pixel| {
            if let Some(pixel) = pixel {
                // SAFETY: the pixel lies inside the output and belongs to this tile.
                outputs[k] = unsafe { out.at(pixel * channels) };
                if let Some(values) = self.epilogue.residual {
                    residuals[k] = values[pixel * channels..][..channels].as_ptr();
                }
                if let Some(values) = self.epilogue.gate {
                    gates[k] = values[pixel * channels..][..channels].as_ptr();
                }
            }
        });
        let tile = CollectTile {
            sums: sums[row * channels..].as_ptr(),
            stride: padded(count * channels),
            channels,
            outputs: outputs.as_ptr(),
            bias: self.epilogue.bias.map_or(std::ptr::null(), <[T]>::as_ptr),
            residuals: if self.epilogue.residual.is_some() { residuals.as_ptr() } else { std::ptr::null() },
            relu: self.epilogue.relu,
            gates: if self.epilogue.gate.is_some() { gates.as_ptr() } else { std::ptr::null() },
        };
        // SAFETY: sums hold `count` rows per position; outputs, residuals and gates `channels` values each.
        unsafe { (self.transforms.output)(&tile) };
    }
}

/// The weight gradient, `[out, in, 3, 3]`: outer products of transformed input and (adjointly) transformed output
/// gradient, summed per position, then transformed back.
pub(crate) fn weight_gradient<T: Element>(
    kernels: &Kernels<T>,
    transforms: &Transforms<T>,
    geometry: &Geometry,
    input: &[T],
    gradient: &[T],
) -> Vec<T> {
    let Geometry { in_channels, out_channels, .. } = *geometry;
    let tiling = Tiling::new(geometry, transforms.outputs);
    let positions = transforms.kernel.len() * transforms.kernel.len();
    let zeros = vec![T::ZERO; in_channels.max(out_channels)];
    let mut sums = vec![T::ZERO; positions * in_channels * out_channels];
    let round = tiling.tiles().min(ROUND_TILES);
    let (left_stride, right_stride) = (padded(round * in_channels), padded(round * out_channels));
    let mut lefts = vec![T::ZERO; positions * left_stride];
    let mut rights = vec![T::ZERO; positions * right_stride];
    for first in (0..tiling.tiles()).step_by(round.max(1)) {
        let count = round.min(tiling.tiles() - first);
        let (left, right) = (SharedMut::new(&mut lefts), SharedMut::new(&mut rights));
        (0..count).into_par_iter().with_min_len(16).for_each(|t| {
            let inputs = |each: &mut dyn FnMut(usize, Option<usize>)| tiling.inputs(first + t, each);
            let outputs = |each: &mut dyn FnMut(usize, Option<usize>)| tiling.outputs(first + t, each);
            // SAFETY: every tile has its own row at every position.
            unsafe {
                let row = left.at(t * in_channels);
                spread(transforms.input, in_channels, input, &zeros, inputs, row, left_stride);
                let row = right.at(t * out_channels);
                spread(transforms.adjoint, out_channels, gradient, &zeros, outputs, row, right_stride);
            }
        });
        let product = Product { kernels, halves: halves(kernels, geometry), in_channels, out_channels };
        let positions = sums.par_chunks_mut(in_channels * out_channels).enumerate();
        positions.for_each_init(Default::default, |scratch, (position, sums)| {
            let lefts = &lefts[position * left_stride..][..count * in_channels];
            let rights = &rights[position * right_stride..][..count * out_channels];
            product.add(lefts, rights, sums, scratch);
        });
    }
    back(transforms, &sums, in_channels, out_channels)
}

/// Sums of outer products.
struct Product<'a, T> {
    kernels: &'a Kernels<T>,
    halves: Option<&'a Halves<T>>,
    in_channels: usize,
    out_channels: usize,
}

impl<T: Element> Product<'_, T> {
    /// `sums[i][o] += Σ_t lefts[t][i] · rights[t][o]`; `scratch` keeps pairs of rows.
    fn add(&self, lefts: &[T], rights: &[T], sums: &mut [T], scratch: &mut [Vec<T>; 2]) {
        let Self { in_channels, out_channels, .. } = *self;
        let Some(halves) = self.halves else { return self.add_with(self.kernels.outer, lefts, rights, sums) };
        let zeros = vec![T::ZERO; in_channels.max(out_channels)];
        let pairs = (lefts.len() / in_channels).div_ceil(2);
        scratch[0].resize(pairs * in_channels, T::ZERO);
        scratch[1].resize(pairs * out_channels, T::ZERO);
        halves.pair_all_rows(lefts, in_channels, &zeros, &mut scratch[0]);
        halves.pair_all_rows(rights, out_channels, &zeros, &mut scratch[1]);
        self.add_with(halves.outer, &scratch[0], &scratch[1], sums);
    }

    fn add_with(&self, outer: unsafe fn(&OuterTile<T>), lefts: &[T], rights: &[T], sums: &mut [T]) {
        let Self { kernels, in_channels, out_channels, .. } = *self;
        let rows: Vec<*const T> = lefts.chunks_exact(in_channels).map(<[T]>::as_ptr).collect();
        let step = in_channels.div_ceil(in_channels.div_ceil(kernels.rows));
        for o in (0..out_channels).step_by(kernels.columns) {
            for i in (0..in_channels).step_by(step) {
                let tile = OuterTile {
                    rows: step.min(in_channels - i),
                    columns: kernels.columns.min(out_channels - o),
                    count: rows.len(),
                    lefts: rows.as_ptr(),
                    left_offset: i,
                    rights: rights[o..].as_ptr(),
                    right_stride: out_channels,
                    out: sums[i * out_channels + o..].as_mut_ptr(),
                    out_stride: out_channels,
                };
                // SAFETY: lefts have `in_channels` values each, rights one row per left, sums `in · out`
                // values; the kernel comes from feature detection.
                unsafe { outer(&tile) };
            }
        }
    }
}
