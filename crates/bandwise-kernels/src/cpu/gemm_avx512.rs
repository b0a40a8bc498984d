//! Matrix kernels for AVX-512: tiles of up to 12 rows by 32 columns, all sums in registers.

use std::arch::x86_64::*;

use super::depthwise;
use super::kernel::{DotTile, Kernels, NARROW_COLUMNS, NARROW_DEPTH, OuterTile};
use super::lanes::Lanes;
use super::{signs, winograd_tile};

const ROWS: usize = 12;
pub(super) const LANES: usize = 16;

/// The kernels; call them only where the machine has AVX-512F.
pub(crate) const KERNELS: Kernels<f32> = Kernels {
    name: "AVX-512",
    rows: ROWS,
    columns: 2 * LANES,
    half_columns: LANES,
    dot: dot_tile,
    narrow_dot: Some(narrow_tile),
    outer: outer_tile,
    pixels: depthwise::avx512::kernels(),
    signs: signs::avx512::KERNELS,
    f2x3: Some(winograd_tile::AVX512_F2X3),
    f4x3: Some(winograd_tile::AVX512_F4X3),
    bf16: None,
};

/// Calls `$function::<R, V>` for the tile's number of rows: every size has its own code, so that sums never
/// leave the registers.
macro_rules! for_rows {
    ($function:ident, $vectors:literal, $tile:expr) => {
        match $tile.rows {
            1 => $function::<1, $vectors>($tile),
            2 => $function::<2, $vectors>($tile),
            3 => $function::<3, $vectors>($tile),
            4 => $function::<4, $vectors>($tile),
            5 => $function::<5, $vectors>($tile),
            6 => $function::<6, $vectors>($tile),
            7 => $function::<7, $vectors>($tile),
            8 => $function::<8, $vectors>($tile),
            9 => $function::<9, $vectors>($tile),
            10 => $function::<10, $vectors>($tile),
            11 => $function::<11, $vectors>($tile),
            _ => $function::<12, $vectors>($tile),
        }
    };
}
pub(super) use for_rows;

#[target_feature(enable = "avx512f")]
unsafe fn dot_tile(tile: &DotTile<f32>) {
    debug_assert!(tile.rows <= ROWS && (tile.width == LANES || tile.width == 2 * LANES));
    // SAFETY: the caller's promise is passed on.
    unsafe { if tile.width == LANES { for_rows!(dot_sized, 1, tile) } else { for_rows!(dot_sized, 2, tile) } }
}

/// Which lanes of vector `v` hold columns.
#[inline(always)]
pub(super) fn lane_mask(columns: usize, v: usize) -> __mmask16 {
    let left = columns.saturating_sub(v * LANES).min(LANES);
    ((1u32 << left) - 1) as __mmask16
}

#[target_feature(enable = "avx512f")]
unsafe fn dot_sized<const R: usize, const V: usize>(tile: &DotTile<f32>) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: inputs hold `depth` values per pointer, the panel `taps * depth * width`, outputs and residuals
    // `columns` each, of which the masks select no more (caller's promise).
    unsafe {
        let mut panel = tile.panel;
        for tap in 0..tile.taps {
            let rows = tile.inputs.add(tap * tile.row_stride);
            let inputs: [*const f32; R] = std::array::from_fn(|r| *rows.add(r));
            for d in 0..tile.depth {
                let weights: [__m512; V] = std::array::from_fn(|v| _mm512_loadu_ps(panel.add(v * LANES)));
                for r in 0..R {
                    let value = _mm512_set1_ps(*inputs[r].add(d));
                    for v in 0..V {
                        sums[r][v] = _mm512_fmadd_ps(value, weights[v], sums[r][v]);
                    }
                }
                panel = panel.add(V * LANES);
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            store(tile, r, sums);
        }
    }
}

/// The epilogue of one row: bias, residual and ReLU, then the store. It takes the sums by value: a reference to
/// all of them would keep them in memory during the product, if the call were not inlined.
///
/// # Safety
/// As [`DotTile`] states.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store<const V: usize, F>(tile: &DotTile<f32, F>, r: usize, sums: [__m512; V]) {
    // SAFETY: the masks select columns that outputs, bias, residuals and ReLU masks hold.
    unsafe {
        for (v, mut value) in sums.into_iter().enumerate() {
            let mask = lane_mask(tile.columns, v);
            if !tile.bias.is_null() {
                value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, tile.bias.add(v * LANES)));
            }
            if !tile.residuals.is_null() {
                let residual = (*tile.residuals.add(r)).add(v * LANES);
                value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, residual));
            }
            if tile.relu {
                // the second operand comes back for NaN
                value = _mm512_max_ps(_mm512_setzero_ps(), value);
            }
            if !tile.relu_masks.is_null() {
                let values = _mm512_maskz_loadu_ps(mask, (*tile.relu_masks.add(r)).add(v * LANES));
                value = value.where_positive(values);
            }
            _mm512_mask_storeu_ps((*tile.outputs.add(r)).add(v * LANES), mask, value);
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn narrow_tile(tile: &DotTile<f32>) {
    debug_assert!(tile.columns <= NARROW_COLUMNS && tile.depth.is_multiple_of(NARROW_DEPTH));
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match tile.columns {
            1 => narrow_columns::<1>(tile),
            2 => narrow_columns::<2>(tile),
            3 => narrow_columns::<3>(tile),
            _ => narrow_columns::<4>(tile),
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn narrow_columns<const J: usize>(tile: &DotTile<f32>) {
    let mut row = 0;
    // SAFETY: the caller's promise is passed on for rows of the tile.
    unsafe {
        while tile.rows - row >= 6 {
            narrow_sized::<6, J>(tile, row);
            row += 6;
        }
        while row < tile.rows {
            narrow_sized::<1, J>(tile, row);
            row += 1;
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn narrow_sized<const R: usize, const J: usize>(tile: &DotTile<f32>, first: usize) {
    let mut sums = [[_mm512_setzero_ps(); J]; R];
    // SAFETY: inputs hold `depth` values per pointer, the panel `taps * columns * depth` (caller's promise).
    unsafe {
        let mut panel = tile.panel;
        for tap in 0..tile.taps {
            let rows = tile.inputs.add(tap * tile.row_stride + first);
            let inputs: [*const f32; R] = std::array::from_fn(|r| *rows.add(r));
            for d in (0..tile.depth).step_by(LANES) {
                let weights: [__m512; J] =
                    std::array::from_fn(|j| _mm512_loadu_ps(panel.add(j * tile.depth + d)));
                for (&input, sums) in inputs.iter().zip(&mut sums) {
                    let values = _mm512_loadu_ps(input.add(d));
                    for (sum, &weights) in sums.iter_mut().zip(&weights) {
                        *sum = _mm512_fmadd_ps(values, weights, *sum);
                    }
                }
            }
            panel = panel.add(J * tile.depth);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (j, sum) in sums.into_iter().enumerate() {
                tile.finish(first + r, j, _mm512_reduce_add_ps(sum));
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn outer_tile(tile: &OuterTile<f32>) {
    debug_assert!(tile.rows <= ROWS && tile.columns <= 2 * LANES);
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if tile.columns <= LANES { for_rows!(outer_sized, 1, tile) } else { for_rows!(outer_sized, 2, tile) }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn outer_sized<const R: usize, const V: usize>(tile: &OuterTile<f32>) {
    let masks: [__mmask16; V] = std::array::from_fn(|v| lane_mask(tile.columns, v));
    // SAFETY: lefts hold `left_offset + rows` values each, rights and out the columns that the masks select
    // (caller's promise).
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        let mut right = tile.rights;
        for p in 0..tile.count {
            let left = (*tile.lefts.add(p)).add(tile.left_offset);
            let rights: [__m512; V] =
                std::array::from_fn(|v| _mm512_maskz_loadu_ps(masks[v], right.add(v * LANES)));
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*left.add(r));
                for v in 0..V {
                    sums[v] = _mm512_fmadd_ps(value, rights[v], sums[v]);
                }
            }
            right = right.add(tile.right_stride);
        }
        for (r, sums) in sums.iter().enumerate() {
            for v in 0..V {
                let out = tile.out.add(r * tile.out_stride + v * LANES);
                let total = _mm512_add_ps(_mm512_maskz_loadu_ps(masks[v], out), sums[v]);
                _mm512_mask_storeu_ps(out, masks[v], total);
            }
        }
    }
}
