//! The published methods, one file each, and the network configuration that brings them together.

pub mod filter_frequency;
pub mod fourier_mask;
pub mod fpcm;
pub mod network;

pub use network::{Network, NetworkConfig};
