//! Reference values for tests: found through `BANDWISE_GOLDEN`, by default beside the workspace.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// The folder of reference values; `None`, said loudly, where there is none (the test is then skipped).
pub fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("BANDWISE_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
    // Cargo runs tests inside the crate's folder; a relative path is meant from the workspace root.
    let folder = if folder.is_relative() && !folder.is_dir() {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder)
    } else {
        folder
    };
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no reference values at {}; set BANDWISE_GOLDEN to their folder", folder.display());
    None
}

/// A JSON file of the folder.
pub fn json(folder: &Path, name: &str) -> Value {
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All tensors of a safetensors file of the folder; `i8`, which candle does not know, is widened.
pub fn tensors(folder: &Path, name: &str) -> HashMap<String, Tensor> {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let load = |view: &TensorView| match view.dtype() {
        safetensors::Dtype::I8 => {
            let values = view.data().iter().map(|&byte| i64::from(byte as i8)).collect();
            Tensor::from_vec(values, view.shape(), &Device::Cpu)
        }
        _ => view.load(&Device::Cpu),
    };
    file.iter()
        .map(|(key, view)| {
            (key.to_owned(), load(&view).unwrap_or_else(|e| panic!("{}: {key}: {e}", path.display())))
        })
        .collect()
}

/// A JSON number; infinities are written as strings.
pub fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .or_else(|| value.as_str().and_then(|s| s.parse().ok()))
        .unwrap_or_else(|| panic!("not a number: {value}"))
}

/// All values of a tensor in float64, row-major.
pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()).expect("CPU tensor")
}

/// `‖a − b‖₂ / ‖b‖₂`.
pub fn relative_l2(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let difference: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = b.iter().map(|b| b * b).sum();
    (difference / norm.max(f64::MIN_POSITIVE)).sqrt()
}

/// Largest absolute difference.
pub fn max_abs_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(&values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
