//! Weights to and from the positions of Winograd's filtering: `G g G'` packed for the matrix kernels, and its
//! adjoint for the weight gradient.

use rayon::prelude::*;

use super::gather_plan::Direction;
use super::kernel::Kernels;
use super::pack::{Block, blocks};
use super::strategy::Winograd;
use super::winograd_product::Panels;
use super::winograd_tile::Transforms;
use crate::element::Element;
use crate::geometry::Geometry;

/// The transformed kernel, packed: per block of columns `[position][depth][width]`.
pub(crate) struct WinogradWeights<T: 'static> {
    pub transforms: &'static Transforms<T>,
    pub panels: Panels<T>,
    pub blocks: Vec<Block>,
}

/// Columns transformed at a time.
const COLUMNS: usize = 16;

impl<T: Element> WinogradWeights<T> {
    /// Transforms `weight` `[out, in, 3, 3]`; for [`Direction::Data`] mirrored and transposed.
    pub(crate) fn new(
        kernels: &Kernels<T>,
        Winograd { transforms, products }: Winograd<T>,
        weight: &[T],
        geometry: &Geometry,
        direction: Direction,
    ) -> Self {
        let (columns, depth) = match direction {
            Direction::Forward => (geometry.out_channels, geometry.in_channels),
            Direction::Data => (geometry.in_channels, geometry.out_channels),
        };
        let positions = transforms.kernel.len() * transforms.kernel.len();
        let mut blocks = blocks(kernels, 1, columns, positions * depth);
        let size = blocks.last().map_or(0, |b| b.offset + positions * depth * b.width);
        let mut values = vec![T::ZERO; size];
        let mut parts = Vec::with_capacity(blocks.len());
        let mut rest = values.as_mut_slice();
        for block in &blocks {
            let (part, tail) = rest.split_at_mut(positions * depth * block.width);
            parts.push((block, part));
            rest = tail;
        }
        let inner = geometry.in_channels;
        parts.into_par_iter().for_each(|(block, panel)| {
            for d in 0..depth {
                for first in (0..block.columns).step_by(COLUMNS) {
                    let count = COLUMNS.min(block.columns - first);
                    let column = block.first + first;
                    let taps = match direction {
                        Direction::Forward => taps(count, |j, k| weight[((column + j) * inner + d) * 9 + k]),
                        Direction::Data => taps(count, |j, k| weight[(d * inner + column + j) * 9 + 8 - k]),
                    };
                    transform_kernel(transforms.kernel, &taps, |position, values| {
                        let to = (position * depth + d) * block.width + first;
                        panel[to..to + count].copy_from_slice(&values[..count]);
                    });
                }
            }
        });
        let panels = products.pack(values, &mut blocks, positions * depth);
        Self { transforms, panels, blocks }
    }
}

/// `G g G'` for a row of columns; `emit(position, values)`.
#[inline(always)]
fn transform_kernel<T: Element>(
    matrix: &[[f64; 3]],
    taps: &[[T; COLUMNS]; 9],
    mut emit: impl FnMut(usize, &[T; COLUMNS]),
) {
    let combine = |factors: &[f64; 3], parts: [&[T; COLUMNS]; 3]| -> [T; COLUMNS] {
        let [a, b, c] = factors.map(T::from_f64);
        std::array::from_fn(|j| parts[0][j] * a + parts[1][j] * b + parts[2][j] * c)
    };
    for (y, row) in matrix.iter().enumerate() {
        let rows: [[T; COLUMNS]; 3] =
            std::array::from_fn(|x| combine(row, [&taps[x], &taps[3 + x], &taps[6 + x]]));
        for (x, column) in matrix.iter().enumerate() {
            emit(y * matrix.len() + x, &combine(column, [&rows[0], &rows[1], &rows[2]]));
        }
    }
}

/// The kernel positions of `count` columns, zero beyond.
#[inline(always)]
fn taps<T: Element>(count: usize, weight: impl Fn(usize, usize) -> T) -> [[T; COLUMNS]; 9] {
    std::array::from_fn(|k| std::array::from_fn(|j| if j < count { weight(j, k) } else { T::ZERO }))
}

/// `G' S G`: sums `[position][in][out]` to `[out, in, 3, 3]`.
pub(crate) fn back<T: Element>(
    transforms: &Transforms<T>,
    sums: &[T],
    in_channels: usize,
    out_channels: usize,
) -> Vec<T> {
    let matrix = transforms.kernel;
    let size = matrix.len();
    let mut result = vec![T::ZERO; out_channels * in_channels * 9];
    result.par_chunks_mut(in_channels * 9 * COLUMNS).enumerate().for_each(|(part, out)| {
        let first = part * COLUMNS;
        let count = COLUMNS.min(out_channels - first);
        for i in 0..in_channels {
            let mut rows = [[[T::ZERO; COLUMNS]; 6]; 3];
            for (y, factors) in matrix.iter().enumerate() {
                for x in 0..size {
                    let from = ((y * size + x) * in_channels + i) * out_channels + first;
                    for (rows, &factor) in rows.iter_mut().zip(factors) {
                        add(&mut rows[x], &sums[from..from + count], T::from_f64(factor));
                    }
                }
            }
            let mut taps = [[T::ZERO; COLUMNS]; 9];
            for (k, rows) in rows.iter().enumerate() {
                for (row, factors) in rows.iter().zip(matrix) {
                    for (tap, &factor) in taps[k * 3..].iter_mut().zip(factors) {
                        add(tap, row, T::from_f64(factor));
                    }
                }
            }
            for j in 0..count {
                for (k, tap) in taps.iter().enumerate() {
                    out[(j * in_channels + i) * 9 + k] = tap[j];
                }
            }
        }
    });
    result
}

/// `sums += values · factor`
#[inline(always)]
fn add<T: Element>(sums: &mut [T; COLUMNS], values: &[T], factor: T) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += value * factor;
    }
}
