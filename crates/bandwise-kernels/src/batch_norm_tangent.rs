//! The tangent of training-mode batch norm as one operator, with its own backward pass.
//!
//! Per channel, with N values, mean μ, s = 1/√(variance + ε), x̂ = (x − μ)·s and bars for means over N:
//!
//! ```text
//! T   = γ·s·P t        P t = t − t̄ − x̂·mean(x̂·t)          (P is symmetric)
//! ∂t  = γ·s·P g
//! ∂γ  = s·Q            Q = Σ g·P t = Σ g·t − N·ḡ·t̄ − N·a·b,   a = mean(x̂·g), b = mean(x̂·t)
//! ∂x  = −γ·s²·( b·(g − ḡ) + a·(t − t̄) + x̂·(Q/N − 2·a·b) )
//! ```
//!
//! The last line is what reverse over forward is about: how the normalization of the tangent depends on x.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};

use crate::conv::wrap;
use crate::cpu::batch_norm::{Backward, ReluMask, moments};
use crate::cpu::tangent::{Coefficients, combine, products};
use crate::element::{Element, elements, with_element};

const NAME: &str = "batch norm tangent";

/// See [`crate::batch_norm_train_tangent`]; on the CPU.
pub(crate) fn train_tangent(x: &Tensor, tangent: &Tensor, gamma: &Tensor, epsilon: f64) -> Result<Tensor> {
    let op = TrainTangent { epsilon, saved: OnceLock::new() };
    x.contiguous()?.apply_op3(&tangent.contiguous()?, &gamma.contiguous()?, op)
}

struct TrainTangent {
    epsilon: f64,
    saved: OnceLock<Saved>,
}

/// Per channel, from the forward pass.
struct Saved {
    mean: Vec<f64>,
    /// s.
    inverse: Vec<f64>,
    /// t̄.
    tangent: Vec<f64>,
    /// b.
    along: Vec<f64>,
}

fn convert<T: Element>(values: impl IntoIterator<Item = f64>) -> Vec<T> {
    values.into_iter().map(T::from_f64).collect()
}

/// Means of `values`, and of `values` times the normalized x, per channel.
fn means<T: Element>(x: &[T], values: &[T], mean: &[f64], inverse: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mean, inverse): (Vec<T>, Vec<T>) = (convert(mean.iter().copied()), convert(inverse.iter().copied()));
    let pass = Backward { x, gradient: values, mask: ReluMask::None, mean: &mean, inverse: &inverse };
    let (mut plain, mut along) = pass.sums();
    let count = (x.len() / mean.len()) as f64;
    plain.iter_mut().chain(&mut along).for_each(|sum| *sum /= count);
    (plain, along)
}

/// `γ·s·P values` from the means of `values`.
fn project<T: Element>(
    x: &[T],
    values: &[T],
    gamma: &[f64],
    saved: &Saved,
    (plain, along): (&[f64], &[f64]),
) -> Vec<T> {
    let channels = gamma.len();
    let mean: Vec<T> = convert(saved.mean.iter().copied());
    let pass = Backward { x, gradient: values, mask: ReluMask::None, mean: &mean, inverse: &mean };
    let scale = |c: usize| gamma[c] * saved.inverse[c];
    let slope = convert::<T>((0..channels).map(|c| -scale(c) * saved.inverse[c] * along[c]));
    let offset = convert::<T>((0..channels).map(|c| -scale(c) * plain[c]));
    pass.combine(&convert::<T>((0..channels).map(scale)), &slope, &offset, false).0
}

impl TrainTangent {
    fn forward<T: Element>(&self, x: &[T], tangent: &[T], gamma: &[T]) -> Vec<T> {
        let saved = self.saved.get_or_init(|| {
            let found = moments(x, gamma.len());
            let inverse: Vec<f64> = found.variance.iter().map(|v| 1.0 / (v + self.epsilon).sqrt()).collect();
            let (plain, along) = means(x, tangent, &found.mean, &inverse);
            Saved { mean: found.mean, inverse, tangent: plain, along }
        });
        let gamma: Vec<f64> = gamma.iter().map(|g| g.to_f64()).collect();
        project(x, tangent, &gamma, saved, (&saved.tangent, &saved.along))
    }
}

/// The gradient of the tangent; leaves the means of the upstream gradient for the others.
struct TangentGradient<'a> {
    saved: &'a Saved,
    gamma: &'a [f64],
    /// ḡ and a.
    means: OnceLock<(Vec<f64>, Vec<f64>)>,
}

impl CustomOp2 for TangentGradient<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s1, NAME, T => {
            let (x, gradient) = (elements::<T>(s1, l1)?, elements::<T>(s2, l2)?);
            let (plain, along) =
                self.means.get_or_init(|| means(x, gradient, &self.saved.mean, &self.saved.inverse));
            let values = project(x, gradient, self.gamma, self.saved, (plain, along));
            Ok((wrap(values), l1.shape().clone()))
        })
    }
}

/// The gradient of x; leaves Q for γ.
struct ValueGradient<'a> {
    saved: &'a Saved,
    gamma: &'a [f64],
    /// ḡ and a.
    means: &'a (Vec<f64>, Vec<f64>),
    /// Q.
    pairing: OnceLock<Vec<f64>>,
}

impl ValueGradient<'_> {
    fn run<T: Element>(&self, inputs: [&[T]; 3]) -> Vec<T> {
        let [x, tangent, gradient] = inputs;
        let Saved { mean, inverse, tangent: tangent_mean, along: b } = self.saved;
        let (gradient_mean, a) = self.means;
        let channels = mean.len();
        let count = (x.len() / channels) as f64;
        let pairing = self.pairing.get_or_init(|| {
            let sums = products(gradient, tangent, channels);
            let constants = |c: usize| count * (gradient_mean[c] * tangent_mean[c] + a[c] * b[c]);
            sums.iter().enumerate().map(|(c, sum)| sum - constants(c)).collect()
        });
        let scale = |c: usize| -self.gamma[c] * inverse[c] * inverse[c];
        let coefficients = Coefficients {
            x: convert(
                (0..channels).map(|c| scale(c) * inverse[c] * (pairing[c] / count - 2.0 * a[c] * b[c])),
            ),
            tangent: convert((0..channels).map(|c| scale(c) * a[c])),
            gradient: convert((0..channels).map(|c| scale(c) * b[c])),
            constant: convert(
                (0..channels).map(|c| -scale(c) * (b[c] * gradient_mean[c] + a[c] * tangent_mean[c])),
            ),
        };
        combine(inputs, &convert::<T>(mean.iter().copied()), &coefficients)
    }
}

impl CustomOp3 for ValueGradient<'_> {
    fn name(&self) -> &'static str {
        NAME
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
        with_element!(s1, NAME, T => {
            let inputs = [elements::<T>(s1, l1)?, elements(s2, l2)?, elements(s3, l3)?];
            Ok((wrap(self.run::<T>(inputs)), l1.shape().clone()))
        })
    }
}

impl CustomOp3 for TrainTangent {
    fn name(&self) -> &'static str {
        NAME
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
        with_element!(s1, NAME, T => {
            let values = self.forward::<T>(elements(s1, l1)?, elements(s2, l2)?, elements(s3, l3)?);
            Ok((wrap(values), l1.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        tangent: &Tensor,
        gamma: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(saved) = self.saved.get() else { bail!("internal error: {NAME} left no statistics") };
        let gradient = gradient.contiguous()?;
        let scales = gamma.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let first = TangentGradient { saved, gamma: &scales, means: OnceLock::new() };
        let d_tangent = x.apply_op2_no_bwd(&gradient, &first)?;
        if !x.track_op() && !gamma.track_op() {
            return Ok((None, Some(d_tangent), None));
        }
        let Some(means) = first.means.get() else { bail!("internal error: {NAME} left no means") };
        let second = ValueGradient { saved, gamma: &scales, means, pairing: OnceLock::new() };
        let d_x = x.apply_op3_no_bwd(tangent, &gradient, &second)?;
        let Some(pairing) = second.pairing.get() else { bail!("internal error: {NAME} left no sums") };
        let d_gamma: Vec<f64> = pairing.iter().zip(&saved.inverse).map(|(q, s)| q * s).collect();
        let d_gamma = Tensor::new(d_gamma, gamma.device())?.to_dtype(gamma.dtype())?;
        Ok((
            x.track_op().then_some(d_x),
            tangent.track_op().then_some(d_tangent),
            gamma.track_op().then_some(d_gamma),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composed;
    use candle_core::{Device, Var};

    fn wave(shape: &[usize], frequency: f64) -> Tensor {
        let values: Vec<f64> =
            (0..shape.iter().product()).map(|i| (i as f64 * frequency).sin() + 0.3).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn operator_equals_the_composition_of_differentiable_ones() {
        let shape = [3, 5, 7, 6];
        let inputs = [wave(&shape, 0.7), wave(&shape, 1.3), wave(&[6], 2.1)];
        let upstream = wave(&shape, 0.9);
        type Tangent = fn(&Tensor, &Tensor, &Tensor, f64) -> Result<Tensor>;
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let results = [train_tangent as Tangent, composed::batch_norm_train_tangent].map(|function| {
                let vars: Vec<Var> =
                    inputs.iter().map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap()).collect();
                let value = function(&vars[0], &vars[1], &vars[2], 1e-5).unwrap();
                let pairing = (&value * upstream.to_dtype(dtype).unwrap()).unwrap().sum_all().unwrap();
                let gradients = pairing.backward().unwrap();
                let mut found = vec![value];
                found.extend(vars.iter().map(|var| gradients.get(var).unwrap().clone()));
                found.iter().map(values).collect::<Vec<_>>()
            });
            for (ours, composed) in results[0].iter().zip(&results[1]) {
                let largest = composed.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                for (a, b) in ours.iter().zip(composed) {
                    assert!((a - b).abs() <= tolerance * largest, "{a} against {b}");
                }
            }
        }
    }

    fn values(t: &Tensor) -> Vec<f64> {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }
}
