//! The common corruptions of Hendrycks and Dietterich (ICLR 2019) and other distribution shifts of our own making.
//!
//! [`Corruption`] has one row per corruption in `table.rs`: families and extra ones, at five severities, under the
//! constants of CIFAR-10-C, TinyImageNet-C or ImageNet-C. [`Corruptor`] applies them to images of any size, gray or color; each family has a
//! file, with the parts of OpenCV, Pillow, ImageMagick, scikit-image and scipy that the published scripts lean on
//! rebuilt in their own arithmetic. [`Shift`] holds the other shifts, [`ChangedDataset`] makes either while a set is
//! read, [`export`] writes files in CIFAR-10-C's layout, and [`verify`] compares with published ones, which
//! [`crate::data`] reads.
//!
//! ```
//! use bandwise::corruption::{Corruption, Corruptor, Protocol, Severity};
//! use bandwise::data::Image;
//!
//! # fn main() -> bandwise::Result<()> {
//! let gray = Image::filled(32, 32, 3, 0.4);
//! let corruptor = Corruptor::new(Protocol::Cifar, 0);
//! let noise: Corruption = "gaussian_noise".parse()?;
//! let mut powers = Vec::new();
//! for severity in Severity::all() {
//!     let noisy = corruptor.apply_image(&gray, noise, severity, 7)?;
//!     assert_eq!(noisy, corruptor.apply_image(&gray, noise, severity, 7)?);
//!     powers.push(noisy.pixels.iter().map(|pixel| (pixel - 0.4).powi(2)).sum::<f32>());
//! }
//! assert!(powers.is_sorted());
//! # Ok(())
//! # }
//! ```

mod blur;
mod byte_image;
mod color;
mod config;
mod constants;
mod corruptor;
mod dataset;
mod elastic;
pub mod export;
mod filter;
mod frost;
mod jpeg;
mod kinds;
mod noise;
mod pixelate;
mod plasma;
mod poisson;
mod shift;
mod spatter;
mod spectrum;
mod table;
pub mod verify;
mod weather;
mod zoom;

#[cfg(test)]
mod tests;

pub use byte_image::ByteImage;
pub use config::CorruptionConfig;
pub use corruptor::Corruptor;
pub use dataset::ChangedDataset;
pub use frost::FrostTextures;
pub use kinds::{Protocol, Severity};
pub use shift::Shift;
pub use spectrum::DifferenceSpectrum;
pub use table::Corruption;
pub(crate) use table::Family;
