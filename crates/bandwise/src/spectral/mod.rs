//! Pure mathematics of the frequency domain: bases, transforms, bands, spectra. Knows no network.
//!
//! | module | what |
//! |---|---|
//! | [`dct`] | the cosine basis in which convolution filters are written |
//! | [`fourier`] | 2-D Fourier transforms and spectral filters, on arrays and differentiable on tensors |
//! | [`statistics`] | mean amplitude, log and power spectra of many images |
//! | [`bands`] | rings, sectors, ideal low-, high- and band-pass windows, radial profiles |
//! | [`circular`] | circular filters along one axis |
//! | [`noise`] | Fourier basis images, the perturbations of a Fourier heat map |
//!
//! Spectra are un-normalized (`F[u, v] = Σ x[m, n] exp(−2πi(um/H + vn/W))`) and *un-shifted*: the mean sits
//! at `[0, 0]`. [`bands::shift`] moves it to the center for images.
//!
//! ```
//! use bandwise::candle_core::{Device, Tensor};
//! use bandwise::spectral::{bands, fourier};
//!
//! # fn main() -> bandwise::Result<()> {
//! let image = Tensor::arange(0f64, 16.0, &Device::Cpu)?.reshape((1, 4, 4, 1))?;
//! // Below the first frequency only the mean is left.
//! let mask = Tensor::from_vec(bands::low_pass(4, 4, 0.5), (4, 4), &Device::Cpu)?;
//! let flat = fourier::filter2(&image, &mask)?.flatten_all()?.to_vec1::<f64>()?;
//! assert!(flat.iter().all(|pixel| (pixel - 7.5).abs() < 1e-12));
//! # Ok(())
//! # }
//! ```

pub mod bands;
pub mod circular;
pub mod dct;
pub mod fourier;
pub mod noise;
pub mod statistics;
