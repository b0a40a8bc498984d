//! The fully connected layer.

use candle_core::Tensor;

use super::dual_tensor::DualTensor;
use super::parameter::Parameter;
use crate::Result;

/// `x·Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// PyTorch's module name.
    pub name: String,
    /// `[out, in]`; or `[out, in, 1, 1]` where PyTorch's model has a 1×1 convolution on a 1×1 map.
    pub weight: Parameter,
    /// `[out]`.
    pub bias: Option<Parameter>,
}

impl Linear {
    /// `[batch, in]` to `[batch, out]`.
    pub fn forward(&self, input: &DualTensor) -> Result<DualTensor> {
        let transposed = self.weight.tensor().flatten_from(1)?.t()?;
        let output = input.linear(|x| multiply(x, &transposed))?;
        match &self.bias {
            Some(bias) => output.add_constant(bias.tensor()),
            None => Ok(output),
        }
    }

    /// Its parameters, in PyTorch's order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        std::iter::once(&self.weight).chain(&self.bias).collect()
    }

    /// A copy that shares storage and is constant to autodiff.
    pub fn frozen(&self) -> Self {
        Self { weight: self.weight.frozen(), bias: self.bias.as_ref().map(Parameter::frozen), ..self.clone() }
    }
}

/// Rows multiplied at once on the CPU.
const ROWS: usize = 16;

/// `x·w` with the same rounding for a row whatever its company.
///
/// The matrix library picks its kernel by the number of rows, and the kernels differ in their last
/// bits: an image's logits would depend on its batch, and journals of evaluations on how the work was
/// divided. So every product on the CPU has the same number of rows, filled up with zeros.
fn multiply(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return Ok(x.matmul(w)?);
    }
    let rows = x.dim(0)?;
    let parts = (0..rows).step_by(ROWS).map(|first| {
        let count = ROWS.min(rows - first);
        let part = x.narrow(0, first, count)?;
        if count == ROWS {
            return part.contiguous()?.matmul(w);
        }
        part.pad_with_zeros(0, 0, ROWS - count)?.contiguous()?.matmul(w)?.narrow(0, 0, count)
    });
    Ok(Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn a_row_and_its_gradient_do_not_depend_on_the_batch() {
        let values = |rows: usize, columns: usize, seed: usize| {
            let value = |i: usize| ((i * 7919 + seed * 104_729) % 1013) as f32 / 1013.0 - 0.5;
            Tensor::from_vec((0..rows * columns).map(value).collect(), (rows, columns), &Device::Cpu).unwrap()
        };
        let (all, weights) = (values(70, 64, 1), values(10, 64, 2));
        let transposed = weights.t().unwrap();
        let run = |first: usize, count: usize| {
            let x = Var::from_tensor(&all.narrow(0, first, count).unwrap().contiguous().unwrap()).unwrap();
            let y = multiply(&x, &transposed).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let rows = |t: &Tensor| t.to_vec2::<f32>().unwrap();
            (rows(&y), rows(gradients.get(&x).unwrap()))
        };
        let (whole, whole_gradient) = run(0, 70);
        for (first, count) in [(0, 1), (3, 5), (20, 26), (69, 1), (10, 60)] {
            let (part, gradient) = run(first, count);
            assert_eq!(part[..], whole[first..first + count], "rows {first}+{count}");
            assert_eq!(
                gradient[..],
                whole_gradient[first..first + count],
                "gradient of rows {first}+{count}"
            );
        }
    }
}
