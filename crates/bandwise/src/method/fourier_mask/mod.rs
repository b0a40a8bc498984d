//! Fourier masks (Karantzas, Besier, Ortega Caro, Pitkow, Tolias, Patel, Anselmi; 2022): which input
//! frequencies does a trained, frozen network need?
//!
//! A mask `M` in `[0, 1]` over the spectrum, shared by all channels and 1 at first, filters the input:
//! `x ↦ Re(IFFT2(M ⊙ FFT2(x)))`. It is learned so that the cross-entropy of every sample stays what it
//! was while the mask becomes sparse:
//!
//! ```text
//! invariance = (CE(f(M·x), y) − CE(f(x), y))²
//! loss       = exp(invariance) + λ·‖M‖₁        λ = decay / ‖M₀‖₁
//! ```
//!
//! followed by an Adam step and a clamp to `[0, 1]`. At `M = 1` the first term has no gradient: the
//! sparsity takes the first steps alone.
//!
//! | file | what |
//! |---|---|
//! | `mask` | a mask: values, even part, filtering, files |
//! | `objective` | the loss and its gradient, for one mask or many side by side |
//! | `optimizer` | Adam and the one-cycle schedule, per mask |
//! | `data_set` | [`SharedMaskLearner`]: one mask for a whole data set (or one class of it) |
//! | `per_image` | [`ImageLearner`]: one mask per image, many side by side |
//!
//! Only the even part of a mask acts on real images, and gradients are even, so learned masks are even
//! up to rounding. What was learned is stored, un-shifted; images show the even part, centered.
//!
//! ```
//! use bandwise::attack::Classifier;
//! use bandwise::candle_core::{Device, Tensor};
//! use bandwise::method::fourier_mask::{ImageConfig, ImageLearner};
//!
//! /// Looks at the mean pixel only.
//! struct Brightness;
//!
//! impl Classifier for Brightness {
//!     fn logits(&self, images: &Tensor) -> bandwise::Result<Tensor> {
//!         let mean = (images.flatten_from(1)?.mean_keepdim(1)? * 10.0)?;
//!         Ok(Tensor::cat(&[&mean, &mean.affine(-1.0, 10.0)?], 1)?)
//!     }
//!
//!     fn num_classes(&self) -> usize {
//!         2
//!     }
//! }
//!
//! # fn main() -> bandwise::Result<()> {
//! let images = Tensor::full(0.6f32, (1, 4, 4, 1), &Device::Cpu)?;
//! let config = ImageConfig { max_steps: 100, ..ImageConfig::default() };
//! let mut learner = ImageLearner::new(&Brightness, images, None, config)?;
//! let mut masks = Vec::new();
//! while !learner.is_finished() {
//!     masks.extend(learner.step(None)?);
//! }
//! // The mean stays, all other frequencies go.
//! let mask = &masks[0].mask;
//! assert!(mask.values[0] > 0.5 && mask.values[1..].iter().all(|gain| *gain < 0.5));
//! # Ok(())
//! # }
//! ```

mod data_set;
mod mask;
mod objective;
mod optimizer;
mod per_image;
#[cfg(test)]
mod tests;

pub use data_set::{EpochLog, SharedMaskConfig, SharedMaskLearner, SharedMaskResult, SharedMaskState};
pub use mask::Mask;
pub use objective::{Baseline, Invariance, masked_predictions};
pub use per_image::{ImageConfig, ImageLearner, ImageMask, ImageSchedule};
