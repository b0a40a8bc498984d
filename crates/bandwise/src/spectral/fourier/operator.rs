//! Custom operators around rustfft, with their adjoints as backward. CPU tensors, `f32` and `f64`.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use super::planes::{Plane, opposite, pack, pairs, separate, unpack};
use super::transform::Real;

/// Runs a generic function for the storage's scalar type.
macro_rules! by_type {
    ($storage:expr, $function:ident($($argument:expr),*)) => {
        match $storage.dtype() {
            DType::F32 => $function::<f32>($($argument),*),
            DType::F64 => $function::<f64>($($argument),*),
            other => bail!("a Fourier transform needs f32 or f64, got {other:?}"),
        }
    };
}

/// The values of a contiguous tensor.
pub(super) fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("a Fourier operator got a tensor that is not contiguous"),
    }
}

pub(super) fn zero<T: Real>() -> T {
    T::real(0.0)
}

fn zeros<T: Real>(length: usize) -> Vec<Complex<T>> {
    vec![Complex::new(zero(), zero()); length]
}

/// `[b, h, w, c]` to `[2, b, h, w, c]`: real and imaginary part.
pub(super) struct ForwardOp;

impl CustomOp1 for ForwardOp {
    fn name(&self) -> &'static str {
        "dft2"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_type!(storage, forward(storage, layout))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        // The adjoint of Σ x exp(−i…) is Re Σ g exp(+i…): the inverse without its division.
        let (_, height, width, _) = arg.dims4()?;
        let adjoint = grad.contiguous()?.apply_op1_no_bwd(&InverseOp)?;
        Ok(Some((adjoint * (height * width) as f64)?))
    }
}

fn forward<T: Real>(storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let (batch, height, width, channels) = layout.shape().dims4()?;
    let images = slice::<T>(storage, layout)?;
    let (area, length) = (height * width, height * width * channels);
    let plan = T::plan(height, width);
    let mut output = vec![zero::<T>(); 2 * batch * length];
    let (re, im) = output.split_at_mut(batch * length);
    re.par_chunks_mut(length).zip(im.par_chunks_mut(length)).zip(images.par_chunks(length)).for_each_init(
        || (zeros(area), plan.scratch()),
        |(packed, scratch), ((re, im), image)| {
            for pair in pairs(1, area, channels) {
                pack(image, pair, packed);
                plan.forward(packed, scratch);
                for k in 0..area {
                    let (first, second) = separate(packed[k], packed[opposite(k, height, width)]);
                    let mut write = |plane: Plane, z: Complex<T>| {
                        re[plane.offset + k * plane.stride] = z.re;
                        im[plane.offset + k * plane.stride] = z.im;
                    };
                    write(pair.0, first);
                    if let Some(plane) = pair.1 {
                        write(plane, second);
                    }
                }
            }
        },
    );
    Ok((T::to_cpu_storage_owned(output), (2, batch, height, width, channels).into()))
}

/// `[2, b, h, w, c]` to `[b, h, w, c]`: real part of the inverse transform.
pub(super) struct InverseOp;

impl CustomOp1 for InverseOp {
    fn name(&self) -> &'static str {
        "idft2"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        by_type!(storage, inverse(storage, layout))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, height, width, _) = grad.dims4()?;
        let adjoint = grad.contiguous()?.apply_op1_no_bwd(&ForwardOp)?;
        Ok(Some((adjoint / (height * width) as f64)?))
    }
}

fn inverse<T: Real>(storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
    let (two, batch, height, width, channels) = layout.shape().dims5()?;
    if two != 2 {
        bail!("the inverse transform needs real and imaginary part stacked, got {:?}", layout.shape());
    }
    let spectra = slice::<T>(storage, layout)?;
    let (area, length) = (height * width, height * width * channels);
    let (re, im) = spectra.split_at(batch * length);
    let plan = T::plan(height, width);
    let mut output = vec![zero::<T>(); batch * length];
    output.par_chunks_mut(length).zip(re.par_chunks(length)).zip(im.par_chunks(length)).for_each_init(
        || (zeros(area), plan.scratch()),
        |(packed, scratch), ((image, re), im)| {
            for pair in pairs(1, area, channels) {
                // The real part belongs to the Hermitian part of the spectrum; two of those travel as a + ib.
                let half = T::real(0.5);
                let hermitian = |plane: Plane, k: usize| {
                    let at = |k: usize| {
                        Complex::new(re[plane.offset + k * plane.stride], im[plane.offset + k * plane.stride])
                    };
                    (at(k) + at(opposite(k, height, width)).conj()).scale(half)
                };
                for (k, z) in packed.iter_mut().enumerate() {
                    let first = hermitian(pair.0, k);
                    *z = match pair.1 {
                        Some(plane) => {
                            let second = hermitian(plane, k);
                            Complex::new(first.re - second.im, first.im + second.re)
                        }
                        None => first,
                    };
                }
                plan.inverse(packed, scratch);
                unpack(packed, pair, image);
            }
        },
    );
    Ok((T::to_cpu_storage_owned(output), (batch, height, width, channels).into()))
}

/// `Re(IFFT2(M ⊙ FFT2(x)))` with `x` `[b, h, w, c]` and `M` `[h, w]` or `[b, h, w]`.
pub(super) struct FilterOp;

impl CustomOp2 for FilterOp {
    fn name(&self) -> &'static str {
        "filter2"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        mask: &CpuStorage,
        ml: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        by_type!(x, filter(x, xl, mask, ml))
    }

    fn bwd(
        &self,
        x: &Tensor,
        mask: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        // A real even gain is its own adjoint.
        let grad_x = if x.track_op() { Some(grad.apply_op2_no_bwd(mask, &FilterOp)?) } else { None };
        let shared = mask.rank() == 2;
        let grad_mask =
            if mask.track_op() { Some(grad.apply_op2_no_bwd(x, &MaskGradient { shared })?) } else { None };
        Ok((grad_x, grad_mask))
    }
}

/// Images that share transforms: two when their masks are one and their channels odd.
fn images_per_unit(shared: bool, channels: usize) -> usize {
    if shared && channels % 2 == 1 { 2 } else { 1 }
}

fn filter<T: Real>(
    x: &CpuStorage,
    xl: &Layout,
    mask: &CpuStorage,
    ml: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let (_, height, width, channels) = xl.shape().dims4()?;
    let (images, masks) = (slice::<T>(x, xl)?, slice::<T>(mask, ml)?);
    let area = height * width;
    let shared = ml.shape().rank() == 2;
    let unit = images_per_unit(shared, channels) * area * channels;
    let plan = T::plan(height, width);
    let common = shared.then(|| even_gain(masks, height, width));
    let mut output = vec![zero::<T>(); images.len()];
    output.par_chunks_mut(unit).zip(images.par_chunks(unit)).enumerate().for_each_init(
        || (zeros(area), plan.scratch()),
        |(packed, scratch), (index, (output, images))| {
            let own;
            let gain = match &common {
                Some(gain) => gain,
                None => {
                    own = even_gain(&masks[index * area..(index + 1) * area], height, width);
                    &own
                }
            };
            for pair in pairs(images.len() / (area * channels), area, channels) {
                pack(images, pair, packed);
                plan.forward_transposed(packed, scratch);
                packed.iter_mut().zip(gain).for_each(|(z, &gain)| *z = z.scale(gain));
                plan.inverse_transposed(packed, scratch);
                unpack(packed, pair, output);
            }
        },
    );
    Ok((T::to_cpu_storage_owned(output), xl.shape().clone()))
}

/// The even part of a mask, transposed to `[width, height]` and divided by `height · width`.
pub(super) fn even_gain<T: Real>(mask: &[T], height: usize, width: usize) -> Vec<T> {
    let scale = T::real(0.5 / (height * width) as f64);
    (0..width * height)
        .map(|p| {
            let k = p % height * width + p / height;
            (mask[k] + mask[opposite(k, height, width)]) * scale
        })
        .collect()
}

/// Gradient of the filter with respect to its mask, from the upstream gradient and the images.
struct MaskGradient {
    shared: bool,
}

impl CustomOp2 for MaskGradient {
    fn name(&self) -> &'static str {
        "filter2-mask-gradient"
    }

    fn cpu_fwd(
        &self,
        grad: &CpuStorage,
        gl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shared = self.shared;
        by_type!(x, mask_gradient(grad, gl, x, xl, shared))
    }
}

fn mask_gradient<T: Real>(
    grad: &CpuStorage,
    gl: &Layout,
    x: &CpuStorage,
    xl: &Layout,
    shared: bool,
) -> Result<(CpuStorage, Shape)> {
    let (batch, height, width, channels) = xl.shape().dims4()?;
    let (grads, images) = (slice::<T>(grad, gl)?, slice::<T>(x, xl)?);
    let area = height * width;
    let plan = T::plan(height, width);
    // For a shared mask, units of fixed size are summed in order: the result does not depend on the thread count.
    let unit = if shared { 8 } else { 1 } * area * channels;
    let sums: Vec<Vec<T>> = grads
        .par_chunks(unit)
        .zip(images.par_chunks(unit))
        .map_init(
            || (zeros(area), zeros(area), plan.scratch()),
            |(packed_grad, packed_image, scratch), (grads, images)| {
                let mut sum = vec![zero::<T>(); area];
                for pair in pairs(images.len() / (area * channels), area, channels) {
                    pack(images, pair, packed_image);
                    pack(grads, pair, packed_grad);
                    plan.forward_transposed(packed_image, scratch);
                    plan.forward_transposed(packed_grad, scratch);
                    accumulate(&mut sum, packed_image, packed_grad);
                }
                sum
            },
        )
        .collect();
    let gradients = finish_mask_gradient(&sums, shared, height, width);
    let shape: Shape = if shared { (height, width).into() } else { (batch, height, width).into() };
    Ok((T::to_cpu_storage_owned(gradients), shape))
}

/// Adds `Re(X · conj(U))`; the cross terms of packed planes are odd and vanish in [`finish_mask_gradient`].
pub(super) fn accumulate<T: Real>(sum: &mut [T], image: &[Complex<T>], grad: &[Complex<T>]) {
    for ((sum, x), u) in sum.iter_mut().zip(image).zip(grad) {
        *sum = *sum + x.re * u.re + x.im * u.im;
    }
}

/// Even part of the accumulated products, back in `[height, width]` and divided by `height · width`; summed over all
/// parts for a shared mask, one after the other otherwise.
pub(super) fn finish_mask_gradient<T: Real>(
    sums: &[Vec<T>],
    shared: bool,
    height: usize,
    width: usize,
) -> Vec<T> {
    let area = height * width;
    // `even_gain` on the transposed sizes is this very operation: even part, transposition, division.
    let finish = |sum: &[T]| even_gain(sum, width, height);
    if !shared {
        return sums.iter().flat_map(|sum| finish(sum)).collect();
    }
    let mut total = vec![zero::<T>(); area];
    for part in sums {
        total.iter_mut().zip(part).for_each(|(total, &part)| *total += part);
    }
    finish(&total)
}
