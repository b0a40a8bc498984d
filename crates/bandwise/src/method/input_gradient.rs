//! The gradient of the loss with respect to the images, J, and exact derivatives *of* it.
//!
//! Training on a function h(J) needs ∇θ h(J(θ)), the derivative of a gradient. The autodiff library
//! differentiates once only, and that is enough:
//!
//! 1. [`InputGradient::of`]: one forward and one backward pass give the loss, its gradient in the
//!    weights, and J.
//! 2. [`Penalty::of`]: h and v = ∂h/∂J, first-order autodiff with J as a leaf.
//! 3. [`penalty_gradients`]: ⟨v, J(θ)⟩ is the derivative of the loss along v in image space, so a *dual* forward
//!    pass computes it, and an ordinary backward pass through that scalar, with v held constant, is
//!    exactly ∇θ h(J(θ)): reverse over forward.
//!
//! The cost is one dual forward and one backward pass through it, whatever h is. Everything that looks at
//! J stands on these three: JaFR, GradAlign, norm penalties and group sparsity.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::Result;
use crate::nn::{DualTensor, ForwardContext, Mode, Model, loss};

/// The loss of a batch and its gradients.
#[derive(Debug)]
pub struct InputGradient {
    /// Mean cross-entropy over the batch, a scalar.
    pub loss: Tensor,
    /// Logits `[batch, classes]`.
    pub logits: Tensor,
    /// J `[batch, height, width, channels]`: derivative of the *mean* loss, so it carries 1/batch.
    pub gradient: Tensor,
    /// Gradients of the mean loss with respect to everything in the model that is not frozen.
    pub parameters: GradStore,
}

impl InputGradient {
    /// Cross-entropy of `images` `[batch, height, width, channels]` with `labels` `[batch]` (u32), and its
    /// gradients. For J alone, pass a frozen model: it then costs no weight gradients.
    pub fn of(model: &Model, images: &Tensor, labels: &Tensor, pass: &ForwardContext) -> Result<Self> {
        let images = Var::from_tensor(&images.detach())?;
        let logits = model.logits(&images, pass)?;
        let loss = loss::mean_cross_entropy(&logits, labels)?;
        let mut parameters = loss.backward()?;
        let gradient = match parameters.remove(&images) {
            Some(gradient) => gradient,
            None => images.zeros_like()?,
        };
        Ok(Self { loss: loss.detach(), logits: logits.detach(), gradient, parameters })
    }
}

/// A scalar function of J and its derivative.
#[derive(Clone, Debug)]
pub struct Penalty {
    /// h(J).
    pub value: f64,
    /// ∂h/∂J, the shape of J.
    pub derivative: Tensor,
}

impl Penalty {
    /// Evaluates and differentiates `function`, which maps J to a scalar tensor.
    pub fn of(gradient: &Tensor, function: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let leaf = Var::from_tensor(&gradient.detach())?;
        let value = function(&leaf)?;
        let derivative = match value.backward()?.remove(&leaf) {
            Some(derivative) => derivative,
            None => leaf.zeros_like()?,
        };
        Ok(Self { value: scalar(&value)?, derivative })
    }

    /// The sum of two functions of the same J.
    pub fn plus(self, other: Self) -> Result<Self> {
        Ok(Self { value: self.value + other.value, derivative: (self.derivative + other.derivative)? })
    }
}

/// Forward-mode derivative: the logits of `images` and how they change when the images move along
/// `tangents` (both `[batch, height, width, channels]`), each `[batch, classes]`. The second is the
/// Jacobian-vector product `∂logits/∂images · tangents`, exact, at about twice the cost of a forward pass,
/// and itself differentiable in the weights.
pub fn jacobian_vector_product(
    model: &Model,
    images: &Tensor,
    tangents: &Tensor,
    pass: &ForwardContext,
) -> Result<(Tensor, Tensor)> {
    let output = model.forward(&DualTensor::dual(images.clone(), tangents.clone()), pass)?;
    let derivative = match output.tangent {
        Some(tangent) => tangent,
        None => output.value.zeros_like()?,
    };
    Ok((output.value, derivative))
}

/// ∇θ ⟨`direction`, J(θ)⟩ for a constant `direction` of J's shape: the gradients of a [`Penalty`] with
/// respect to the weights.
///
/// Batch norm uses the same statistics as in `pass`, but never updates its running ones.
pub fn penalty_gradients(
    model: &Model,
    images: &Tensor,
    labels: &Tensor,
    direction: &Tensor,
    pass: &ForwardContext,
) -> Result<GradStore> {
    let mode = if pass.mode == Mode::Train { Mode::BatchStatistics } else { pass.mode };
    let (_, change) =
        directional(model, images, labels, direction, &ForwardContext { mode, recorder: None, ..*pass })?;
    Ok(change.backward()?)
}

/// A loss of the same clean images, and its gradients together with those of [`penalty_gradients`].
#[derive(Debug)]
pub struct Joint {
    /// The loss, without penalty, detached.
    pub loss: Tensor,
    /// Logits `[batch, classes]`, detached.
    pub logits: Tensor,
    /// Sum of both gradients with respect to the weights.
    pub parameters: GradStore,
}

/// ∇θ ( `loss`(logits) + ⟨`direction`, J(θ)⟩ ): the logits of the dual pass are those of an ordinary one, so
/// that one backward pass serves both and the loss costs nothing extra. In training mode, batch norm's running
/// statistics are updated once.
pub fn joint_gradients(
    model: &Model,
    images: &Tensor,
    labels: &Tensor,
    direction: &Tensor,
    pass: &ForwardContext,
    loss: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Joint> {
    let (logits, change) = directional(model, images, labels, direction, pass)?;
    let loss = loss(&logits)?;
    let parameters = (&loss + change)?.backward()?;
    Ok(Joint { loss: loss.detach(), logits: logits.detach(), parameters })
}

/// Logits, and the derivative of the mean cross-entropy along `direction`; both in the autodiff graph.
fn directional(
    model: &Model,
    images: &Tensor,
    labels: &Tensor,
    direction: &Tensor,
    pass: &ForwardContext,
) -> Result<(Tensor, Tensor)> {
    let (logits, tangents) = jacobian_vector_product(model, &images.detach(), &direction.detach(), pass)?;
    let change = loss::cross_entropy_tangent(&logits, &tangents, labels)?.mean_all()?;
    Ok((logits, change))
}

/// `√(Σ x²)` over all axes but the first, `[batch]`, with gradient 0 (not NaN) where all entries are 0, and
/// without under- or overflow of the squares.
pub fn norms(x: &Tensor) -> Result<Tensor> {
    let flat = x.flatten_from(1)?;
    let largest = flat.detach().abs()?.max_keepdim(1)?;
    let scale = largest.eq(0.0)?.where_cond(&largest.ones_like()?, &largest)?;
    let norm = safe_sqrt(&flat.broadcast_div(&scale)?.sqr()?.sum_keepdim(1)?)?;
    Ok((norm * scale)?.squeeze(1)?)
}

/// Square root with gradient 0 at 0.
pub(crate) fn safe_sqrt(x: &Tensor) -> Result<Tensor> {
    let zero = x.eq(0.0)?;
    let root = zero.where_cond(&x.ones_like()?, x)?.sqrt()?;
    Ok(zero.where_cond(&root.zeros_like()?, &root)?)
}

/// A one-element tensor on the host, in float64.
pub(crate) fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.flatten_all()?.get(0)?.to_dtype(candle_core::DType::F64)?.to_scalar()?)
}

#[cfg(test)]
mod tests;
