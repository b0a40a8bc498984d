//! The operators on CUDA: convolution by cuDNN, the rest by kernels of our own that NVRTC compiles at first use.
//!
//! Nothing here waits for the device: statistics and gradients stay on it, so that a whole training or attack step
//! is queued without synchronisation.

pub(crate) mod batch_norm;
#[cfg(feature = "cudnn")]
pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod launch;
pub(crate) mod operator;
pub(crate) mod pool;
