//! The operators composed of candle's own, for devices without kernels of ours.

use candle_core::{D, Result, Tensor};

use crate::geometry::ConvConfig;

/// `[batch, height, width, channels]` to `[batch, channels, height, width]`, contiguous.
fn channels_first(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

/// The inverse of [`channels_first`].
fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

pub(crate) fn conv2d(x: &Tensor, w: &Tensor, config: &ConvConfig) -> Result<Tensor> {
    let ConvConfig { stride, padding, dilation, groups, .. } = *config;
    channels_last(&channels_first(x)?.conv2d(&w.contiguous()?, padding, stride, dilation, groups)?)
}

/// Every window of a pooling as one tensor per kernel position, `[batch, out height, out width, channels]`.
fn windows(x: &Tensor, kernel: usize, stride: usize, padding: usize, fill: f64) -> Result<Vec<Tensor>> {
    let (batch, height, width, channels) = x.dims4()?;
    let padded = match padding {
        0 => x.clone(),
        _ => {
            let side = Tensor::full(fill as f32, (batch, padding, width, channels), x.device())?;
            let side = side.to_dtype(x.dtype())?;
            let tall = Tensor::cat(&[&side, x, &side], 1)?;
            let side =
                Tensor::full(fill as f32, (batch, height + 2 * padding, padding, channels), x.device())?;
            let side = side.to_dtype(x.dtype())?;
            Tensor::cat(&[&side, &tall, &side], 2)?
        }
    };
    let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
    let index = |start: usize, count: usize| {
        let values: Vec<u32> = (0..count).map(|i| (start + i * stride) as u32).collect();
        Tensor::new(values, x.device())
    };
    let mut found = Vec::with_capacity(kernel * kernel);
    for ky in 0..kernel {
        let rows = padded.index_select(&index(ky, out(height))?, 1)?;
        for kx in 0..kernel {
            found.push(rows.index_select(&index(kx, out(width))?, 2)?);
        }
    }
    Ok(found)
}

pub(crate) fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    max_pool2d_tangent(x, x, kernel, stride, padding)
}

pub(crate) fn max_pool2d_tangent(
    x: &Tensor,
    tangent: &Tensor,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let values = windows(&x.detach(), kernel, stride, padding, f64::from(f32::MIN))?;
    let tangents = windows(tangent, kernel, stride, padding, 0.0)?;
    let (mut best, mut result) = (values[0].clone(), tangents[0].clone());
    for (value, tangent) in values.iter().zip(&tangents).skip(1) {
        let better = value.gt(&best)?;
        best = better.where_cond(value, &best)?;
        result = better.where_cond(tangent, &result)?;
    }
    Ok(result)
}

pub(crate) fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let values = windows(x, kernel, stride, padding, 0.0)?;
    let mut sum = values[0].clone();
    for value in &values[1..] {
        sum = (sum + value)?;
    }
    sum / (kernel * kernel) as f64
}

pub(crate) fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.mean((1, 2))
}

/// `relu(x · scale + shift + residual)` with one scale and shift per channel.
fn finish(y: Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let y = match residual {
        Some(residual) => (y + residual)?,
        None => y,
    };
    if relu { y.relu() } else { Ok(y) }
}

/// Means over all but the last axis, `[1, channels]` after flattening to rows.
fn rows(x: &Tensor) -> Result<Tensor> {
    x.reshape(((), x.dim(D::Minus1)?))
}

/// The normalized tensor, biased variance and mean; differentiable throughout.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let flat = rows(x)?;
    let mean = flat.mean_keepdim(0)?;
    let centered = flat.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.mean_keepdim(0)?;
    let inverse = (&variance + epsilon)?.sqrt()?.recip()?;
    let y = centered.broadcast_mul(&inverse)?.broadcast_mul(gamma)?.broadcast_add(beta)?;
    let y = finish(y.reshape(x.shape())?, residual, relu)?;
    Ok((y, mean.squeeze(0)?.detach(), variance.squeeze(0)?.detach()))
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let scale = (gamma * (variance.detach() + epsilon)?.sqrt()?.recip()?)?;
    let shift = (beta - (mean.detach() * &scale)?)?;
    finish(x.broadcast_mul(&scale)?.broadcast_add(&shift)?, residual, relu)
}

pub(crate) fn batch_norm_train_tangent(
    x: &Tensor,
    tangent: &Tensor,
    gamma: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    let (flat, moving) = (rows(x)?, rows(tangent)?);
    let centered = flat.broadcast_sub(&flat.mean_keepdim(0)?)?;
    let inverse = (centered.sqr()?.mean_keepdim(0)? + epsilon)?.sqrt()?.recip()?;
    let normal = centered.broadcast_mul(&inverse)?;
    let moving_centered = moving.broadcast_sub(&moving.mean_keepdim(0)?)?;
    let along = (&normal * &moving)?.mean_keepdim(0)?;
    let result = (moving_centered - normal.broadcast_mul(&along)?)?;
    result.broadcast_mul(&inverse)?.broadcast_mul(gamma)?.reshape(x.shape())
}

pub(crate) fn relu_tangent(y: &Tensor, tangent: &Tensor) -> Result<Tensor> {
    y.detach().gt(0.0)?.where_cond(tangent, &tangent.zeros_like()?)
}

pub(crate) fn sign_step(
    x: &Tensor,
    gradient: &Tensor,
    origin: &Tensor,
    step: f64,
    epsilon: f64,
) -> Result<Tensor> {
    let sign = (gradient.gt(0.0)?.to_dtype(x.dtype())? - gradient.lt(0.0)?.to_dtype(x.dtype())?)?;
    let moved = (x + (sign * step)?)?;
    (origin + (moved - origin)?.clamp(-epsilon, epsilon)?)?.clamp(0.0, 1.0)
}
