//! Convolution with fixed weights: packed once, with bias, residual and ReLU in the same pass.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use crate::algorithm::Algorithm;
use crate::backend::Backend;
use crate::conv::{PackedWeights, algorithm, conv2d, wrap};
use crate::cpu::detect::Detected;
use crate::cpu::gather::Epilogue;
use crate::cpu::gather_plan::Direction;
use crate::element::{Element, elements, with_element};
use crate::elementwise::Mask;
use crate::geometry::{ConvConfig, Geometry};

/// A convolution whose weights no longer change, for inference and for attacks on a trained network.
///
/// Batch norm in eval mode belongs into weight and bias. Cloning is cheap.
#[derive(Clone)]
pub struct FrozenConv2d {
    pub(crate) weights: Arc<Weights>,
}

/// Weights, and what was packed of them.
pub(crate) struct Weights {
    pub weight: Tensor,
    bias: Option<Tensor>,
    pub config: ConvConfig,
    cache: PackedCache,
}

/// Packed weights of whichever number type the tensor has, made on first use.
#[derive(Default)]
pub(crate) struct PackedCache {
    single: Slots<f32>,
    double: Slots<f64>,
}

/// The packed weights of both directions.
#[derive(Default)]
pub(crate) struct Slots<T: 'static> {
    forward: OnceLock<PackedWeights<T>>,
    data: OnceLock<PackedWeights<T>>,
}

/// Picks the part of the cache for a number type.
pub(crate) trait Cached: Detected {
    fn slots(cache: &PackedCache) -> &Slots<Self>;
}

impl Cached for f32 {
    fn slots(cache: &PackedCache) -> &Slots<f32> {
        &cache.single
    }
}

impl Cached for f64 {
    fn slots(cache: &PackedCache) -> &Slots<f64> {
        &cache.double
    }
}

impl FrozenConv2d {
    /// Takes over `w` `[out, in / groups, kernel height, kernel width]` and `bias` `[out]`, without their
    /// gradient history.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(w: &Tensor, bias: Option<&Tensor>, config: &ConvConfig) -> Result<Self> {
        let (out_channels, ..) = w.dims4()?;
        let bias = match bias {
            Some(bias) if bias.dims() != [out_channels] => {
                bail!("FrozenConv2d: expected a bias [{out_channels}], got {:?}", bias.dims())
            }
            Some(bias) => Some(bias.detach().contiguous()?),
            None => None,
        };
        let weight = w.detach().contiguous()?;
        let weights = Weights { weight, bias, config: *config, cache: PackedCache::default() };
        Ok(Self { weights: Arc::new(weights) })
    }

    /// `relu(conv(x) + bias + residual)`, ReLU only where asked. Differentiable in `x` and `residual`.
    ///
    /// # Errors
    /// If shapes or number types do not fit.
    pub fn forward(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let Weights { weight, bias, config, .. } = &*self.weights;
        let geometry = Geometry::new(x.dims(), weight.dims(), config)?;
        if x.dtype() != weight.dtype() {
            bail!("FrozenConv2d: the weight is {:?}, the input {:?}", weight.dtype(), x.dtype());
        }
        if let Some(residual) = residual
            && residual.dims() != geometry.output_shape()
        {
            bail!("FrozenConv2d: residual {:?} for a result {:?}", residual.dims(), geometry.output_shape());
        }
        match (Backend::of(x), x.dtype()) {
            (Backend::Cpu, DType::F32 | DType::F64) => {}
            #[cfg(feature = "cuda")]
            (Backend::Cuda, _) => {
                // bias, residual and ReLU as one pass: batch norm of mean 0 and variance 1
                let y = conv2d(x, weight, config)?;
                let ones = Tensor::ones(weight.dim(0)?, x.dtype(), x.device())?;
                let zeros = ones.zeros_like()?;
                let statistics = Tensor::stack(&[&zeros, &ones], 0)?;
                let bias = bias.as_ref().unwrap_or(&zeros);
                return crate::cuda::batch_norm::eval(&y, &ones, bias, &statistics, 0.0, residual, relu);
            }
            _ => {
                let mut y = conv2d(x, weight, config)?;
                if let Some(bias) = bias {
                    y = y.broadcast_add(bias)?;
                }
                if let Some(residual) = residual {
                    y = (y + residual)?;
                }
                return if relu { y.relu() } else { Ok(y) };
            }
        }
        let op = FrozenForward { weights: self.weights.clone(), geometry, relu };
        let x = x.contiguous()?;
        match residual {
            Some(residual) => x.apply_op2(&residual.contiguous()?, op),
            None => x.apply_op1(op),
        }
    }

    /// What the convolution runs as.
    pub fn algorithm(&self) -> Algorithm {
        let Weights { weight, config, .. } = &*self.weights;
        let shape = weight.dims4().map(<[usize; 4]>::from);
        // `new` has checked the shape
        shape.map_or(Algorithm::Candle, |shape| algorithm(shape, config, weight.dtype(), weight.device()))
    }
}

impl Weights {
    /// `relu(conv(input) + bias + residual)` as the epilogue says; the bias is the weights' own.
    pub(crate) fn forward<T: Cached>(
        &self,
        geometry: &Geometry,
        input: &[T],
        epilogue: Epilogue<'_, T>,
    ) -> Result<Vec<T>> {
        let direction = Direction::Forward;
        match &self.bias {
            Some(bias) => with_slice(bias, |bias| {
                self.run(geometry, direction, input, Epilogue { bias: Some(bias), ..epilogue })
            })?,
            None => self.run(geometry, direction, input, epilogue),
        }
    }

    /// The gradient with respect to the input, through the epilogue.
    pub(crate) fn data_gradient<T: Cached>(
        &self,
        geometry: &Geometry,
        gradient: &[T],
        epilogue: Epilogue<'_, T>,
    ) -> Result<Vec<T>> {
        self.run(geometry, Direction::Data, gradient, epilogue)
    }

    fn run<T: Cached>(
        &self,
        geometry: &Geometry,
        direction: Direction,
        source: &[T],
        epilogue: Epilogue<'_, T>,
    ) -> Result<Vec<T>> {
        match self.packed(geometry, direction)? {
            Some(packed) => Ok(packed.run(geometry, source, epilogue)),
            None => Ok(self.pack(geometry, direction)?.run(geometry, source, epilogue)),
        }
    }

    fn pack<T: Cached>(&self, geometry: &Geometry, direction: Direction) -> Result<PackedWeights<T>> {
        with_slice(&self.weight, |weight| PackedWeights::new(geometry, direction, weight))
    }

    /// The packed weights, made once; `None` for the data gradient of an image smaller than the stride, which lacks
    /// phases that a later, larger image would need.
    pub(crate) fn packed<T: Cached>(
        &self,
        geometry: &Geometry,
        direction: Direction,
    ) -> Result<Option<&PackedWeights<T>>> {
        let (slots, stride) = (T::slots(&self.cache), geometry.config.stride);
        let slot = match direction {
            Direction::Forward => &slots.forward,
            Direction::Data if geometry.in_height < stride || geometry.in_width < stride => return Ok(None),
            Direction::Data => &slots.data,
        };
        kept(slot, || self.pack(geometry, direction)).map(Some)
    }
}

/// What the slot holds, made if it is empty. Two threads may both make it: waiting for one another inside a thread
/// pool could wait for oneself.
fn kept<P>(slot: &OnceLock<P>, make: impl FnOnce() -> Result<P>) -> Result<&P> {
    if let Some(kept) = slot.get() {
        return Ok(kept);
    }
    let made = make()?;
    Ok(slot.get_or_init(|| made))
}

struct FrozenForward {
    weights: Arc<Weights>,
    geometry: Geometry,
    relu: bool,
}

impl FrozenForward {
    fn run<T: Cached>(&self, input: &[T], residual: Option<&[T]>) -> Result<(CpuStorage, Shape)> {
        let epilogue = Epilogue { residual, relu: self.relu, ..Epilogue::NONE };
        let values = self.weights.forward(&self.geometry, input, epilogue)?;
        Ok((wrap(values), Shape::from(&self.geometry.output_shape())))
    }

    /// The gradient behind the ReLU, `[batch, out height, out width, out]`.
    fn masked(&self, result: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let gradient = gradient.contiguous()?;
        if self.relu { result.apply_op2_no_bwd(&gradient, &Mask) } else { Ok(gradient) }
    }

    fn data_gradient(&self, gradient: &Tensor) -> Result<Tensor> {
        gradient.apply_op1_no_bwd(&FrozenData { weights: self.weights.clone(), geometry: self.geometry })
    }
}

fn with_slice<T: Element, R>(tensor: &Tensor, body: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cpu(storage) => Ok(body(elements::<T>(storage, layout)?)),
        _ => bail!("FrozenConv2d: the weights live on another device than the input"),
    }
}

impl CustomOp1 for FrozenForward {
    fn name(&self) -> &'static str {
        "frozen conv2d"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, "frozen conv2d", T => self.run::<T>(elements(storage, layout)?, None))
    }

    fn bwd(&self, _x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.data_gradient(&self.masked(result, gradient)?)?))
    }
}

impl CustomOp2 for FrozenForward {
    fn name(&self) -> &'static str {
        "frozen conv2d with residual"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s1, "frozen conv2d", T => self.run::<T>(elements(s1, l1)?, Some(elements(s2, l2)?)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let masked = self.masked(result, gradient)?;
        let dx = if x.track_op() { Some(self.data_gradient(&masked)?) } else { None };
        Ok((dx, residual.track_op().then_some(masked)))
    }
}

struct FrozenData {
    weights: Arc<Weights>,
    geometry: Geometry,
}

impl CustomOp1 for FrozenData {
    fn name(&self) -> &'static str {
        "frozen conv2d data gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let gradient = elements::<T>(storage, layout)?;
            let values = self.weights.data_gradient(&self.geometry, gradient, Epilogue::NONE)?;
            Ok((wrap(values), Shape::from(&self.geometry.input_shape())))
        })
    }
}
