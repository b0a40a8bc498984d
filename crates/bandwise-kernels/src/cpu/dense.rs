//! Products of matrices whose rows lie at a fixed distance, for the positions of Winograd's transform: short sums,
//! so that a table of pointers per row would cost as much as the product.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
#[cfg(target_arch = "x86_64")]
use std::mem::transmute;

#[cfg(target_arch = "x86_64")]
use super::bf16::Bf16Pair;
use super::lanes::{FourLanes, Lanes};

/// `out[r][j] = Σ_d left[r][d] · panel[d][j]`, or `+=`. Factors may be of another type than sums.
pub(crate) struct Dense<T, F = T> {
    pub rows: usize,
    pub depth: usize,
    /// Columns of the panel and of the result, a multiple of a register.
    pub columns: usize,
    pub left: *const F,
    pub left_stride: usize,
    /// `[depth][width]`
    pub panel: *const F,
    pub width: usize,
    pub out: *mut T,
    pub out_stride: usize,
    /// Adds to what `out` holds.
    pub accumulate: bool,
}

/// What a product needs of a register of factors, and of the register of f32 sums of their products.
trait Factors: Copy {
    const COUNT: usize;
    type Factor;
    type Sums: Copy;
    // SAFETY (all of them): the caller promises pointers and instruction set.
    unsafe fn zero() -> Self::Sums;
    unsafe fn load_sums(from: *const f32) -> Self::Sums;
    unsafe fn store_sums(sums: Self::Sums, to: *mut f32);
    unsafe fn load(from: *const Self::Factor) -> Self;
    /// One factor in all lanes.
    unsafe fn broadcast(from: *const Self::Factor) -> Self;
    /// `sums + a · b`
    unsafe fn add_product(sums: Self::Sums, a: Self, b: Self) -> Self::Sums;
}

impl<L: Lanes<Element = f32>> Factors for L {
    const COUNT: usize = L::COUNT;
    type Factor = f32;
    type Sums = Self;

    // SAFETY (all of them): the caller's promise is passed on.
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { L::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn load_sums(from: *const f32) -> Self {
        unsafe { L::load(from) }
    }
    #[inline(always)]
    unsafe fn store_sums(sums: Self, to: *mut f32) {
        unsafe { L::store(sums, to) }
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
    unsafe fn add_product(sums: Self, a: Self, b: Self) -> Self {
        unsafe { L::add_product(sums, a, b) }
    }
}

/// Sixteen pairs of bf16.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Pairs(__m512bh);

#[cfg(target_arch = "x86_64")]
impl Factors for Pairs {
    const COUNT: usize = 16;
    type Factor = Bf16Pair;
    type Sums = __m512;

    // SAFETY (all of them): pointers and instruction set by the caller's promise; all registers are plain bits.
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load_sums(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store_sums(sums: __m512, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, sums) }
    }
    #[inline(always)]
    unsafe fn load(from: *const Bf16Pair) -> Self {
        Self(unsafe { transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) })
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const Bf16Pair) -> Self {
        Self(unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32((*from).0 as i32)) })
    }
    #[inline(always)]
    unsafe fn add_product(sums: __m512, a: Self, b: Self) -> __m512 {
        unsafe { _mm512_dpbf16_ps(sums, a.0, b.0) }
    }
}

/// The product in blocks of `R` rows and one or two registers, all sums in registers.
///
/// # Safety
/// All pointers are valid for the sizes that the product states, and the machine has the instruction set.
#[inline(always)]
unsafe fn dense<L: Factors, const R: usize>(product: &Dense<f32, L::Factor>) {
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
unsafe fn columns<L: Factors, const R: usize, const V: usize>(
    product: &Dense<f32, L::Factor>,
    column: usize,
) {
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
unsafe fn block<L: Factors, const R: usize, const V: usize>(
    product: &Dense<f32, L::Factor>,
    row: usize,
    column: usize,
) {
    // SAFETY: rows `row .. row + R` and `V` registers from `column` on lie inside the product.
    unsafe {
        let mut sums = [[L::zero(); V]; R];
        let out: [*mut f32; R] =
            std::array::from_fn(|r| product.out.add((row + r) * product.out_stride + column));
        if product.accumulate {
            for (sums, out) in sums.iter_mut().zip(out) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load_sums(out.add(v * L::COUNT));
                }
            }
        }
        let left: [*const L::Factor; R] =
            std::array::from_fn(|r| product.left.add((row + r) * product.left_stride));
        let mut panel = product.panel.add(column);
        for d in 0..product.depth {
            let mut weights = [L::load(panel); V];
            for (v, weights) in weights.iter_mut().enumerate() {
                *weights = L::load(panel.add(v * L::COUNT));
            }
            for (left, sums) in left.iter().zip(&mut sums) {
                let value = L::broadcast(left.add(d));
                for (sum, &weights) in sums.iter_mut().zip(&weights) {
                    *sum = L::add_product(*sum, value, weights);
                }
            }
            panel = panel.add(product.width);
        }
        for (sums, out) in sums.into_iter().zip(out) {
            for (v, sum) in sums.into_iter().enumerate() {
                L::store_sums(sum, out.add(v * L::COUNT));
            }
        }
    }
}

/// The product for one kind of lanes, with the instruction set to enable.
macro_rules! dense {
    ($name:ident, $lanes:ty, $factor:ty, $rows:literal $(, $feature:literal)?) => {
        /// # Safety
        /// See [`dense`].
        $(#[target_feature(enable = $feature)])?
        pub(crate) unsafe fn $name(product: &Dense<f32, $factor>) {
            // SAFETY: the caller's promise is passed on.
            unsafe { dense::<$lanes, $rows>(product) }
        }
    };
}

dense!(portable, FourLanes, f32, 4);
#[cfg(target_arch = "x86_64")]
dense!(avx2, __m256, f32, 6, "avx2,fma");
#[cfg(target_arch = "x86_64")]
dense!(avx512, __m512, f32, 12, "avx512f");
#[cfg(target_arch = "x86_64")]
dense!(avx512_bf16, Pairs, Bf16Pair, 12, "avx512f,avx512bf16");
