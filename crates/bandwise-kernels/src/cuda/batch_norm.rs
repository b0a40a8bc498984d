//! Batch norm on CUDA. Statistics are a tensor `[2, channels]` (mean, variance) that never leaves the device.

use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

use super::launch::{CudaElement, NULL, kernel, launch, per_element, uninitialized, view, with_cuda_element};
use super::operator::{Argument, apply, no_cpu};
use crate::elementwise::Mask;

/// Most splits of the rows in a column sum.
const MOST_SPLITS: usize = 256;
/// Least rows of a split.
const SPLIT_ROWS: usize = 64;

/// Batch norm by the batch's own statistics; returns those too, `[2, channels]`.
pub(crate) fn train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, Tensor)> {
    let x = x.contiguous()?;
    let statistics = moments(&x)?;
    let op = Normalize { statistics: statistics.clone(), own: true, epsilon, relu };
    Ok((op.apply(&x, gamma, beta, residual)?, statistics))
}

/// Batch norm by given statistics `[2, channels]`.
pub(crate) fn eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    statistics: &Tensor,
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let statistics = statistics.detach().contiguous()?;
    Normalize { statistics, own: false, epsilon, relu }.apply(&x.contiguous()?, gamma, beta, residual)
}

/// Runs `body` on a tensor's device storage.
fn with_storage<R>(tensor: &Tensor, body: impl FnOnce(&CudaStorage, &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => body(storage, layout),
        _ => bail!("batch norm: statistics and input live on different devices"),
    }
}

/// What is summed over rows.
struct Summands<'a> {
    /// 0: moments of the first tensor; 1: sums for the gradient.
    kind: i32,
    first: Argument<'a>,
    x: Option<Argument<'a>>,
    result: Option<Argument<'a>>,
    statistics: Option<&'a Tensor>,
    epsilon: f64,
}

/// Column sums `[2, channels]` of rows of channels, in two deterministic stages.
fn column_sums<T: CudaElement>(summands: &Summands<'_>) -> Result<(CudaStorage, Shape)> {
    let (storage, layout) = summands.first;
    let device = &storage.device;
    let channels = layout.dims().last().copied().unwrap_or(1);
    let rows = layout.shape().elem_count() / channels.max(1);
    let split_rows = rows.div_ceil(MOST_SPLITS).max(SPLIT_ROWS);
    let splits = rows.div_ceil(split_rows);
    let mut partial = uninitialized::<f64>(device, splits * 2 * channels)?;
    let config = LaunchConfig {
        grid_dim: (channels.div_ceil(32) as u32, splits as u32, 1),
        block_dim: (32, 8, 1),
        shared_mem_bytes: 0,
    };
    let first = view::<T>(storage, layout)?;
    let x = summands.x.map(|(storage, layout)| view::<T>(storage, layout)).transpose()?;
    let result = summands.result.map(|(storage, layout)| view::<T>(storage, layout)).transpose()?;
    let counts = (rows as u64, channels as u64, split_rows as u64, splits as u64);
    let mut run =
        |statistics: Option<&candle_core::cuda_backend::cudarc::driver::CudaView<'_, T>>| -> Result<()> {
            use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
            let function = kernel::<T>(device, "column_sums")?;
            let mut builder = function.builder();
            builder.arg(&summands.kind).arg(&first);
            for optional in [x.as_ref(), result.as_ref(), statistics] {
                match optional {
                    Some(view) => builder.arg(view),
                    None => builder.arg(&NULL),
                };
            }
            builder.arg(&summands.epsilon).arg(&mut partial).arg(&counts.0).arg(&counts.1).arg(&counts.2);
            // SAFETY: the kernel's declared arguments; buffers have the lengths that rows, channels and splits state.
            unsafe { builder.launch(config) }.map_err(super::launch::driver)?;
            Ok(())
        };
    match summands.statistics {
        Some(tensor) => with_storage(tensor, |storage, layout| run(Some(&view::<T>(storage, layout)?)))?,
        None => run(None)?,
    }
    let mut out = uninitialized::<T>(device, 2 * channels)?;
    launch!(
        kernel::<T>(device, "combine_splits")?, per_element(channels);
        &summands.kind, &partial, &mut out, &counts.0, &counts.1, &counts.2, &counts.3
    );
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), (2, channels).into()))
}

/// Mean and biased variance over all but the last axis, `[2, channels]`.
fn moments(x: &Tensor) -> Result<Tensor> {
    apply("batch moments", &[x], |arguments| {
        let summands =
            Summands { kind: 0, first: arguments[0], x: None, result: None, statistics: None, epsilon: 0.0 };
        with_cuda_element!(arguments[0].0, "batch moments", T => column_sums::<T>(&summands))
    })
}

/// `relu((x − mean) / σ · gamma + beta + residual)` on (x, `[gamma; beta]`) or with the residual as third.
struct Normalize {
    statistics: Tensor,
    /// Whether the statistics are those of `x` itself.
    own: bool,
    epsilon: f64,
    relu: bool,
}

impl Normalize {
    fn apply(self, x: &Tensor, gamma: &Tensor, beta: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let parameters = Tensor::stack(&[gamma, beta], 0)?;
        match residual {
            Some(residual) => x.apply_op3(&parameters, &residual.contiguous()?, self),
            None => x.apply_op2(&parameters, self),
        }
    }

    fn run(
        &self,
        x: (&CudaStorage, &Layout),
        parameters: (&CudaStorage, &Layout),
        residual: Option<(&CudaStorage, &Layout)>,
    ) -> Result<(CudaStorage, Shape)> {
        with_cuda_element!(x.0, "batch norm", T => with_storage(&self.statistics, |storage, layout| {
            let (device, count) = (&x.0.device, x.1.shape().elem_count());
            let channels = parameters.1.shape().elem_count() / 2;
            let mut out = uninitialized::<T>(device, count)?;
            let (input, statistics) = (view::<T>(x.0, x.1)?, view::<T>(storage, layout)?);
            let parameters = view::<T>(parameters.0, parameters.1)?;
            let (relu, sizes) = (i32::from(self.relu), (count as u64, channels as u64));
            let function = kernel::<T>(device, "normalize")?;
            match residual {
                Some((storage, layout)) => launch!(
                    function, per_element(count);
                    &input, &parameters, &statistics, &view::<T>(storage, layout)?, &mut out, &self.epsilon, &relu,
                    &sizes.0, &sizes.1
                ),
                None => launch!(
                    function, per_element(count);
                    &input, &parameters, &statistics, &NULL, &mut out, &self.epsilon, &relu, &sizes.0, &sizes.1
                ),
            }
            Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), x.1.shape().clone()))
        }))
    }

    /// Gradients of x, `[gamma; beta]` and residual, for those that are tracked.
    fn gradients(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        residual: Option<&Tensor>,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; 3]> {
        let gradient = gradient.contiguous()?;
        let mut found = [None, None, None];
        let needs_sums = parameters.track_op() || (self.own && x.track_op());
        // the result tells where the ReLU was open
        let tensors: &[&Tensor] = if self.relu { &[&gradient, x, result] } else { &[&gradient, x] };
        let sums = if needs_sums { Some(self.sums(tensors)?) } else { None };
        if x.track_op() {
            let sums = sums.as_ref().filter(|_| self.own);
            found[0] = Some(self.input_gradient(tensors, &parameters.detach(), sums)?);
        }
        if let (true, Some(sums)) = (parameters.track_op(), sums) {
            // [Σ g; Σ g·x̂] are the gradients of [beta; gamma]
            found[1] = Some(Tensor::cat(&[sums.narrow(0, 1, 1)?, sums.narrow(0, 0, 1)?], 0)?);
        }
        if residual.is_some_and(Tensor::track_op) {
            found[2] = Some(match self.relu {
                true => result.apply_op2_no_bwd(&gradient, &Mask)?,
                false => gradient,
            });
        }
        Ok(found)
    }

    /// `[Σ gradient; Σ gradient · normalized x]` of (gradient, x) or (gradient, x, result).
    fn sums(&self, tensors: &[&Tensor]) -> Result<Tensor> {
        apply("batch norm sums", tensors, |arguments| {
            let summands = Summands {
                kind: 1,
                first: arguments[0],
                x: Some(arguments[1]),
                result: arguments.get(2).copied(),
                statistics: Some(&self.statistics),
                epsilon: self.epsilon,
            };
            with_cuda_element!(arguments[0].0, "batch norm sums", T => column_sums::<T>(&summands))
        })
    }

    /// The input's gradient from (gradient, x) or (gradient, x, result).
    fn input_gradient(
        &self,
        tensors: &[&Tensor],
        parameters: &Tensor,
        sums: Option<&Tensor>,
    ) -> Result<Tensor> {
        apply("batch norm gradient", tensors, |arguments| {
            use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
            // The storage guards must outlive the launch.
            let (parameters, p_layout) = parameters.storage_and_layout();
            let (statistics, s_layout) = self.statistics.storage_and_layout();
            let sums = sums.map(Tensor::storage_and_layout);
            let (Storage::Cuda(parameters), Storage::Cuda(statistics)) = (&*parameters, &*statistics) else {
                bail!("batch norm: statistics and input live on different devices")
            };
            with_cuda_element!(arguments[1].0, "batch norm gradient", T => {
                let (gradient, x) = (arguments[0], arguments[1]);
                let (device, count) = (&x.0.device, x.1.shape().elem_count());
                let sizes = (count as u64, p_layout.shape().elem_count() as u64 / 2);
                let mut out = uninitialized::<T>(device, count)?;
                let (input, gradient) = (view::<T>(x.0, x.1)?, view::<T>(gradient.0, gradient.1)?);
                let (parameters, statistics) = (view::<T>(parameters, p_layout)?, view::<T>(statistics, s_layout)?);
                let result = arguments.get(2).map(|(storage, layout)| view::<T>(storage, layout)).transpose()?;
                let sums = match &sums {
                    Some((storage, layout)) => match &**storage {
                        Storage::Cuda(storage) => Some(view::<T>(storage, layout)?),
                        _ => None,
                    },
                    None => None,
                };
                let function = kernel::<T>(device, "normalize_gradient")?;
                let mut builder = function.builder();
                builder.arg(&input).arg(&gradient);
                match &result {
                    Some(result) => builder.arg(result),
                    None => builder.arg(&NULL),
                };
                builder.arg(&parameters).arg(&statistics);
                match &sums {
                    Some(sums) => builder.arg(sums),
                    None => builder.arg(&NULL),
                };
                builder.arg(&mut out).arg(&self.epsilon).arg(&sizes.0).arg(&sizes.1);
                // SAFETY: the kernel's declared arguments; all full tensors have `count` elements.
                unsafe { builder.launch(per_element(count)) }.map_err(super::launch::driver)?;
                Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), x.1.shape().clone()))
            })
        })
    }
}

impl CustomOp2 for Normalize {
    fn name(&self) -> &'static str {
        "batch norm"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu()
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.run((s1, l1), (s2, l2), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dp, _] = self.gradients(x, parameters, None, result, gradient)?;
        Ok((dx, dp))
    }
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        "batch norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu()
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.run((s1, l1), (s2, l2), Some((s3, l3)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        residual: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dp, dr] = self.gradients(x, parameters, Some(residual), result, gradient)?;
        Ok((dx, dp, dr))
    }
}
