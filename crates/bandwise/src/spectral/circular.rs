//! Circular filters along one axis: `IFFT(g ⊙ FFT(x))` for real sequences and a real, symmetric gain.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;
use rustfft::num_complex::Complex;
use rustfft::{FftNum, FftPlanner};

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

struct CircularFilter {
    gain: Vec<f64>,
}

impl CircularFilter {
    fn run<T: FftNum + WithDType>(&self, x: &[T], channels: usize) -> Vec<T> {
        let positions = self.gain.len();
        let mut planner = FftPlanner::<T>::new();
        let (forward, inverse) = (planner.plan_fft_forward(positions), planner.plan_fft_inverse(positions));
        let scaled: Vec<T> =
            self.gain.iter().map(|g| <T as WithDType>::from_f64(g / positions as f64)).collect();
        let mut output = vec![T::zero(); x.len()];
        let sample = positions * channels;
        output.par_chunks_mut(sample).zip(x.par_chunks(sample)).for_each(|(output, input)| {
            // Two channels travel as real and imaginary part: the filter is real, so they do not mix.
            let mut pairs = vec![Complex::new(T::zero(), T::zero()); positions];
            let mut scratch =
                vec![pairs[0]; forward.get_inplace_scratch_len().max(inverse.get_inplace_scratch_len())];
            for first in (0..channels).step_by(2) {
                let paired = first + 1 < channels;
                for (pair, row) in pairs.iter_mut().zip(input.chunks_exact(channels)) {
                    *pair = Complex::new(row[first], if paired { row[first + 1] } else { T::zero() });
                }
                forward.process_with_scratch(&mut pairs, &mut scratch);
                pairs.iter_mut().zip(&scaled).for_each(|(pair, &gain)| *pair *= gain);
                inverse.process_with_scratch(&mut pairs, &mut scratch);
                for (pair, row) in pairs.iter().zip(output.chunks_exact_mut(channels)) {
                    row[first] = pair.re;
                    if paired {
                        row[first + 1] = pair.im;
                    }
                }
            }
        });
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
