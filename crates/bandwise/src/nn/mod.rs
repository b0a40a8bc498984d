//! Networks: layers, architectures, and how weights get in and out.
//!
//! ```
//! use bandwise::candle_core::{DType, Device, Tensor};
//! use bandwise::nn::{DualTensor, ForwardContext, Model, ModelShape};
//!
//! # fn main() -> bandwise::Result<()> {
//! let shape = ModelShape { channels: 3, classes: 10, width: Some(4) };
//! let model = Model::new("smallcnn", shape, None, 0, DType::F64, &Device::Cpu)?;
//! let images = Tensor::full(0.5f64, (1, 16, 16, 3), &Device::Cpu)?;
//! let direction = Tensor::ones_like(&images)?;
//!
//! // One dual pass gives the derivative along a direction, as two passes nearby do.
//! let pass = ForwardContext::eval();
//! let slope = model.forward(&DualTensor::dual(images.clone(), direction.clone()), &pass)?.tangent.unwrap();
//! let at = |step: f64| model.logits(&(&images + (&direction * step)?)?, &pass);
//! let nearby = ((at(1e-6)? - at(-1e-6)?)? / 2e-6)?;
//! let difference = (slope - nearby)?.abs()?.max_all()?.to_scalar::<f64>()?;
//! assert!(difference < 1e-6);
//! # Ok(())
//! # }
//! ```

pub mod architecture;
pub mod batch_norm;
pub mod build;
pub mod context;
pub mod convolution;
pub mod decomposed;
pub mod dropout;
pub mod dual_tensor;
pub mod fold;
mod fuse;
pub mod layer;
pub mod linear;
pub mod loss;
pub mod model;
pub mod parameter;
pub mod plan;
pub mod weights;
pub mod zoo;

#[cfg(test)]
pub(crate) mod tests;

pub use architecture::ModelShape;
pub use context::{ForwardContext, Mode, Recorder};
pub use dropout::Randomness;
pub use dual_tensor::DualTensor;
pub use layer::Layer;
pub use model::{Model, Normalization};
pub use parameter::{Parameter, Role};
pub use plan::Plan;
