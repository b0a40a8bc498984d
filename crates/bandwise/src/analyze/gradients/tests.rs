use candle_core::Var;

use super::*;
use crate::golden;
use crate::nn::loss::pytorch_cross_entropy;
use crate::plot::{Block, Cell};

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_gradient_spectra() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case7_spectral.json");
    let network = |dtype| golden::network(&folder, json["model"].as_str().unwrap(), dtype);
    let records = golden::records(&folder, &json, 500);
    let (images, labels) = (records.images(), records.label_tensor());
    let expected = golden::tensors(&folder, "case7_spectral.safetensors");
    let check = |key: &str, ours: Vec<f64>| {
        let ours = Tensor::from_vec(ours, expected[key].dims(), &Device::Cpu).unwrap();
        let error = golden::relative_l2(&ours, &expected[key]);
        assert!(error < 1e-3, "{key}: {error}");
    };
    let model = network(DType::F32);
    let found = GradientSpectrum::measure(&model, &images, &labels, 100).unwrap();
    check("grad_mean_amplitude", found.amplitudes.mean_amplitude());
    check("grad_mean_log1p_amplitude", found.amplitudes.mean_log1p_amplitude());
    // The reference differentiated in float32, where the gradients of very confident images are rounding noise. With
    // norms divided out they count like all others, so only the same cancelling arithmetic can be compared with it;
    // ours is compared with float64.
    let noisy = measure_with_cancellation(&model, &images, &labels);
    check("grad_mean_amplitude_unitnorm", noisy.unit.mean_amplitude());
    let images = images.to_dtype(DType::F64).unwrap();
    let exact = GradientSpectrum::measure(&network(DType::F64), &images, &labels, 100).unwrap();
    let error = relative(&found.unit.mean_amplitude(), &exact.unit.mean_amplitude());
    assert!(error < 1e-3, "{error}");
}

/// The spectra with the textbook cross-entropy, whose float32 gradient `p − y` cancels.
fn measure_with_cancellation(model: &Model, images: &Tensor, labels: &Tensor) -> GradientSpectrum {
    let (count, height, width, channels) = images.dims4().unwrap();
    let empty = || SpectrumStatistics::new(height, width, channels);
    let mut found =
        GradientSpectrum { amplitudes: empty(), unit: empty(), zero: 0, not_finite: 0, norm_sum: 0.0 };
    let folded = model.folded().unwrap();
    for start in (0..count).step_by(100) {
        let length = (count - start).min(100);
        let pictures = Var::from_tensor(&images.narrow(0, start, length).unwrap()).unwrap();
        let labels = labels.narrow(0, start, length).unwrap();
        let logits = folded.logits(&pictures, &ForwardContext::eval()).unwrap();
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
        (one.low_frequency_bias.unwrap(), other.low_frequency_bias.unwrap()),
        (one.norm, other.norm),
        (one.alignment, other.alignment),
    ] {
        assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} against {b}");
    }
    assert!(one.alignment > 0.0 && one.alignment <= 1.0 + 1e-6 && one.norm > 0.0);
}

/// What leads nowhere is counted, and changes nothing about the rest.
#[test]
fn gradients_that_are_zero_or_not_finite_are_left_out_of_the_bias() {
    let good = crate::nn::tests::noise(&[2, 8, 8, 3], DType::F64, 5);
    let empty = || SpectrumStatistics::new(8, 8, 3);
    let measured = |parts: &[Tensor]| {
        let mut found =
            GradientSpectrum { amplitudes: empty(), unit: empty(), zero: 0, not_finite: 0, norm_sum: 0.0 };
        found.add(&Tensor::cat(parts, 0).unwrap()).unwrap();
        found
    };
    let nothing = good.zeros_like().unwrap();
    let broken = (&nothing / 0.0).unwrap();
    let (alone, all) =
        (measured(std::slice::from_ref(&good)), measured(&[broken.clone(), good, nothing.clone()]));
    let bias = |found: &GradientSpectrum| found.low_frequency_bias().unwrap();
    assert!((bias(&all).unwrap() - bias(&alone).unwrap()).abs() < 1e-9);
    assert_eq!((alone.warning(), all.zero, all.not_finite, all.images()), (None, 2, 2, 4));
    let said = all.warning().unwrap();
    assert!(
        said.contains("zero on 2 and not finite on 2 of 6 images; the bias is that of the other 2"),
        "{said}"
    );
    let none = measured(&[broken, nothing]);
    assert!(bias(&none).is_none() && none.warning().unwrap().contains("there is no bias"));
}

#[test]
fn several_models_stand_side_by_side() {
    let (model, images, labels) = small();
    let spectrum = GradientSpectrum::measure(&model, &images, &labels, 6).unwrap();
    let models = [("first".to_owned(), spectrum.clone()), ("second".to_owned(), spectrum)];
    let pictures = SpectrumStatistics::of_tensor(&images).unwrap();
    let section = section(&models, &pictures).unwrap();
    let figures = |b: &&Block| matches!(b, Block::HeatMap(_) | Block::LinePlot(_));
    assert_eq!(section.blocks.iter().filter(figures).count(), 5);
    let rows: Vec<&Cell> = section
        .blocks
        .iter()
        .find_map(|b| if let Block::Table(table) = b { Some(table) } else { None })
        .map(|table| table.rows.iter().map(|row| &row[0]).collect())
        .unwrap();
    assert_eq!(rows, [&Cell::text("first"), &Cell::text("second"), &Cell::text("the images themselves")]);
    let bias = crate::method::input_gradient::scalar(&Jafr::default().bias(&images).unwrap()).unwrap();
    assert!((image_bias(&pictures).unwrap() - bias).abs() < 1e-3 * bias.abs());
    let table = csv(&models);
    assert_eq!(table.lines().count(), 1 + 2 * 16 * 16);
    assert!(table.contains("second,-8,3,"), "{table}");
}

#[test]
fn nothing_to_measure_is_a_message() {
    let (model, images, labels) = small();
    assert!(GradientSpectrum::measure(&model, &images, &labels, 0).is_err());
}
