//! Whole networks against reference values and against themselves.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};

use super::{DualTensor, ForwardContext, Layer, Model, ModelShape, Normalization};
use crate::golden;
use crate::random;

pub(crate) fn model(name: &str, width: usize, dtype: DType) -> Model {
    let shape = ModelShape { channels: 3, classes: 10, width: Some(width) };
    let constants = Normalization { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.3, 0.25] };
    Model::new(name, shape, Some(&constants), 1, dtype, &Device::Cpu).unwrap()
}

pub(crate) fn noise(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    use rand::Rng;
    let mut random = random::stream(seed, &[]);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| random.random()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// One of each family, at a size that tests quickly.
pub(crate) const FAMILIES: [(&str, usize); 16] = [
    ("smallcnn", 4),
    ("resnet18", 4),
    ("resnet50", 4),
    ("resnet18-imagenet", 4),
    ("resnet20", 4),
    ("resnet20-b", 4),
    ("cifar_resnet_8", 4),
    ("cifar_resnet_8_dw_sp", 4),
    ("cifar_resnet_8_di", 4),
    ("resnet9", 4),
    ("efficientnet_b0", 4),
    ("preactresnet18", 4),
    ("preactresnet18-bn", 4),
    ("wrn-10-1", 4),
    ("vgg11_bn", 4),
    ("vgg11_bn-imagenet", 1),
];

/// Gives running statistics and affine parameters values that a wrong formula would show up with.
pub(crate) fn disturb(model: &Model) {
    for (index, parameter) in model.parameters().into_iter().enumerate() {
        if parameter.var().rank() == 1 {
            let change = noise(parameter.var().dims(), parameter.var().dtype(), index as u64);
            let value = ((parameter.var().as_tensor() * 0.7).unwrap() + (change * 0.3).unwrap()).unwrap();
            parameter.set(&value).unwrap();
        }
    }
}

#[test]
fn folding_keeps_the_function_and_freezing_its_input_gradient() {
    for (name, width) in FAMILIES {
        let model = model(name, width, DType::F64);
        disturb(&model);
        let input = Var::from_tensor(&noise(&[2, 32, 32, 3], DType::F64, 9)).unwrap();
        let gradient = |network: &Model| {
            let logits = network.logits(input.as_tensor(), &ForwardContext::eval()).unwrap();
            let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let weights = network.trainable().iter().any(|(_, var)| gradients.get(var).is_some());
            (logits, gradients.get(&input).unwrap().clone(), weights)
        };
        let (logits, slope, _) = gradient(&model);
        for other in [model.folded().unwrap(), model.folded().unwrap().fused().unwrap(), model.frozen()] {
            let (same, same_slope, weights) = gradient(&other);
            assert!(golden::relative_l2(&same, &logits) < 1e-10, "{name}");
            assert!(golden::relative_l2(&same_slope, &slope) < 1e-9, "{name}");
            assert!(!weights, "{name}: a frozen network computed weight gradients");
        }
    }
}

#[test]
fn the_dual_forward_is_the_directional_derivative() {
    for (name, width) in FAMILIES {
        for pass in [ForwardContext::batch_statistics(0.5), ForwardContext::eval()] {
            let model = model(name, width, DType::F64);
            disturb(&model);
            let x = noise(&[2, 32, 32, 3], DType::F64, 9);
            let direction = (noise(&[2, 32, 32, 3], DType::F64, 10) - 0.5).unwrap();
            let dual = DualTensor::dual(x.clone(), direction.clone());
            let tangent = model.forward(&dual, &pass).unwrap().tangent.unwrap();
            let step = 1e-6;
            let at = |sign: f64| {
                model.logits(&(&x + (&direction * (sign * step)).unwrap()).unwrap(), &pass).unwrap()
            };
            let difference = ((at(1.0) - at(-1.0)).unwrap() / (2.0 * step)).unwrap();
            let error = golden::relative_l2(&tangent, &difference);
            assert!(error < 1e-5, "{name} in {:?}: {error}", pass.mode);
        }
    }
}

#[test]
fn batch_statistics_leave_running_statistics_alone_and_training_does_not() {
    let model = model("resnet20", 4, DType::F32);
    let values = |model: &Model| -> Vec<f64> {
        model
            .state()
            .iter()
            .filter(|(n, _)| n.contains("running"))
            .flat_map(|(_, t)| golden::values(t))
            .collect()
    };
    let (before, x) = (values(&model), noise(&[4, 32, 32, 3], DType::F32, 1));
    model.logits(&x, &ForwardContext::batch_statistics(0.0)).unwrap();
    assert_eq!(before, values(&model));
    model.logits(&x, &ForwardContext::train(0.0)).unwrap();
    assert_ne!(before, values(&model));
}

#[test]
fn an_image_of_the_wrong_shape_is_a_message() {
    let error = model("smallcnn", 4, DType::F32)
        .logits(&noise(&[1, 3, 32, 32], DType::F32, 1), &ForwardContext::eval());
    assert!(error.unwrap_err().to_string().contains("[batch, height, width, 3]"));
}

fn load(model: &Model, tensors: &HashMap<String, Tensor>, prefix: &str) {
    for parameter in model.parameters() {
        let name = format!("{prefix}{}", parameter.name());
        parameter.set(tensors.get(&name).unwrap_or_else(|| panic!("{name} is missing"))).unwrap();
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_logits_of_trained_networks() {
    let folder = golden::folder();
    let clean = golden::json(&folder, "case5_clean.json");
    for name in clean["models"].as_object().unwrap().keys() {
        // case5_NAME_logits_COUNT.npy
        let is_theirs =
            |file: &str| file.starts_with(&format!("case5_{name}_logits_")) && file.ends_with(".npy");
        let mut files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|path| is_theirs(&path.file_name().unwrap().to_string_lossy())).unwrap();
        let expected = Tensor::read_npy(file).unwrap();
        let images = golden::records(&folder, &clean, expected.dim(0).unwrap()).images();
        let model = golden::network(&folder, name, DType::F32);
        for network in [model.folded().unwrap().fused().unwrap(), model.folded().unwrap(), model] {
            let logits = network.logits(&images, &ForwardContext::eval()).unwrap();
            let error = golden::max_abs_difference(&logits, &expected);
            assert!(error < 1e-3, "{name}: {error}");
        }
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_resnet9_plain() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case1_lowres_resnet9.safetensors");
    let width = tensors["plain/conv.0.weight"].dim(0).unwrap();
    let classes = tensors["plain/fc.weight"].dim(0).unwrap();
    let shape = ModelShape { channels: 3, classes, width: Some(width) };
    let model = Model::new("resnet9", shape, None, 0, DType::F32, &Device::Cpu).unwrap();
    load(&model, &tensors, "plain/");
    let input = tensors["plain/__x"].permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    for (pass, key) in [(ForwardContext::eval(), "eval"), (ForwardContext::batch_statistics(0.0), "train")] {
        let logits = model.logits(&input, &pass).unwrap();
        let error = golden::max_abs_difference(&logits, &tensors[&format!("plain/__logits_{key}")]);
        assert!(error < 2e-5, "{key}: {error}");
    }
}

#[test]
fn a_network_says_what_its_convolutions_run_as() {
    use bandwise_kernels::{ConvConfig, Precision, algorithm};

    let mut network = model("resnet20", 16, DType::F32);
    let mut counts = |precision| {
        network.set_precision(precision).unwrap();
        let counts = network.algorithms().unwrap();
        // 19 of 3 × 3, and those that shorten the image.
        assert!(counts.iter().map(|(_, count)| count).sum::<usize>() >= 19, "{counts:?}");
        assert!(counts.is_sorted_by_key(|(_, count)| std::cmp::Reverse(*count)), "{counts:?}");
        counts.into_iter().map(|(algorithm, _)| algorithm.name()).collect::<Vec<_>>()
    };
    for precision in Precision::ALL {
        let inner = ConvConfig { padding: 1, precision, ..ConvConfig::default() };
        let expected = algorithm([16, 16, 3, 3], &inner, DType::F32, &Device::Cpu).name();
        assert!(counts(precision).contains(&expected), "{precision}");
    }
    // The first convolution has three channels.
    assert!(counts(Precision::F32).contains(&"direct"));
}

#[test]
fn adaptive_pooling_takes_pytorchs_windows() {
    let rows: Vec<f64> = (0..4 * 14).map(|i| (i / 14) as f64).collect();
    let x = Tensor::from_vec(rows, (1, 4, 14, 1), &Device::Cpu).unwrap();
    let pooled =
        Layer::AdaptiveAveragePool(7).forward(&DualTensor::plain(x), &ForwardContext::eval()).unwrap().value;
    assert_eq!(pooled.dims(), [1, 7, 7, 1]);
    let column = golden::values(&pooled.narrow(2, 3, 1).unwrap());
    assert_eq!(column, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
}
