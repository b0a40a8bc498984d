//! Compiling and launching the kernels of `kernels.cu`.

use std::sync::{Arc, OnceLock};

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig, ValidAsZeroBits,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, bail};

use crate::element::Element;

const SOURCE: &str = include_str!("kernels.cu");
const THREADS: u32 = 256;
const MOST_BLOCKS: usize = 1 << 20;

/// Number types with kernels on CUDA.
pub(crate) trait CudaElement: Element + CudaDType + DeviceRepr + ValidAsZeroBits {
    /// The module of this type, and its compiled text.
    const MODULE: &'static str;
    fn compiled() -> &'static OnceLock<std::result::Result<String, String>>;
    const C_TYPE: &'static str;
}

impl CudaElement for f32 {
    const MODULE: &'static str = "bandwise_f32";
    const C_TYPE: &'static str = "float";
    fn compiled() -> &'static OnceLock<std::result::Result<String, String>> {
        static COMPILED: OnceLock<std::result::Result<String, String>> = OnceLock::new();
        &COMPILED
    }
}

impl CudaElement for f64 {
    const MODULE: &'static str = "bandwise_f64";
    const C_TYPE: &'static str = "double";
    fn compiled() -> &'static OnceLock<std::result::Result<String, String>> {
        static COMPILED: OnceLock<std::result::Result<String, String>> = OnceLock::new();
        &COMPILED
    }
}

/// A compiled kernel and the stream that it is queued on.
pub(crate) struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    pub(crate) fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// The kernel of that name for `T`.
pub(crate) fn kernel<T: CudaElement>(device: &CudaDevice, name: &str) -> Result<Kernel> {
    let compile = || {
        let source = format!("#define T {}\n{SOURCE}", T::C_TYPE);
        compile_ptx(source).map(|ptx| ptx.to_src()).map_err(|error| format!("{error:?}"))
    };
    match T::compiled().get_or_init(compile) {
        Ok(text) => {
            let function = device.get_or_load_custom_func(name, T::MODULE, text)?.into_cuda_function();
            Ok(Kernel { function, stream: device.cuda_stream() })
        }
        Err(message) => bail!("the CUDA kernels of bandwise do not compile here: {message}"),
    }
}

/// One thread per element, up to a limit that the kernels' loops make up for.
pub(crate) fn per_element(count: usize) -> LaunchConfig {
    let blocks = count.div_ceil(THREADS as usize).clamp(1, MOST_BLOCKS) as u32;
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// The elements of a contiguous tensor.
pub(crate) fn view<'a, T: CudaElement>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let slice: &CudaSlice<T> = storage.as_cuda_slice::<T>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(slice.slice(start..end)),
        None => bail!("internal error: an operator of bandwise-kernels was given a non-contiguous tensor"),
    }
}

/// A device buffer that the next kernel fills completely.
pub(crate) fn uninitialized<T: DeviceRepr>(device: &CudaDevice, length: usize) -> Result<CudaSlice<T>> {
    // SAFETY: callers pass the buffer to a kernel that writes every element before anything reads it.
    unsafe { device.alloc::<T>(length.max(1)) }
}

/// A driver error as candle's.
pub(crate) fn driver(error: candle_core::cuda_backend::cudarc::driver::DriverError) -> Error {
    Error::wrap(error)
}

/// Runs the body with `$T` bound to the storage's number type, `f32` or `f64`.
macro_rules! with_cuda_element {
    ($storage:expr, $name:expr, $T:ident => $body:expr) => {
        match &$storage.slice {
            candle_core::cuda_backend::CudaStorageSlice::F32(_) => {
                type $T = f32;
                $body
            }
            candle_core::cuda_backend::CudaStorageSlice::F64(_) => {
                type $T = f64;
                $body
            }
            _ => candle_core::bail!("{}: computes in f32 or f64", $name),
        }
    };
}
pub(crate) use with_cuda_element;

/// Pushes arguments and launches: `launch!(function, config; arg, arg, …)`.
macro_rules! launch {
    ($function:expr, $config:expr; $($argument:expr),* $(,)?) => {{
        use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
        let function = $function;
        let mut builder = function.builder();
        // SAFETY: the arguments are those that the kernel declares in `kernels.cu`, and every buffer has the length
        // that the counts among them state.
        let launched = unsafe { builder$(.arg($argument))*.launch($config) };
        launched.map_err($crate::cuda::launch::driver)?;
    }};
}
pub(crate) use launch;

/// An absent tensor argument.
pub(crate) const NULL: u64 = 0;
