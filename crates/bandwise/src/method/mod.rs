//! The published methods, one file each.

pub mod filter_frequency;
pub mod fourier_mask;
pub mod fpcm;
pub mod grad_align;
pub mod gradient_penalty;
pub mod input_gradient;
pub mod jafr;

pub use grad_align::GradAlign;
pub use gradient_penalty::{GradientNorm, GroupSparsity};
pub use jafr::Jafr;
