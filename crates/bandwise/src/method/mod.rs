//! The published methods, one file each, and the network configuration that brings them together.

pub mod filter_frequency;
pub mod fourier_mask;
pub mod fpcm;
pub mod grad_align;
pub mod gradient_penalty;
pub mod input_gradient;
pub mod jafr;
pub mod loading;
pub mod network;

pub use grad_align::GradAlign;
pub use gradient_penalty::{GradientNorm, GroupSparsity};
pub use jafr::Jafr;
pub use loading::{ArchitectureSource, LoadedNetwork, ModelSource, NormalizationSource};
pub use network::{Network, NetworkConfig};
