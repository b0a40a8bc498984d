//! Circular filters along one axis: `IFFT(g ⊙ FFT(x))` for real sequences and a real, symmetric gain.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::fourier::Real;

/// Filters every channel of `x` `[batch, positions, channels]` along `positions`; `gain[p]` belongs to
/// frequency `p` and must be symmetric, `gain[p] = gain[positions − p]`. Differentiable in `x` (the filter
/// is its own adjoint). Any number of positions.
///
/// # Errors
/// If `x` is not `[batch, gain.len(), channels]`, in f32 or f64.
pub fn filter(x: &Tensor, gain: &[f64]) -> crate::Result<Tensor> {
    let (_, positions, _) = x.dims3()?;
    if positions != gain.len() {
        return Err(crate::Error::config(format!("{} gains for {positions} positions", gain.len())));
    }
    if x.device().is_cpu() {
        return Ok(x.contiguous()?.apply_op1(CircularFilter { gain: gain.to_vec() })?);
    }
    // Elsewhere as one product with the circulant matrix.
    let kernel = impulse_response(gain);
    let rows: Vec<f64> = (0..positions)
        .flat_map(|i| (0..positions).map(move |j| (i + positions - j) % positions))
        .map(|k| kernel[k])
        .collect();
    let matrix = Tensor::from_vec(rows, (positions, positions), x.device())?.to_dtype(x.dtype())?;
    Ok(matrix.broadcast_matmul(x)?)
}

/// The sequence whose transform is `gain`.
fn impulse_response(gain: &[f64]) -> Vec<f64> {
    let mut values: Vec<Complex<f64>> = gain.iter().map(|&g| Complex::new(g, 0.0)).collect();
    FftPlanner::new().plan_fft_inverse(gain.len()).process(&mut values);
    values.iter().map(|v| v.re / gain.len() as f64).collect()
}

/// Channels that are gathered at once: a cache line of `f32`.
const BLOCK: usize = 16;
/// Keeps the lines of a block off the same cache sets, whatever the number of positions.
const LINE_PADDING: usize = 8;

/// The filter of one sample `[positions, channels]`, planned; cheap to share between threads.
pub(crate) struct SampleFilter<T> {
    forward: Arc<dyn Fft<T>>,
    inverse: Arc<dyn Fft<T>>,
    /// The gain, divided by the number of positions (rustfft does not normalize).
    scaled: Vec<T>,
    channels: usize,
}

/// Working memory of a [`SampleFilter`]; one per thread.
pub(crate) struct Workspace<T> {
    /// Two channels each, as real and imaginary part: the filter is real, so they do not mix.
    lines: Vec<Complex<T>>,
    scratch: Vec<Complex<T>>,
}

impl<T: Real> SampleFilter<T> {
    pub(crate) fn new(gain: &[f64], channels: usize) -> Self {
        let mut planner = FftPlanner::new();
        Self {
            forward: planner.plan_fft_forward(gain.len()),
            inverse: planner.plan_fft_inverse(gain.len()),
            scaled: gain.iter().map(|g| T::real(g / gain.len() as f64)).collect(),
            channels,
        }
    }

    fn line(&self) -> usize {
        self.scaled.len() + LINE_PADDING
    }

    pub(crate) fn workspace(&self) -> Workspace<T> {
        let zero = Complex::new(T::real(0.0), T::real(0.0));
        let scratch = self.forward.get_inplace_scratch_len().max(self.inverse.get_inplace_scratch_len());
        Workspace { lines: vec![zero; self.line() * BLOCK / 2], scratch: vec![zero; scratch] }
    }

    /// Filters `sample`; `use_row(start, low)` gets the filtered values that belong to
    /// `sample[start..start + low.len()]`, at most [`BLOCK`] channels of one position at a time.
    pub(crate) fn run(&self, sample: &[T], work: &mut Workspace<T>, mut use_row: impl FnMut(usize, &[T])) {
        let positions = self.scaled.len();
        for first in (0..self.channels).step_by(BLOCK) {
            let width = BLOCK.min(self.channels - first);
            for (position, row) in sample.chunks_exact(self.channels).enumerate() {
                for (pair, line) in
                    row[first..first + width].chunks(2).zip(work.lines.chunks_mut(self.line()))
                {
                    line[position] = Complex::new(pair[0], pair.get(1).copied().unwrap_or(T::real(0.0)));
                }
            }
            for line in work.lines.chunks_mut(self.line()).take(width.div_ceil(2)) {
                let line = &mut line[..positions];
                self.forward.process_with_scratch(line, &mut work.scratch);
                line.iter_mut().zip(&self.scaled).for_each(|(value, &gain)| *value *= gain);
                self.inverse.process_with_scratch(line, &mut work.scratch);
            }
            let mut low = [T::real(0.0); BLOCK];
            for position in 0..positions {
                for (pair, line) in low.chunks_exact_mut(2).zip(work.lines.chunks(self.line())) {
                    pair.copy_from_slice(&[line[position].re, line[position].im]);
                }
                use_row(position * self.channels + first, &low[..width]);
            }
        }
    }
}

struct CircularFilter {
    gain: Vec<f64>,
}

impl CircularFilter {
    fn run<T: Real>(&self, x: &[T], channels: usize) -> Vec<T> {
        let filter = SampleFilter::new(&self.gain, channels);
        let mut output = vec![T::real(0.0); x.len()];
        let sample = self.gain.len() * channels;
        output.par_chunks_mut(sample).zip(x.par_chunks(sample)).for_each_init(
            || filter.workspace(),
            |work, (output, input)| {
                filter.run(input, work, |start, low| output[start..start + low.len()].copy_from_slice(low));
            },
        );
        output
    }
}

impl CustomOp1 for CircularFilter {
    fn name(&self) -> &'static str {
        "circular filter"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = layout.shape();
        let (_, _, channels) = shape.dims3()?;
        let (from, to) = layout
            .contiguous_offsets()
            .ok_or_else(|| candle_core::Error::Msg("circular filter: expected a contiguous tensor".into()))?;
        let output = match storage {
            CpuStorage::F32(x) => CpuStorage::F32(self.run(&x[from..to], channels)),
            CpuStorage::F64(x) => CpuStorage::F64(self.run(&x[from..to], channels)),
            _ => candle_core::bail!("circular filter: expected f32 or f64"),
        };
        Ok((output, shape.clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let same = Self { gain: self.gain.clone() };
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&same)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use candle_core::Device;
    use rand::Rng;

    #[test]
    fn equals_the_circulant_matrix() {
        for (positions, channels) in [(1, 1), (2, 3), (7, 2), (12, 5), (64, 4)] {
            let mut random = crate::random::stream(positions as u64, &[]);
            let mut gain: Vec<f64> = (0..positions).map(|_| random.random()).collect();
            (1..positions).for_each(|p| gain[p] = gain[positions.min(p.min(positions - p))]);
            let values: Vec<f64> = (0..2 * positions * channels).map(|_| random.random()).collect();
            let x = Tensor::from_vec(values, (2, positions, channels), &Device::Cpu).unwrap();
            let kernel = impulse_response(&gain);
            let rows: Vec<f64> = (0..positions * positions)
                .map(|k| kernel[(k / positions + positions - k % positions) % positions])
                .collect();
            let matrix = Tensor::from_vec(rows, (positions, positions), &Device::Cpu).unwrap();
            let expected = matrix.broadcast_matmul(&x).unwrap();
            assert!(golden::max_abs_difference(&filter(&x, &gain).unwrap(), &expected) < 1e-12);
        }
    }
}
