//! Functions of CUDA tensors as candle's operators.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail,
};

/// A tensor as an operator sees it.
pub(crate) type Argument<'a> = (&'a CudaStorage, &'a Layout);
/// What an operator returns.
pub(crate) type Output = Result<(CudaStorage, Shape)>;

/// What every operator of this folder does on the CPU.
pub(crate) fn no_cpu() -> Result<(CpuStorage, Shape)> {
    bail!("internal error: a CUDA operator was given a CPU tensor")
}

/// Applies `function` to one, two or three tensors; the result has no gradient.
pub(crate) fn apply(
    name: &'static str,
    tensors: &[&Tensor],
    function: impl Fn(&[Argument<'_>]) -> Output,
) -> Result<Tensor> {
    let operator = Operator { name, function };
    match tensors {
        [a] => a.apply_op1_no_bwd(&operator),
        [a, b] => a.apply_op2_no_bwd(b, &operator),
        [a, b, c] => a.apply_op3_no_bwd(b, c, &operator),
        _ => bail!("internal error: {name} of {} tensors", tensors.len()),
    }
}

struct Operator<F> {
    name: &'static str,
    function: F,
}

impl<F: Fn(&[Argument<'_>]) -> Output> CustomOp1 for Operator<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu()
    }

    fn cuda_fwd(&self, s: &CudaStorage, l: &Layout) -> Output {
        (self.function)(&[(s, l)])
    }
}

impl<F: Fn(&[Argument<'_>]) -> Output> CustomOp2 for Operator<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        no_cpu()
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Output {
        (self.function)(&[(s1, l1), (s2, l2)])
    }
}

impl<F: Fn(&[Argument<'_>]) -> Output> CustomOp3 for Operator<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        no_cpu()
    }

    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Output {
        (self.function)(&[(s1, l1), (s2, l2), (s3, l3)])
    }
}
