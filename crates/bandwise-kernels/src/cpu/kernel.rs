//! What a matrix kernel does, independent of the instruction set: the tables that [`super::detect`] chooses from.

use super::winograd_tile::Transforms;

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
    /// # Safety
    /// As for `dot`.
    pub outer: unsafe fn(&OuterTile<T>),
    /// Winograd's transforms with 2 and with 4 outputs, where there are any.
    pub transforms: [Option<Transforms<T>>; 2],
}
