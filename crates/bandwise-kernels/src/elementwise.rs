//! ReLU, its tangent, and the step of a sign-gradient attack.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::backend::Backend;
use crate::composed;
use crate::conv::wrap;
use crate::cpu::elementwise as kernels;
use crate::element::{Element, elements, with_element};

/// `max(x, 0)`, any shape. The gradient at 0 is 0.
///
/// # Errors
/// If the tensor is neither f32 nor f64.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    match Backend::of(x) {
        Backend::Cpu => {}
        #[cfg(feature = "cuda")]
        Backend::Cuda => {}
        Backend::Composed => return x.relu(),
    }
    x.contiguous()?.apply_op1(Relu)
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            Ok((wrap(kernels::relu::<T>(elements(storage, layout)?)), layout.shape().clone()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::elementwise::relu(storage, layout)
    }

    fn bwd(&self, _x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(result.apply_op2_no_bwd(&gradient.contiguous()?, &Mask)?))
    }
}

/// The tangent of [`relu`] from its result: `tangent` where `y > 0`, else 0. Differentiable in `tangent` only.
///
/// # Errors
/// If the shapes differ or the tensors are neither f32 nor f64.
pub fn relu_tangent(y: &Tensor, tangent: &Tensor) -> Result<Tensor> {
    if y.dims() != tangent.dims() {
        bail!("relu_tangent: value {:?} and tangent {:?} differ", y.dims(), tangent.dims());
    }
    match Backend::of(y) {
        Backend::Cpu => {}
        #[cfg(feature = "cuda")]
        Backend::Cuda => {}
        Backend::Composed => return composed::relu_tangent(y, tangent),
    }
    y.detach().contiguous()?.apply_op2(&tangent.contiguous()?, Mask)
}

/// One step of a sign-gradient attack in one pass, pixels in \[0, 1\]:
/// `clamp(origin + clamp(x + step · sign(gradient) − origin, −epsilon, epsilon), 0, 1)` with `sign(0) = 0`.
///
/// The result carries no gradient.
///
/// # Errors
/// If shapes or number types differ.
pub fn sign_step(x: &Tensor, gradient: &Tensor, origin: &Tensor, step: f64, epsilon: f64) -> Result<Tensor> {
    if x.dims() != gradient.dims() || x.dims() != origin.dims() {
        bail!(
            "sign_step: x {:?}, gradient {:?} and origin {:?} differ",
            x.dims(),
            gradient.dims(),
            origin.dims()
        );
    }
    let (x, gradient, origin) = (x.detach(), gradient.detach(), origin.detach());
    match Backend::of(&x) {
        Backend::Cpu => {}
        #[cfg(feature = "cuda")]
        Backend::Cuda => {}
        Backend::Composed => return composed::sign_step(&x, &gradient, &origin, step, epsilon),
    }
    let op = SignStep { step, epsilon };
    x.contiguous()?.apply_op3_no_bwd(&gradient.contiguous()?, &origin.contiguous()?, &op)
}

struct SignStep {
    step: f64,
    epsilon: f64,
}

impl SignStep {
    fn run<T: Element>(&self, x: &[T], gradient: &[T], origin: &[T]) -> Vec<T> {
        kernels::sign_step(x, gradient, origin, T::from_f64(self.step), T::from_f64(self.epsilon))
    }
}

impl CustomOp3 for SignStep {
    fn name(&self) -> &'static str {
        "sign step"
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
        with_element!(s1, self.name(), T => {
            let values = self.run::<T>(elements(s1, l1)?, elements(s2, l2)?, elements(s3, l3)?);
            Ok((wrap(values), l1.shape().clone()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::elementwise::sign_step([s1, s2, s3], [l1, l2, l3], self.step, self.epsilon)
    }
}

/// The second argument where the first is positive, else zero. Differentiable in the second only.
pub(crate) struct Mask;

impl CustomOp2 for Mask {
    fn name(&self) -> &'static str {
        "relu mask"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        with_element!(s1, self.name(), T => {
            Ok((wrap(kernels::mask::<T>(elements(s1, l1)?, elements(s2, l2)?)), l1.shape().clone()))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::elementwise::mask(s1, l1, s2, l2)
    }

    fn bwd(
        &self,
        y: &Tensor,
        _masked: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((None, Some(y.apply_op2_no_bwd(&gradient.contiguous()?, &Mask)?)))
    }
}
