//! Weights in the order in which the matrix kernels read them.

use rayon::prelude::*;

use super::bf16::{Bf16Kernels, Bf16Pair, paired};
use super::gather_plan::{Direction, GatherPlan};
use super::kernel::{DotTile, Kernels, NARROW_COLUMNS, NARROW_DEPTH};
use crate::element::Element;
use crate::geometry::Geometry;

/// Packed weights of one plan: per group and block of columns a panel `[taps][depth][width]`, zero beyond the
/// last column.
pub(crate) struct Packed<T: 'static> {
    pub panels: Panels<T>,
    pub blocks: Vec<Block>,
}

/// The panels, and the kernel that reads them unless it is [`Kernels::dot`].
pub(crate) enum Panels<T: 'static> {
    Plain(Vec<T>),
    /// One panel of few columns, see [`Kernels::narrow_dot`].
    Narrow(Vec<T>, unsafe fn(&DotTile<T>)),
    /// Pairs along the depth.
    Bf16(Vec<Bf16Pair>, &'static Bf16Kernels<T>),
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

/// Packs `weight` `[out, in / groups, kh, kw]` for one plan; as pairs, if there are kernels for them and the depth is even enough.
pub(crate) fn pack<T: Element>(
    kernels: &Kernels<T>,
    bf16: Option<&'static Bf16Kernels<T>>,
    weight: &[T],
    geometry: &Geometry,
    plan: &GatherPlan,
    direction: Direction,
) -> Packed<T> {
    let groups = geometry.config.groups;
    let inner = geometry.in_channels / groups;
    let outer = geometry.out_channels / groups;
    let (columns, depth) = match direction {
        Direction::Forward => (outer, inner),
        Direction::Data => (inner, outer),
    };
    let taps = plan.taps.len();
    if let Some(dot) = kernels.narrow_dot
        && groups == 1
        && columns <= NARROW_COLUMNS
        && depth.is_multiple_of(NARROW_DEPTH)
    {
        let values = narrow_panel(weight, geometry, plan, direction, [columns, depth]);
        let blocks = vec![Block { group: 0, first: 0, columns, width: columns, offset: 0 }];
        return Packed { panels: Panels::Narrow(values, dot), blocks };
    }
    let mut blocks = blocks(kernels, groups, columns, taps * depth);
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
                for (t, tap) in plan.taps.iter().enumerate() {
                    panel[(t * depth + d) * block.width + j] = source[tap.kernel];
                }
            }
        }
    });
    let panels = match bf16.filter(|_| paired(depth)) {
        Some(bf16) => Panels::Bf16(pair_panels(bf16, &values, &mut blocks, taps * depth), bf16),
        None => Panels::Plain(values),
    };
    Packed { panels, blocks }
}

/// The panel for [`Kernels::narrow_dot`].
fn narrow_panel<T: Element>(
    weight: &[T],
    geometry: &Geometry,
    plan: &GatherPlan,
    direction: Direction,
    [columns, depth]: [usize; 2],
) -> Vec<T> {
    let mut values = Vec::with_capacity(plan.taps.len() * columns * depth);
    for tap in &plan.taps {
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
    values
}

/// Panels of `height` rows each as panels of half the height, whose elements are pairs.
pub(crate) fn pair_panels<T: Element>(
    bf16: &Bf16Kernels<T>,
    values: &[T],
    blocks: &mut [Block],
    height: usize,
) -> Vec<Bf16Pair> {
    let mut pairs = vec![Bf16Pair::ZERO; values.len() / 2];
    let mut parts = Vec::with_capacity(blocks.len());
    let mut rest = pairs.as_mut_slice();
    for block in blocks.iter_mut() {
        let (part, tail) = rest.split_at_mut(height * block.width / 2);
        parts.push((&values[block.offset..][..height * block.width], part, block.width));
        rest = tail;
        block.offset /= 2;
    }
    parts.into_par_iter().for_each(|(from, to, width)| bf16.pair_all_rows(from, width, &[], to));
    pairs
}

/// The panels of `groups` times `columns` columns, for products of `height` rows.
pub(crate) fn blocks<T>(kernels: &Kernels<T>, groups: usize, columns: usize, height: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut offset = 0;
    for group in 0..groups {
        let mut first = 0;
        while first < columns {
            let left = columns - first;
            let width = if left <= kernels.half_columns { kernels.half_columns } else { kernels.columns };
            let taken = left.min(width);
            blocks.push(Block { group, first: group * columns + first, columns: taken, width, offset });
            offset += height * width;
            first += taken;
        }
    }
    blocks
}
