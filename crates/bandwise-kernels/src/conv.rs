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
use crate::cpu::gather_plan::{Direction, GatherPlan};
use crate::cpu::pack::{Packed, pack};
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
            let weight = PackedWeights::new(&self.geometry, Direction::Forward, elements::<T>(s2, l2)?);
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
                    let weight = PackedWeights::new(geometry, Direction::Data, other);
                    let values = weight.run(geometry, gradient, Epilogue::NONE);
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

/// Weights packed for one direction. The batch and image size may change between runs; for the data gradient the image
/// must be at least as large as the stride, or the same as at packing.
pub(crate) struct PackedWeights<T: 'static> {
    direction: Direction,
    form: Form<T>,
}

enum Form<T: 'static> {
    /// One set of panels per plan.
    Direct(Vec<Packed<T>>),
    Depthwise(Vec<T>),
    Winograd(WinogradWeights<T>),
}

impl<T: Detected> PackedWeights<T> {
    pub(crate) fn new(geometry: &Geometry, direction: Direction, weight: &[T]) -> Self {
        let kernels = T::kernels();
        let form = match Strategy::of(kernels, geometry) {
            Strategy::Direct(bf16) => {
                let pack = |plan: &GatherPlan| pack(kernels, bf16, weight, geometry, plan, direction);
                Form::Direct(GatherPlan::of(geometry, direction).iter().map(pack).collect())
            }
            Strategy::Depthwise => Form::Depthwise(depthwise::pack(geometry, weight)),
            Strategy::Winograd(winograd) => {
                Form::Winograd(WinogradWeights::new(kernels, winograd, weight, geometry, direction))
            }
        };
        Self { direction, form }
    }

    /// The result, or the gradient with respect to the input, through `epilogue`.
    pub(crate) fn run(&self, geometry: &Geometry, source: &[T], epilogue: Epilogue<'_, T>) -> Vec<T> {
        let (kernels, direction) = (T::kernels(), self.direction);
        match &self.form {
            Form::Direct(packed) => {
                let (inner, outer) = (geometry.in_channels, geometry.out_channels);
                let (from, to, shape) = match direction {
                    Direction::Forward => (inner, outer, geometry.output_shape()),
                    Direction::Data => (outer, inner, geometry.input_shape()),
                };
                // SAFETY: the plans of a direction together visit every pixel of the target, in every block of
                // channels; a plan without taps stores zeros.
                unsafe {
                    produce(shape.iter().product(), |target| {
                        for (plan, packed) in GatherPlan::of(geometry, direction).iter().zip(packed) {
                            gather(kernels, plan, source, from, packed, epilogue, target, to);
                        }
                    })
                }
            }
            Form::Depthwise(weights) => {
                let plans = GatherPlan::of(geometry, direction);
                depthwise::run(kernels, &plans, source, weights, geometry.in_channels, epilogue)
            }
            Form::Winograd(weights) => {
                let geometry = match direction {
                    Direction::Forward => *geometry,
                    Direction::Data => winograd::mirrored(geometry),
                };
                winograd::forward(kernels, &geometry, weights, source, epilogue)
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
