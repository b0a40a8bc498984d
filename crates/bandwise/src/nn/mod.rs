//! Networks: layers, architectures, and how weights get in and out.

pub mod architecture;
pub mod batch_norm;
pub mod build;
pub mod convolution;
pub mod decomposed;
pub mod dropout;
pub mod fold;
mod fuse;
pub mod layer;
pub mod linear;
pub mod loss;
pub mod model;
pub mod parameter;
pub mod pass;
pub mod plan;
pub mod signal;
pub mod weights;
pub mod zoo;

#[cfg(test)]
pub(crate) mod tests;

pub use architecture::Interface;
pub use dropout::Randomness;
pub use layer::Layer;
pub use model::{Model, Normalization};
pub use parameter::{Parameter, Role};
pub use pass::{Mode, Pass, Recorder};
pub use plan::Plan;
pub use signal::Signal;
