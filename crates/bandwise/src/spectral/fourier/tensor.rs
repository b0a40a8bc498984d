//! Differentiable transforms and filters of tensors `[batch, height, width, channels]`.
//!
//! On the CPU these are custom operators around rustfft; on other devices products with Fourier matrices, built from
//! ordinary differentiable operations. Both compute in the tensor's own `f32` or `f64`.

use candle_core::{Device, Tensor};

use super::matrix;
use super::operator::{FilterOp, ForwardOp, InverseOp};
use crate::{Error, Result};

/// Real and imaginary part of the un-normalized 2-D transform of every channel, each `[batch, height, width,
/// channels]`, un-shifted. Differentiable.
pub fn dft2(x: &Tensor) -> Result<(Tensor, Tensor)> {
    x.dims4()?;
    if !matches!(x.device(), Device::Cpu) {
        return matrix::dft2(x);
    }
    let spectrum = x.contiguous()?.apply_op1(ForwardOp)?;
    Ok((spectrum.get(0)?, spectrum.get(1)?))
}

/// Real part of the inverse transform (divided by `height · width`) of `re + i·im`, the shapes of [`dft2`].
/// Differentiable.
pub fn idft2(re: &Tensor, im: &Tensor) -> Result<Tensor> {
    re.dims4()?;
    if !matches!(re.device(), Device::Cpu) {
        return matrix::idft2(re, im);
    }
    Ok(Tensor::stack(&[re, im], 0)?.contiguous()?.apply_op1(InverseOp)?)
}

/// `Re(IFFT2(M ⊙ FFT2(x)))`: every channel of `x` `[batch, height, width, channels]` filtered with the un-shifted real
/// mask `M`, `[height, width]` for all images or `[batch, height, width]`, one per image. Differentiable in both.
///
/// Only the even part of `M` acts; its gradient is therefore even.
///
/// # Errors
/// [`Error::Config`] if the shapes do not fit.
pub fn filter2(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    check_shapes(x.dims4()?, mask)?;
    let mask = mask.to_dtype(x.dtype())?;
    if matches!(x.device(), Device::Cpu) {
        return Ok(x.contiguous()?.apply_op2(&mask.contiguous()?, FilterOp)?);
    }
    let (re, im) = matrix::dft2(x)?;
    let mask = mask.unsqueeze(mask.rank())?;
    matrix::idft2(&re.broadcast_mul(&mask)?, &im.broadcast_mul(&mask)?)
}

pub(super) fn check_shapes(x: (usize, usize, usize, usize), mask: &Tensor) -> Result<()> {
    let (batch, height, width, _) = x;
    if mask.dims() == [height, width] || mask.dims() == [batch, height, width] {
        return Ok(());
    }
    Err(Error::config(format!(
        "a mask for {batch} images of {height}x{width} is [{height}, {width}] or [{batch}, {height}, {width}], got {:?}",
        mask.dims()
    )))
}
