//! Convolution by cuDNN, channels last. Weights are brought into `[out, kernel height, kernel width, in / groups]` by
//! candle, which also brings their gradient back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
    FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaStorageSlice, DeviceId};
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, Tensor, WithDType, bail};
use half::bf16;

use super::launch::uninitialized;
use super::operator::{Argument, Output};
use crate::conv::Conv2d;
use crate::geometry::Geometry;
use crate::precision::Precision;

thread_local! {
    /// Handles are tied to a thread.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
}

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    HANDLES.with(|handles| {
        if let Some(handle) = handles.borrow().get(&device.id()) {
            return Ok(handle.clone());
        }
        let handle = Cudnn::new(device.cuda_stream()).map_err(failed)?;
        handles.borrow_mut().insert(device.id(), handle.clone());
        Ok(handle)
    })
}

fn failed(error: CudnnError) -> Error {
    Error::wrap(error)
}

/// Convolves `x` with `w` `[out, in / groups, kh, kw]` on CUDA.
pub(crate) fn conv2d(x: &Tensor, w: &Tensor, geometry: Geometry) -> Result<Tensor> {
    let half = geometry.config.precision == Precision::Bf16 && x.dtype() == DType::F32;
    let narrow = |t: &Tensor| if half { t.to_dtype(DType::BF16) } else { Ok(t.clone()) };
    let weight = narrow(&w.permute((0, 2, 3, 1))?)?.contiguous()?;
    let y = narrow(x)?.contiguous()?.apply_op2(&weight, Conv2d { geometry })?;
    if half { y.to_dtype(DType::F32) } else { Ok(y) }
}

/// Number types that cuDNN multiplies, with the type of its sums.
trait Multiplied: CudnnDataType + CudaDType + DeviceRepr + WithDType {
    type Sum: CudnnDataType;
}

impl Multiplied for f32 {
    type Sum = f32;
}
impl Multiplied for f64 {
    type Sum = f64;
}
impl Multiplied for bf16 {
    type Sum = f32;
}

/// cuDNN's view of a convolution.
struct Descriptors<T: Multiplied> {
    convolution: ConvDescriptor<T::Sum>,
    x: TensorDescriptor<T>,
    w: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: Multiplied> Descriptors<T> {
    fn new(device: &CudaDevice, geometry: &Geometry) -> Result<Self> {
        let cudnn = handle(device)?;
        let config = geometry.config;
        let both = |value: usize| [value as i32; 2];
        let cross = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let (padding, stride, dilation) = (both(config.padding), both(config.stride), both(config.dilation));
        let mut convolution =
            cudnn.create_conv2d::<T::Sum>(padding, stride, dilation, cross).map_err(failed)?;
        convolution.set_group_count(config.groups as i32).map_err(failed)?;
        let math = match (T::DTYPE, config.precision) {
            (DType::BF16, _) => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            (DType::F32, Precision::Tf32) => cudnnMathType_t::CUDNN_DEFAULT_MATH,
            _ => cudnnMathType_t::CUDNN_FMA_MATH,
        };
        convolution.set_math_type(math).map_err(failed)?;
        let format = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        // cuDNN names sizes in the order batch, channels, height, width whatever the format
        let sizes = |[batch, height, width, channels]: [usize; 4]| {
            [batch, channels, height, width].map(|size| size as i32)
        };
        let weight = geometry.weight_shape().map(|size| size as i32);
        Ok(Self {
            convolution,
            x: cudnn.create_4d_tensor::<T>(format, sizes(geometry.input_shape())).map_err(failed)?,
            w: cudnn.create_4d_filter::<T>(format, weight).map_err(failed)?,
            y: cudnn.create_4d_tensor::<T>(format, sizes(geometry.output_shape())).map_err(failed)?,
        })
    }
}

fn view<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(storage.as_cuda_slice::<T>()?.slice(start..end)),
        None => bail!("internal error: cuDNN was given a non-contiguous tensor"),
    }
}

/// Runs the body with `$T` bound to the storage's number type.
macro_rules! with_multiplied {
    ($storage:expr, $T:ident => $body:expr) => {
        match &$storage.slice {
            CudaStorageSlice::F32(_) => {
                type $T = f32;
                $body
            }
            CudaStorageSlice::F64(_) => {
                type $T = f64;
                $body
            }
            CudaStorageSlice::BF16(_) => {
                type $T = bf16;
                $body
            }
            _ => bail!("conv2d: computes in f32, f64 or bf16"),
        }
    };
}

/// (x, weight) to y.
pub(crate) fn forward(geometry: &Geometry, (x, lx): Argument<'_>, (w, lw): Argument<'_>) -> Output {
    with_multiplied!(x, T => {
        let device = &x.device;
        let shape = geometry.output_shape();
        let mut y = uninitialized::<T>(device, shape.iter().product())?;
        let with = Descriptors::<T>::new(device, geometry)?;
        let pass = ConvForward { conv: &with.convolution, x: &with.x, w: &with.w, y: &with.y };
        let algorithm = pass.pick_algorithm().map_err(failed)?;
        let mut space = uninitialized::<u8>(device, pass.get_workspace_size(algorithm).map_err(failed)?)?;
        let (x, w) = (view::<T>(x, lx)?, view::<T>(w, lw)?);
        // SAFETY: the buffers have the sizes of their descriptors.
        unsafe { pass.launch::<CudaSlice<u8>, _, _, _>(algorithm, Some(&mut space), factors::<T>(), &x, &w, &mut y) }
            .map_err(failed)?;
        Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from(&shape)))
    })
}

/// (dy, weight) to dx.
pub(crate) fn data_gradient(geometry: &Geometry, (dy, ly): Argument<'_>, (w, lw): Argument<'_>) -> Output {
    with_multiplied!(dy, T => {
        let device = &dy.device;
        let shape = geometry.input_shape();
        let mut dx = uninitialized::<T>(device, shape.iter().product())?;
        let with = Descriptors::<T>::new(device, geometry)?;
        let pass = ConvBackwardData { conv: &with.convolution, dx: &with.x, w: &with.w, dy: &with.y };
        let algorithm = pass.pick_algorithm().map_err(failed)?;
        let mut space = uninitialized::<u8>(device, pass.get_workspace_size(algorithm).map_err(failed)?)?;
        let (dy, w) = (view::<T>(dy, ly)?, view::<T>(w, lw)?);
        // SAFETY: the buffers have the sizes of their descriptors.
        unsafe { pass.launch::<CudaSlice<u8>, _, _, _>(algorithm, Some(&mut space), factors::<T>(), &mut dx, &w, &dy) }
            .map_err(failed)?;
        Ok((CudaStorage::wrap_cuda_slice(dx, device.clone()), Shape::from(&shape)))
    })
}

/// (dy, x) to dw `[out, kh, kw, in / groups]`.
pub(crate) fn weight_gradient(geometry: &Geometry, (dy, ly): Argument<'_>, (x, lx): Argument<'_>) -> Output {
    with_multiplied!(dy, T => {
        let device = &dy.device;
        let [out, inner, height, width] = geometry.weight_shape();
        let mut dw = uninitialized::<T>(device, out * inner * height * width)?;
        let with = Descriptors::<T>::new(device, geometry)?;
        let pass = ConvBackwardFilter { conv: &with.convolution, x: &with.x, dw: &with.w, dy: &with.y };
        let algorithm = pass.pick_algorithm().map_err(failed)?;
        let mut space = uninitialized::<u8>(device, pass.get_workspace_size(algorithm).map_err(failed)?)?;
        let (dy, x) = (view::<T>(dy, ly)?, view::<T>(x, lx)?);
        // SAFETY: the buffers have the sizes of their descriptors.
        unsafe { pass.launch::<CudaSlice<u8>, _, _, _>(algorithm, Some(&mut space), factors::<T>(), &x, &mut dw, &dy) }
            .map_err(failed)?;
        Ok((CudaStorage::wrap_cuda_slice(dw, device.clone()), (out, height, width, inner).into()))
    })
}

/// What the product and the former content of the result are multiplied by.
fn factors<T: Multiplied>() -> (T, T) {
    (<T as WithDType>::from_f64(1.0), <T as WithDType>::from_f64(0.0))
}
