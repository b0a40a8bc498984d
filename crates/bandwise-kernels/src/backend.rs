//! Who computes on a tensor's device: every operator asks here, once.

use candle_core::{DType, Device, Tensor};

pub(crate) enum Backend {
    /// This crate's kernels for the CPU.
    Cpu,
    /// This crate's kernels for CUDA, and cuDNN.
    #[cfg(feature = "cuda")]
    Cuda,
    /// Candle's operators.
    Composed,
}

impl Backend {
    pub(crate) fn of(x: &Tensor) -> Self {
        match x.device() {
            Device::Cpu => Self::Cpu,
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Self::Cuda,
            _ => Self::Composed,
        }
    }
}

/// Whether tensors of that type on that device are computed on by this crate's kernels for the CPU.
pub fn has_cpu_kernels(device: &Device, dtype: DType) -> bool {
    matches!((device, dtype), (Device::Cpu, DType::F32 | DType::F64))
}
