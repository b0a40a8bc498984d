//! Two-dimensional convolution with gradients for input and weight.

#[cfg(feature = "cudnn")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};

use crate::algorithm::Algorithm;
use crate::backend::Backend;
use crate::composed;
use crate::cpu::conv_weight;
use crate::cpu::depthwise;
use crate::cpu::detect::Detected;
use crate::cpu::gather::{Epilogue, gather};
use crate::cpu::gather_plan::GatherPlan;
use crate::cpu::pack::{Direction, Packed, pack};
use crate::cpu::strategy::Strategy;
use crate::cpu::winograd;
use crate::cpu::winograd_kernel::WinogradWeights;
use crate::element::{Element, elements, with_element};
use crate::geometry::{ConvConfig, Geometry};
use crate::memory::produce;

/// Convolves `x` `[batch, height, width, in]` with `w` `[out, in / groups, kernel height, kernel width]` to
/// `[batch, out height, out width, out]`.
///
/// Differentiable in both; a gradient that nobody tracks is not computed.
///
/// # Errors
/// If shapes, groups or number types do not fit together.
pub fn conv2d(x: &Tensor, w: &Tensor, config: &ConvConfig) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), w.dims(), config)?;
    match Backend::of(x) {
        Backend::Cpu => x.contiguous()?.apply_op2(&w.contiguous()?, Conv2d { geometry }),
        #[cfg(feature = "cudnn")]
        Backend::Cuda => crate::cuda::conv::conv2d(x, w, geometry),
        #[cfg(all(feature = "cuda", not(feature = "cudnn")))]
        Backend::Cuda => composed::conv2d(x, w, config),
        Backend::Composed => composed::conv2d(x, w, config),
    }
}

/// What a convolution with weights `[out, in / groups, kernel height, kernel width]` of that number type runs as on the
/// device.
pub fn algorithm(weight: [usize; 4], config: &ConvConfig, dtype: DType, device: &Device) -> Algorithm {
    let in_channels = weight[1] * config.groups;
    match (device, dtype) {
        (Device::Cpu, DType::F32) => Strategy::choose(f32::kernels(), weight, config).algorithm(in_channels),
        (Device::Cpu, DType::F64) => Strategy::choose(f64::kernels(), weight, config).algorithm(in_channels),
        (Device::Cuda(_), _) if cfg!(feature = "cudnn") => Algorithm::Cudnn,
        _ => Algorithm::Candle,
    }
}

/// (x, weight) to y. On CUDA the weight is `[out, kh, kw, in / groups]`.
pub(crate) struct Conv2d {
    pub geometry: Geometry,
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s1, self.name(), T => {
            let weight = PackedForward::new(&self.geometry, elements::<T>(s2, l2)?);
            let values = weight.run(&self.geometry, elements::<T>(s1, l1)?, Epilogue::NONE);
            Ok((wrap(values), Shape::from(&self.geometry.output_shape())))
        })
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::conv::forward(&self.geometry, (s1, l1), (s2, l2))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let part = |argument: &Tensor, other: &Tensor, of: Argument| {
            let operator = Gradient { geometry: self.geometry, of };
            argument.track_op().then(|| gradient.apply_op2_no_bwd(other, &operator)).transpose()
        };
        Ok((part(x, w, Argument::Input)?, part(w, x, Argument::Weight)?))
    }
}

#[derive(Clone, Copy)]
enum Argument {
    Input,
    Weight,
}

/// (gradient of the result, the other argument) to the gradient of one argument.
struct Gradient {
    geometry: Geometry,
    of: Argument,
}

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        match self.of {
            Argument::Input => "conv2d data gradient",
            Argument::Weight => "conv2d weight gradient",
        }
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s1, self.name(), T => {
            let (gradient, other) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
            let geometry = &self.geometry;
            Ok(match self.of {
                Argument::Input => {
                    let values = PackedData::new(geometry, other).run(geometry, gradient, Epilogue::NONE);
                    (wrap(values), Shape::from(&geometry.input_shape()))
                }
                Argument::Weight => {
                    let values = weight_gradient(geometry, other, gradient);
                    (wrap(values), Shape::from(&geometry.weight_shape()))
                }
            })
        })
    }

    #[cfg(feature = "cudnn")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        match self.of {
            Argument::Input => crate::cuda::conv::data_gradient(&self.geometry, (s1, l1), (s2, l2)),
            Argument::Weight => crate::cuda::conv::weight_gradient(&self.geometry, (s1, l1), (s2, l2)),
        }
    }
}

/// A vector as candle's storage.
pub(crate) fn wrap<T: Element>(values: Vec<T>) -> CpuStorage {
    T::to_cpu_storage_owned(values)
}

/// Weights packed for the forward pass; the batch and image size may change between runs.
pub(crate) enum PackedForward<T: 'static> {
    Direct(Packed<T>),
    Depthwise(Vec<T>),
    Winograd(WinogradWeights<T>),
}

impl<T: Detected> PackedForward<T> {
    pub(crate) fn new(geometry: &Geometry, weight: &[T]) -> Self {
        let kernels = T::kernels();
        match Strategy::of(kernels, geometry) {
            Strategy::Direct(bf16) => {
                let plan = GatherPlan::forward(geometry);
                Self::Direct(pack(kernels, bf16, weight, geometry, &plan, Direction::Forward))
            }
            Strategy::Depthwise => Self::Depthwise(depthwise::pack(geometry, weight)),
            Strategy::Winograd(winograd) => {
                let direction = Direction::Forward;
                Self::Winograd(WinogradWeights::new(kernels, winograd, weight, geometry, direction))
            }
        }
    }

    pub(crate) fn run(&self, geometry: &Geometry, input: &[T], epilogue: Epilogue<'_, T>) -> Vec<T> {
        let kernels = T::kernels();
        let (inner, outer) = (geometry.in_channels, geometry.out_channels);
        match self {
            Self::Direct(packed) => {
                let plan = GatherPlan::forward(geometry);
                let length = geometry.output_shape().iter().product();
                // SAFETY: the forward plan visits every output pixel, in every block of channels.
                unsafe {
                    produce(length, |target| {
                        gather(kernels, &plan, input, inner, packed, epilogue, target, outer)
                    })
                }
            }
            Self::Depthwise(weights) => {
                depthwise::run(kernels, &[GatherPlan::forward(geometry)], input, weights, inner, epilogue)
            }
            Self::Winograd(weights) => winograd::forward(kernels, geometry, weights, input, epilogue),
        }
    }
}

/// Weights packed for the data gradient.
pub(crate) enum PackedData<T: 'static> {
    /// One set of panels per phase of the stride.
    Direct(Vec<Packed<T>>),
    Depthwise(Vec<T>),
    Winograd(WinogradWeights<T>),
}

impl<T: Detected> PackedData<T> {
    pub(crate) fn new(geometry: &Geometry, weight: &[T]) -> Self {
        let kernels = T::kernels();
        match Strategy::of(kernels, geometry) {
            Strategy::Direct(bf16) => {
                let plans = GatherPlan::data(geometry);
                let pack = |plan| pack(kernels, bf16, weight, geometry, plan, Direction::Data);
                Self::Direct(plans.iter().map(pack).collect())
            }
            Strategy::Depthwise => Self::Depthwise(depthwise::pack(geometry, weight)),
            Strategy::Winograd(winograd) => {
                let direction = Direction::Data;
                Self::Winograd(WinogradWeights::new(kernels, winograd, weight, geometry, direction))
            }
        }
    }

    /// The gradient with respect to the input, through `epilogue`. The geometry's input must be at least as large as
    /// the stride, or the same as at packing.
    pub(crate) fn run(&self, geometry: &Geometry, gradient: &[T], epilogue: Epilogue<'_, T>) -> Vec<T> {
        let kernels = T::kernels();
        let (inner, outer) = (geometry.in_channels, geometry.out_channels);
        match self {
            Self::Direct(phases) => {
                let length = geometry.input_shape().iter().product();
                // SAFETY: the plans of all phases together visit every input pixel, in every block of channels; a
                // plan without taps stores zeros.
                unsafe {
                    produce(length, |target| {
                        for (plan, packed) in GatherPlan::data(geometry).iter().zip(phases) {
                            gather(kernels, plan, gradient, outer, packed, epilogue, target, inner);
                        }
                    })
                }
            }
            Self::Depthwise(weights) => {
                depthwise::run(kernels, &GatherPlan::data(geometry), gradient, weights, inner, epilogue)
            }
            Self::Winograd(weights) => {
                winograd::forward(kernels, &winograd::mirrored(geometry), weights, gradient, epilogue)
            }
        }
    }
}

/// The gradient with respect to the weight.
fn weight_gradient<T: Detected>(geometry: &Geometry, input: &[T], gradient: &[T]) -> Vec<T> {
    let kernels = T::kernels();
    match Strategy::of(kernels, geometry) {
        Strategy::Direct(bf16) => conv_weight::weight_gradient(kernels, bf16, geometry, input, gradient),
        Strategy::Depthwise => depthwise::weight_gradient(kernels, geometry, input, gradient),
        Strategy::Winograd(winograd) => {
            winograd::weight_gradient(kernels, winograd, geometry, input, gradient)
        }
    }
}
