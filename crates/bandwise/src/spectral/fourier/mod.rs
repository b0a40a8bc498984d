//! Two-dimensional Fourier transforms of images of any size.
//!
//! [`transform`] works on plain arrays (rustfft, plans cached per size). [`tensor`] holds the differentiable
//! operations on `[batch, height, width, channels]` tensors: on the CPU they are custom operators around rustfft
//! with their adjoints as backward, elsewhere products with Fourier matrices.

mod matrix;
mod operator;
mod planes;
mod spectra;
pub mod tensor;
pub mod transform;

#[cfg(test)]
mod tests;

pub use spectra::ImageSpectra;
pub use tensor::{dft2, filter2, idft2};
pub use transform::{Fft2, Real};
