//! Reference values for tests, and the networks and images that they belong to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::nn::{Model, ModelShape, Normalization};

/// The folder of reference values: `BANDWISE_GOLDEN`, by default `../shared/golden` beside the workspace.
///
/// Where there was none at compile time, the tests that call this are ignored (see `build.rs`).
///
/// # Panics
/// If it is not there.
pub fn folder() -> PathBuf {
    let given = std::env::var_os("BANDWISE_GOLDEN").filter(|value| !value.is_empty() && value != "required");
    // Cargo runs tests inside the crate's folder; a relative path is meant from the workspace root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join(given.unwrap_or_else(|| "../shared/golden".into()));
    assert!(
        folder.is_dir(),
        "no reference values at {}; set BANDWISE_GOLDEN to their folder",
        folder.display()
    );
    folder
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

/// One of the trained networks that the folder holds as `NAME_akamaster.safetensors`.
pub fn network(folder: &Path, name: &str, dtype: DType) -> Model {
    let weights = tensors(folder, &format!("{name}_akamaster.safetensors"));
    let classes = weights["linear.weight"].dim(0).unwrap();
    let shape = ModelShape { channels: 3, classes, width: None };
    let constants = Normalization { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    let model = Model::new(name, shape, Some(&constants), 0, dtype, &Device::Cpu).unwrap();
    for parameter in model.parameters() {
        parameter.set(&weights[parameter.name()].to_dtype(dtype).unwrap()).unwrap();
    }
    model
}

/// Images and labels in the order of their file.
pub struct Records {
    /// Bytes `[count, 32, 32, 3]`.
    pub pixels: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u32>,
}

impl Records {
    /// `[count, 32, 32, 3]` f32 in [0, 1].
    pub fn images(&self) -> Tensor {
        let pixels = self.pixels.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        Tensor::from_vec(pixels, (self.labels.len(), 32, 32, 3), &Device::Cpu).unwrap()
    }

    /// `[count]` u32.
    pub fn label_tensor(&self) -> Tensor {
        Tensor::new(&*self.labels, &Device::Cpu).unwrap()
    }

    /// What an attack calls the images.
    pub fn ids(&self) -> Vec<u64> {
        (0..self.labels.len() as u64).collect()
    }
}

/// Bytes of one record: label, red, green, blue.
const RECORD: usize = 1 + 3 * 1024;

/// Where the `count` images of a case begin: file and record. The case names the file, or the attacks' case does. An
/// `offset` counts in that file, or in the whole test set if the file is too short for that.
pub fn place(folder: &Path, case: &Value, count: usize) -> (PathBuf, usize) {
    let named = |case: &Value| {
        let name = case["images"].as_str()?.split_whitespace().next()?;
        Some(folder.join(name)).filter(|path| path.is_file())
    };
    let path = named(case)
        .or_else(|| named(&json(folder, "case5_attacks.json")))
        .expect("case5_attacks.json names the file of images");
    let there = std::fs::metadata(&path).unwrap().len() as usize / RECORD;
    let offset = case["offset"].as_u64().unwrap_or(0) as usize;
    let start = if offset + count <= there { offset } else { 0 };
    assert!(start + count <= there, "{} holds {there} images, not {count}", path.display());
    (path, start)
}

/// The `count` images of a case.
pub fn records(folder: &Path, case: &Value, count: usize) -> Records {
    let (path, start) = place(folder, case, count);
    let bytes = std::fs::read(path).unwrap();
    let records: Vec<&[u8]> = bytes.chunks_exact(RECORD).skip(start).take(count).collect();
    let interleaved =
        |record: &&[u8]| (0..3072).map(|i| record[1 + i % 3 * 1024 + i / 3]).collect::<Vec<_>>();
    Records {
        pixels: records.iter().flat_map(interleaved).collect(),
        labels: records.iter().map(|record| u32::from(record[0])).collect(),
    }
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

/// Every test that needs reference values says so in its name and is ignored where there are none.
#[test]
fn tests_with_reference_values_are_named_and_ignored_without_them() {
    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut seen = 0;
    for folder in ["bandwise/src", "bandwise-cli/tests"] {
        for path in
            sources(&crates.join(folder)).iter().filter(|path| path.extension().is_some_and(|e| e == "rs"))
        {
            let text = std::fs::read_to_string(path).unwrap();
            for test in text.split("#[test]\n").skip(1) {
                let (attributes, body) = test.split_once("fn ").unwrap();
                let named = body.starts_with("golden_");
                assert_eq!(
                    named,
                    attributes.contains("not(golden), ignore"),
                    "{}: {body:.40}",
                    path.display()
                );
                seen += usize::from(named);
            }
        }
    }
    assert!(seen > 30, "only {seen} tests with reference values found");
}
