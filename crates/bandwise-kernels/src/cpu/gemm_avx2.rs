//! Matrix kernels for AVX2 with FMA: tiles of up to 6 rows by 16 columns, all sums in registers.

use std::arch::x86_64::*;

use super::depthwise;
use super::kernel::{DotTile, Kernels, OuterTile};
use super::lanes::Lanes;
use super::signs::SignKernels;
use super::winograd_tile;

const ROWS: usize = 6;
const LANES: usize = 8;

/// The kernels; call them only where the machine has AVX2 and FMA.
pub(crate) const KERNELS: Kernels<f32> = Kernels {
    name: "AVX2",
    rows: ROWS,
    columns: 2 * LANES,
    half_columns: LANES,
    dot: dot_tile,
    narrow_dot: None,
    outer: outer_tile,
    pixels: depthwise::avx2::kernels(),
    signs: SignKernels::PORTABLE,
    f2x3: Some(winograd_tile::AVX2_F2X3),
    f4x3: Some(winograd_tile::AVX2_F4X3),
    bf16: None,
};

/// Calls `$function::<R, V>` for the tile's number of rows.
macro_rules! for_rows {
    ($function:ident, $vectors:literal, $tile:expr) => {
        match $tile.rows {
            1 => $function::<1, $vectors>($tile),
            2 => $function::<2, $vectors>($tile),
            3 => $function::<3, $vectors>($tile),
            4 => $function::<4, $vectors>($tile),
            5 => $function::<5, $vectors>($tile),
            _ => $function::<6, $vectors>($tile),
        }
    };
}

#[target_feature(enable = "avx2,fma")]
unsafe fn dot_tile(tile: &DotTile<f32>) {
    debug_assert!(tile.rows <= ROWS && (tile.width == LANES || tile.width == 2 * LANES));
    // SAFETY: the caller's promise is passed on.
    unsafe { if tile.width == LANES { for_rows!(dot_sized, 1, tile) } else { for_rows!(dot_sized, 2, tile) } }
}

/// All ones in the lanes of vector `v` that hold columns.
#[target_feature(enable = "avx2")]
fn lane_mask(columns: usize, v: usize) -> __m256i {
    let left = columns.saturating_sub(v * LANES).min(LANES) as i32;
    _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

#[target_feature(enable = "avx2,fma")]
unsafe fn dot_sized<const R: usize, const V: usize>(tile: &DotTile<f32>) {
    let mut sums = [[_mm256_setzero_ps(); V]; R];
    // SAFETY: inputs hold `depth` values per pointer, the panel `taps * depth * width` (caller's promise).
    unsafe {
        let mut panel = tile.panel;
        for tap in 0..tile.taps {
            let rows = tile.inputs.add(tap * tile.row_stride);
            let inputs: [*const f32; R] = std::array::from_fn(|r| *rows.add(r));
            for d in 0..tile.depth {
                let weights: [__m256; V] = std::array::from_fn(|v| _mm256_loadu_ps(panel.add(v * LANES)));
                for r in 0..R {
                    let value = _mm256_set1_ps(*inputs[r].add(d));
                    for v in 0..V {
                        sums[r][v] = _mm256_fmadd_ps(value, weights[v], sums[r][v]);
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
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store<const V: usize>(tile: &DotTile<f32>, r: usize, sums: [__m256; V]) {
    // SAFETY: the masks select columns that outputs, bias and residuals hold (caller's promise).
    unsafe {
        for (v, mut value) in sums.into_iter().enumerate() {
            let mask = lane_mask(tile.columns, v);
            if !tile.bias.is_null() {
                value = _mm256_add_ps(value, _mm256_maskload_ps(tile.bias.add(v * LANES), mask));
            }
            if !tile.residuals.is_null() {
                let residual = (*tile.residuals.add(r)).add(v * LANES);
                value = _mm256_add_ps(value, _mm256_maskload_ps(residual, mask));
            }
            if tile.relu {
                // the second operand comes back for NaN
                value = _mm256_max_ps(_mm256_setzero_ps(), value);
            }
            if !tile.relu_masks.is_null() {
                let values = _mm256_maskload_ps((*tile.relu_masks.add(r)).add(v * LANES), mask);
                value = value.where_positive(values);
            }
            _mm256_maskstore_ps((*tile.outputs.add(r)).add(v * LANES), mask, value);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn outer_tile(tile: &OuterTile<f32>) {
    debug_assert!(tile.rows <= ROWS && tile.columns <= 2 * LANES);
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if tile.columns <= LANES { for_rows!(outer_sized, 1, tile) } else { for_rows!(outer_sized, 2, tile) }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn outer_sized<const R: usize, const V: usize>(tile: &OuterTile<f32>) {
    let masks: [__m256i; V] = std::array::from_fn(|v| lane_mask(tile.columns, v));
    // SAFETY: lefts hold `left_offset + rows` values each, rights and out the columns that the masks select
    // (caller's promise).
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); V]; R];
        let mut right = tile.rights;
        for p in 0..tile.count {
            let left = (*tile.lefts.add(p)).add(tile.left_offset);
            let rights: [__m256; V] =
                std::array::from_fn(|v| _mm256_maskload_ps(right.add(v * LANES), masks[v]));
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = _mm256_set1_ps(*left.add(r));
                for v in 0..V {
                    sums[v] = _mm256_fmadd_ps(value, rights[v], sums[v]);
                }
            }
            right = right.add(tile.right_stride);
        }
        for (r, sums) in sums.iter().enumerate() {
            for v in 0..V {
                let out = tile.out.add(r * tile.out_stride + v * LANES);
                let total = _mm256_add_ps(_mm256_maskload_ps(out, masks[v]), sums[v]);
                _mm256_maskstore_ps(out, masks[v], total);
            }
        }
    }
}
