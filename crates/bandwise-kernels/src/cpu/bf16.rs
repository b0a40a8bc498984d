//! Pairs of bf16, the factors of [`Precision::Bf16`](crate::Precision) and of the matrix units: two neighbors along the
//! sum in one 32-bit element, so that depth and count are half those of f32.

use rayon::prelude::*;

use super::dense::Dense;
use super::kernel::{DotTile, OuterTile};
use crate::element::Element;

/// Two neighbors along a sum, each rounded to bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Bf16Pair(pub(super) u32);

impl Bf16Pair {
    pub(crate) const ZERO: Self = Self(0);
}

/// Matrix kernels on pairs.
pub(crate) struct Bf16Kernels<T> {
    pub name: &'static str,
    /// # Safety
    /// As for [`Kernels::dot`](super::kernel::Kernels).
    pub dot: unsafe fn(&DotTile<T, Bf16Pair>),
    /// # Safety
    /// As for [`Kernels::dot`](super::kernel::Kernels).
    pub outer: unsafe fn(&OuterTile<T, Bf16Pair>),
    /// # Safety
    /// As for [`Transforms::product`](super::winograd_tile::Transforms).
    pub product: unsafe fn(&Dense<T, Bf16Pair>),
    /// Whether `product` runs on a matrix unit, so that three products cost less than one of f32. Its depth is then a
    /// multiple of 16 pairs.
    pub matrix_unit: bool,
    /// `to[k] = from[k]` less its rounding to bf16, for `count` values, a multiple of [`PAIRED_ROWS`].
    /// # Safety
    /// See `pair_columns`.
    pub low: unsafe fn(*const T, *mut T, usize),
    /// `to[k] = (from[2k], from[2k + 1])` for `count` values, a multiple of [`PAIRED_COLUMNS`].
    /// # Safety
    /// Both hold what is read and written, and the machine has the instruction set.
    pub pair_columns: unsafe fn(*const T, *mut Bf16Pair, usize),
    /// `to[k] = (first[k], second[k])` for `count` values, a multiple of [`PAIRED_ROWS`].
    /// # Safety
    /// See `pair_columns`.
    pub pair_rows: unsafe fn(*const T, *const T, *mut Bf16Pair, usize),
}

/// See [`Bf16Kernels::pair_columns`].
pub(crate) const PAIRED_COLUMNS: usize = 32;
/// See [`Bf16Kernels::pair_rows`].
pub(crate) const PAIRED_ROWS: usize = 16;

/// Whether that many neighbors can be read as pairs.
pub(crate) fn paired(count: usize) -> bool {
    count.is_multiple_of(PAIRED_COLUMNS)
}

impl<T: Element> Bf16Kernels<T> {
    /// Pairs of neighbors of a whole slice, in parallel.
    pub(crate) fn pairs(&self, from: &[T]) -> Vec<Bf16Pair> {
        const PIECE: usize = 1 << 15;
        let mut pairs = vec![Bf16Pair::ZERO; from.len() / 2];
        pairs.par_chunks_mut(PIECE / 2).zip(from.par_chunks(PIECE)).for_each(|(to, from)| {
            // SAFETY: `to` has half the length of `from`; the table comes from feature detection.
            unsafe { (self.pair_columns)(from.as_ptr(), to.as_mut_ptr(), from.len()) };
        });
        pairs
    }

    /// Pairs of neighbors in one thread.
    pub(crate) fn pair_into(&self, from: &[T], to: &mut Vec<Bf16Pair>) {
        assert!(from.len().is_multiple_of(PAIRED_COLUMNS));
        to.resize(from.len() / 2, Bf16Pair::ZERO);
        // SAFETY: `to` has half the length of `from`; the table comes from feature detection.
        unsafe { (self.pair_columns)(from.as_ptr(), to.as_mut_ptr(), from.len()) };
    }

    /// What rounding to bf16 takes away.
    pub(crate) fn low_into(&self, from: &[T], to: &mut Vec<T>) {
        assert!(from.len().is_multiple_of(PAIRED_ROWS));
        to.resize(from.len(), T::ZERO);
        // SAFETY: both have the same length; the table comes from feature detection.
        unsafe { (self.low)(from.as_ptr(), to.as_mut_ptr(), from.len()) };
    }

    /// The same as a new vector.
    pub(crate) fn low_parts(&self, from: &[T]) -> Vec<T> {
        let mut low = Vec::new();
        self.low_into(from, &mut low);
        low
    }

    /// Rows `2k` and `2k + 1` of `from` as one row of pairs in `to`; an odd last row is paired with zeros.
    pub(crate) fn pair_all_rows(&self, from: &[T], width: usize, zeros: &[T], to: &mut [Bf16Pair]) {
        assert!(width.is_multiple_of(PAIRED_ROWS));
        for (rows, to) in from.chunks(2 * width).zip(to.chunks_exact_mut(width)) {
            let (first, second) = rows.split_at(width);
            let second = if second.is_empty() { &zeros[..width] } else { second };
            // SAFETY: all three have at least `width` elements; the table comes from feature detection.
            unsafe { (self.pair_rows)(first.as_ptr(), second.as_ptr(), to.as_mut_ptr(), width) };
        }
    }
}
