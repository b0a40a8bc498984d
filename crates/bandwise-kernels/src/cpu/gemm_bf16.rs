//! Matrix kernels on pairs of bf16 (AVX-512 BF16): every factor holds two neighbors along the sum, and one
//! instruction multiplies and adds both. Tiles, panels and tables are those of the f32 kernels, at half the depth.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::bf16::{Bf16Kernels, Bf16Pair};
use super::gemm_avx512::{LANES, for_rows, lane_mask, store};
use super::kernel::{DotTile, OuterTile};
use super::{amx, dense};

/// The kernels; call them only where the machine has AVX-512F, BW and BF16.
pub(crate) const KERNELS: Bf16Kernels<f32> = Bf16Kernels {
    name: "AVX-512 BF16",
    dot: dot_tile,
    outer: outer_tile,
    product: dense::avx512_bf16,
    matrix_unit: false,
    low,
    pair_columns,
    pair_rows,
};

/// With the products of whole matrices on AMX; call them only where [`amx::available`].
pub(crate) const AMX_KERNELS: Bf16Kernels<f32> =
    Bf16Kernels { name: "AMX and AVX-512 BF16", product: amx::product, matrix_unit: true, ..KERNELS };

/// Sixteen pairs.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn load(mask: __mmask16, from: *const Bf16Pair) -> __m512bh {
    // SAFETY: the mask selects readable elements (caller's promise); both types are 64 bytes of plain bits.
    unsafe { transmute(_mm512_maskz_loadu_epi32(mask, from.cast())) }
}

/// One pair in all lanes.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn splat(from: *const Bf16Pair) -> __m512bh {
    // SAFETY: readable (caller's promise); both types are 64 bytes of plain bits.
    unsafe { transmute(_mm512_set1_epi32((*from).0 as i32)) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn dot_tile(tile: &DotTile<f32, Bf16Pair>) {
    // SAFETY: the caller's promise is passed on.
    unsafe { if tile.width == LANES { for_rows!(dot_sized, 1, tile) } else { for_rows!(dot_sized, 2, tile) } }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn dot_sized<const R: usize, const V: usize>(tile: &DotTile<f32, Bf16Pair>) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: inputs hold `depth` pairs per pointer, the panel `taps * depth * width` (caller's promise).
    unsafe {
        let mut panel = tile.panel;
        for tap in 0..tile.taps {
            let rows = tile.inputs.add(tap * tile.row_stride);
            let inputs: [*const Bf16Pair; R] = std::array::from_fn(|r| *rows.add(r));
            for d in 0..tile.depth {
                let mut weights = [splat(panel); V];
                for (v, weights) in weights.iter_mut().enumerate() {
                    *weights = load(!0, panel.add(v * LANES));
                }
                for r in 0..R {
                    let value = splat(inputs[r].add(d));
                    for v in 0..V {
                        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], value, weights[v]);
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

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn outer_tile(tile: &OuterTile<f32, Bf16Pair>) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if tile.columns <= LANES { for_rows!(outer_sized, 1, tile) } else { for_rows!(outer_sized, 2, tile) }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn outer_sized<const R: usize, const V: usize>(tile: &OuterTile<f32, Bf16Pair>) {
    let masks: [__mmask16; V] = std::array::from_fn(|v| lane_mask(tile.columns, v));
    // SAFETY: lefts hold `left_offset + rows` pairs each, rights and out the columns that the masks select
    // (caller's promise).
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; R];
        let mut right = tile.rights;
        for p in 0..tile.count {
            let left = (*tile.lefts.add(p)).add(tile.left_offset);
            let mut rights = [splat(left); V];
            for (v, rights) in rights.iter_mut().enumerate() {
                *rights = load(masks[v], right.add(v * LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = splat(left.add(r));
                for v in 0..V {
                    sums[v] = _mm512_dpbf16_ps(sums[v], value, rights[v]);
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

/// Rounds neighbors to pairs: `to[k] = (from[2k], from[2k + 1])`.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pair_columns(from: *const f32, to: *mut Bf16Pair, count: usize) {
    debug_assert!(count.is_multiple_of(2 * LANES));
    // SAFETY: `count` values are readable, half as many writable (caller's promise); the vectors are plain bits.
    unsafe {
        for i in (0..count).step_by(2 * LANES) {
            let (low, high) = (_mm512_loadu_ps(from.add(i)), _mm512_loadu_ps(from.add(i + LANES)));
            let pairs: __m512i = transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(to.add(i / 2).cast(), pairs);
        }
    }
}

/// What rounding to bf16 takes away.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn low(from: *const f32, to: *mut f32, count: usize) {
    debug_assert!(count.is_multiple_of(LANES));
    // SAFETY: `count` values are readable and writable (caller's promise); the vectors are plain bits.
    unsafe {
        for i in (0..count).step_by(LANES) {
            let values = _mm512_loadu_ps(from.add(i));
            let rounded: __m256i = transmute(_mm512_cvtneps_pbh(values));
            let rounded = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(rounded)));
            _mm512_storeu_ps(to.add(i), _mm512_sub_ps(values, rounded));
        }
    }
}

/// Rounds two rows to pairs: `to[k] = (first[k], second[k])`.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pair_rows(first: *const f32, second: *const f32, to: *mut Bf16Pair, count: usize) {
    debug_assert!(count.is_multiple_of(LANES));
    // SAFETY: `count` values are readable and writable (caller's promise); the vectors are plain bits.
    unsafe {
        for i in (0..count).step_by(LANES) {
            let low: __m256i = transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(first.add(i))));
            let high: __m256i = transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(second.add(i))));
            let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high));
            let pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(low), high);
            _mm512_storeu_si512(to.add(i).cast(), pairs);
        }
    }
}
