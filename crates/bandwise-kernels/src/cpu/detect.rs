//! Which kernels this machine can run. Asked once per process.

use std::sync::LazyLock;

use super::kernel::Kernels;
use super::portable;
use super::winograd_tile;
use crate::element::Element;

static F32: LazyLock<Vec<Kernels<f32>>> = LazyLock::new(find_f32);
static F64: LazyLock<Vec<Kernels<f64>>> = LazyLock::new(find_f64);

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") && has_avx2()
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// The f32 paths of this machine, best first; the last one runs anywhere.
pub(crate) fn find_f32() -> Vec<Kernels<f32>> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            let bf16 = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw");
            let bf16 = bf16.then(|| match super::amx::available() {
                true => super::gemm_bf16::AMX_KERNELS,
                false => super::gemm_bf16::KERNELS,
            });
            found.push(Kernels { bf16, ..super::gemm_avx512::KERNELS });
        }
        if has_avx2() {
            found.push(super::gemm_avx2::KERNELS);
        }
    }
    let (f2x3, f4x3) = (Some(winograd_tile::PORTABLE_F2X3), Some(winograd_tile::PORTABLE_F4X3));
    found.push(Kernels { f2x3, f4x3, ..portable::base::kernels() });
    found
}

/// The f64 paths of this machine, best first: the portable code, compiled for wider vectors.
fn find_f64() -> Vec<Kernels<f64>> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            found.push(portable::avx512::kernels());
        }
        if has_avx2() {
            found.push(portable::avx2::kernels());
        }
    }
    found.push(portable::base::kernels());
    found
}

/// A number type with kernels.
pub(crate) trait Detected: Element {
    /// The paths of this machine, best first.
    fn paths() -> &'static [Kernels<Self>];

    /// The kernels of the best path.
    fn kernels() -> &'static Kernels<Self> {
        &Self::paths()[0]
    }
}

impl Detected for f32 {
    fn paths() -> &'static [Kernels<Self>] {
        &F32
    }
}

impl Detected for f64 {
    fn paths() -> &'static [Kernels<Self>] {
        &F64
    }
}
