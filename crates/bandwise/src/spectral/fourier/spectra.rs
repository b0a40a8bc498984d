//! Spectra of fixed images, for masks that change: half the transforms of filtering from pixels.

use std::sync::Arc;

use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Layout, Result as CandleResult, Shape, Tensor, bail,
};
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use super::matrix;
use super::operator::{accumulate, even_gain, finish_mask_gradient, slice, zero};
use super::planes::{pack, pairs, unpack};
use super::tensor::check_shapes;
use super::transform::Real;
use crate::Result;

/// The transformed images of a batch, computed once; [`filter`](Self::filter) applies masks to them.
///
/// Mask learning filters the same images thousands of times: here each step costs one inverse transform forward and
/// one transform backward. Pixels get no gradient.
pub struct ImageSpectra {
    shape: (usize, usize, usize, usize),
    store: Store,
}

enum Store {
    F32(Arc<Vec<Complex<f32>>>),
    F64(Arc<Vec<Complex<f64>>>),
    /// Other devices: real and imaginary part.
    Tensors(Tensor, Tensor),
}

impl ImageSpectra {
    /// Transforms images `[batch, height, width, channels]`.
    pub fn new(images: &Tensor) -> Result<Self> {
        let shape = images.dims4()?;
        let images = images.detach();
        let store = if !matches!(images.device(), Device::Cpu) {
            let (re, im) = matrix::dft2(&images)?;
            Store::Tensors(re, im)
        } else if images.dtype() == DType::F64 {
            Store::F64(Arc::new(packed_spectra(&images.flatten_all()?.to_vec1()?, shape)))
        } else {
            Store::F32(Arc::new(packed_spectra(
                &images.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
                shape,
            )))
        };
        Ok(Self { shape, store })
    }

    /// `Re(IFFT2(M ⊙ FFT2(x)))`, as [`super::filter2`] for these images; differentiable in the mask.
    pub fn filter(&self, mask: &Tensor) -> Result<Tensor> {
        check_shapes(self.shape, mask)?;
        let shape = self.shape;
        Ok(match &self.store {
            Store::F32(spectra) => {
                let op = MaskOp { spectra: spectra.clone(), shape };
                mask.to_dtype(DType::F32)?.contiguous()?.apply_op1(op)?
            }
            Store::F64(spectra) => {
                let op = MaskOp { spectra: spectra.clone(), shape };
                mask.to_dtype(DType::F64)?.contiguous()?.apply_op1(op)?
            }
            Store::Tensors(re, im) => {
                let mask = mask.unsqueeze(mask.rank())?;
                matrix::idft2(&re.broadcast_mul(&mask)?, &im.broadcast_mul(&mask)?)?
            }
        })
    }
}

/// Per image its packed pairs of planes, each a transposed spectrum.
fn packed_spectra<T: Real>(images: &[T], shape: (usize, usize, usize, usize)) -> Vec<Complex<T>> {
    let (batch, height, width, channels) = shape;
    let area = height * width;
    let per_image = channels.div_ceil(2) * area;
    let plan = T::plan(height, width);
    let mut spectra = vec![Complex::new(zero(), zero()); batch * per_image];
    spectra.par_chunks_mut(per_image).zip(images.par_chunks(area * channels)).for_each_init(
        || plan.scratch(),
        |scratch, (spectra, image)| {
            for (spectrum, pair) in spectra.chunks_exact_mut(area).zip(pairs(1, area, channels)) {
                pack(image, pair, spectrum);
                plan.forward_transposed(spectrum, scratch);
            }
        },
    );
    spectra
}

struct MaskOp<T: Real> {
    spectra: Arc<Vec<Complex<T>>>,
    shape: (usize, usize, usize, usize),
}

impl<T: Real> CustomOp1 for MaskOp<T> {
    fn name(&self) -> &'static str {
        "filter-spectra"
    }

    fn cpu_fwd(&self, mask: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let masks = slice::<T>(mask, layout)?;
        let (batch, height, width, channels) = self.shape;
        let area = height * width;
        let common = (layout.shape().rank() == 2).then(|| even_gain(masks, height, width));
        let plan = T::plan(height, width);
        let mut output = vec![zero::<T>(); batch * area * channels];
        let per_image = channels.div_ceil(2) * area;
        output
            .par_chunks_mut(area * channels)
            .zip(self.spectra.par_chunks(per_image))
            .enumerate()
            .for_each_init(
                || (vec![Complex::new(zero(), zero()); area], plan.scratch()),
                |(packed, scratch), (index, (output, spectra))| {
                    let own;
                    let gain = match &common {
                        Some(gain) => gain,
                        None => {
                            own = even_gain(&masks[index * area..(index + 1) * area], height, width);
                            &own
                        }
                    };
                    for (spectrum, pair) in spectra.chunks_exact(area).zip(pairs(1, area, channels)) {
                        for ((z, s), &gain) in packed.iter_mut().zip(spectrum).zip(gain) {
                            *z = s.scale(gain);
                        }
                        plan.inverse_transposed(packed, scratch);
                        unpack(packed, pair, output);
                    }
                },
            );
        Ok((T::to_cpu_storage_owned(output), self.shape.into()))
    }

    fn bwd(&self, mask: &Tensor, _res: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let op =
            SpectraGradient { spectra: self.spectra.clone(), shape: self.shape, shared: mask.rank() == 2 };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

struct SpectraGradient<T: Real> {
    spectra: Arc<Vec<Complex<T>>>,
    shape: (usize, usize, usize, usize),
    shared: bool,
}

impl<T: Real> CustomOp1 for SpectraGradient<T> {
    fn name(&self) -> &'static str {
        "filter-spectra-gradient"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let grads = slice::<T>(grad, layout)?;
        let (batch, height, width, channels) = self.shape;
        let area = height * width;
        if grads.len() != batch * area * channels {
            bail!("gradient of {:?} for images of {:?}", layout.shape(), self.shape);
        }
        let plan = T::plan(height, width);
        let per_image = channels.div_ceil(2) * area;
        // Units of fixed size, summed in order: the result does not depend on the thread count.
        let images = if self.shared { 8 } else { 1 };
        let sums: Vec<Vec<T>> = grads
            .par_chunks(images * area * channels)
            .zip(self.spectra.par_chunks(images * per_image))
            .map_init(
                || (vec![Complex::new(zero(), zero()); area], plan.scratch()),
                |(packed, scratch), (grads, spectra)| {
                    let mut sum = vec![zero::<T>(); area];
                    for (grad, spectra) in
                        grads.chunks_exact(area * channels).zip(spectra.chunks_exact(per_image))
                    {
                        for (spectrum, pair) in spectra.chunks_exact(area).zip(pairs(1, area, channels)) {
                            pack(grad, pair, packed);
                            plan.forward_transposed(packed, scratch);
                            accumulate(&mut sum, spectrum, packed);
                        }
                    }
                    sum
                },
            )
            .collect();
        let gradients = finish_mask_gradient(&sums, self.shared, height, width);
        let shape: Shape = if self.shared { (height, width).into() } else { (batch, height, width).into() };
        Ok((T::to_cpu_storage_owned(gradients), shape))
    }
}
