//! The CPU kernels: plain functions on slices, no tensors.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod batch_norm;
pub(crate) mod bf16;
pub(crate) mod conv_weight;
pub(crate) mod dense;
pub(crate) mod depthwise;
pub(crate) mod detect;
pub(crate) mod elementwise;
pub(crate) mod gather;
pub(crate) mod gather_plan;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gemm_avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gemm_avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod gemm_bf16;
pub(crate) mod kernel;
pub(crate) mod lanes;
pub(crate) mod pack;
pub(crate) mod pool;
pub(crate) mod portable;
pub(crate) mod signs;
pub(crate) mod strategy;
pub(crate) mod tangent;
#[cfg(test)]
mod tests;
pub(crate) mod winograd;
pub(crate) mod winograd_kernel;
pub(crate) mod winograd_product;
pub(crate) mod winograd_tile;
