//! Products of matrices whose rows lie at a fixed distance, for the positions of Winograd's transform: short sums,
//! so that a table of pointers per row would cost as much as the product.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
use std::mem::transmute;

use super::lanes::Lanes;

/// `out[r][j] = Σ_d left[r][d] · panel[d][j]`, or `+=`.
pub(crate) struct Dense<T> {
    pub rows: usize,
    pub depth: usize,
    /// Columns of the panel and of the result, a multiple of a register.
    pub columns: usize,
    pub left: *const T,
    pub left_stride: usize,
    /// `[depth][width]`
    pub panel: *const T,
    pub width: usize,
    pub out: *mut T,
    pub out_stride: usize,
    /// Adds to what `out` holds.
    pub accumulate: bool,
}

/// What a product needs of a register.
trait Factors: Copy {
    const COUNT: usize;
    // SAFETY (all of them): the caller promises pointers and instruction set.
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// One value in all lanes.
    unsafe fn broadcast(from: *const f32) -> Self;
    /// `self + a · b`
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn store(self, to: *mut f32);
}

impl<L: Lanes<Element = f32>> Factors for L {
    const COUNT: usize = L::COUNT;

    // SAFETY (all of them): the caller's promise is passed on.
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { L::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { L::load(from) }
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        unsafe { L::broadcast(from) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        unsafe { L::add_product(self, a, b) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { L::store(self, to) }
    }
}

/// Sixteen pairs of bf16, or the sixteen f32 sums of their products.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pairs(__m512);

#[cfg(target_arch = "x86_64")]
impl Factors for Pairs {
    const COUNT: usize = 16;

    // SAFETY (all of them): pointers and instruction set by the caller's promise; all registers are plain bits.
    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { _mm512_setzero_ps() })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_castsi512_ps(_mm512_loadu_si512(from.cast())) })
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        Self(unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(from.cast::<i32>().read())) })
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        Self(unsafe {
            _mm512_dpbf16_ps(self.0, transmute::<__m512, __m512bh>(a.0), transmute::<__m512, __m512bh>(b.0))
        })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
}

/// The product in blocks of `R` rows and one or two registers, all sums in registers.
///
/// # Safety
/// All pointers are valid for the sizes that the product states, and the machine has the instruction set.
#[inline(always)]
unsafe fn dense<L: Factors, const R: usize>(product: &Dense<f32>) {
    // SAFETY: blocks lie inside the product (caller's promise for the rest).
    unsafe {
        let mut column = 0;
        while column < product.columns {
            if product.columns - column >= 2 * L::COUNT {
                columns::<L, R, 2>(product, column);
                column += 2 * L::COUNT;
            } else {
                columns::<L, R, 1>(product, column);
                column += L::COUNT;
            }
        }
    }
}

#[inline(always)]
unsafe fn columns<L: Factors, const R: usize, const V: usize>(product: &Dense<f32>, column: usize) {
    let mut row = 0;
    // SAFETY: as above.
    unsafe {
        while product.rows - row >= R {
            block::<L, R, V>(product, row, column);
            row += R;
        }
        while product.rows - row >= 4 {
            block::<L, 4, V>(product, row, column);
            row += 4;
        }
        while row < product.rows {
            block::<L, 1, V>(product, row, column);
            row += 1;
        }
    }
}

#[inline(always)]
unsafe fn block<L: Factors, const R: usize, const V: usize>(product: &Dense<f32>, row: usize, column: usize) {
    // SAFETY: rows `row .. row + R` and `V` registers from `column` on lie inside the product.
    unsafe {
        let mut sums = [[L::zero(); V]; R];
        let out: [*mut f32; R] =
            std::array::from_fn(|r| product.out.add((row + r) * product.out_stride + column));
        if product.accumulate {
            for (sums, out) in sums.iter_mut().zip(out) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(out.add(v * L::COUNT));
                }
            }
        }
        let left: [*const f32; R] =
            std::array::from_fn(|r| product.left.add((row + r) * product.left_stride));
        let mut panel = product.panel.add(column);
        for d in 0..product.depth {
            let mut weights = [sums[0][0]; V];
            for (v, weights) in weights.iter_mut().enumerate() {
                *weights = L::load(panel.add(v * L::COUNT));
            }
            for (left, sums) in left.iter().zip(&mut sums) {
                let value = L::broadcast(left.add(d));
                for (sum, &weights) in sums.iter_mut().zip(&weights) {
                    *sum = sum.add_product(value, weights);
                }
            }
            panel = panel.add(product.width);
        }
        for (sums, out) in sums.into_iter().zip(out) {
            for (v, sum) in sums.into_iter().enumerate() {
                sum.store(out.add(v * L::COUNT));
            }
        }
    }
}

/// The product for one kind of lanes, with the instruction set to enable.
macro_rules! dense {
    ($name:ident, $lanes:ty, $rows:literal $(, $feature:literal)?) => {
        /// # Safety
        /// See [`dense`].
        $(#[target_feature(enable = $feature)])?
        pub(crate) unsafe fn $name(product: &Dense<f32>) {
            // SAFETY: the caller's promise is passed on.
            unsafe { dense::<$lanes, $rows>(product) }
        }
    };
}

dense!(portable, super::lanes::Four, 4);
#[cfg(target_arch = "x86_64")]
dense!(avx2, __m256, 6, "avx2,fma");
#[cfg(target_arch = "x86_64")]
dense!(avx512, __m512, 12, "avx512f");
#[cfg(target_arch = "x86_64")]
dense!(avx512_bf16, Pairs, 12, "avx512f,avx512bf16");
