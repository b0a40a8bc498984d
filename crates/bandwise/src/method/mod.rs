//! The published methods, one file each.
//!
//! ```
//! use bandwise::candle_core::{DType, Device, Tensor};
//! use bandwise::method::{GradientNorm, InputPenalty};
//!
//! # fn main() -> bandwise::Result<()> {
//! // The gradient of one image of 2×2 pixels has norm 2.
//! let gradient = Tensor::ones((1, 2, 2, 1), DType::F64, &Device::Cpu)?;
//! let penalty = GradientNorm { lambda: 0.1, ..GradientNorm::default() }.penalty(&gradient)?;
//! assert!((penalty.value - 0.2).abs() < 1e-12);
//! assert_eq!(penalty.derivative.dims(), gradient.dims());
//! # Ok(())
//! # }
//! ```

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
