//! 3×3 convolutions of stride 1 by Winograd's minimal filtering: tiles of pixels are transformed, multiplied by
//! the transformed kernel (one matrix product per position of the transform), and transformed back.

use rayon::prelude::*;

use super::gather::Epilogue;
use super::kernel::Kernels;
use super::strategy::Winograd;
use super::winograd_kernel::{WinogradWeights, back};
use super::winograd_product::{self, Outer};
use super::winograd_tile::{InputTransform, OutputTransform, Transforms};
use crate::element::Element;
use crate::geometry::Geometry;
use crate::memory::{SharedMut, produce};

/// Most tiles per task of the forward pass.
const TASK_TILES: usize = 96;
/// Bytes of transformed tiles that stay in the first-level cache.
const ROUND_BYTES: usize = 28 << 10;
/// Tiles per round of the weight gradient.
const ROUND_TILES: usize = 384;
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

    /// Pointers to the input pixels of a tile, to `zeros` in the padding.
    fn inputs<T: Element>(&self, tile: usize, values: &[T], zeros: &[T]) -> [*const T; 36] {
        let (image, top, left) = self.corner(tile);
        let Geometry { in_height, in_width, in_channels, config, .. } = *self.geometry;
        assert!(values.len() == self.geometry.batch * in_height * in_width * in_channels);
        let size = self.outputs + 2;
        let mut pointers = [zeros.as_ptr(); 36];
        let (y, x) = (top.wrapping_sub(config.padding), left.wrapping_sub(config.padding));
        if y < in_height && y + size <= in_height && x < in_width && x + size <= in_width {
            let corner = values[((image * in_height + y) * in_width + x) * in_channels..].as_ptr();
            for (y, row) in pointers.chunks_exact_mut(size).enumerate().take(size) {
                for (x, pointer) in row.iter_mut().enumerate() {
                    *pointer = corner.wrapping_add((y * in_width + x) * in_channels);
                }
            }
            return pointers;
        }
        for (y, row) in pointers.chunks_exact_mut(size).enumerate().take(size) {
            let iy = (top + y).wrapping_sub(config.padding);
            if iy >= in_height {
                continue;
            }
            let first = (image * in_height + iy) * in_width;
            for (x, pointer) in row.iter_mut().enumerate() {
                let ix = (left + x).wrapping_sub(config.padding);
                if ix < in_width {
                    *pointer = values.as_ptr().wrapping_add((first + ix) * in_channels);
                }
            }
        }
        pointers
    }

    /// Calls `each(k, offset)` with the offset of each output pixel of a tile, `None` outside the image.
    #[inline(always)]
    fn outputs(&self, tile: usize, mut each: impl FnMut(usize, Option<usize>)) {
        let (image, top, left) = self.corner(tile);
        let Geometry { out_height, out_width, out_channels, .. } = *self.geometry;
        for y in 0..self.outputs {
            let first = (image * out_height + top + y) * out_width + left;
            for x in 0..self.outputs {
                let inside = top + y < out_height && left + x < out_width;
                each(y * self.outputs + x, inside.then(|| (first + x) * out_channels));
            }
        }
    }
}

/// Elements from one position of the transform to the next: rows of all tiles, and a cache line more, lest the
/// positions of a tile compete for the same few places of the cache.
fn padded(length: usize) -> usize {
    length + 16
}

/// The forward pass with its epilogue.
pub(crate) fn forward<T: Element>(
    kernels: &Kernels<T>,
    geometry: &Geometry,
    weights: &WinogradWeights<T>,
    input: &[T],
    epilogue: Epilogue<'_, T>,
) -> Vec<T> {
    let transforms = weights.transforms;
    let tiling = Tiling::new(geometry, transforms.outputs);
    let tiles = tiling.tiles();
    let rows = weights.panels.rows(kernels);
    let per_task = tiles.div_ceil(16).next_multiple_of(rows).min(TASK_TILES);
    let positions = transforms.kernel.len() * transforms.kernel.len();
    let tile_bytes = positions * (geometry.in_channels + geometry.out_channels) * size_of::<T>();
    let fitting = ROUND_BYTES / tile_bytes / rows * rows;
    // where few tiles fit, the panels count for more
    let round = if fitting == 0 { per_task } else { fitting.min(per_task) };
    let Geometry { in_channels, out_channels, .. } = *geometry;
    let product = winograd_product::Forward { weights, in_channels, out_channels };
    let pass =
        Forward { transforms, product, tiling, input, epilogue, zeros: vec![T::ZERO; geometry.in_channels] };
    let fill = |out: &SharedMut<'_, T>| {
        (0..tiles.div_ceil(per_task)).into_par_iter().for_each_init(Scratch::default, |scratch, task| {
            let end = tiles.min((task + 1) * per_task);
            for first in (task * per_task..end).step_by(round) {
                // SAFETY: tasks own disjoint tiles, hence disjoint output pixels.
                unsafe { pass.run(first, round.min(end - first), scratch, out) }
            }
        });
    };
    // SAFETY: the tiles cover all output pixels, each with all channels.
    unsafe { produce(geometry.output_shape().iter().product(), fill) }
}

struct Forward<'a, T: 'static> {
    transforms: &'a Transforms<T>,
    product: winograd_product::Forward<'a, T>,
    tiling: Tiling<'a>,
    input: &'a [T],
    epilogue: Epilogue<'a, T>,
    zeros: Vec<T>,
}

/// Buffers that tasks of one thread share.
#[derive(Default)]
struct Scratch<T> {
    spread: Vec<T>,
    sums: Vec<T>,
    products: winograd_product::Scratch<T>,
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
            let pixels = self.tiling.inputs(first + t, self.input, &self.zeros);
            let tile = InputTransform {
                pixels: pixels.as_ptr(),
                channels: in_channels,
                out: scratch.spread[t * in_channels..].as_mut_ptr(),
                stride: spread_stride,
            };
            // SAFETY: every pointer has a pixel's channels, the buffer `positions · count` rows; the table comes
            // from feature detection.
            unsafe { (self.transforms.input)(&tile) };
        }
        let Scratch { spread, sums, products } = scratch;
        for position in 0..positions {
            let spread = &spread[position * spread_stride..][..count * in_channels];
            let sums = &mut sums[position * sums_stride..][..count * out_channels];
            self.product.multiply(position, spread, sums, products);
        }
        for t in 0..count {
            // SAFETY: the caller's promise is passed on.
            unsafe { self.collect(first + t, t, count, &scratch.sums, out) };
        }
    }

    /// # Safety
    /// No other task writes the pixels of this tile.
    unsafe fn collect(&self, tile: usize, row: usize, count: usize, sums: &[T], out: &SharedMut<'_, T>) {
        let channels = self.tiling.geometry.out_channels;
        let mut outputs = [std::ptr::null_mut(); 16];
        let mut residuals = [std::ptr::null(); 16];
        let mut masks = [std::ptr::null(); 16];
        self.tiling.outputs(tile, |k, offset| {
            if let Some(offset) = offset {
                // SAFETY: the pixel lies inside the output and belongs to this tile.
                outputs[k] = unsafe { out.at(offset) };
                if let Some(values) = self.epilogue.residual {
                    residuals[k] = values[offset..][..channels].as_ptr();
                }
                if let Some(values) = self.epilogue.relu_mask {
                    masks[k] = values[offset..][..channels].as_ptr();
                }
            }
        });
        let tile = OutputTransform {
            sums: sums[row * channels..].as_ptr(),
            stride: padded(count * channels),
            channels,
            outputs: outputs.as_ptr(),
            bias: self.epilogue.bias.map_or(std::ptr::null(), <[T]>::as_ptr),
            residuals: if self.epilogue.residual.is_some() { residuals.as_ptr() } else { std::ptr::null() },
            relu: self.epilogue.relu,
            relu_masks: if self.epilogue.relu_mask.is_some() { masks.as_ptr() } else { std::ptr::null() },
        };
        // SAFETY: sums hold `count` rows per position; outputs, residuals and masks `channels` values each.
        unsafe { (self.transforms.output)(&tile) };
    }
}

/// The weight gradient, `[out, in, 3, 3]`: outer products of transformed input and (adjointly) transformed output
/// gradient, summed per position, then transformed back.
pub(crate) fn weight_gradient<T: Element>(
    kernels: &Kernels<T>,
    Winograd { transforms, products }: Winograd<T>,
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
            let pixels = tiling.inputs(first + t, input, &zeros);
            let mut targets = [zeros.as_ptr(); 36];
            tiling.outputs(first + t, |k, offset| {
                if let Some(offset) = offset {
                    targets[k] = gradient[offset..][..out_channels].as_ptr();
                }
            });
            // SAFETY: every pointer has its pixel's channels, every tile its own row at every position; the table
            // comes from feature detection.
            unsafe {
                let (pixels, channels, stride) = (pixels.as_ptr(), in_channels, left_stride);
                (transforms.input)(&InputTransform {
                    pixels,
                    channels,
                    out: left.at(t * in_channels),
                    stride,
                });
                let (pixels, channels, stride) = (targets.as_ptr(), out_channels, right_stride);
                (transforms.adjoint)(&InputTransform {
                    pixels,
                    channels,
                    out: right.at(t * out_channels),
                    stride,
                });
            }
        });
        let product = Outer { kernels, products, in_channels, out_channels };
        let positions = sums.par_chunks_mut(in_channels * out_channels).enumerate();
        positions.for_each_init(Default::default, |scratch, (position, sums)| {
            let lefts = &lefts[position * left_stride..][..count * in_channels];
            let rights = &rights[position * right_stride..][..count * out_channels];
            product.add(lefts, rights, sums, scratch);
        });
    }
    back(transforms, &sums, in_channels, out_channels)
}
