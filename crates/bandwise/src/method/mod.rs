//! The published methods, one file each.

pub mod filter_frequency;
pub mod fourier_mask;
pub mod fpcm;
pub mod grad_align;
pub mod gradient_norm;
pub mod group_sparsity;
pub mod input_gradient;
pub mod input_penalty;
pub mod jafr;

pub use grad_align::GradAlign;
pub use gradient_norm::GradientNorm;
pub use group_sparsity::GroupSparsity;
pub use input_penalty::InputPenalty;
pub use jafr::Jafr;
