//! Max, average and global average pooling.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use crate::backend::Backend;
use crate::composed;
use crate::conv::wrap;
use crate::cpu::pool::{self, Windows};
use crate::element::{elements, with_element};

/// Checks the sizes of a pooling of images `[batch, height, width, channels]`.
pub(crate) fn windows(shape: [usize; 4], kernel: usize, stride: usize, padding: usize) -> Result<Windows> {
    let [batch, in_height, in_width, channels] = shape;
    if kernel == 0 || stride == 0 || padding > kernel / 2 {
        bail!(
            "pooling: kernel {kernel} and stride {stride} must be at least 1, padding {padding} at most half the \
             kernel"
        );
    }
    if in_height + 2 * padding < kernel || in_width + 2 * padding < kernel {
        bail!("pooling: the kernel {kernel} does not fit into {shape:?} with padding {padding}");
    }
    if in_height * in_width * channels > u32::MAX as usize {
        bail!("pooling: images of {shape:?} are too large");
    }
    let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
    let (out_height, out_width) = (out(in_height), out(in_width));
    Ok(Windows { batch, in_height, in_width, channels, out_height, out_width, kernel, stride, padding })
}

impl Windows {
    pub(crate) fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.in_height, self.in_width, self.channels]
    }

    pub(crate) fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.out_height, self.out_width, self.channels]
    }
}

/// The largest value of every `kernel × kernel` window, `[batch, height, width, channels]`; among equal values the
/// first in row-major order gets the gradient, as in PyTorch.
///
/// # Errors
/// If the window does not fit, or the padding exceeds half the kernel.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let windows = windows(x.dims4()?.into(), kernel, stride, padding)?;
    match Backend::of(x) {
        Backend::Cpu => x.contiguous()?.apply_op1(MaxPool { windows, positions: OnceLock::new() }),
        #[cfg(feature = "cuda")]
        Backend::Cuda => crate::cuda::pool::max(&windows, x, x),
        Backend::Composed => composed::max_pool2d(x, kernel, stride, padding),
    }
}

/// The tangent of [`max_pool2d`] along `tangent`: its values where `x` is largest. Differentiable in `tangent`
/// only.
///
/// # Errors
/// As [`max_pool2d`], and if the shapes differ.
pub fn max_pool2d_tangent(
    x: &Tensor,
    tangent: &Tensor,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let windows = windows(x.dims4()?.into(), kernel, stride, padding)?;
    if x.dims() != tangent.dims() {
        bail!("max_pool2d_tangent: value {:?} and tangent {:?} differ", x.dims(), tangent.dims());
    }
    match Backend::of(x) {
        Backend::Cpu => {}
        #[cfg(feature = "cuda")]
        Backend::Cuda => return crate::cuda::pool::max(&windows, x, tangent),
        Backend::Composed => return composed::max_pool2d_tangent(x, tangent, kernel, stride, padding),
    }
    let positions = Arc::new(OnceLock::new());
    x.detach().contiguous()?.apply_op1_no_bwd(&FindLargest { windows, positions: positions.clone() })?;
    let Some(positions) = Arc::into_inner(positions).and_then(OnceLock::into_inner) else {
        bail!("internal error: max pooling found no positions")
    };
    tangent.contiguous()?.apply_op1(GatherPool { windows, positions })
}

/// The mean of every `kernel × kernel` window, `[batch, height, width, channels]`; zeros of the padding count, as
/// by default in PyTorch.
///
/// # Errors
/// If the window does not fit, or the padding exceeds half the kernel.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    let windows = windows(x.dims4()?.into(), kernel, stride, padding)?;
    match Backend::of(x) {
        Backend::Cpu => x.contiguous()?.apply_op1(AveragePool { windows }),
        #[cfg(feature = "cuda")]
        Backend::Cuda => crate::cuda::pool::average(&windows, x),
        Backend::Composed => composed::avg_pool2d(x, kernel, stride, padding),
    }
}

/// The mean over height and width: `[batch, height, width, channels]` to `[batch, channels]`.
///
/// # Errors
/// If the input is not four-dimensional or an image is empty.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    if height * width == 0 {
        bail!("global_avg_pool: empty images in {:?}", x.dims());
    }
    match Backend::of(x) {
        Backend::Cpu => x.contiguous()?.apply_op1(GlobalAverage { shape: [batch, height, width, channels] }),
        _ => composed::global_avg_pool(x),
    }
}

struct MaxPool {
    windows: Windows,
    positions: OnceLock<Vec<u32>>,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let x = elements::<T>(storage, layout)?;
            let positions = self.positions.get_or_init(|| pool::argmax(&self.windows, x));
            Ok((wrap(pool::gather(&self.windows, x, positions)), Shape::from(&self.windows.output_shape())))
        })
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        scatter(&self.windows, self.positions.get(), gradient)
    }
}

/// Finds the positions of the largest values; its result is empty.
struct FindLargest {
    windows: Windows,
    positions: Arc<OnceLock<Vec<u32>>>,
}

impl CustomOp1 for FindLargest {
    fn name(&self) -> &'static str {
        "max pool positions"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let x = elements::<T>(storage, layout)?;
            let _ = self.positions.set(pool::argmax(&self.windows, x));
            Ok((wrap(Vec::<T>::new()), 0.into()))
        })
    }
}

struct GatherPool {
    windows: Windows,
    positions: Vec<u32>,
}

impl CustomOp1 for GatherPool {
    fn name(&self) -> &'static str {
        "max pool tangent"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let values = pool::gather(&self.windows, elements::<T>(storage, layout)?, &self.positions);
            Ok((wrap(values), Shape::from(&self.windows.output_shape())))
        })
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        scatter(&self.windows, Some(&self.positions), gradient)
    }
}

fn scatter(windows: &Windows, positions: Option<&Vec<u32>>, gradient: &Tensor) -> Result<Option<Tensor>> {
    let Some(positions) = positions else { bail!("internal error: max pooling found no positions") };
    let op = ScatterPool { windows: *windows, positions };
    Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&op)?))
}

struct ScatterPool<'a> {
    windows: Windows,
    positions: &'a [u32],
}

impl CustomOp1 for ScatterPool<'_> {
    fn name(&self) -> &'static str {
        "max pool gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let values = pool::scatter(&self.windows, elements::<T>(storage, layout)?, self.positions);
            Ok((wrap(values), Shape::from(&self.windows.input_shape())))
        })
    }
}

struct AveragePool {
    windows: Windows,
}

impl CustomOp1 for AveragePool {
    fn name(&self) -> &'static str {
        "average pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let values = pool::average(&self.windows, elements::<T>(storage, layout)?);
            Ok((wrap(values), Shape::from(&self.windows.output_shape())))
        })
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = AveragePoolGradient { windows: self.windows };
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

/// The mean over height and width of images of `shape`.
struct GlobalAverage {
    shape: [usize; 4],
}

impl CustomOp1 for GlobalAverage {
    fn name(&self) -> &'static str {
        "global average pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, _, _, channels] = self.shape;
        with_element!(storage, self.name(), T => {
            let values = pool::global_average(self.shape, elements::<T>(storage, layout)?);
            Ok((wrap(values), (batch, channels).into()))
        })
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = GlobalAverageGradient { shape: self.shape };
        Ok(Some(gradient.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

struct GlobalAverageGradient {
    shape: [usize; 4],
}

impl CustomOp1 for GlobalAverageGradient {
    fn name(&self) -> &'static str {
        "global average pool gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let values = pool::global_average_gradient(self.shape, elements::<T>(storage, layout)?);
            Ok((wrap(values), Shape::from(&self.shape)))
        })
    }
}

struct AveragePoolGradient {
    windows: Windows,
}

impl CustomOp1 for AveragePoolGradient {
    fn name(&self) -> &'static str {
        "average pool gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        with_element!(storage, self.name(), T => {
            let values = pool::average_gradient(&self.windows, elements::<T>(storage, layout)?);
            Ok((wrap(values), Shape::from(&self.windows.input_shape())))
        })
    }
}
