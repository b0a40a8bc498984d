//! Batch norm in training and evaluation mode, with residual and ReLU in the same pass.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::backend::Backend;
use crate::batch_norm_tangent::train_tangent;
use crate::composed;
use crate::conv::wrap;
use crate::cpu::batch_norm::{Backward, ReluMask, affine, moments};
use crate::element::{Element, elements, with_element};
use crate::elementwise::Mask;

/// Statistics of one training batch, for the running averages.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// Mean per channel, `[channels]`, no gradient.
    pub mean: Tensor,
    /// Biased variance per channel, `[channels]`, no gradient. PyTorch's running variance takes the unbiased
    /// one: `variance · count / (count − 1)`.
    pub variance: Tensor,
    /// Values per channel: batch · height · width.
    pub count: usize,
}

/// Training-mode batch norm: normalizes `x` `[batch, height, width, channels]` (or `[batch, channels]`) by its own
/// statistics, scales by `gamma`, shifts by `beta` (both `[channels]`), then adds `residual` and applies ReLU
/// where asked.
///
/// Differentiable in `x`, `gamma`, `beta` and `residual`.
///
/// # Errors
/// If shapes or number types do not fit, or the batch is empty.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<(Tensor, BatchStatistics)> {
    let channels = check(x, &[("gamma", gamma), ("beta", beta)], residual)?;
    let count = x.elem_count() / channels.max(1);
    if count == 0 {
        bail!("batch_norm: no values to take statistics of in {:?}", x.dims());
    }
    match Backend::of(x) {
        Backend::Cpu => {}
        #[cfg(feature = "cuda")]
        Backend::Cuda => {
            let (y, statistics) = crate::cuda::batch_norm::train(x, gamma, beta, epsilon, residual, relu)?;
            let (mean, variance) = (statistics.get(0)?, statistics.get(1)?);
            return Ok((y, BatchStatistics { mean, variance, count }));
        }
        Backend::Composed => {
            let (y, mean, variance) = composed::batch_norm_train(x, gamma, beta, epsilon, residual, relu)?;
            return Ok((y, BatchStatistics { mean, variance, count }));
        }
    }
    let saved = Arc::new(OnceLock::new());
    let op = Train { epsilon, relu, saved: saved.clone() };
    let y = apply(x, gamma, beta, residual, op)?;
    let Some(Saved { mean, variance, .. }) = saved.get() else {
        bail!("internal error: batch norm left no statistics")
    };
    let vector = |values: &[f64]| Tensor::new(values, x.device())?.to_dtype(x.dtype());
    Ok((y, BatchStatistics { mean: vector(mean)?, variance: vector(variance)?, count }))
}

/// Evaluation-mode batch norm with the given statistics (all `[channels]`), then residual and ReLU as in
/// [`batch_norm_train`].
///
/// Differentiable in `x`, `gamma`, `beta` and `residual`.
///
/// # Errors
/// If shapes or number types do not fit.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_eval(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f64,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    check(x, &[("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance)], residual)?;
    match Backend::of(x) {
        Backend::Cpu => {}
        #[cfg(feature = "cuda")]
        Backend::Cuda => {
            let statistics = Tensor::stack(&[mean, variance], 0)?;
            return crate::cuda::batch_norm::eval(x, gamma, beta, &statistics, epsilon, residual, relu);
        }
        Backend::Composed => {
            return composed::batch_norm_eval(x, gamma, beta, mean, variance, epsilon, residual, relu);
        }
    }
    let vector = |t: &Tensor| t.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>();
    let (mean, variance) = (vector(mean)?, vector(variance)?);
    let inverse = variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
    apply(x, gamma, beta, residual, Eval { mean, inverse, relu })
}

/// The tangent of training-mode batch norm (without ReLU) along `tangent`:
/// `gamma / σ · (t − mean t − x̂ · mean(x̂ · t))`, statistics of `x` over all but the last axis.
///
/// Differentiable in `x`, `tangent` and `gamma`, exactly.
///
/// # Errors
/// If shapes or number types do not fit.
pub fn batch_norm_train_tangent(
    x: &Tensor,
    tangent: &Tensor,
    gamma: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    check(x, &[("gamma", gamma)], Some(tangent))?;
    match Backend::of(x) {
        Backend::Cpu if x.elem_count() > 0 => train_tangent(x, tangent, gamma, epsilon),
        _ => composed::batch_norm_train_tangent(x, tangent, gamma, epsilon),
    }
}

/// Checks the shapes and returns the number of channels.
fn check(x: &Tensor, vectors: &[(&str, &Tensor)], like: Option<&Tensor>) -> Result<usize> {
    let channels = match x.dims() {
        &[_, _, _, channels] | &[_, channels] => channels,
        other => {
            bail!("batch_norm: expected [batch, height, width, channels] or [batch, channels], got {other:?}")
        }
    };
    for (name, vector) in vectors {
        if vector.dims() != [channels] {
            bail!("batch_norm: {name} is {:?} for {channels} channels", vector.dims());
        }
    }
    match like {
        Some(like) if like.dims() != x.dims() => {
            bail!("batch_norm: residual or tangent is {:?} for an input {:?}", like.dims(), x.dims())
        }
        _ => Ok(channels),
    }
}

/// Applies an operator on `x`, the stacked `[gamma; beta]`, and the residual if there is one.
fn apply<O>(x: &Tensor, gamma: &Tensor, beta: &Tensor, residual: Option<&Tensor>, op: O) -> Result<Tensor>
where
    O: CustomOp2 + CustomOp3 + Send + Sync + 'static,
{
    let x = x.contiguous()?;
    let parameters = Tensor::stack(&[gamma, beta], 0)?;
    match residual {
        Some(residual) => x.apply_op3(&parameters, &residual.contiguous()?, op),
        None => x.apply_op2(&parameters, op),
    }
}

/// What the forward pass leaves for the backward pass.
struct Saved {
    mean: Vec<f64>,
    variance: Vec<f64>,
    inverse: Vec<f64>,
}

struct Train {
    epsilon: f64,
    relu: bool,
    saved: Arc<OnceLock<Saved>>,
}

struct Eval {
    mean: Vec<f64>,
    inverse: Vec<f64>,
    relu: bool,
}

/// What differs between training and evaluation.
trait Normalization {
    const NAME: &'static str;
    fn relu(&self) -> bool;
    /// Mean and inverse deviation; takes statistics of `x` on the first call in training mode.
    fn statistics<T: Element>(&self, x: &[T], channels: usize) -> (&[f64], &[f64]);
    /// Whether the statistics depend on `x`.
    const OWN_STATISTICS: bool;
}

impl Normalization for Train {
    const NAME: &'static str = "batch norm (train)";
    const OWN_STATISTICS: bool = true;

    fn relu(&self) -> bool {
        self.relu
    }

    fn statistics<T: Element>(&self, x: &[T], channels: usize) -> (&[f64], &[f64]) {
        let saved = self.saved.get_or_init(|| {
            let found = moments(x, channels);
            let inverse = found.variance.iter().map(|v| 1.0 / (v + self.epsilon).sqrt()).collect();
            Saved { mean: found.mean, variance: found.variance, inverse }
        });
        (&saved.mean, &saved.inverse)
    }
}

impl Normalization for Eval {
    const NAME: &'static str = "batch norm (eval)";
    const OWN_STATISTICS: bool = false;

    fn relu(&self) -> bool {
        self.relu
    }

    fn statistics<T: Element>(&self, _x: &[T], _channels: usize) -> (&[f64], &[f64]) {
        (&self.mean, &self.inverse)
    }
}

fn convert<T: Element>(values: impl IntoIterator<Item = f64>) -> Vec<T> {
    values.into_iter().map(T::from_f64).collect()
}

fn forward<T: Element>(
    op: &impl Normalization,
    x: &[T],
    parameters: &[T],
    residual: Option<&[T]>,
) -> CpuStorage {
    let channels = parameters.len() / 2;
    let parameters: Vec<f64> = parameters.iter().map(|p| p.to_f64()).collect();
    let (gamma, beta) = parameters.split_at(channels);
    let (mean, inverse) = op.statistics(x, channels);
    let [scale, shift] = constants::<T>(gamma, beta, mean, inverse);
    wrap(affine(x, &scale, &shift, residual, op.relu()))
}

/// Scale and shift of the normalized values.
fn constants<T: Element>(gamma: &[f64], beta: &[f64], mean: &[f64], inverse: &[f64]) -> [Vec<T>; 2] {
    let scale = gamma.iter().zip(inverse).map(|(g, i)| g * i);
    let products = gamma.iter().zip(inverse).zip(mean);
    [convert(scale), convert(beta.iter().zip(products).map(|(b, ((g, i), m))| b - g * i * m))]
}

/// The gradients of `x`, of `[gamma; beta]` and of the residual, each if wanted. Arguments: x, the gradient and, where
/// there is a residual and a ReLU, the result.
struct Gradients<'a, O> {
    op: &'a O,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    want_x: bool,
    want_residual: bool,
    /// Filled with the gradient of `[gamma; beta]`.
    parameters: OnceLock<Vec<f64>>,
    /// Filled with the gradient of the residual.
    residual: OnceLock<Tensor>,
}

impl<O: Normalization> Gradients<'_, O> {
    fn run<T: Element>(
        &self,
        x: &[T],
        gradient: &[T],
        result: Option<&[T]>,
        shape: &Shape,
    ) -> Result<Vec<T>> {
        let channels = self.gamma.len();
        let (mean, inverse) = self.op.statistics(x, channels);
        let (mean_t, inverse_t): (Vec<T>, Vec<T>) =
            (convert(mean.iter().copied()), convert(inverse.iter().copied()));
        let [scale, shift] = constants::<T>(&self.gamma, &self.beta, mean, inverse);
        let mask = match result {
            _ if !self.op.relu() => ReluMask::None,
            Some(result) => ReluMask::Result(result),
            None => ReluMask::Affine { scale: &scale, shift: &shift },
        };
        let pass = Backward { x, gradient, mask, mean: &mean_t, inverse: &inverse_t };
        let (plain, along) = pass.sums();
        let zeros = || vec![T::ZERO; channels];
        let [slope, offset] = match O::OWN_STATISTICS {
            false => [zeros(), zeros()],
            true => {
                let count = (x.len() / channels) as f64;
                let factor = |c: usize| -self.gamma[c] * inverse[c] / count;
                [
                    convert((0..channels).map(|c| factor(c) * inverse[c] * along[c])),
                    convert((0..channels).map(|c| factor(c) * plain[c])),
                ]
            }
        };
        let _ = self.parameters.set(along.into_iter().chain(plain).collect());
        if !self.want_x && !self.want_residual {
            return Ok(Vec::new());
        }
        let (dx, residual) = pass.combine(&scale, &slope, &offset, self.want_residual);
        if self.want_residual {
            let _ = self.residual.set(Tensor::from_vec(residual, shape, &candle_core::Device::Cpu)?);
        }
        Ok(dx)
    }

    fn storage(
        &self,
        s: [&CpuStorage; 2],
        l: [&Layout; 2],
        result: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s[0], O::NAME, T => {
            let result = match result {
                Some((storage, layout)) => Some(elements::<T>(storage, layout)?),
                None => None,
            };
            let shape = l[0].shape();
            let values = self.run::<T>(elements(s[0], l[0])?, elements(s[1], l[1])?, result, shape)?;
            let shape = if values.is_empty() { Shape::from(0) } else { shape.clone() };
            Ok((wrap(values), shape))
        })
    }
}

impl<O: Normalization> CustomOp2 for Gradients<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.storage([s1, s2], [l1, l2], None)
    }
}

impl<O: Normalization> CustomOp3 for Gradients<'_, O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.storage([s1, s2], [l1, l2], Some((s3, l3)))
    }
}

/// Gradients of `x`, `[gamma; beta]` and the residual, for those that are tracked.
fn backward<O: Normalization>(
    op: &O,
    x: &Tensor,
    parameters: &Tensor,
    residual: Option<&Tensor>,
    result: &Tensor,
    gradient: &Tensor,
) -> Result<[Option<Tensor>; 3]> {
    let gradient = gradient.contiguous()?;
    let want_residual = residual.is_some_and(Tensor::track_op);
    if !x.track_op() && !parameters.track_op() {
        let residual = match op.relu() {
            _ if !want_residual => None,
            true => Some(result.apply_op2_no_bwd(&gradient, &Mask)?),
            false => Some(gradient),
        };
        return Ok([None, None, residual]);
    }
    let row = |index| parameters.get(index)?.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>();
    let pass = Gradients {
        op,
        gamma: row(0)?,
        beta: row(1)?,
        want_x: x.track_op(),
        // without a ReLU it is the gradient itself
        want_residual: want_residual && op.relu(),
        parameters: OnceLock::new(),
        residual: OnceLock::new(),
    };
    let dx = match residual.is_some() && op.relu() {
        true => x.apply_op3_no_bwd(&gradient, result, &pass)?,
        false => x.apply_op2_no_bwd(&gradient, &pass)?,
    };
    let dp = match (parameters.track_op(), pass.parameters.get()) {
        (true, Some(values)) => {
            let values = Tensor::from_slice(values, parameters.shape(), x.device())?;
            Some(values.to_dtype(parameters.dtype())?)
        }
        _ => None,
    };
    let residual =
        if pass.want_residual { pass.residual.into_inner() } else { want_residual.then_some(gradient) };
    Ok([x.track_op().then_some(dx), dp, residual])
}

macro_rules! operator {
    ($op:ty) => {
        impl CustomOp2 for $op {
            fn name(&self) -> &'static str {
                Self::NAME
            }

            fn cpu_fwd(
                &self,
                s1: &CpuStorage,
                l1: &Layout,
                s2: &CpuStorage,
                l2: &Layout,
            ) -> Result<(CpuStorage, Shape)> {
                with_element!(s1, Self::NAME, T => {
                    let values = forward::<T>(self, elements(s1, l1)?, elements(s2, l2)?, None);
                    Ok((values, l1.shape().clone()))
                })
            }

            fn bwd(
                &self,
                x: &Tensor,
                parameters: &Tensor,
                result: &Tensor,
                gradient: &Tensor,
            ) -> Result<(Option<Tensor>, Option<Tensor>)> {
                let [dx, dp, _] = backward(self, x, parameters, None, result, gradient)?;
                Ok((dx, dp))
            }
        }

        impl CustomOp3 for $op {
            fn name(&self) -> &'static str {
                Self::NAME
            }

            fn cpu_fwd(
                &self,
                s1: &CpuStorage,
                l1: &Layout,
                s2: &CpuStorage,
                l2: &Layout,
                s3: &CpuStorage,
                l3: &Layout,
            ) -> Result<(CpuStorage, Shape)> {
                with_element!(s1, Self::NAME, T => {
                    let residual = Some(elements(s3, l3)?);
                    let values = forward::<T>(self, elements(s1, l1)?, elements(s2, l2)?, residual);
                    Ok((values, l1.shape().clone()))
                })
            }

            fn bwd(
                &self,
                x: &Tensor,
                parameters: &Tensor,
                residual: &Tensor,
                result: &Tensor,
                gradient: &Tensor,
            ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
                let [dx, dp, dr] = backward(self, x, parameters, Some(residual), result, gradient)?;
                Ok((dx, dp, dr))
            }
        }
    };
}

operator!(Train);
operator!(Eval);
