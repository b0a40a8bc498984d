//! The number types that the CPU kernels compute in, and the way in and out of candle's storage.

use std::ops::Neg;

use candle_core::{CpuStorage, Layout, Result, WithDType, bail};

/// `f32` (fast paths) or `f64` (plain, for verification).
pub(crate) trait Element: WithDType + Neg<Output = Self> + Default {
    const ZERO: Self;
    const ONE: Self;

    /// `self * a + b`; rounds once where `FUSED` (only fast inside functions that enable FMA).
    fn multiply_add<const FUSED: bool>(self, a: Self, b: Self) -> Self;

    fn is_nan_value(self) -> bool;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn multiply_add<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        if FUSED { self.mul_add(a, b) } else { self * a + b }
    }

    #[inline(always)]
    fn is_nan_value(self) -> bool {
        self.is_nan()
    }
}

impl Element for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn multiply_add<const FUSED: bool>(self, a: Self, b: Self) -> Self {
        if FUSED { self.mul_add(a, b) } else { self * a + b }
    }

    #[inline(always)]
    fn is_nan_value(self) -> bool {
        self.is_nan()
    }
}

/// The elements of a contiguous tensor.
pub(crate) fn elements<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("internal error: an operator of bandwise-kernels was given a non-contiguous tensor"),
    }
}

/// Runs the body with `$T` bound to the storage's number type, `f32` or `f64`.
macro_rules! with_element {
    ($storage:expr, $name:expr, $T:ident => $body:expr) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => {
                type $T = f32;
                $body
            }
            candle_core::CpuStorage::F64(_) => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!(
                "{}: computes in f32 or f64, was given {:?}",
                $name,
                candle_core::backend::BackendStorage::dtype(other)
            ),
        }
    };
}
pub(crate) use with_element;
