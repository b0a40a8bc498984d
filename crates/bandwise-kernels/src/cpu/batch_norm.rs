//! Batch norm over rows of channels: two passes forward, two backward, ReLU and residual inside.
//!
//! Sums run over fixed pieces of rows in the element type, shifted by the piece's first row, and are combined in
//! order in f64, so that neither the number of threads nor a large mean costs accuracy.

use rayon::prelude::*;

use crate::element::Element;
use crate::memory::{SharedMut, produce};

/// Elements per task, rounded to whole rows.
const PIECE: usize = 1 << 15;

/// Rows per task.
fn piece_rows(channels: usize) -> usize {
    (PIECE / channels.max(1)).max(1)
}

/// Calls `body(rows, first element)` for every piece of rows, in parallel, and returns the results in order.
pub(crate) fn map_pieces<R: Send>(
    length: usize,
    channels: usize,
    body: impl Fn(std::ops::Range<usize>) -> R + Sync,
) -> Vec<R> {
    let step = piece_rows(channels) * channels;
    let pieces = length.div_ceil(step.max(1));
    (0..pieces).into_par_iter().map(|p| body(p * step..length.min((p + 1) * step))).collect()
}

/// Mean and biased variance of every channel.
pub(crate) struct Moments {
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
}

/// Moments of `x`, rows of `channels` values.
pub(crate) fn moments<T: Element>(x: &[T], channels: usize) -> Moments {
    let pieces = map_pieces(x.len(), channels, |range| {
        let piece = &x[range];
        let shift = &piece[..channels];
        let mut sums = vec![T::ZERO; channels];
        let mut squares = vec![T::ZERO; channels];
        for row in piece.chunks_exact(channels) {
            for (((sum, square), &shift), &value) in sums.iter_mut().zip(&mut squares).zip(shift).zip(row) {
                let value = value - shift;
                *sum += value;
                *square += value * value;
            }
        }
        let count = (piece.len() / channels) as f64;
        let mut mean = Vec::with_capacity(channels);
        let mut spread = Vec::with_capacity(channels);
        for c in 0..channels {
            let (sum, square) = (sums[c].to_f64(), squares[c].to_f64());
            mean.push(shift[c].to_f64() + sum / count);
            spread.push((square - sum * sum / count).max(0.0));
        }
        (count, mean, spread)
    });
    let mut total = 0.0;
    let (mut mean, mut spread) = (vec![0.0; channels], vec![0.0; channels]);
    for (count, piece_mean, piece_spread) in pieces {
        let sum = total + count;
        for c in 0..channels {
            let difference = piece_mean[c] - mean[c];
            mean[c] += difference * count / sum;
            spread[c] += piece_spread[c] + difference * difference * total * count / sum;
        }
        total = sum;
    }
    Moments { mean, variance: spread.into_iter().map(|s| s / total).collect() }
}

/// `relu(x · scale + shift + residual)` with one scale and shift per channel.
pub(crate) fn affine<T: Element>(
    x: &[T],
    scale: &[T],
    shift: &[T],
    residual: Option<&[T]>,
    relu: bool,
) -> Vec<T> {
    let channels = scale.len();
    let fill = |out: &SharedMut<'_, T>| {
        map_pieces(x.len(), channels, |range| {
            // SAFETY: pieces are disjoint and inside the buffer; the loops below write all of it.
            let out = unsafe { out.slice(range.start, range.len()) };
            let x = &x[range.clone()];
            match residual.map(|r| &r[range]) {
                None => {
                    for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                        for (((out, &x), &scale), &shift) in out.iter_mut().zip(x).zip(scale).zip(shift) {
                            out.write(rectified(x * scale + shift, relu));
                        }
                    }
                }
                Some(residual) => {
                    let rows = out.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                    for ((out, x), residual) in rows.zip(residual.chunks_exact(channels)) {
                        let values = out.iter_mut().zip(x).zip(residual).zip(scale).zip(shift);
                        for ((((out, &x), &residual), &scale), &shift) in values {
                            out.write(rectified(x * scale + shift + residual, relu));
                        }
                    }
                }
            }
        });
    };
    // SAFETY: the pieces cover the buffer.
    unsafe { produce(x.len(), fill) }
}

#[inline(always)]
fn rectified<T: Element>(value: T, relu: bool) -> T {
    if relu && value <= T::ZERO { T::ZERO } else { value }
}

/// Where the gradient passes the ReLU behind the normalization.
pub(crate) enum ReluMask<'a, T> {
    /// There is no ReLU.
    None,
    /// Where this result is positive.
    Result(&'a [T]),
    /// Where `x · scale + shift` is positive: the result computed again, which costs less than reading it.
    Affine { scale: &'a [T], shift: &'a [T] },
}

/// What the backward passes read.
pub(crate) struct Backward<'a, T> {
    pub x: &'a [T],
    pub gradient: &'a [T],
    pub mask: ReluMask<'a, T>,
    pub mean: &'a [T],
    /// `1 / sqrt(variance + epsilon)` per channel.
    pub inverse: &'a [T],
}

impl<T: Element> Backward<'_, T> {
    /// The gradient behind the ReLU of the row that starts at `start`, in `buffer` unless there is none.
    #[inline(always)]
    fn row<'b>(&'b self, start: usize, buffer: &'b mut [T]) -> &'b [T] {
        let channels = self.mean.len();
        let gradient = &self.gradient[start..start + channels];
        let masked = |passes: bool, gradient: T| if passes { gradient } else { T::ZERO };
        match self.mask {
            ReluMask::None => return gradient,
            ReluMask::Result(result) => {
                let result = &result[start..start + channels];
                for ((out, &gradient), &result) in buffer.iter_mut().zip(gradient).zip(result) {
                    *out = masked(result > T::ZERO, gradient);
                }
            }
            ReluMask::Affine { scale, shift } => {
                let x = &self.x[start..start + channels];
                let values = buffer.iter_mut().zip(gradient).zip(x).zip(scale).zip(shift);
                for ((((out, &gradient), &x), &scale), &shift) in values {
                    *out = masked(x * scale + shift > T::ZERO, gradient);
                }
            }
        }
        buffer
    }

    /// Sums over rows of the gradient (behind the ReLU), and of gradient times normalized input.
    pub(crate) fn sums(&self) -> (Vec<f64>, Vec<f64>) {
        let channels = self.mean.len();
        let pieces = map_pieces(self.x.len(), channels, |range| {
            let mut plain = vec![T::ZERO; channels];
            let mut along = vec![T::ZERO; channels];
            let mut buffer = vec![T::ZERO; channels];
            for start in range.step_by(channels) {
                let gradient = self.row(start, &mut buffer);
                let x = &self.x[start..start + channels];
                let sums = plain.iter_mut().zip(&mut along).zip(self.mean).zip(x).zip(gradient);
                for ((((plain, along), &mean), &x), &gradient) in sums {
                    *plain += gradient;
                    *along += gradient * (x - mean);
                }
            }
            (plain, along)
        });
        let (mut plain, mut along) = (vec![0.0; channels], vec![0.0; channels]);
        for (piece_plain, piece_along) in pieces {
            for c in 0..channels {
                plain[c] += piece_plain[c].to_f64();
                along[c] += piece_along[c].to_f64() * self.inverse[c].to_f64();
            }
        }
        (plain, along)
    }

    /// `gradient · scale + (x − mean) · slope + offset` per channel, gradient taken behind the ReLU; and that
    /// gradient itself, if `keep`.
    pub(crate) fn combine(&self, scale: &[T], slope: &[T], offset: &[T], keep: bool) -> (Vec<T>, Vec<T>) {
        let length = self.x.len();
        let mut kept = Vec::new();
        let fill = |out: &SharedMut<'_, T>| match keep {
            // SAFETY: the pieces cover both buffers.
            true => {
                kept = unsafe { produce(length, |kept| self.fill(scale, slope, offset, out, Some(kept))) }
            }
            false => self.fill(scale, slope, offset, out, None),
        };
        // SAFETY: the pieces cover the buffer.
        let combined = unsafe { produce(length, fill) };
        (combined, kept)
    }

    /// Writes all of `out` and of `kept`.
    fn fill(
        &self,
        scale: &[T],
        slope: &[T],
        offset: &[T],
        out: &SharedMut<'_, T>,
        kept: Option<&SharedMut<'_, T>>,
    ) {
        let channels = self.mean.len();
        map_pieces(self.x.len(), channels, |range| {
            let mut buffer = vec![T::ZERO; channels];
            for start in range.step_by(channels) {
                // SAFETY: pieces are disjoint and inside the buffers; all of every row is written below.
                let out = unsafe { out.slice(start, channels) };
                let gradient = self.row(start, &mut buffer);
                if let Some(kept) = kept {
                    // SAFETY: as above.
                    let kept = unsafe { kept.slice(start, channels) };
                    for (kept, &gradient) in kept.iter_mut().zip(gradient) {
                        kept.write(gradient);
                    }
                }
                let x = &self.x[start..start + channels];
                let constants = self.mean.iter().zip(scale).zip(slope).zip(offset);
                let values = out.iter_mut().zip(x).zip(gradient).zip(constants);
                for (((out, &x), &gradient), (((&mean, &scale), &slope), &offset)) in values {
                    out.write(gradient * scale + (x - mean) * slope + offset);
                }
            }
        });
    }
}
