//! Pooling on CUDA. Positions of the largest values are a u32 tensor on the device.

use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::launch::{NULL, kernel, launch, per_element, uninitialized, view, with_cuda_element};
use super::operator::{apply, no_cpu};
use crate::cpu::pool::Windows;

/// [`Windows`] as `kernels.cu` declares it.
#[repr(C)]
#[derive(Clone, Copy)]
struct DeviceWindows([u64; 9]);

// SAFETY: nine plain 64-bit numbers, as in the struct of the kernels.
unsafe impl DeviceRepr for DeviceWindows {}

impl From<&Windows> for DeviceWindows {
    fn from(w: &Windows) -> Self {
        let sizes = [
            w.batch,
            w.in_height,
            w.in_width,
            w.channels,
            w.out_height,
            w.out_width,
            w.kernel,
            w.stride,
            w.padding,
        ];
        Self(sizes.map(|size| size as u64))
    }
}

/// The largest values of `x`'s windows, or the tangent's values at their places; differentiable in `values`.
pub(crate) fn max(windows: &Windows, x: &Tensor, values: &Tensor) -> Result<Tensor> {
    let positions = find(windows, &x.detach().contiguous()?)?;
    values.contiguous()?.apply_op2(&positions, Gather(*windows))
}

/// The mean of every window.
pub(crate) fn average(windows: &Windows, x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Average(*windows))
}

/// Position of the first largest value of every window.
fn find(windows: &Windows, x: &Tensor) -> Result<Tensor> {
    apply("max pool positions", &[x], |arguments| {
        let (x, layout) = arguments[0];
        with_cuda_element!(x, "max pool positions", T => {
            let (device, count) = (&x.device, windows.output_length());
            let mut out = uninitialized::<u32>(device, count)?;
            let (sizes, x) = (DeviceWindows::from(windows), view::<T>(x, layout)?);
            launch!(kernel::<T>(device, "argmax")?, per_element(count); &x, &mut out, &sizes, &(count as u64));
            Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(&windows.output_shape())))
        })
    })
}

/// Values at the positions, the second argument.
struct Gather(Windows);

impl CustomOp2 for Gather {
    fn name(&self) -> &'static str {
        "max pool"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu()
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        layout: &Layout,
        p: &CudaStorage,
        p_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        with_cuda_element!(x, self.name(), T => {
            let (device, count) = (&x.device, self.0.output_length());
            let mut out = uninitialized::<T>(device, count)?;
            let batch = self.0.batch.max(1);
            let images = ((self.0.input_length() / batch) as u64, (count / batch) as u64);
            let (values, positions) = (view::<T>(x, layout)?, positions(p, p_layout)?);
            launch!(
                kernel::<T>(device, "gather")?, per_element(count);
                &values, &positions, &mut out, &images.0, &images.1, &(count as u64)
            );
            Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(&self.0.output_shape())))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        positions: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !x.track_op() {
            return Ok((None, None));
        }
        Ok((Some(scatter(&self.0, &[&gradient.contiguous()?, positions])?), None))
    }
}

fn positions<'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<candle_core::cuda_backend::cudarc::driver::CudaView<'a, u32>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<u32>()?.slice(start..end)),
        None => bail!("internal error: positions of max pooling are not contiguous"),
    }
}

/// The transpose of [`Gather`] for (gradient, positions), of [`Average`] for the gradient alone.
fn scatter(windows: &Windows, tensors: &[&Tensor]) -> Result<Tensor> {
    apply("pool gradient", tensors, |arguments| {
        let (gradient, layout) = arguments[0];
        with_cuda_element!(gradient, "pool gradient", T => {
            let (device, count) = (&gradient.device, windows.input_length());
            let mut out = uninitialized::<T>(device, count)?;
            let (sizes, gradient) = (DeviceWindows::from(windows), view::<T>(gradient, layout)?);
            let (function, length) = (kernel::<T>(device, "scatter")?, count as u64);
            match arguments.get(1) {
                Some((storage, layout)) => launch!(
                    function, per_element(count);
                    &gradient, &positions(storage, layout)?, &mut out, &sizes, &length
                ),
                None => launch!(function, per_element(count); &gradient, &NULL, &mut out, &sizes, &length),
            }
            Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(&windows.input_shape())))
        })
    })
}

struct Average(Windows);

impl CustomOp1 for Average {
    fn name(&self) -> &'static str {
        "average pool"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu()
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        with_cuda_element!(x, self.name(), T => {
            let (device, count) = (&x.device, self.0.output_length());
            let mut out = uninitialized::<T>(device, count)?;
            let windows = DeviceWindows::from(&self.0);
            let x = view::<T>(x, layout)?;
            launch!(kernel::<T>(device, "average")?, per_element(count); &x, &mut out, &windows, &(count as u64));
            Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(&self.0.output_shape())))
        })
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(scatter(&self.0, &[&gradient.contiguous()?])?))
    }
}
