//! Depthwise convolution (one kernel per channel): no matrix product, but sums of products of whole pixels.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::gather::Epilogue;
use super::gather_plan::GatherPlan;
use super::kernel::Kernels;
use crate::element::Element;
use crate::geometry::Geometry;
use crate::memory::{SharedMut, produce};

/// Target pixels per task.
const TASK_ROWS: usize = 256;
/// Least and most pixels per partial sum of the weight gradient.
const SPLIT_PIXELS: usize = 1024;
const MOST_SPLITS: usize = 32;
/// Channels whose sums are kept in registers.
const LANES: usize = 64;

/// Weights `[channels, 1, kh, kw]` as `[tap][channels]`.
pub(crate) fn pack<T: Element>(geometry: &Geometry, weight: &[T]) -> Vec<T> {
    let (taps, channels) = (geometry.taps(), geometry.in_channels);
    let at = |i: usize| weight[i % channels * taps + i / channels];
    (0..taps * channels).map(at).collect()
}

/// One target pixel: `out = relu(Σ_tap inputs[tap] · weights[tap] + bias + residual)`, channel by channel,
/// and 0 where the mask is not positive.
pub(crate) struct PixelSum<'a, T> {
    pub inputs: &'a [&'a [T]],
    pub weights: &'a [&'a [T]],
    pub bias: Option<&'a [T]>,
    pub residual: Option<&'a [T]>,
    pub relu: bool,
    pub relu_mask: Option<&'a [T]>,
    pub out: &'a mut [MaybeUninit<T>],
}

#[inline(always)]
fn sum_pixel<T: Element, const FUSED: bool>(pixel: PixelSum<'_, T>) {
    let channels = pixel.out.len();
    for first in (0..channels).step_by(LANES) {
        let count = LANES.min(channels - first);
        let mut sums = [T::ZERO; LANES];
        for (input, weight) in pixel.inputs.iter().zip(pixel.weights) {
            let (input, weight) = (&input[first..first + count], &weight[first..first + count]);
            for ((sum, &x), &w) in sums.iter_mut().zip(input).zip(weight) {
                *sum = x.multiply_add::<FUSED>(w, *sum);
            }
        }
        for optional in [pixel.bias, pixel.residual].into_iter().flatten() {
            for (sum, &value) in sums.iter_mut().zip(&optional[first..first + count]) {
                *sum += value;
            }
        }
        if let Some(mask) = pixel.relu_mask {
            for (sum, &mask) in sums.iter_mut().zip(&mask[first..first + count]) {
                *sum = if mask > T::ZERO { *sum } else { T::ZERO };
            }
        }
        for (out, &sum) in pixel.out[first..first + count].iter_mut().zip(&sums) {
            out.write(if pixel.relu && sum <= T::ZERO { T::ZERO } else { sum });
        }
    }
}

/// `sums[c] += a[c] · b[c]`
#[inline(always)]
fn add_products<T: Element, const FUSED: bool>(a: &[T], b: &[T], sums: &mut [T]) {
    for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
        *sum = a.multiply_add::<FUSED>(b, *sum);
    }
}

/// The two kernels of one instruction set.
pub(crate) struct PixelKernels<T> {
    /// # Safety
    /// The machine has the instruction set.
    pub sum: unsafe fn(PixelSum<'_, T>),
    /// # Safety
    /// The machine has the instruction set.
    pub add_products: unsafe fn(&[T], &[T], &mut [T]),
}

/// One instantiation of the kernels above.
macro_rules! instantiate {
    ($module:ident, $fused:literal $(, $feature:literal)?) => {
        pub(crate) mod $module {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn sum<T: Element>(pixel: PixelSum<'_, T>) {
                super::sum_pixel::<T, $fused>(pixel)
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn products<T: Element>(a: &[T], b: &[T], sums: &mut [T]) {
                super::add_products::<T, $fused>(a, b, sums)
            }

            pub(crate) const fn kernels<T: Element>() -> PixelKernels<T> {
                PixelKernels { sum: sum::<T>, add_products: products::<T> }
            }
        }
    };
}

instantiate!(base, false);
#[cfg(target_arch = "x86_64")]
instantiate!(avx2, true, "avx2,fma");
#[cfg(target_arch = "x86_64")]
instantiate!(avx512, true, "avx512f,avx512vl,avx2,fma");

/// The forward pass, or with the plans of the data gradient that.
pub(crate) fn run<T: Element>(
    kernels: &Kernels<T>,
    plans: &[GatherPlan],
    source: &[T],
    weights: &[T],
    channels: usize,
    epilogue: Epilogue<'_, T>,
) -> Vec<T> {
    let zeros = vec![T::ZERO; channels];
    let length = plans.first().map_or(0, |plan| plan.batch * plan.target[0] * plan.target[1] * channels);
    let fill = |target: &SharedMut<'_, T>| {
        for plan in plans {
            let weights: Vec<&[T]> =
                plan.taps.iter().map(|tap| &weights[tap.kernel * channels..][..channels]).collect();
            let rows = plan.rows();
            (0..rows.div_ceil(TASK_ROWS)).into_par_iter().for_each(|task| {
                let first = task * TASK_ROWS;
                let mut position = plan.position(first);
                let mut inputs: Vec<&[T]> = Vec::with_capacity(weights.len());
                for _ in first..rows.min(first + TASK_ROWS) {
                    inputs.clear();
                    inputs.extend(plan.taps.iter().map(|tap| match plan.source_pixel(&position, tap) {
                        Some(pixel) => &source[pixel * channels..][..channels],
                        None => &zeros[..],
                    }));
                    let start = plan.target_pixel(&position) * channels;
                    // SAFETY: tasks and plans own disjoint pixels of the target.
                    let out = unsafe { target.slice(start, channels) };
                    let Epilogue { bias, relu, .. } = epilogue;
                    let [residual, relu_mask] = [epilogue.residual, epilogue.relu_mask]
                        .map(|values| values.map(|values| &values[start..start + channels]));
                    let pixel =
                        PixelSum { inputs: &inputs, weights: &weights, bias, residual, relu, relu_mask, out };
                    // SAFETY: the table comes from feature detection.
                    unsafe { (kernels.pixels.sum)(pixel) };
                    plan.advance(&mut position);
                }
            });
        }
    };
    // SAFETY: the plans together visit every target pixel, with all channels.
    unsafe { produce(length, fill) }
}

/// Gradient with respect to the weight, `[channels, 1, kh, kw]`.
pub(crate) fn weight_gradient<T: Element>(
    kernels: &Kernels<T>,
    geometry: &Geometry,
    input: &[T],
    gradient: &[T],
) -> Vec<T> {
    let (taps, channels) = (geometry.taps(), geometry.in_channels);
    let plan = GatherPlan::forward(geometry);
    let pixels = plan.rows();
    let splits = (pixels / SPLIT_PIXELS).clamp(1, MOST_SPLITS);
    let step = pixels.div_ceil(splits);
    let mut partial = vec![T::ZERO; splits * taps * channels];
    partial.par_chunks_mut((taps * channels).max(1)).enumerate().for_each(|(split, sums)| {
        let first = split * step;
        let mut position = plan.position(first);
        for p in first..pixels.min(first + step) {
            let gradient = &gradient[p * channels..][..channels];
            for (tap, sums) in plan.taps.iter().zip(sums.chunks_exact_mut(channels)) {
                if let Some(pixel) = plan.source_pixel(&position, tap) {
                    let input = &input[pixel * channels..][..channels];
                    // SAFETY: the table comes from feature detection.
                    unsafe { (kernels.pixels.add_products)(input, gradient, sums) };
                }
            }
            plan.advance(&mut position);
        }
    });
    let at = |i: usize| {
        let index = i % taps * channels + i / taps;
        let mut sum = partial[index];
        for split in 1..splits {
            sum += partial[split * taps * channels + index];
        }
        sum
    };
    (0..channels * taps).map(at).collect()
}
