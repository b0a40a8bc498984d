//! The products at the positions of Winograd's transform, in the arithmetic that the precision asks for.

use super::bf16::{Bf16Kernels, Bf16Pair};
use super::dense::Dense;
use super::kernel::{Kernels, OuterTile};
use super::pack::{Block, pair_panels};
use super::winograd_kernel::WinogradWeights;
use crate::element::Element;

/// Pairs that the depth of a matrix unit's product is a multiple of.
const UNIT_DEPTH: usize = 16;
/// Rows of a matrix unit's tiles.
const UNIT_ROWS: usize = 16;

/// How factors are multiplied.
pub(crate) enum Products<T: 'static> {
    /// As they are.
    Plain,
    /// Rounded to bf16.
    Bf16(&'static Bf16Kernels<T>),
    /// Split into two bf16 each: `high · high + high · low + low · high`, on a matrix unit.
    Bf16x3(&'static Bf16Kernels<T>),
}

impl<T> Clone for Products<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Products<T> {}

/// Panels of weights, and the kernels of those that are pairs.
pub(crate) enum Panels<T: 'static> {
    Plain(Vec<T>),
    Bf16(Vec<Bf16Pair>, &'static Bf16Kernels<T>),
    Bf16x3 { high: Vec<Bf16Pair>, low: Vec<Bf16Pair>, bf16: &'static Bf16Kernels<T> },
}

impl<T: Element> Products<T> {
    /// The panels that the products read.
    pub(crate) fn pack(&self, values: Vec<T>, blocks: &mut [Block], height: usize) -> Panels<T> {
        match *self {
            Self::Plain => Panels::Plain(values),
            Self::Bf16(bf16) => Panels::Bf16(pair_panels(bf16, &values, blocks, height), bf16),
            Self::Bf16x3(bf16) => {
                let low = pair_panels(bf16, &bf16.low_parts(&values), &mut blocks.to_vec(), height);
                Panels::Bf16x3 { high: pair_panels(bf16, &values, blocks, height), low, bf16 }
            }
        }
    }
}

impl<T> Panels<T> {
    /// Rows that fill the products' blocks.
    pub(crate) fn rows(&self, kernels: &Kernels<T>) -> usize {
        match self {
            Self::Bf16(_, bf16) | Self::Bf16x3 { bf16, .. } if bf16.matrix_unit => UNIT_ROWS,
            _ => kernels.rows,
        }
    }
}

/// Buffers that products of one thread share.
#[derive(Default)]
pub(crate) struct Scratch<T> {
    lefts: Vec<Bf16Pair>,
    rights: Vec<Bf16Pair>,
    low: Vec<T>,
    low_lefts: Vec<Bf16Pair>,
    low_rights: Vec<Bf16Pair>,
    turned: Vec<Bf16Pair>,
}

/// The forward pass' product at one position: rows of `in_channels` times a panel.
pub(crate) struct Forward<'a, T: 'static> {
    pub weights: &'a WinogradWeights<T>,
    pub in_channels: usize,
    pub out_channels: usize,
}

impl<T: Element> Forward<'_, T> {
    /// `sums[t] = spread[t] · panel`, all rows dense.
    pub(crate) fn multiply(&self, position: usize, spread: &[T], sums: &mut [T], scratch: &mut Scratch<T>) {
        let Self { weights, in_channels, .. } = *self;
        match &weights.panels {
            Panels::Plain(panels) => {
                let product = weights.transforms.product;
                self.run(product, position, in_channels, [spread, panels], false, sums);
            }
            Panels::Bf16(panels, bf16) => {
                bf16.pair_into(spread, &mut scratch.lefts);
                self.run(bf16.product, position, in_channels / 2, [&scratch.lefts, panels], false, sums);
            }
            Panels::Bf16x3 { high, low, bf16 } => {
                let Scratch { lefts, low: low_parts, low_lefts, .. } = scratch;
                bf16.pair_into(spread, lefts);
                bf16.low_into(spread, low_parts);
                bf16.pair_into(low_parts, low_lefts);
                for (index, factors) in
                    [[&*lefts, high], [lefts, low], [low_lefts, high]].into_iter().enumerate()
                {
                    let factors = factors.map(Vec::as_slice);
                    self.run(bf16.product, position, in_channels / 2, factors, index > 0, sums);
                }
            }
        }
    }

    fn run<F>(
        &self,
        product: unsafe fn(&Dense<T, F>),
        position: usize,
        depth: usize,
        [left, panels]: [&[F]; 2],
        accumulate: bool,
        sums: &mut [T],
    ) {
        let rows = left.len() / depth;
        assert!(sums.len() == rows * self.out_channels);
        for block in &self.weights.blocks {
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
pub(crate) struct Outer<'a, T: 'static> {
    pub kernels: &'a Kernels<T>,
    pub products: Products<T>,
    pub in_channels: usize,
    pub out_channels: usize,
}

impl<T: Element> Outer<'_, T> {
    /// `sums[i][o] += Σ_t lefts[t][i] · rights[t][o]`
    pub(crate) fn add(&self, lefts: &[T], rights: &[T], sums: &mut [T], scratch: &mut Scratch<T>) {
        match self.products {
            Products::Plain => self.add_rows(self.kernels.outer, lefts, rights, sums),
            Products::Bf16(bf16) => {
                self.pair(bf16, lefts, rights, scratch, false);
                if bf16.matrix_unit {
                    self.add_dense(bf16, [&scratch.lefts, &scratch.rights], &mut scratch.turned, sums);
                } else {
                    self.add_rows(bf16.outer, &scratch.lefts, &scratch.rights, sums);
                }
            }
            Products::Bf16x3(bf16) => {
                self.pair(bf16, lefts, rights, scratch, true);
                let Scratch { lefts, rights, low_lefts, low_rights, turned, .. } = scratch;
                for factors in [[&*lefts, &*rights], [lefts, low_rights], [low_lefts, rights]] {
                    self.add_dense(bf16, factors, turned, sums);
                }
            }
        }
    }

    /// Neighboring rows as pairs, zeros up to a multiple of [`UNIT_DEPTH`]; of the low parts, too, if asked.
    fn pair(&self, bf16: &Bf16Kernels<T>, lefts: &[T], rights: &[T], scratch: &mut Scratch<T>, low: bool) {
        let Self { in_channels, out_channels, .. } = *self;
        let zeros = vec![T::ZERO; in_channels.max(out_channels)];
        let pairs = (lefts.len() / in_channels).div_ceil(2);
        let pairs = if bf16.matrix_unit { pairs.next_multiple_of(UNIT_DEPTH) } else { pairs };
        let pair = |from: &[T], channels: usize, to: &mut Vec<Bf16Pair>| {
            to.clear();
            to.resize(pairs * channels, Bf16Pair::ZERO);
            bf16.pair_all_rows(from, channels, &zeros, to);
        };
        pair(lefts, in_channels, &mut scratch.lefts);
        pair(rights, out_channels, &mut scratch.rights);
        if low {
            bf16.low_into(lefts, &mut scratch.low);
            pair(&scratch.low, in_channels, &mut scratch.low_lefts);
            bf16.low_into(rights, &mut scratch.low);
            pair(&scratch.low, out_channels, &mut scratch.low_rights);
        }
    }

    /// On a matrix unit: the rows of pairs of `lefts` become columns.
    fn add_dense(
        &self,
        bf16: &Bf16Kernels<T>,
        [lefts, rights]: [&Vec<Bf16Pair>; 2],
        turned: &mut Vec<Bf16Pair>,
        sums: &mut [T],
    ) {
        let Self { in_channels, out_channels, .. } = *self;
        let pairs = lefts.len() / in_channels;
        turned.resize(lefts.len(), Bf16Pair::ZERO);
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
        unsafe { (bf16.product)(&dense) };
    }

    fn add_rows<F>(&self, outer: unsafe fn(&OuterTile<T, F>), lefts: &[F], rights: &[F], sums: &mut [T]) {
        let Self { kernels, in_channels, out_channels, .. } = *self;
        let rows: Vec<*const F> = lefts.chunks_exact(in_channels).map(<[F]>::as_ptr).collect();
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
