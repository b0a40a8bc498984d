//! Weights in the order in which the matrix kernels read them.

use rayon::prelude::*;

use super::geometry::{Geometry, Walk};
use super::kernel::{Halves, Kernels, PAIRED_COLUMNS, THIN, THIN_DEPTH};
use crate::conv::Precision;
use crate::element::Element;

/// Packed weights of one walk: per group and block of columns a panel `[taps][depth][width]`, zero beyond the
/// last column.
pub(crate) struct Packed<T> {
    pub values: Vec<T>,
    pub blocks: Vec<Block>,
    /// Elements per tap: channels, or pairs of channels.
    pub depth: usize,
    /// Whether elements are pairs of bf16.
    pub halved: bool,
    /// Whether the panel is one for [`Kernels::thin`].
    pub thin: bool,
}

/// One panel: columns `first .. first + columns` of the output of one group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub group: usize,
    /// First output channel, counted over all groups.
    pub first: usize,
    pub columns: usize,
    pub width: usize,
    pub offset: usize,
}

/// Which side of the weight is summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Columns are output channels, the sum runs over input channels.
    Forward,
    /// Columns are input channels, the sum runs over output channels.
    Data,
}

/// Packs `weight` `[out, in / groups, kh, kw]` for one walk.
pub(crate) fn pack<T: Element>(
    kernels: &Kernels<T>,
    weight: &[T],
    geometry: &Geometry,
    walk: &Walk,
    direction: Direction,
) -> Packed<T> {
    let groups = geometry.config.groups;
    let inner = geometry.in_channels / groups;
    let outer = geometry.out_channels / groups;
    let (columns, depth) = match direction {
        Direction::Forward => (outer, inner),
        Direction::Data => (inner, outer),
    };
    let taps = walk.taps.len();
    if kernels.thin.is_some() && groups == 1 && columns <= THIN && depth.is_multiple_of(THIN_DEPTH) {
        return pack_thin(weight, geometry, walk, direction, [columns, depth]);
    }
    let blocks = blocks(kernels, groups, columns, taps * depth);
    let size = blocks.last().map_or(0, |b| b.offset + taps * depth * b.width);
    let mut values = vec![T::ZERO; size];
    let kernel_size = geometry.taps();
    let mut parts = Vec::with_capacity(blocks.len());
    let mut rest = values.as_mut_slice();
    for block in &blocks {
        let (part, tail) = rest.split_at_mut(taps * depth * block.width);
        parts.push((block, part));
        rest = tail;
    }
    parts.into_par_iter().for_each(|(block, panel)| {
        let local = block.first - block.group * columns;
        for j in 0..block.columns {
            for d in 0..depth {
                let (o, i) = match direction {
                    Direction::Forward => (block.first + j, d),
                    Direction::Data => (block.group * outer + d, local + j),
                };
                let source = &weight[(o * inner + i) * kernel_size..][..kernel_size];
                for (t, tap) in walk.taps.iter().enumerate() {
                    panel[(t * depth + d) * block.width + j] = source[tap.kernel];
                }
            }
        }
    });
    let packed = Packed { values, blocks, depth, halved: false, thin: false };
    match &kernels.halves {
        Some(halves) if geometry.config.precision == Precision::Bf16 && groups == 1 && can_halve(depth) => {
            packed.halve(halves, taps)
        }
        _ => packed,
    }
}

/// Packs `weight` for [`Kernels::thin`].
fn pack_thin<T: Element>(
    weight: &[T],
    geometry: &Geometry,
    walk: &Walk,
    direction: Direction,
    [columns, depth]: [usize; 2],
) -> Packed<T> {
    let mut values = Vec::with_capacity(walk.taps.len() * columns * depth);
    for tap in &walk.taps {
        for j in 0..columns {
            values.extend((0..depth).map(|d| {
                let (o, i) = match direction {
                    Direction::Forward => (j, d),
                    Direction::Data => (d, j),
                };
                weight[(o * geometry.in_channels + i) * geometry.taps() + tap.kernel]
            }));
        }
    }
    let blocks = vec![Block { group: 0, first: 0, columns, width: columns, offset: 0 }];
    Packed { values, blocks, depth, halved: false, thin: true }
}

/// The bf16 kernels, where the convolution is to use them.
pub(crate) fn halves<'a, T>(kernels: &'a Kernels<T>, geometry: &Geometry) -> Option<&'a Halves<T>> {
    kernels.halves.as_ref().filter(|_| {
        geometry.config.precision == Precision::Bf16
            && can_halve(geometry.in_channels)
            && can_halve(geometry.out_channels)
    })
}

/// Whether that many channels can be read as pairs.
pub(crate) fn can_halve(depth: usize) -> bool {
    depth.is_multiple_of(PAIRED_COLUMNS)
}

impl<T: Element> Packed<T> {
    /// The same panels as pairs of bf16 along the depth.
    fn halve(mut self, halves: &Halves<T>, taps: usize) -> Self {
        self.values = halve_panels(halves, &self.values, &mut self.blocks, taps * self.depth);
        Self { depth: self.depth / 2, halved: true, ..self }
    }
}

/// Panels of `height` rows each as panels of half the height, whose elements are pairs.
pub(crate) fn halve_panels<T: Element>(
    halves: &Halves<T>,
    values: &[T],
    blocks: &mut [Block],
    height: usize,
) -> Vec<T> {
    let mut halved = vec![T::ZERO; values.len() / 2];
    let mut parts = Vec::with_capacity(blocks.len());
    let mut rest = halved.as_mut_slice();
    for block in blocks.iter_mut() {
        let (part, tail) = rest.split_at_mut(height * block.width / 2);
        parts.push((&values[block.offset..][..height * block.width], part, block.width));
        rest = tail;
        block.offset /= 2;
    }
    parts.into_par_iter().for_each(|(from, to, width)| halves.pair_all_rows(from, width, &[], to));
    halved
}

/// The panels of `groups` times `columns` columns, for products of `height` rows.
pub(crate) fn blocks<T>(kernels: &Kernels<T>, groups: usize, columns: usize, height: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut offset = 0;
    for group in 0..groups {
        let mut first = 0;
        while first < columns {
            let left = columns - first;
            let width = if left <= kernels.narrow { kernels.narrow } else { kernels.columns };
            let taken = left.min(width);
            blocks.push(Block { group, first: group * columns + first, columns: taken, width, offset });
            offset += height * width;
            first += taken;
        }
    }
    blocks
}
