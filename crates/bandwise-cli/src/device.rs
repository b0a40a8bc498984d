//! `--device` by name.

use bandwise::{Error, Result};
use bandwise_kernels::{Precision, capabilities};
use candle_core::Device;

/// The device of that name.
///
/// # Errors
/// For unknown names, devices that this binary was not built for, and devices that are not there.
pub fn open(name: &str) -> Result<Device> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let number: usize = number
        .parse()
        .map_err(|_| Error::config(format!("--device {name}: expected cpu, cuda, cuda:N or metal")))?;
    let missing = |feature: &str| {
        Error::config(format!(
            "--device {name}: this binary was built without {feature}; build with `cargo build --release --features {feature}`"
        ))
    };
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" if cfg!(feature = "cuda") => Device::new_cuda(number).map_err(|e| absent(name, &e)),
        "metal" if cfg!(feature = "metal") => Device::new_metal(number).map_err(|e| absent(name, &e)),
        "cuda" => Err(missing("cudnn")),
        "metal" => Err(missing("metal")),
        _ => Err(Error::config(format!("--device {name}: expected cpu, cuda, cuda:N or metal"))),
    }
}

/// Says what a precision other than f32 means on this machine's CPU.
pub fn announce(device: &Device, precision: Precision) {
    if device.is_cpu() && precision != Precision::F32 {
        note!("{}", capabilities().announcement(precision));
    }
}

fn absent(name: &str, error: &candle_core::Error) -> Error {
    Error::config(format!("--device {name}: there is no such device here ({error})"))
}
