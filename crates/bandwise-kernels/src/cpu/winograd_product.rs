//! The products at the positions of Winograd's transform, in the arithmetic that the precision asks for.

use super::dense::Dense;
use super::geometry::Geometry;
use super::kernel::{Halves, Kernels, OuterTile};
use super::pack::{Block, can_halve, halve_panels, halves};
use super::winograd_kernel::Spectrum;
use super::winograd_tile::Transforms;
use crate::conv::Precision;
use crate::element::Element;

/// Pairs that the depth of a matrix unit's product is a multiple of.
const UNIT_DEPTH: usize = 16;
/// Rows of a matrix unit's tiles.
const UNIT_ROWS: usize = 16;

/// How factors are multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Products<'a, T> {
    /// As they are.
    Plain,
    /// Rounded to bf16.
    Halves(&'a Halves<T>),
    /// Split into two bf16 each: `high · high + high · low + low · high`, on a matrix unit.
    Split(&'a Halves<T>),
}

impl<'a, T: Element> Products<'a, T> {
    pub(crate) fn of(kernels: &'a Kernels<T>, geometry: &Geometry) -> Self {
        match (split(kernels, geometry), halves(kernels, geometry)) {
            (Some(halves), _) => Self::Split(halves),
            (_, Some(halves)) => Self::Halves(halves),
            _ => Self::Plain,
        }
    }

    /// Rows that fill the products' blocks.
    pub(crate) fn rows(&self, kernels: &Kernels<T>) -> usize {
        match self {
            Self::Halves(halves) | Self::Split(halves) if halves.matrix_unit => UNIT_ROWS,
            _ => kernels.rows,
        }
    }

    /// The panels that the products read, and those of the low parts.
    pub(crate) fn panels(&self, values: Vec<T>, blocks: &mut [Block], height: usize) -> [Vec<T>; 2] {
        match self {
            Self::Plain => [values, vec![]],
            Self::Halves(halves) => [halve_panels(halves, &values, blocks, height), vec![]],
            Self::Split(halves) => {
                let low = halves.low_parts(&values);
                let low = halve_panels(halves, &low, &mut blocks.to_vec(), height);
                [halve_panels(halves, &values, blocks, height), low]
            }
        }
    }
}

/// The kernels of a matrix unit, where the convolution is to split its factors.
pub(crate) fn split<'a, T>(kernels: &'a Kernels<T>, geometry: &Geometry) -> Option<&'a Halves<T>> {
    kernels.halves.as_ref().filter(|halves| {
        halves.matrix_unit
            && geometry.config.precision == Precision::F32x3
            && can_halve(geometry.in_channels)
            && can_halve(geometry.out_channels)
    })
}

/// Buffers that products of one thread share.
#[derive(Default)]
pub(crate) struct Scratch<T> {
    lefts: Vec<T>,
    rights: Vec<T>,
    low_lefts: Vec<T>,
    low_rights: Vec<T>,
    turned: Vec<T>,
}

/// The forward pass' product at one position: rows of `in_channels` times a panel.
pub(crate) struct Forward<'a, T> {
    pub products: Products<'a, T>,
    pub transforms: &'a Transforms<T>,
    pub spectrum: &'a Spectrum<T>,
    pub in_channels: usize,
    pub out_channels: usize,
}

impl<T: Element> Forward<'_, T> {
    /// `sums[t] = spread[t] · panel`, all rows dense.
    pub(crate) fn multiply(&self, position: usize, spread: &[T], sums: &mut [T], scratch: &mut Scratch<T>) {
        let values = &self.spectrum.values;
        match self.products {
            Products::Plain => {
                self.run(self.transforms.product, position, self.in_channels, [spread, values], false, sums);
            }
            Products::Halves(halves) => {
                halves.pair_into(spread, &mut scratch.lefts);
                let factors = [scratch.lefts.as_slice(), values];
                self.run(halves.product, position, self.in_channels / 2, factors, false, sums);
            }
            Products::Split(halves) => {
                halves.pair_into(spread, &mut scratch.lefts);
                halves.low_into(spread, &mut scratch.rights);
                halves.pair_into(&scratch.rights, &mut scratch.low_lefts);
                let (high, low) = (scratch.lefts.as_slice(), scratch.low_lefts.as_slice());
                let terms = [[high, values], [high, &self.spectrum.lows], [low, values]];
                for (index, factors) in terms.into_iter().enumerate() {
                    self.run(halves.product, position, self.in_channels / 2, factors, index > 0, sums);
                }
            }
        }
    }

    fn run(
        &self,
        product: unsafe fn(&Dense<T>),
        position: usize,
        depth: usize,
        [left, panels]: [&[T]; 2],
        accumulate: bool,
        sums: &mut [T],
    ) {
        let rows = left.len() / depth;
        assert!(sums.len() == rows * self.out_channels);
        for block in &self.spectrum.blocks {
            let panel = &panels[block.offset + position * depth * block.width..][..depth * block.width];
            let dense = Dense {
                rows,
                depth,
                columns: block.columns,
                left: left.as_ptr(),
                left_stride: depth,
                panel: panel.as_ptr(),
                width: block.width,
                out: sums[block.first..].as_mut_ptr(),
                out_stride: self.out_channels,
                accumulate,
            };
            // SAFETY: `left` has `rows` rows of `depth`, `sums` as many of `out_channels`, and the block's columns
            // are whole registers of them; the table comes from feature detection.
            unsafe { product(&dense) };
        }
    }
}

/// The weight gradient's product at one position: a sum of outer products.
pub(crate) struct Outer<'a, T> {
    pub kernels: &'a Kernels<T>,
    pub products: Products<'a, T>,
    pub in_channels: usize,
    pub out_channels: usize,
}

impl<T: Element> Outer<'_, T> {
    /// `sums[i][o] += Σ_t lefts[t][i] · rights[t][o]`
    pub(crate) fn add(&self, lefts: &[T], rights: &[T], sums: &mut [T], scratch: &mut Scratch<T>) {
        match self.products {
            Products::Plain => self.add_rows(self.kernels.outer, lefts, rights, sums),
            Products::Halves(halves) => {
                self.pair(halves, lefts, rights, scratch, false);
                if halves.matrix_unit {
                    self.add_dense(halves, [&scratch.lefts, &scratch.rights], &mut scratch.turned, sums);
                } else {
                    self.add_rows(halves.outer, &scratch.lefts, &scratch.rights, sums);
                }
            }
            Products::Split(halves) => {
                self.pair(halves, lefts, rights, scratch, true);
                let Scratch { lefts, rights, low_lefts, low_rights, turned } = scratch;
                for factors in [[&*lefts, &*rights], [lefts, low_rights], [low_lefts, rights]] {
                    self.add_dense(halves, factors, turned, sums);
                }
            }
        }
    }

    /// Neighbouring rows as pairs, zeros up to a multiple of [`UNIT_DEPTH`]; of the low parts, too, if asked.
    fn pair(&self, halves: &Halves<T>, lefts: &[T], rights: &[T], scratch: &mut Scratch<T>, low: bool) {
        let Self { in_channels, out_channels, .. } = *self;
        let zeros = vec![T::ZERO; in_channels.max(out_channels)];
        let pairs = (lefts.len() / in_channels).div_ceil(2);
        let pairs = if halves.matrix_unit { pairs.next_multiple_of(UNIT_DEPTH) } else { pairs };
        let pair = |from: &[T], channels: usize, to: &mut Vec<T>| {
            to.clear();
            to.resize(pairs * channels, T::ZERO);
            halves.pair_all_rows(from, channels, &zeros, to);
        };
        pair(lefts, in_channels, &mut scratch.lefts);
        pair(rights, out_channels, &mut scratch.rights);
        if low {
            halves.low_into(lefts, &mut scratch.turned);
            pair(&scratch.turned, in_channels, &mut scratch.low_lefts);
            halves.low_into(rights, &mut scratch.turned);
            pair(&scratch.turned, out_channels, &mut scratch.low_rights);
        }
    }

    /// On a matrix unit: the rows of pairs of `lefts` become columns.
    fn add_dense(
        &self,
        halves: &Halves<T>,
        [lefts, rights]: [&Vec<T>; 2],
        turned: &mut Vec<T>,
        sums: &mut [T],
    ) {
        let Self { in_channels, out_channels, .. } = *self;
        let pairs = lefts.len() / in_channels;
        turned.resize(lefts.len(), T::ZERO);
        for (i, row) in turned.chunks_exact_mut(pairs).enumerate() {
            for (value, pair) in row.iter_mut().zip(lefts.chunks_exact(in_channels)) {
                *value = pair[i];
            }
        }
        assert!(rights.len() == pairs * out_channels && sums.len() == in_channels * out_channels);
        let dense = Dense {
            rows: in_channels,
            depth: pairs,
            columns: out_channels,
            left: turned.as_ptr(),
            left_stride: pairs,
            panel: rights.as_ptr(),
            width: out_channels,
            out: sums.as_mut_ptr(),
            out_stride: out_channels,
            accumulate: true,
        };
        // SAFETY: the slices have these sizes, and the channels are whole registers; the table comes from feature
        // detection.
        unsafe { (halves.product)(&dense) };
    }

    fn add_rows(&self, outer: unsafe fn(&OuterTile<T>), lefts: &[T], rights: &[T], sums: &mut [T]) {
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
