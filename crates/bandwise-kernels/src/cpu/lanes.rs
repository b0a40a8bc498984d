//! A vector register of any width, so that a transform is written once and compiled for every instruction set.
//!
//! The methods are inlined into functions that enable the instruction set (`#[target_feature]`); called from
//! elsewhere they would still be right, but slow.

/// A register full of numbers.
pub(crate) trait Lanes: Copy {
    type Element;
    const COUNT: usize;

    /// # Safety
    /// `COUNT` values are readable, and the machine has the instruction set.
    unsafe fn load(from: *const Self::Element) -> Self;
    /// # Safety
    /// `COUNT` values are writable, and the machine has the instruction set.
    unsafe fn store(self, to: *mut Self::Element);
    /// # Safety
    /// The machine has the instruction set; the same holds for all that follow.
    unsafe fn splat(value: f64) -> Self;
    /// # Safety
    /// See `splat`.
    unsafe fn add(self, other: Self) -> Self;
    /// # Safety
    /// See `splat`.
    unsafe fn sub(self, other: Self) -> Self;
    /// # Safety
    /// See `splat`.
    unsafe fn mul(self, other: Self) -> Self;
    /// One value in all lanes.
    /// # Safety
    /// The value is readable, and the machine has the instruction set.
    unsafe fn broadcast(from: *const Self::Element) -> Self;
    /// `self + a · b`
    /// # Safety
    /// See `splat`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// `max(self, 0)`, NaN stays.
    /// # Safety
    /// See `splat`.
    unsafe fn rectify(self) -> Self;
    /// `self` where `mask > 0`, else 0.
    /// # Safety
    /// See `splat`.
    unsafe fn where_positive(self, mask: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    macro_rules! lanes {
        ($register:ty, $count:literal, $load:ident, $store:ident, $splat:ident, $add:ident, $sub:ident, $mul:ident,
         $fused:ident, $max:ident, $zero:ident, $compare:ident, $select:ident) => {
            impl Lanes for $register {
                type Element = f32;
                const COUNT: usize = $count;

                // SAFETY (all of them): the caller promises pointers and instruction set.
                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn splat(value: f64) -> Self {
                    unsafe { $splat(value as f32) }
                }
                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    unsafe { $add(self, other) }
                }
                #[inline(always)]
                unsafe fn sub(self, other: Self) -> Self {
                    unsafe { $sub(self, other) }
                }
                #[inline(always)]
                unsafe fn mul(self, other: Self) -> Self {
                    unsafe { $mul(self, other) }
                }
                #[inline(always)]
                unsafe fn broadcast(from: *const f32) -> Self {
                    unsafe { $splat(*from) }
                }
                #[inline(always)]
                unsafe fn add_product(self, a: Self, b: Self) -> Self {
                    unsafe { $fused(a, b, self) }
                }
                #[inline(always)]
                unsafe fn rectify(self) -> Self {
                    // the second operand comes back for NaN
                    unsafe { $max($zero(), self) }
                }
                #[inline(always)]
                unsafe fn where_positive(self, mask: Self) -> Self {
                    unsafe { $select($compare::<_CMP_GT_OQ>(mask, $zero()), self) }
                }
            }
        };
    }

    lanes!(
        __m512,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps,
        _mm512_max_ps,
        _mm512_setzero_ps,
        _mm512_cmp_ps_mask,
        _mm512_maskz_mov_ps
    );
    lanes!(
        __m256,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps,
        _mm256_setzero_ps,
        _mm256_cmp_ps,
        _mm256_and_ps
    );
}

/// FourLanes numbers, on any machine.
#[derive(Clone, Copy)]
pub(crate) struct FourLanes([f32; 4]);

impl FourLanes {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for FourLanes {
    type Element = f32;
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: readable by the caller's promise; an array has no stricter alignment than its elements.
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: writable by the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(value: f64) -> Self {
        Self([value as f32; 4])
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn broadcast(from: *const f32) -> Self {
        // SAFETY: readable by the caller's promise.
        Self([unsafe { *from }; 4])
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        self.zip(a.zip(b, |a, b| a * b), |sum, product| sum + product)
    }
    #[inline(always)]
    unsafe fn rectify(self) -> Self {
        self.zip(self, |a, _| if a <= 0.0 { 0.0 } else { a })
    }
    #[inline(always)]
    unsafe fn where_positive(self, mask: Self) -> Self {
        self.zip(mask, |a, mask| if mask > 0.0 { a } else { 0.0 })
    }
}
