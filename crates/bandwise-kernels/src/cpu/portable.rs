//! Matrix kernels in plain Rust: the only path for f64, the fallback for f32. The same code is compiled once for
//! the base instruction set and once each with wider vectors enabled, which the compiler then uses by itself.

use crate::element::Element;

use super::depthwise;
use super::kernel::{DotTile, Kernels, OuterTile};
use super::signs::SignKernels;

const ROWS: usize = 4;
const COLUMNS: usize = 16;
const HALF_COLUMNS: usize = 8;

#[inline(always)]
unsafe fn dot<T: Element, const FUSED: bool>(tile: &DotTile<T>) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match (tile.width, tile.rows) {
            (COLUMNS, ROWS) => dot_rows::<T, ROWS, COLUMNS, FUSED>(tile, 0),
            (COLUMNS, rows) => (0..rows).for_each(|r| dot_rows::<T, 1, COLUMNS, FUSED>(tile, r)),
            (_, ROWS) => dot_rows::<T, ROWS, HALF_COLUMNS, FUSED>(tile, 0),
            (_, rows) => (0..rows).for_each(|r| dot_rows::<T, 1, HALF_COLUMNS, FUSED>(tile, r)),
        }
    }
}

#[inline(always)]
unsafe fn dot_rows<T: Element, const R: usize, const C: usize, const FUSED: bool>(
    tile: &DotTile<T>,
    first: usize,
) {
    let mut sums = [[T::ZERO; C]; R];
    // SAFETY: inputs, panel, outputs, bias and residuals cover what the tile states (caller's promise).
    unsafe {
        for tap in 0..tile.taps {
            let inputs: [*const T; R] =
                std::array::from_fn(|r| *tile.inputs.add(tap * tile.row_stride + first + r));
            let panel = tile.panel.add(tap * tile.depth * C);
            for d in 0..tile.depth {
                let weights: [T; C] = std::array::from_fn(|j| *panel.add(d * C + j));
                for r in 0..R {
                    let value = *inputs[r].add(d);
                    for j in 0..C {
                        sums[r][j] = value.multiply_add::<FUSED>(weights[j], sums[r][j]);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate().take(tile.columns) {
                tile.finish(first + r, j, sum);
            }
        }
    }
}

#[inline(always)]
unsafe fn outer<T: Element, const FUSED: bool>(tile: &OuterTile<T>) {
    let mut sums = [[T::ZERO; COLUMNS]; ROWS];
    // SAFETY: the pointers cover what the tile states (caller's promise).
    unsafe {
        if tile.rows == ROWS && tile.columns == COLUMNS {
            for p in 0..tile.count {
                let left = (*tile.lefts.add(p)).add(tile.left_offset);
                let right = tile.rights.add(p * tile.right_stride);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let value = *left.add(r);
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = value.multiply_add::<FUSED>(*right.add(j), *sum);
                    }
                }
            }
        } else {
            for p in 0..tile.count {
                let left = (*tile.lefts.add(p)).add(tile.left_offset);
                let right = tile.rights.add(p * tile.right_stride);
                for (r, sums) in sums.iter_mut().enumerate().take(tile.rows) {
                    let value = *left.add(r);
                    for (j, sum) in sums.iter_mut().enumerate().take(tile.columns) {
                        *sum = value.multiply_add::<FUSED>(*right.add(j), *sum);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate().take(tile.rows) {
            for (j, &sum) in sums.iter().enumerate().take(tile.columns) {
                *tile.out.add(r * tile.out_stride + j) += sum;
            }
        }
    }
}

/// One instantiation of the plain kernels: `$name(…)` as a table named `$table`.
macro_rules! instantiate {
    ($module:ident, $label:literal, $fused:literal $(, $feature:literal)?) => {
        pub(crate) mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn dot_tile<T: Element>(tile: &DotTile<T>) {
                // SAFETY: the caller's promise is passed on.
                unsafe { dot::<T, $fused>(tile) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn outer_tile<T: Element>(tile: &OuterTile<T>) {
                // SAFETY: the caller's promise is passed on.
                unsafe { outer::<T, $fused>(tile) }
            }

            pub(crate) const fn kernels<T: Element>() -> Kernels<T> {
                Kernels {
                    name: $label,
                    rows: ROWS,
                    columns: COLUMNS,
                    half_columns: HALF_COLUMNS,
                    dot: dot_tile::<T>,
                    narrow_dot: None,
                    outer: outer_tile::<T>,
                    pixels: depthwise::$module::kernels(),
                    signs: SignKernels::PORTABLE,
                    f2x3: None,
                    f4x3: None,
                    bf16: None,
                }
            }
        }
    };
}

instantiate!(base, "portable", false);
#[cfg(target_arch = "x86_64")]
instantiate!(avx2, "plain Rust with AVX2", true, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(avx512, "plain Rust with AVX-512", true, "avx512f,avx512vl,avx2,fma");
