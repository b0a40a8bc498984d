//! Transforms as products with Fourier matrices: exact, differentiable by ordinary operations, on any device.

use std::f64::consts::TAU;

use candle_core::{DType, Device, Tensor};

use crate::Result;

/// Cosines and sines of `2π·k·n/side` as `[side, side]` matrices (symmetric).
fn fourier_matrices(side: usize, dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
    let angle = |p: usize| TAU * ((p / side * (p % side)) % side) as f64 / side as f64;
    let table = |function: fn(f64) -> f64| -> Result<Tensor> {
        let values: Vec<f64> = (0..side * side).map(|p| function(angle(p))).collect();
        Ok(Tensor::from_vec(values, (side, side), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
    };
    Ok((table(f64::cos)?, table(f64::sin)?))
}

/// See [`super::tensor::dft2`].
pub(super) fn dft2(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let zero = x.zeros_like()?;
    transform(x, &zero, -1.0)
}

/// See [`super::tensor::idft2`].
pub(super) fn idft2(re: &Tensor, im: &Tensor) -> Result<Tensor> {
    let (_, height, width, _) = re.dims4()?;
    let (re, _) = transform(re, im, 1.0)?;
    Ok((re / (height * width) as f64)?)
}

/// `Σ (re + i·im) exp(sign · 2πi·…)` over rows and columns of `[batch, height, width, channels]`.
fn transform(re: &Tensor, im: &Tensor, sign: f64) -> Result<(Tensor, Tensor)> {
    let (batch, height, width, channels) = re.dims4()?;
    let planes =
        |t: &Tensor| t.permute((0, 3, 1, 2))?.contiguous()?.reshape((batch * channels, height, width));
    let images =
        |t: &Tensor| t.reshape((batch, channels, height, width))?.permute((0, 2, 3, 1))?.contiguous();
    let (re, im) = along_last(&planes(re)?, &planes(im)?, sign)?;
    let (re, im) = along_last(&re.transpose(1, 2)?.contiguous()?, &im.transpose(1, 2)?.contiguous()?, sign)?;
    Ok((images(&re.transpose(1, 2)?.contiguous()?)?, images(&im.transpose(1, 2)?.contiguous()?)?))
}

fn along_last(re: &Tensor, im: &Tensor, sign: f64) -> Result<(Tensor, Tensor)> {
    let (planes, rows, side) = re.dims3()?;
    let (cos, sin) = fourier_matrices(side, re.dtype(), re.device())?;
    let sin = (sin * sign)?;
    let flat = |t: &Tensor| t.reshape((planes * rows, side));
    let (re, im) = (flat(re)?, flat(im)?);
    let out_re = (re.matmul(&cos)? - im.matmul(&sin)?)?;
    let out_im = (re.matmul(&sin)? + im.matmul(&cos)?)?;
    Ok((out_re.reshape((planes, rows, side))?, out_im.reshape((planes, rows, side))?))
}
