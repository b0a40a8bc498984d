//! Which kernels this machine can run. Asked once per process.

use std::sync::LazyLock;

use super::kernel::Kernels;
use super::portable;

static F32: LazyLock<Vec<Kernels<f32>>> = LazyLock::new(|| available(plain));
static F64: LazyLock<Vec<Kernels<f64>>> = LazyLock::new(|| available(plain));

fn available<T>(all: impl Fn() -> Vec<Kernels<T>>) -> Vec<Kernels<T>> {
    all()
}

/// The plain Rust kernels, best first.
fn plain<T: crate::element::Element>() -> Vec<Kernels<T>> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            found.push(portable::avx512::kernels());
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(portable::avx2::kernels());
        }
    }
    found.push(portable::base::kernels());
    found
}

/// The best f32 path of this machine.
pub(crate) fn kernels_f32() -> &'static Kernels<f32> {
    &F32[0]
}

/// The best f64 path of this machine.
pub(crate) fn kernels_f64() -> &'static Kernels<f64> {
    &F64[0]
}
