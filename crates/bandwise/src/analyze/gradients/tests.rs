use candle_core::Var;

use super::*;
use crate::golden;
use crate::nn::loss::pytorch_cross_entropy;
use crate::nn::{Interface, Normalization};
use crate::report::Report;

fn cifar(bytes: &[u8]) -> (Tensor, Tensor) {
    let records: Vec<&[u8]> = bytes.chunks_exact(3073).collect();
    let labels: Vec<u32> = records.iter().map(|record| u32::from(record[0])).collect();
    let pixels: Vec<f32> = records
        .iter()
        .flat_map(|record| (0..3072).map(|i| f32::from(record[1 + i % 3 * 1024 + i / 3]) / 255.0))
        .collect();
    let images = Tensor::from_vec(pixels, (records.len(), 32, 32, 3), &Device::Cpu).unwrap();
    (images, Tensor::new(labels, &Device::Cpu).unwrap())
}

#[test]
fn golden_gradient_spectra() {
    let Some(folder) = golden::folder() else { return };
    let name = golden::json(&folder, "case7_spectral.json")["model"].as_str().unwrap().to_owned();
    let constants = Normalization { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
    let interface = Interface { channels: 3, classes: 10, width: None };
    let model = Model::new(&name, interface, Some(&constants), 0, DType::F32, &Device::Cpu).unwrap();
    let weights = golden::tensors(&folder, &format!("{name}_akamaster.safetensors"));
    model.parameters().iter().for_each(|p| p.set(&weights[p.name()]).unwrap());
    let (images, labels) = cifar(&std::fs::read(folder.join("cifar10_500.bin")).unwrap());
    let expected = golden::tensors(&folder, "case7_spectral.safetensors");
    let check = |key: &str, ours: Vec<f64>| {
        let ours = Tensor::from_vec(ours, expected[key].dims(), &Device::Cpu).unwrap();
        let error = golden::relative_l2(&ours, &expected[key]);
        assert!(error < 1e-3, "{key}: {error}");
    };
    let found = GradientSpectrum::measure(&model, &images, &labels, 100).unwrap();
    check("grad_mean_amplitude", found.amplitudes.mean_amplitude());
    check("grad_mean_log1p_amplitude", found.amplitudes.mean_log1p_amplitude());
    // The reference differentiated in float32, where the gradients of very confident pictures are rounding
    // noise. With norms divided out they count like all others and move this map by 0.8 % against float64,
    // so that only the same cancelling arithmetic can be compared with it.
    let noisy = measure_with_cancellation(&model, &images, &labels);
    check("grad_mean_amplitude_unitnorm", noisy.unit.mean_amplitude());
    let error = relative(&found.unit.mean_amplitude(), &noisy.unit.mean_amplitude());
    assert!(error < 1e-2, "{error}");
}

/// The spectra with the textbook cross-entropy, whose float32 gradient `p − y` cancels.
fn measure_with_cancellation(model: &Model, images: &Tensor, labels: &Tensor) -> GradientSpectrum {
    let (count, height, width, channels) = images.dims4().unwrap();
    let empty = || SpectrumStatistics::new(height, width, channels);
    let mut found = GradientSpectrum { amplitudes: empty(), unit: empty(), norm_sum: 0.0 };
    let folded = model.folded().unwrap();
    for start in (0..count).step_by(100) {
        let length = (count - start).min(100);
        let pictures = Var::from_tensor(&images.narrow(0, start, length).unwrap()).unwrap();
        let labels = labels.narrow(0, start, length).unwrap();
        let logits = folded.logits(&pictures, &Pass::eval()).unwrap();
        let loss = pytorch_cross_entropy(&logits, &labels).unwrap();
        let gradients = loss.sum_all().unwrap().backward().unwrap();
        found.add(gradients.get(&pictures).unwrap()).unwrap();
    }
    found
}

fn relative(a: &[f64], b: &[f64]) -> f64 {
    let tensor = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap();
    golden::relative_l2(&tensor(a), &tensor(b))
}

fn small() -> (Model, Tensor, Tensor) {
    let model = crate::nn::tests::model("smallcnn", 4, DType::F32);
    let images = crate::nn::tests::noise(&[6, 16, 16, 3], DType::F32, 3);
    (model, images, Tensor::new(&[0u32, 1, 2, 3, 4, 5], &Device::Cpu).unwrap())
}

#[test]
fn batch_size_changes_nothing() {
    let (model, images, labels) = small();
    let [one, other] =
        [6, 4].map(|batch| GradientSummary::measure(&model, &images, &labels, batch, 7).unwrap());
    for (a, b) in [
        (one.low_frequency_bias, other.low_frequency_bias),
        (one.norm, other.norm),
        (one.alignment, other.alignment),
    ] {
        assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} against {b}");
    }
    assert!(one.alignment > 0.0 && one.alignment <= 1.0 + 1e-6 && one.norm > 0.0);
}

#[test]
fn several_models_stand_side_by_side() {
    let (model, images, labels) = small();
    let spectrum = GradientSpectrum::measure(&model, &images, &labels, 6).unwrap();
    let models = [("first".to_owned(), spectrum.clone()), ("second".to_owned(), spectrum)];
    let pictures = SpectrumStatistics::of_tensor(&images).unwrap();
    let report = Report::new("Gradients").section(section(&models, &pictures).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let files = report.write_figures(folder.path()).unwrap();
    assert!(files.iter().filter(|f| f.extension().is_some_and(|e| e == "csv")).count() >= 6);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains("first") && text.contains("second"), "{text}");
    let table = csv(&models);
    assert_eq!(table.lines().count(), 1 + 2 * 16 * 16);
    assert!(table.contains("second,-8,3,"), "{table}");
}

#[test]
fn nothing_to_measure_is_a_message() {
    let (model, images, labels) = small();
    assert!(GradientSpectrum::measure(&model, &images, &labels, 0).is_err());
}
