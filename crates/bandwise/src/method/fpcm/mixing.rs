//! FPCM's passes over whole maps, each fused into one operator with its own gradient: on the CPU they would
//! otherwise cost more than the transforms.
//!
//! With `low` linear and its own adjoint, the gradients of `y = (2ω − 1)·low(x) + (1 − ω)·x` are
//!
//! ```text
//! ∂x = (2ω − 1)·low(g) + (1 − ω)·g        ∂ω = Σ over positions of x·(2·low(g) − g)
//! ```
//!
//! so that the backward pass filters once, as the forward pass does, and keeps nothing but its inputs.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor, WithDType, bail,
};
use rayon::prelude::*;

use crate::spectral::circular::SampleFilter;
use crate::spectral::fourier::Real;

/// Whether [`mix`] can be used: its operator computes on the CPU alone.
pub(super) fn has_operator(x: &Tensor) -> bool {
    bandwise_kernels::has_cpu_kernels(x.device(), x.dtype())
}

/// `ω·low(x) + (1 − ω)·(x − low(x))` of maps `x` `[batch, height, width, channels]`, with ω `[batch, channels]`
/// and `low` the circular filter over the flattened positions whose gains are `gain`.
pub(super) fn mix(x: &Tensor, omega: &Tensor, gain: Vec<f64>) -> Result<Tensor> {
    x.contiguous()?.apply_op2(&omega.contiguous()?, Mix { gain })
}

/// The mean over all positions: `[batch, height, width, channels]` to `[batch, channels]`.
pub(super) fn mean(x: &Tensor) -> Result<Tensor> {
    if has_operator(x) { x.contiguous()?.apply_op1(Mean) } else { x.mean((1, 2)) }
}

/// Runs a generic expression for the number type of a tensor or storage.
macro_rules! for_type {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F32 => {
                type $T = f32;
                $body
            }
            DType::F64 => {
                type $T = f64;
                $body
            }
            other => bail!("FPCM: expected f32 or f64, not {other:?}"),
        }
    };
}

fn slice<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&T::cpu_storage_as_slice(storage)?[start..end]),
        None => bail!("FPCM: expected a contiguous tensor"),
    }
}

/// The values of two contiguous tensors on the CPU.
fn with_slices<T: Real, R>(
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    body: impl FnOnce(&[T], &[T], &[T]) -> R,
) -> Result<R> {
    let ((a, a_layout), (b, b_layout), (c, c_layout)) =
        (a.storage_and_layout(), b.storage_and_layout(), c.storage_and_layout());
    match (&*a, &*b, &*c) {
        (Storage::Cpu(a), Storage::Cpu(b), Storage::Cpu(c)) => {
            Ok(body(slice(a, a_layout)?, slice(b, b_layout)?, slice(c, c_layout)?))
        }
        _ => bail!("FPCM: expected tensors on the CPU"),
    }
}

struct Mix {
    gain: Vec<f64>,
}

impl Mix {
    fn forward<T: Real>(&self, x: &[T], omega: &[T], channels: usize) -> Vec<T> {
        let filter = SampleFilter::new(&self.gain, channels);
        let sample = self.gain.len() * channels;
        let mut output = vec![T::real(0.0); x.len()];
        output
            .par_chunks_mut(sample)
            .zip(x.par_chunks(sample))
            .zip(omega.par_chunks(channels))
            .for_each_init(
                || (filter.workspace(), Weights::new(channels)),
                |(work, weights), ((output, x), omega)| {
                    weights.set(omega);
                    filter.run(x, work, |start, low| weights.mix_row(start, low, x, output));
                },
            );
        output
    }

    /// The gradients of `x` and ω.
    fn backward<T: Real>(&self, x: &[T], omega: &[T], gradient: &[T], channels: usize) -> (Vec<T>, Vec<T>) {
        let filter = SampleFilter::new(&self.gain, channels);
        let sample = self.gain.len() * channels;
        let (mut of_x, mut of_omega) = (vec![T::real(0.0); x.len()], vec![T::real(0.0); omega.len()]);
        let inputs = x.par_chunks(sample).zip(gradient.par_chunks(sample)).zip(omega.par_chunks(channels));
        of_x.par_chunks_mut(sample).zip(of_omega.par_chunks_mut(channels)).zip(inputs).for_each_init(
            || (filter.workspace(), Weights::new(channels), vec![0.0; channels]),
            |(work, weights, sums), ((of_x, of_omega), ((x, gradient), omega))| {
                weights.set(omega);
                sums.fill(0.0);
                filter.run(gradient, work, |start, low| {
                    weights.mix_row(start, low, gradient, of_x);
                    let end = start + low.len();
                    let row = x[start..end].iter().zip(&gradient[start..end]).zip(low);
                    for (((&x, &g), &low), sum) in row.zip(&mut sums[start % channels..]) {
                        *sum += WithDType::to_f64(x * (low + low - g));
                    }
                });
                of_omega.iter_mut().zip(sums.iter()).for_each(|(omega, &sum)| *omega = T::real(sum));
            },
        );
        (of_x, of_omega)
    }
}

/// What the low part and the whole map count, per channel of one sample.
struct Weights<T> {
    low: Vec<T>,
    whole: Vec<T>,
}

impl<T: Real> Weights<T> {
    fn new(channels: usize) -> Self {
        Self { low: vec![T::real(0.0); channels], whole: vec![T::real(0.0); channels] }
    }

    fn set(&mut self, omega: &[T]) {
        let one = T::real(1.0);
        for ((low, whole), &omega) in self.low.iter_mut().zip(&mut self.whole).zip(omega) {
            (*low, *whole) = (omega + omega - one, one - omega);
        }
    }

    /// Writes `(2ω − 1)·low + (1 − ω)·x` for the values from `start` on.
    fn mix_row(&self, start: usize, low: &[T], x: &[T], output: &mut [T]) {
        let (channel, end) = (start % self.low.len(), start + low.len());
        let weights = self.low[channel..].iter().zip(&self.whole[channel..]);
        for (((output, &x), &low), (&a, &b)) in
            output[start..end].iter_mut().zip(&x[start..end]).zip(low).zip(weights)
        {
            *output = a * low + b * x;
        }
    }
}

impl CustomOp2 for Mix {
    fn name(&self) -> &'static str {
        "fpcm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        omega: &CpuStorage,
        omega_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, height, width, channels) = x_layout.shape().dims4()?;
        if height * width != self.gain.len() {
            bail!("FPCM: {} gains for a map of {height} × {width}", self.gain.len());
        }
        for_type!(x.dtype(), T => {
            let output = self.forward::<T>(slice(x, x_layout)?, slice(omega, omega_layout)?, channels);
            Ok((T::to_cpu_storage_owned(output), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        omega: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let channels = omega.dim(1)?;
        for_type!(x.dtype(), T => {
            let (of_x, of_omega) =
                with_slices::<T, _>(x, omega, &gradient, |x, omega, g| self.backward(x, omega, g, channels))?;
            Ok((
                Some(Tensor::from_vec(of_x, x.shape(), x.device())?),
                Some(Tensor::from_vec(of_omega, omega.shape(), x.device())?),
            ))
        })
    }
}

struct Mean;

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "mean over positions"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        for_type!(storage.dtype(), T => {
            let x: &[T] = slice(storage, layout)?;
            let mut means = vec![T::real(0.0); batch * channels];
            means.par_chunks_mut(channels).zip(x.par_chunks(height * width * channels)).for_each(|(means, x)| {
                let mut sums = vec![0.0f64; channels];
                for row in x.chunks_exact(channels) {
                    sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += WithDType::to_f64(value));
                }
                let mean = |sum: f64| T::real(sum / (height * width) as f64);
                means.iter_mut().zip(sums).for_each(|(target, sum)| *target = mean(sum));
            });
            Ok((T::to_cpu_storage_owned(means), (batch, channels).into()))
        })
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, height, width, _) = x.dims4()?;
        let share = (gradient / (height * width) as f64)?.contiguous()?;
        Ok(Some(share.apply_op1_no_bwd(&Spread { height, width })?))
    }
}

/// `[batch, channels]` repeated at every position.
struct Spread {
    height: usize,
    width: usize,
}

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "spread over positions"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels) = layout.shape().dims2()?;
        let positions = self.height * self.width;
        for_type!(storage.dtype(), T => {
            let rows: &[T] = slice(storage, layout)?;
            let mut output = vec![T::real(0.0); batch * positions * channels];
            output.par_chunks_mut(positions * channels).zip(rows.par_chunks(channels)).for_each(|(output, row)| {
                output.chunks_exact_mut(channels).for_each(|target| target.copy_from_slice(row));
            });
            let shape = (batch, self.height, self.width, channels);
            Ok((T::to_cpu_storage_owned(output), shape.into()))
        })
    }
}
