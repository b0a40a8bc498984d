//! Laws that hold beyond the official code's settings.

mod published;

use bandwise_kernels::ConvConfig;
use candle_core::{DType, Device, Tensor};

use super::*;
use crate::golden;
use crate::nn::layer::Layer;
use crate::nn::parameter::{Parameter, Role};
use crate::nn::{DualTensor, ForwardContext, ModelShape};

fn domain(name: &str) -> Option<Domain> {
    match name {
        "WD" => Some(Domain::Weight),
        "SD" => Some(Domain::Signal),
        _ => None,
    }
}

/// The penalty behind an option's name in the reference values.
fn penalty(option: &str, depth: f64, lambda: f64) -> Penalty {
    let (kind, low_dominance) = match option {
        "default" => (PenaltyKind::High, false),
        "diff" => (PenaltyKind::High, true),
        "all_freq" => (PenaltyKind::Weighted, false),
        "all_freq+diff" => (PenaltyKind::Weighted, true),
        "diff_all" => (PenaltyKind::Monotone, false),
        other => panic!("unknown option {other}"),
    };
    Penalty { lambda, kind, low_dominance, depth }
}

/// ResNet-9 of the width, classes and kind that a golden state dict has, without values.
fn resnet9(kind: &str, width: Option<usize>, classes: usize) -> Model {
    let shape = ModelShape { channels: 3, classes, width };
    let mut model = Model::new("resnet9", shape, None, 0, DType::F32, &Device::Cpu).unwrap();
    if let Some(kind) = domain(kind) {
        decompose(&mut model, &Decomposition { kind, ..Decomposition::default() }, 0).unwrap();
    }
    model
}

fn model_of(convolution: Convolution) -> Model {
    let shape = ModelShape { channels: 1, classes: 1, width: None };
    Model::from_layers(vec![Layer::Convolution(convolution)], shape, None, DType::F32, &Device::Cpu).unwrap()
}

fn decomposed_layer(
    kind: Domain,
    shape: [usize; 4],
    coefficients: &Tensor,
    config: ConvConfig,
) -> Convolution {
    let [_, _, height, width] = shape;
    let basis = FilterBasis::new(height, width, coefficients.dtype(), &Device::Cpu).unwrap();
    let filters = Decomposed::new(kind, "layer", shape, coefficients, basis).unwrap();
    Convolution { name: "layer".into(), filters: Filters::Decomposed(filters), bias: None, config }
}

fn nhwc(tensor: &Tensor) -> Tensor {
    tensor.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

fn scalar(tensor: &Tensor) -> f64 {
    golden::values(tensor)[0]
}

/// Relative closeness; a value of 0 must be met exactly, up to the rounding of a plain filter's analysis.
fn close(what: &str, detail: &str, value: f64, expected: f64, tolerance: f64) {
    let slack = if expected == 0.0 && what.starts_with("plain") { 1e-5 } else { tolerance * expected.abs() };
    assert!((value - expected).abs() <= slack, "{what} {detail}: {value} instead of {expected}");
}

/// A plain float64 convolution layer of random weights.
fn random_layer(shape: [usize; 4], config: ConvConfig, biased: bool) -> Convolution {
    let mut random = random::stream(5, &[]);
    let mut draw = |shape: &[usize]| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| random.random::<f64>() - 0.5).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let weight = Parameter::new("layer.weight", Role::Weight, &draw(&shape)).unwrap();
    let bias = biased.then(|| Parameter::new("layer.bias", Role::Affine, &draw(&shape[..1])).unwrap());
    Convolution { name: "layer".into(), filters: Filters::Plain { weight }, bias, config }
}

/// What the official code drops or breaks: bias, groups between 1 and all, kernels that are not square.
#[test]
fn keeping_coefficients_keeps_the_function() {
    let base = ConvConfig { padding: 1, ..ConvConfig::default() };
    for (shape, config) in [
        ([4, 3, 3, 3], ConvConfig { stride: 2, ..base }),
        ([6, 2, 3, 3], ConvConfig { groups: 2, dilation: 2, ..base }),
        ([4, 1, 5, 5], ConvConfig { groups: 4, ..base }),
        ([2, 3, 3, 5], base),
        ([2, 3, 4, 4], base),
    ] {
        let layer = random_layer(shape, config, true);
        let input = random_layer([2, 9, 9, shape[1] * config.groups], base, false).weight().unwrap();
        let before = layer.forward(&DualTensor::plain(input.clone())).unwrap().value;
        for kind in [Domain::Weight, Domain::Signal] {
            let mut model = model_of(layer.clone());
            let decomposition = Decomposition { kind, init: Init::Keep, ..Decomposition::default() };
            assert_eq!(decompose(&mut model, &decomposition, 0).unwrap(), 1);
            let run = |model: &Model| {
                model.forward(&DualTensor::plain(input.clone()), &ForwardContext::eval()).unwrap().value
            };
            assert!(golden::relative_l2(&run(&model), &before) < 1e-12, "{shape:?} {kind:?}");
            assert!(
                golden::relative_l2(&run(&model.folded().unwrap()), &before) < 1e-12,
                "{shape:?} {kind:?}"
            );
            recompose(&mut model).unwrap();
            assert!(golden::relative_l2(&run(&model), &before) < 1e-12, "{shape:?} {kind:?}");
            assert_eq!(
                model.parameters().iter().map(|p| p.name()).collect::<Vec<_>>(),
                ["layer.weight", "layer.bias"]
            );
        }
    }
}

#[test]
fn penalties_of_plain_filters_have_exact_gradients() {
    for (shape, option) in
        [([3, 2, 3, 3], "diff"), ([3, 2, 7, 7], "all_freq+diff"), ([2, 2, 5, 3], "diff_all")]
    {
        let layer = random_layer(shape, ConvConfig::default(), false);
        let parameter = layer.parameters()[0].clone();
        let model = model_of(layer);
        let penalty = penalty(option, 1.0, 0.3);
        let value = || penalty.value(&model).unwrap();
        let gradient = golden::values(value().backward().unwrap().get(parameter.var()).unwrap());
        let weights = golden::values(parameter.tensor());
        let step = 1e-6;
        for index in (0..weights.len()).step_by(5) {
            let at = |change: f64| {
                let mut moved = weights.clone();
                moved[index] += change;
                parameter.set(&Tensor::from_vec(moved, &shape, &Device::Cpu).unwrap()).unwrap();
                scalar(&value())
            };
            let difference = (at(step) - at(-step)) / (2.0 * step);
            assert!(
                (gradient[index] - difference).abs() < 1e-6,
                "{option}: {} or {difference}",
                gradient[index]
            );
        }
        parameter.set(&Tensor::from_vec(weights, &shape, &Device::Cpu).unwrap()).unwrap();
    }
}

#[test]
fn a_zero_norm_has_gradient_zero() {
    let coefficients = Tensor::zeros(2 * 9, DType::F32, &Device::Cpu).unwrap();
    for option in ["default", "diff", "all_freq", "diff_all"] {
        let layer = decomposed_layer(Domain::Weight, [2, 1, 3, 3], &coefficients, ConvConfig::default());
        let value = penalty(option, 1.0, 1.0).value(&model_of(layer.clone())).unwrap();
        assert_eq!(scalar(&value), 0.0);
        let gradients = value.backward().unwrap();
        assert!(
            golden::values(gradients.get(layer.parameters()[0].var()).unwrap()).iter().all(|g| *g == 0.0)
        );
    }
}

/// The general rule at sides that the official code does not know: rings above 3.5, and above 2.5.
#[test]
fn side_seven_counts_its_upper_half() {
    let basis = DctBasis::new(7).unwrap();
    let rule = |option| penalty(option, 1.0, 1.0).rule(&basis);
    for ((i, j), (high, weighted)) in
        basis.frequencies().zip(rule("default").weights.into_iter().zip(rule("all_freq").weights))
    {
        let ring = i.max(j);
        assert_eq!(high, if ring >= 4 { ring as f64 } else { 0.0 });
        assert_eq!(weighted, if ring >= 3 { (i * i + j * j) as f64 } else { 0.0 });
    }
    let sizes: usize = (1..13).map(|s: usize| (s.min(12 - s) + 1) * ((s - 1).min(13 - s) + 1)).sum();
    assert_eq!(rule("diff_all").ordered.len(), sizes);
}

#[test]
fn initializations_have_the_published_spread() {
    let spread = |kind, init| {
        let mut model = resnet9("plain", Some(32), 10);
        decompose(&mut model, &Decomposition { kind, init, min_kernel_size: 3 }, 7).unwrap();
        let layers = spatial_convolutions(&model);
        let layer = layers.last().unwrap();
        let values = golden::values(layer.parameters()[0].tensor());
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        let bound = values.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let fan_in = (layer.weight().unwrap().dim(1).unwrap() * 9) as f64;
        (deviation * fan_in.sqrt(), bound * fan_in.sqrt())
    };
    let near =
        |value: f64, expected: f64| assert!((value / expected - 1.0).abs() < 0.02, "{value} or {expected}");
    for (kind, init, deviation, bound) in [
        (Domain::Weight, Init::Published, 2f64.sqrt(), Some(6f64.sqrt())),
        (Domain::Signal, Init::KaimingUniform, 2f64.sqrt(), Some(6f64.sqrt())),
        (Domain::Weight, Init::KaimingNormal, 2f64.sqrt(), None),
        (Domain::Signal, Init::Published, 3f64.sqrt().recip(), Some(1.0)),
    ] {
        let (found, extreme) = spread(kind, init);
        near(found, deviation);
        bound.into_iter().for_each(|bound| near(extreme, bound));
    }
}

#[test]
fn impossible_settings_are_refused() {
    let good = Penalty::default();
    good.validate().unwrap();
    for bad in [
        Penalty { lambda: -1.0, ..good },
        Penalty { lambda: f64::NAN, ..good },
        Penalty { depth: 0.0, ..good },
        Penalty { kind: PenaltyKind::Monotone, low_dominance: true, ..good },
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
    }
    let mut model = resnet9("plain", Some(4), 10);
    for min_kernel_size in [0, 4] {
        let decomposition = Decomposition { min_kernel_size, ..Decomposition::default() };
        assert!(decompose(&mut model, &decomposition, 0).is_err());
    }
    let unknown = toml::from_str::<Penalty>("lamda = 0.1").unwrap_err().to_string();
    assert!(unknown.contains("lambda"), "{unknown}");
    let parsed: Decomposition = toml::from_str("kind = \"signal\"\ninit = \"keep\"").unwrap();
    assert_eq!((parsed.kind, parsed.init), (Domain::Signal, Init::Keep));
}
