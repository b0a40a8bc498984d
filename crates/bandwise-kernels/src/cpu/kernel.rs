//! What a matrix kernel does, independent of the instruction set: the tables that [`super::detect`] chooses from.

use rayon::prelude::*;

use super::dense::Dense;
use super::depthwise::PixelKernels;
use super::signs::SignKernels;
use super::winograd_tile::Transforms;
use crate::element::Element;

/// One tile of an indirect matrix product: `out[r][j] = Σ_tap Σ_d inputs[tap][r][d] · panel[tap][d][j]`,
/// then the epilogue.
pub(crate) struct DotTile<T> {
    /// Rows in use, at most [`Kernels::rows`].
    pub rows: usize,
    /// Columns to store, at most `width`.
    pub columns: usize,
    /// Columns of the packed panel.
    pub width: usize,
    pub taps: usize,
    pub depth: usize,
    /// `[taps][row_stride]` pointers to `depth` contiguous values each.
    pub inputs: *const *const T,
    pub row_stride: usize,
    /// `[taps][depth][width]`, zero beyond the last column.
    pub panel: *const T,
    /// One per row.
    pub outputs: *const *mut T,
    /// `width` values, or null.
    pub bias: *const T,
    /// One pointer per row, or null.
    pub residuals: *const *const T,
    pub relu: bool,
    /// One pointer per row, or null: where a gate is not positive, 0 is stored.
    pub gates: *const *const T,
}

impl<T: Element> DotTile<T> {
    /// The epilogue and the store of one sum.
    ///
    /// # Safety
    /// `r` is a row and `j` a column of the tile, whose pointers are valid.
    #[inline(always)]
    pub(crate) unsafe fn finish(&self, r: usize, j: usize, sum: T) {
        let mut value = sum;
        // SAFETY: bias, residuals, gates and outputs hold the tile's columns (caller's promise).
        unsafe {
            if !self.bias.is_null() {
                value += *self.bias.add(j);
            }
            if !self.residuals.is_null() {
                value += *(*self.residuals.add(r)).add(j);
            }
            if self.relu && value <= T::ZERO {
                value = T::ZERO;
            }
            // a gate that is NaN is closed, too
            let open = self.gates.is_null() || *(*self.gates.add(r)).add(j) > T::ZERO;
            *(*self.outputs.add(r)).add(j) = if open { value } else { T::ZERO };
        }
    }
}

/// One tile of a weight gradient: `out[r][j] += Σ_p lefts[p][r] · rights[p · right_stride + j]`.
pub(crate) struct OuterTile<T> {
    /// Rows in use, at most [`Kernels::rows`].
    pub rows: usize,
    /// Columns in use, at most [`Kernels::columns`].
    pub columns: usize,
    pub count: usize,
    /// `count` pointers, each to `left_offset + rows` readable values.
    pub lefts: *const *const T,
    pub left_offset: usize,
    pub rights: *const T,
    pub right_stride: usize,
    pub out: *mut T,
    pub out_stride: usize,
}

/// The matrix kernels of one instruction set.
pub(crate) struct Kernels<T> {
    pub name: &'static str,
    /// Most rows of a tile.
    pub rows: usize,
    /// Columns of a full panel.
    pub columns: usize,
    /// Columns of a narrow panel, used where at most that many are left.
    pub narrow: usize,
    /// # Safety
    /// All pointers of the tile are valid for the sizes it states, and the machine has the instruction set.
    pub dot: unsafe fn(&DotTile<T>),
    /// The same for at most [`THIN`] columns and a depth that is a multiple of [`THIN_DEPTH`], where a register
    /// holds values along the depth; its panels are `[taps][columns][depth]`.
    /// # Safety
    /// As for `dot`.
    pub thin: Option<unsafe fn(&DotTile<T>)>,
    /// # Safety
    /// As for `dot`.
    pub outer: unsafe fn(&OuterTile<T>),
    /// Whole pixels, for depthwise convolution.
    pub pixels: PixelKernels<T>,
    pub signs: SignKernels<T>,
    /// Winograd's transforms with 2 and with 4 outputs, where there are any.
    pub transforms: [Option<Transforms<T>>; 2],
    /// Products of bf16, where there are any.
    pub halves: Option<Halves<T>>,
}

/// Matrix kernels on pairs of bf16: each element of inputs, panels, lefts and rights holds two neighbours along the
/// sum, so that depth and count are half those of f32.
pub(crate) struct Halves<T> {
    pub name: &'static str,
    /// # Safety
    /// As for [`Kernels::dot`].
    pub dot: unsafe fn(&DotTile<T>),
    /// # Safety
    /// As for [`Kernels::dot`].
    pub outer: unsafe fn(&OuterTile<T>),
    /// # Safety
    /// As for [`Transforms::product`].
    pub product: unsafe fn(&Dense<T>),
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
    pub pair_columns: unsafe fn(*const T, *mut T, usize),
    /// `to[k] = (first[k], second[k])` for `count` values, a multiple of [`PAIRED_ROWS`].
    /// # Safety
    /// See `pair_columns`.
    pub pair_rows: unsafe fn(*const T, *const T, *mut T, usize),
}

/// See [`Kernels::thin`].
pub(crate) const THIN: usize = 4;
/// See [`Kernels::thin`].
pub(crate) const THIN_DEPTH: usize = 16;
/// See [`Halves::pair_columns`].
pub(crate) const PAIRED_COLUMNS: usize = 32;
/// See [`Halves::pair_rows`].
pub(crate) const PAIRED_ROWS: usize = 16;

impl<T: Element> Halves<T> {
    /// Pairs of neighbours of a whole slice, in parallel.
    pub(crate) fn pairs(&self, from: &[T]) -> Vec<T> {
        const PIECE: usize = 1 << 15;
        let mut pairs = vec![T::ZERO; from.len() / 2];
        pairs.par_chunks_mut(PIECE / 2).zip(from.par_chunks(PIECE)).for_each(|(to, from)| {
            // SAFETY: `to` has half the length of `from`; the table comes from feature detection.
            unsafe { (self.pair_columns)(from.as_ptr(), to.as_mut_ptr(), from.len()) };
        });
        pairs
    }

    /// Pairs of neighbours in one thread.
    pub(crate) fn pair_into(&self, from: &[T], to: &mut Vec<T>) {
        assert!(from.len().is_multiple_of(PAIRED_COLUMNS));
        to.resize(from.len() / 2, T::ZERO);
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
    pub(crate) fn pair_all_rows(&self, from: &[T], width: usize, zeros: &[T], to: &mut [T]) {
        assert!(width.is_multiple_of(PAIRED_ROWS));
        for (rows, to) in from.chunks(2 * width).zip(to.chunks_exact_mut(width)) {
            let (first, second) = rows.split_at(width);
            let second = if second.is_empty() { &zeros[..width] } else { second };
            // SAFETY: all three have at least `width` elements; the table comes from feature detection.
            unsafe { (self.pair_rows)(first.as_ptr(), second.as_ptr(), to.as_mut_ptr(), width) };
        }
    }
}
