//! Who computes on a tensor's device: every operator asks here, once.

use candle_core::{Device, Tensor};

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
