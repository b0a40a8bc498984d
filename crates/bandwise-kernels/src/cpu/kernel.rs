//! What a matrix kernel does, independent of the instruction set: the tables that [`super::detect`] chooses from.

use super::bf16::Bf16Kernels;
use super::depthwise::PixelKernels;
use super::signs::SignKernels;
use super::winograd_tile::Transforms;
use crate::element::Element;

/// One tile of an indirect matrix product: `out[r][j] = Σ_tap Σ_d inputs[tap][r][d] · panel[tap][d][j]`,
/// then the epilogue. Factors may be of another type than sums.
pub(crate) struct DotTile<T, F = T> {
    /// Rows in use, at most [`Kernels::rows`].
    pub rows: usize,
    /// Columns to store, at most `width`.
    pub columns: usize,
    /// Columns of the packed panel.
    pub width: usize,
    pub taps: usize,
    pub depth: usize,
    /// `[taps][row_stride]` pointers to `depth` contiguous values each.
    pub inputs: *const *const F,
    pub row_stride: usize,
    /// `[taps][depth][width]`, zero beyond the last column.
    pub panel: *const F,
    /// One per row.
    pub outputs: *const *mut T,
    /// `width` values, or null.
    pub bias: *const T,
    /// One pointer per row, or null.
    pub residuals: *const *const T,
    pub relu: bool,
    /// One pointer per row, or null: where the mask is not positive, 0 is stored.
    pub relu_masks: *const *const T,
}

impl<T: Element, F> DotTile<T, F> {
    /// The epilogue and the store of one sum.
    ///
    /// # Safety
    /// `r` is a row and `j` a column of the tile, whose pointers are valid.
    #[inline(always)]
    pub(crate) unsafe fn finish(&self, r: usize, j: usize, sum: T) {
        let mut value = sum;
        // SAFETY: bias, residuals, masks and outputs hold the tile's columns (caller's promise).
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
            // NaN is not positive, either
            let passes = self.relu_masks.is_null() || *(*self.relu_masks.add(r)).add(j) > T::ZERO;
            *(*self.outputs.add(r)).add(j) = if passes { value } else { T::ZERO };
        }
    }
}

/// One tile of a weight gradient: `out[r][j] += Σ_p lefts[p][r] · rights[p · right_stride + j]`.
pub(crate) struct OuterTile<T, F = T> {
    /// Rows in use, at most [`Kernels::rows`].
    pub rows: usize,
    /// Columns in use, at most [`Kernels::columns`].
    pub columns: usize,
    pub count: usize,
    /// `count` pointers, each to `left_offset + rows` readable values.
    pub lefts: *const *const F,
    pub left_offset: usize,
    pub rights: *const F,
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
    /// Columns of half a panel, used where at most that many are left.
    pub half_columns: usize,
    /// # Safety
    /// All pointers of the tile are valid for the sizes it states, and the machine has the instruction set.
    pub dot: unsafe fn(&DotTile<T>),
    /// The same for at most [`NARROW_COLUMNS`] columns and a depth that is a multiple of [`NARROW_DEPTH`], where a
    /// register holds values along the depth; its panels are `[taps][columns][depth]`.
    /// # Safety
    /// As for `dot`.
    pub narrow_dot: Option<unsafe fn(&DotTile<T>)>,
    /// # Safety
    /// As for `dot`.
    pub outer: unsafe fn(&OuterTile<T>),
    /// Whole pixels, for depthwise convolution.
    pub pixels: PixelKernels<T>,
    pub signs: SignKernels<T>,
    /// Winograd's filtering F(2 × 2, 3 × 3), where there is any.
    pub f2x3: Option<Transforms<T>>,
    /// Winograd's filtering F(4 × 4, 3 × 3), where there is any.
    pub f4x3: Option<Transforms<T>>,
    /// Products of bf16, where there are any.
    pub bf16: Option<Bf16Kernels<T>>,
}

/// See [`Kernels::narrow_dot`].
pub(crate) const NARROW_COLUMNS: usize = 4;
/// See [`Kernels::narrow_dot`].
pub(crate) const NARROW_DEPTH: usize = 16;
