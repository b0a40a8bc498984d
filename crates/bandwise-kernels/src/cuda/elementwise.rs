//! ReLU, its mask and the sign step.

use candle_core::{CudaStorage, Layout};

use super::launch::{kernel, launch, per_element, uninitialized, view, with_cuda_element};
use super::operator::Output;

/// `max(x, 0)`.
pub(crate) fn relu(x: &CudaStorage, layout: &Layout) -> Output {
    with_cuda_element!(x, "relu", T => {
        let (device, count) = (&x.device, layout.shape().elem_count());
        let mut out = uninitialized::<T>(device, count)?;
        launch!(kernel::<T>(device, "relu")?, per_element(count); &view::<T>(x, layout)?, &mut out, &(count as u64));
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), layout.shape().clone()))
    })
}

/// `values` where `y > 0`, else 0.
pub(crate) fn mask(y: &CudaStorage, y_layout: &Layout, values: &CudaStorage, layout: &Layout) -> Output {
    with_cuda_element!(y, "relu mask", T => {
        let (device, count) = (&y.device, layout.shape().elem_count());
        let mut out = uninitialized::<T>(device, count)?;
        let (y, values) = (view::<T>(y, y_layout)?, view::<T>(values, layout)?);
        launch!(kernel::<T>(device, "mask")?, per_element(count); &y, &values, &mut out, &(count as u64));
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), layout.shape().clone()))
    })
}

/// One step of a sign-gradient attack on `[x, gradient, origin]`.
pub(crate) fn sign_step(
    storages: [&CudaStorage; 3],
    layouts: [&Layout; 3],
    step: f64,
    epsilon: f64,
) -> Output {
    with_cuda_element!(storages[0], "sign step", T => {
        let (device, count) = (&storages[0].device, layouts[0].shape().elem_count());
        let mut out = uninitialized::<T>(device, count)?;
        let x = view::<T>(storages[0], layouts[0])?;
        let gradient = view::<T>(storages[1], layouts[1])?;
        let origin = view::<T>(storages[2], layouts[2])?;
        let (step, epsilon) = (<T as candle_core::WithDType>::from_f64(step), <T as candle_core::WithDType>::from_f64(epsilon));
        launch!(
            kernel::<T>(device, "sign_step")?, per_element(count);
            &x, &gradient, &origin, &mut out, &step, &epsilon, &(count as u64)
        );
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), layouts[0].shape().clone()))
    })
}
