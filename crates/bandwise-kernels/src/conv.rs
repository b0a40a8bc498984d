//! Two-dimensional convolution with gradients for input and weight.

#[cfg(feature = "cudnn")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use crate::composed;
use crate::cpu::conv_weight;
use crate::cpu::depthwise;
use crate::cpu::gather::{Epilogue, gather};
use crate::cpu::geometry::Geometry;
use crate::cpu::pack::{Direction, Packed, pack};
use crate::cpu::winograd;
use crate::cpu::winograd_kernel::Spectrum;
use crate::element::{Element, elements, with_element};
use crate::memory::produce;

/// How products are computed. Tensors of type f64 are always computed in f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Single precision throughout. 3×3 convolutions of stride 1 go through Winograd's filtering with tiles of
    /// 2 × 2, whose rounding error is no larger than that of the direct sum.
    #[default]
    F32,
    /// Near single precision, by what is fastest: three bf16 products on matrix units, or larger tiles of
    /// Winograd's filtering where there are none (about four times the rounding error of [`Precision::F32`]).
    /// Convolutions that neither serves are computed as [`Precision::F32`].
    F32x3,
    /// Factors rounded to ten bits of mantissa on CUDA's tensor cores, sums in f32; on the CPU the same as
    /// [`Precision::F32`].
    Tf32,
    /// Factors rounded to bf16, sums in f32, where the machine has bf16 products; elsewhere the same as
    /// [`Precision::F32`].
    Bf16,
}

/// The parameters of a convolution, the same in both spatial directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvConfig {
    /// Step between output pixels, in input pixels.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Distance between kernel positions, in input pixels.
    pub dilation: usize,
    /// Channel groups that are convolved separately.
    pub groups: usize,
    /// How products are computed.
    pub precision: Precision,
}

impl Default for ConvConfig {
    /// Stride 1, no padding, dilation 1, one group, f32.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1, precision: Precision::F32 }
    }
}

/// Convolves `x` `[batch, height, width, in]` with `w` `[out, in / groups, kernel height, kernel width]` to
/// `[batch, out height, out width, out]`.
///
/// Differentiable in both; a gradient that nobody tracks is not computed.
///
/// # Errors
/// If shapes, groups or number types do not fit together.
pub fn conv2d(x: &Tensor, w: &Tensor, config: &ConvConfig) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims(), w.dims(), config)?;
    #[cfg(feature = "cudnn")]
    if x.device().is_cuda() {
        return crate::cuda::conv::conv2d(x, w, geometry);
    }
    if !x.device().is_cpu() {
        return composed::conv2d(x, w, config);
    }
    x.contiguous()?.apply_op2(&w.contiguous()?, Conv2d { geometry })
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
        let geometry = self.geometry;
        let dx = match x.track_op() {
            true => Some(gradient.apply_op2_no_bwd(w, &DataGradient { geometry })?),
            false => None,
        };
        let dw = match w.track_op() {
            true => Some(gradient.apply_op2_no_bwd(x, &WeightGradient { geometry })?),
            false => None,
        };
        Ok((dx, dw))
    }
}

struct DataGradient {
    geometry: Geometry,
}

impl CustomOp2 for DataGradient {
    fn name(&self) -> &'static str {
        "conv2d data gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s1, self.name(), T => {
            let weight = PackedData::new(&self.geometry, elements::<T>(s2, l2)?);
            let values = weight.run(&self.geometry, elements::<T>(s1, l1)?, Epilogue::NONE);
            Ok((wrap(values), Shape::from(&self.geometry.input_shape())))
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
        crate::cuda::conv::data_gradient(&self.geometry, (s1, l1), (s2, l2))
    }
}

struct WeightGradient {
    geometry: Geometry,
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s1, self.name(), T => {
            let (gradient, input) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
            let values = weight_gradient(&self.geometry, input, gradient);
            Ok((wrap(values), Shape::from(&self.geometry.weight_shape())))
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
        crate::cuda::conv::weight_gradient(&self.geometry, (s1, l1), (s2, l2))
    }
}

/// A vector as candle's storage.
pub(crate) fn wrap<T: Element>(values: Vec<T>) -> CpuStorage {
    T::to_cpu_storage_owned(values)
}

/// Weights packed for the forward pass; the batch and image size may change between runs.
pub(crate) enum PackedForward<T> {
    Direct(Packed<T>),
    Winograd(Spectrum<T>),
    Depthwise(Vec<T>),
}

impl<T: Element> PackedForward<T> {
    pub(crate) fn new(geometry: &Geometry, weight: &[T]) -> Self {
        let kernels = T::kernels();
        match winograd::suitable(kernels, geometry) {
            Some(t) => Self::Winograd(Spectrum::new(kernels, t, weight, geometry, Direction::Forward)),
            None if depthwise::suitable(geometry) => Self::Depthwise(depthwise::pack(geometry, weight)),
            None => {
                let walk = geometry.forward_walk();
                Self::Direct(pack(kernels, weight, geometry, &walk, Direction::Forward))
            }
        }
    }

    pub(crate) fn run(&self, geometry: &Geometry, input: &[T], epilogue: Epilogue<'_, T>) -> Vec<T> {
        let kernels = T::kernels();
        let (inner, outer) = (geometry.in_channels, geometry.out_channels);
        let packed = match (self, winograd::suitable(kernels, geometry)) {
            (Self::Direct(packed), _) => packed,
            (Self::Depthwise(weights), _) => {
                return depthwise::run(kernels, &[geometry.forward_walk()], input, weights, inner, epilogue);
            }
            (Self::Winograd(spectrum), Some(transforms)) => {
                return winograd::forward(kernels, transforms, geometry, spectrum, input, epilogue);
            }
            (Self::Winograd(_), None) => unreachable!("suitability does not depend on the image"),
        };
        let walk = geometry.forward_walk();
        let length = geometry.output_shape().iter().product();
        // SAFETY: the forward walk visits every output pixel, in every block of channels.
        unsafe {
            produce(length, |target| gather(kernels, &walk, input, inner, packed, epilogue, target, outer))
        }
    }
}

/// Weights packed for the data gradient.
pub(crate) enum PackedData<T> {
    /// One set of panels per phase of the stride.
    Direct(Vec<Packed<T>>),
    Winograd(Spectrum<T>),
    Depthwise(Vec<T>),
}

impl<T: Element> PackedData<T> {
    pub(crate) fn new(geometry: &Geometry, weight: &[T]) -> Self {
        let kernels = T::kernels();
        match winograd::suitable(kernels, geometry) {
            Some(t) => Self::Winograd(Spectrum::new(kernels, t, weight, geometry, Direction::Data)),
            None if depthwise::suitable(geometry) => Self::Depthwise(depthwise::pack(geometry, weight)),
            None => {
                let walks = geometry.data_walks();
                let pack = |walk| pack(kernels, weight, geometry, walk, Direction::Data);
                Self::Direct(walks.iter().map(pack).collect())
            }
        }
    }

    /// The gradient with respect to the input, through `epilogue`. The geometry's input must be at least as large as the stride,
    /// or the same as at packing.
    pub(crate) fn run(&self, geometry: &Geometry, gradient: &[T], epilogue: Epilogue<'_, T>) -> Vec<T> {
        let kernels = T::kernels();
        let (inner, outer) = (geometry.in_channels, geometry.out_channels);
        let phases = match (self, winograd::suitable(kernels, geometry)) {
            (Self::Direct(phases), _) => phases,
            (Self::Depthwise(weights), _) => {
                let walks = geometry.data_walks();
                return depthwise::run(kernels, &walks, gradient, weights, inner, epilogue);
            }
            (Self::Winograd(spectrum), Some(transforms)) => {
                let mirrored = winograd::mirrored(geometry);
                return winograd::forward(kernels, transforms, &mirrored, spectrum, gradient, epilogue);
            }
            (Self::Winograd(_), None) => unreachable!("suitability does not depend on the image"),
        };
        let length = geometry.input_shape().iter().product();
        // SAFETY: the walks of all phases together visit every input pixel, in every block of channels; a
        // walk without taps stores zeros.
        unsafe {
            produce(length, |target| {
                for (walk, packed) in geometry.data_walks().iter().zip(phases) {
                    gather(kernels, walk, gradient, outer, packed, epilogue, target, inner);
                }
            })
        }
    }
}

/// The gradient with respect to the weight.
fn weight_gradient<T: Element>(geometry: &Geometry, input: &[T], gradient: &[T]) -> Vec<T> {
    let kernels = T::kernels();
    match winograd::suitable(kernels, geometry) {
        Some(transforms) => winograd::weight_gradient(kernels, transforms, geometry, input, gradient),
        None if depthwise::suitable(geometry) => {
            depthwise::weight_gradient(kernels, geometry, input, gradient)
        }
        None => conv_weight::weight_gradient(kernels, geometry, input, gradient),
    }
}
