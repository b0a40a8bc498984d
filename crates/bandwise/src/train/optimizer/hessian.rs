//! The diagonal of the Hessian, as AdaHessian wants it (Yao et al., AAAI 2021): with random signs z, `z ⊙ Hz` is the
//! diagonal in the mean, and one product Hz costs two gradients.
//!
//! The official code gets Hz from double backward. Here it is a central difference of gradients,
//! `(∇(θ + hz) − ∇(θ − hz)) / 2h`, which works for every objective and penalty; its relative error is of the order of h²,
//! and of the rounding error divided by h.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use rand::RngCore;

use super::spans::sum_of_squares;
use crate::{Result, random};

/// `|Hz|` of every parameter in the parameter's own shape, kernels `[out, in, height, width]` averaged over height and
/// width. `signs` gives the z of a parameter, and `gradients` the gradients at the parameters' present values, which are
/// moved and put back.
///
/// # Errors
/// If gradients cannot be computed; the parameters are put back then, too.
pub fn hessian_diagonal(
    parameters: &[(String, Var)],
    signs: impl Fn(&str, &Var) -> Result<Tensor>,
    gradients: impl Fn() -> Result<GradStore>,
) -> Result<GradStore> {
    let mut moves = Vec::with_capacity(parameters.len());
    let (mut squares, mut count) = (0.0, 0);
    for (name, var) in parameters {
        squares += sum_of_squares(&var.as_detached_tensor())?;
        count += var.elem_count();
        moves.push((var, var.as_detached_tensor().copy()?, signs(name, var)?.to_dtype(var.dtype())?));
    }
    let wide = parameters.iter().all(|(_, var)| var.dtype() == DType::F64);
    let rounding = if wide { f64::EPSILON } else { f64::from(f32::EPSILON) };
    // The cube root of the rounding error balances both errors, relative to the parameters' size.
    let length = rounding.cbrt() * (squares / count.max(1) as f64).sqrt().max(1e-3);
    let at = |step: f64| -> Result<GradStore> {
        for (var, start, z) in &moves {
            var.set(&(start + (z * step)?)?)?;
        }
        gradients()
    };
    let both = at(length).and_then(|above| Ok((above, at(-length)?)));
    moves.iter().try_for_each(|(var, start, _)| var.set(start))?;
    let (above, mut below) = both?;
    for (var, ..) in &moves {
        let (Some(a), Some(b)) = (above.get(var.as_tensor()), below.remove(var.as_tensor())) else {
            continue;
        };
        let product = ((a.detach() - b.detach())? / (2.0 * length))?.abs()?;
        let diagonal = match product.rank() {
            4 => product.mean_keepdim((2, 3))?.broadcast_as(product.shape())?.contiguous()?,
            _ => product,
        };
        below.insert(var.as_tensor(), diagonal);
    }
    Ok(below)
}

/// Random signs for the parameter `name`, its own for each `seed`.
///
/// # Errors
/// A tensor operation fails.
pub fn random_signs(seed: u64, name: &str, var: &Var) -> Result<Tensor> {
    let mut stream = random::stream(seed, &[random::tag("hessian"), random::tag(name)]);
    let mut signs = Vec::with_capacity(var.elem_count());
    while signs.len() < var.elem_count() {
        let bits = stream.next_u64();
        let missing = (var.elem_count() - signs.len()).min(64);
        signs.extend((0..missing).map(|bit| if bits >> bit & 1 == 1 { 1f32 } else { -1.0 }));
    }
    Ok(Tensor::from_vec(signs, var.shape(), var.device())?)
}
