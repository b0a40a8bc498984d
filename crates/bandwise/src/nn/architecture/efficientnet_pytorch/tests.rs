use candle_core::{DType, Device, Tensor};

use crate::golden;
use crate::nn::{ForwardContext, Mode, Model, ModelShape, Randomness};

fn model(name: &str, width: Option<usize>, classes: usize) -> Model {
    let shape = ModelShape { channels: 3, classes, width };
    Model::new(name, shape, None, 0, DType::F64, &Device::Cpu).unwrap()
}

/// Weights that a formula gives, tensor by tensor in the order of their names.
fn fill(model: &Model) {
    let mut parameters = model.parameters();
    parameters.sort_by(|a, b| a.name().cmp(b.name()));
    for (k, parameter) in parameters.into_iter().enumerate() {
        let (name, dims) = (parameter.name(), parameter.var().dims().to_vec());
        let inputs: usize = dims.iter().skip(1).product();
        let value = |i: usize| {
            let wave = (0.37 * i as f64 + k as f64).sin();
            match () {
                () if name.ends_with("running_var") => 1.0 + 0.5 * wave * wave,
                () if name.ends_with("running_mean") || name.ends_with(".bias") => 0.1 * wave,
                () if dims.len() == 1 => 1.0 + 0.1 * wave,
                () => wave * (6.0 / inputs as f64).sqrt(),
            }
        };
        let values: Vec<f64> = (0..dims.iter().product()).map(value).collect();
        parameter.set(&Tensor::from_vec(values, dims, &Device::Cpu).unwrap()).unwrap();
    }
}

/// Logits of the second of two images, computed in NumPy (float64) by a transcription of the package's `model.py` and
/// `utils.py`, with `_conv_stem.stride = (1, 1)` set afterwards where the name says nothing else.
#[test]
fn logits_are_those_of_the_package() {
    for (name, side, tensors, expected) in [
        (
            "efficientnet-b0",
            32,
            311,
            [
                -1.811626122,
                1.123423172,
                0.5426968742,
                -1.580105702,
                1.961793783,
                -1.03959346,
                -0.4295533811,
                1.584019665,
                -1.999510282,
                0.9917607754,
            ],
        ),
        (
            "efficientnet-b0-imagenet",
            40,
            311,
            [
                -1.811508804,
                1.12326183,
                0.5428088443,
                -1.580103485,
                1.961678662,
                -1.039432075,
                -0.429667611,
                1.584020616,
                -1.999397404,
                0.9915994088,
            ],
        ),
        (
            "efficientnet-b2",
            24,
            439,
            [
                -4.474652626,
                -5.143429542,
                -4.33499429,
                -2.286700149,
                0.4074661602,
                2.968854108,
                4.659227113,
                4.993882107,
                3.881238883,
                1.648616552,
            ],
        ),
    ] {
        let model = model(name, None, 10);
        fill(&model);
        assert_eq!(model.parameters().len(), tensors, "{name}");
        let wave = |i: usize| 0.5 + 0.5 * (0.11 * i as f64).sin();
        let pixels: Vec<f64> = (0..2 * side * side * 3).map(wave).collect();
        let images = Tensor::from_vec(pixels, (2, side, side, 3), &Device::Cpu).unwrap();
        let logits = golden::values(&model.logits(&images, &ForwardContext::eval()).unwrap());
        let error =
            logits[10..].iter().zip(&expected).map(|(a, b): (_, &f64)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-8, "{name}: {error}, {logits:?}");
    }
}

/// The package's numbers of learned values with 1000 classes.
#[test]
fn sizes_and_names_are_the_package_s() {
    for (name, count) in
        [("efficientnet-b0", 5_288_548), ("efficientnet-b1", 7_794_184), ("efficientnet-b4", 19_341_616)]
    {
        assert_eq!(model(name, None, 1000).parameter_count(), count, "{name}");
    }
    let state: std::collections::HashMap<_, _> =
        model("efficientnet-b0", None, 10).state().into_iter().collect();
    for (name, shape) in [
        ("_conv_stem.weight", vec![32, 3, 3, 3]),
        ("_bn0.running_mean", vec![32]),
        ("_blocks.0._depthwise_conv.weight", vec![32, 1, 3, 3]),
        ("_blocks.0._se_reduce.weight", vec![8, 32, 1, 1]),
        ("_blocks.1._expand_conv.weight", vec![96, 16, 1, 1]),
        ("_blocks.15._project_conv.weight", vec![320, 1152, 1, 1]),
        ("_blocks.15._bn2.bias", vec![320]),
        ("_conv_head.weight", vec![1280, 320, 1, 1]),
        ("_fc.weight", vec![10, 1280]),
    ] {
        assert_eq!(state.get(name).map(|t| t.dims().to_vec()), Some(shape), "{name}");
    }
    assert!(!state.contains_key("_blocks.0._expand_conv.weight"));
}

/// The stem of 32×32 images gives 31×31 maps, padded at the lower right alone.
#[test]
fn batch_norm_constants_and_padding() {
    let model = model("efficientnet-b0", Some(8), 10);
    let crate::nn::Layer::ZeroPad(pads) = &model.layers[0] else { panic!("the stem pads one side") };
    assert_eq!(*pads, [0, 1, 0, 1]);
    let mut norms = 0;
    let mut layers = model.layers.clone();
    crate::nn::layer::visit_batch_norms_mut(&mut layers, &mut |norm| {
        assert_eq!((norm.epsilon, norm.momentum), (1e-3, 0.01));
        norms += 1;
    });
    assert_eq!(norms, 49);
    let recorder = crate::nn::Recorder::new();
    let images = Tensor::ones((1, 32, 32, 3), DType::F64, &Device::Cpu).unwrap();
    model.logits(&images, &ForwardContext { recorder: Some(&recorder), ..ForwardContext::eval() }).unwrap();
    let sides: Vec<usize> = recorder.take().iter().map(|(_, map)| map.dims()[1]).collect();
    assert_eq!(sides, [31, 15, 7, 3, 3, 1, 1]);
}

/// In training, blocks and features are left out; the same for the same step and image, whatever the batch.
#[test]
fn dropout_acts_in_training_only() {
    let model = model("efficientnet-b0", Some(8), 10);
    let images = crate::nn::tests::noise(&[2, 32, 32, 3], DType::F64, 3);
    let logits = |mode, seed| {
        let randomness = Some(Randomness { seed, image_ids: &[4, 9] });
        golden::values(
            &model.logits(&images, &ForwardContext { mode, randomness, ..ForwardContext::eval() }).unwrap(),
        )
    };
    assert_eq!(logits(Mode::Eval, 1), logits(Mode::Eval, 2));
    assert_eq!(logits(Mode::BatchStatistics, 1), logits(Mode::BatchStatistics, 1));
    assert_ne!(logits(Mode::BatchStatistics, 1), logits(Mode::BatchStatistics, 2));
    let without = golden::values(&model.logits(&images, &ForwardContext::batch_statistics(1.0)).unwrap());
    assert_ne!(logits(Mode::BatchStatistics, 1), without);
    let rates: Vec<f64> = drop_rates(&model.layers);
    // Nine shortcuts, of 16 blocks; then dropout.
    let expected = [2, 4, 6, 7, 9, 10, 12, 13, 14].map(|block| 0.2 * f64::from(block) / 16.0);
    assert_eq!(rates[..9], expected);
    assert_eq!(rates[9..], [0.2]);
}

/// A small network whose signals do not fade away: with its first weights the logits hardly depend on the image.
fn lively() -> Model {
    let model = model("efficientnet-b0", Some(4), 10);
    for parameter in model.parameters().into_iter().filter(|parameter| parameter.var().rank() > 1) {
        parameter.set(&(parameter.var().as_tensor() * 3.0).unwrap()).unwrap();
    }
    crate::nn::tests::disturb(&model);
    model
}

#[test]
fn folding_and_dual_numbers() {
    let model = lively();
    let x = crate::nn::tests::noise(&[2, 32, 32, 3], DType::F64, 9);
    let direction = (crate::nn::tests::noise(&[2, 32, 32, 3], DType::F64, 10) - 0.5).unwrap();
    let eval = model.logits(&x, &ForwardContext::eval()).unwrap();
    for other in [model.folded().unwrap(), model.folded().unwrap().fused().unwrap(), model.frozen()] {
        assert!(golden::relative_l2(&other.logits(&x, &ForwardContext::eval()).unwrap(), &eval) < 1e-10);
    }
    let randomness = Some(Randomness { seed: 5, image_ids: &[1, 2] });
    for pass in
        [ForwardContext::eval(), ForwardContext { randomness, ..ForwardContext::batch_statistics(0.5) }]
    {
        let dual = crate::nn::DualTensor::dual(x.clone(), direction.clone());
        let tangent = model.forward(&dual, &pass).unwrap().tangent.unwrap();
        let at = |step: f64| model.logits(&(&x + (&direction * step).unwrap()).unwrap(), &pass).unwrap();
        // Statistics of two images curve strongly: the error falls with the square of the step, a hundredfold each time.
        let errors = [1e-6, 1e-7, 1e-8, 1e-9].map(|step| {
            let difference = ((at(step) - at(-step)).unwrap() / (2.0 * step)).unwrap();
            golden::relative_l2(&tangent, &difference)
        });
        assert!(errors.iter().any(|error| *error < 1e-5), "{:?}: {errors:?}", pass.mode);
    }
}

fn drop_rates(layers: &[crate::nn::Layer]) -> Vec<f64> {
    let of = |layer: &crate::nn::Layer| match layer {
        crate::nn::Layer::Dropout(dropout) => vec![dropout.rate],
        other => other.children().into_iter().flat_map(|group| drop_rates(group)).collect(),
    };
    layers.iter().flat_map(of).collect()
}
