//! Mask learning against reference values, and its promises.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::objective::{LARGEST_EXPONENT, Samples};
use super::optimizer::{Adam, Schedule};
use super::*;
use crate::attack::{Classifier, FrozenModel};
use crate::golden;
use crate::nn::build::{Builder, Initialization, relu};
use crate::nn::{Layer, Model, ModelShape};
use crate::random;
use crate::spectral::fourier::ImageSpectra;

fn nhwc(tensor: &Tensor) -> Tensor {
    tensor.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

/// The reference's `core`: convolution, batch norm, ReLU, convolution of stride 2, ReLU, mean, linear.
fn core([inputs, hidden, second]: [usize; 3], classes: usize, kernel: usize) -> Model {
    let random = random::stream(3, &[]);
    let mut builder = Builder::new(Initialization::PyTorch, random, DType::F32, &Device::Cpu);
    let config = |stride| bandwise_kernels::ConvConfig { padding: kernel / 2, stride, ..Default::default() };
    let layers = vec![
        builder.convolution_with("conv", [inputs, hidden], kernel, config(1), true).unwrap(),
        builder.batch_norm("bn", hidden, true).unwrap(),
        builder.convolution_with("conv2", [hidden, second], kernel, config(2), true).unwrap(),
        relu(),
        Layer::GlobalAveragePool,
        builder.linear("fc", second, classes, true).unwrap(),
    ];
    let shape = ModelShape { channels: inputs, classes, width: None };
    Model::from_layers(layers, shape, None, DType::F32, &Device::Cpu).unwrap()
}

fn golden_core(tensors: &HashMap<String, Tensor>) -> FrozenModel {
    let [hidden, inputs, kernel, _] = *tensors["core/conv.weight"].dims() else { panic!("conv.weight") };
    let (second, (classes, _)) =
        (tensors["core/conv2.weight"].dim(0).unwrap(), tensors["core/fc.weight"].dims2().unwrap());
    let model = core([inputs, hidden, second], classes, kernel);
    for parameter in model.parameters() {
        parameter.set(&tensors[&format!("core/{}", parameter.name())]).unwrap();
    }
    FrozenModel::folded(&model).unwrap()
}

/// One recorded run: every step starts from the recorded mask, and the run is also followed alone.
fn check_run(run: &Value, tensors: &HashMap<String, Tensor>, model: &FrozenModel) {
    let name = run["name"].as_str().unwrap();
    let batch = run["batch"].as_u64().unwrap() as usize;
    let images = nhwc(&tensors["fwd.x"].narrow(0, 0, batch).unwrap());
    let targets: Vec<u32> =
        run["targets"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let labels = Tensor::new(targets, &Device::Cpu).unwrap();
    let logits = model.logits_no_graph(&images).unwrap();
    assert!(golden::max_abs_difference(&logits, &tensors[&format!("{name}.model_outs")]) < 1e-5);
    let clean = Baseline::measure(model, &images, Some(&labels), 2).unwrap();
    let samples =
        Samples { spectra: ImageSpectra::new(&images).unwrap(), labels, clean_losses: clean.losses };
    let mask_at = |step: usize| tensors[&format!("{name}.mask{step}")].squeeze(0).unwrap();
    let (lambda, rate) =
        (golden::number(&run["lambda_"]), Schedule::Constant { learning_rate: golden::number(&run["lr"]) });
    let mut mask = mask_at(0);
    let mut adam = Adam::new(&mask).unwrap();
    let log = run["log"].as_array().unwrap();
    for (step, expected) in log.iter().enumerate() {
        let total = |mask: &Tensor| {
            let evaluation = samples.evaluate(model, mask, Invariance::BatchMean, LARGEST_EXPONENT).unwrap();
            let gradient = (&evaluation.gradient + (mask.sign().unwrap() * lambda).unwrap()).unwrap();
            (evaluation, gradient)
        };
        let (evaluation, gradient) = total(&mask_at(step));
        let theirs = &tensors[&format!("{name}.grad{step}")].squeeze(0).unwrap();
        assert!(
            golden::relative_l2(&gradient, theirs) < 1e-4,
            "{name} gradient {step}: {}",
            golden::relative_l2(&gradient, theirs)
        );
        let l1 = golden::values(&mask_at(step)).iter().sum::<f64>();
        assert!((l1 / golden::number(&expected["l1"]) - 1.0).abs() < 1e-5, "{name} l1 {step}");
        let invariance = evaluation.invariance[0];
        let loss = invariance.exp() + lambda * l1;
        assert!(
            (invariance - golden::number(&expected["invariance"])).abs() < 1e-6 + 1e-3 * invariance,
            "{name} {step}"
        );
        assert!((loss - golden::number(&expected["loss"])).abs() < 1e-5, "{name} loss {step}");
        // The run on its own: its own gradients, its own moments.
        let (_, gradient) = total(&mask);
        mask = adam.step(&mask, &gradient, &[rate.at(step)], &[step]).unwrap();
        let tolerance = if step == 0 { 1e-5 } else { 1e-4 };
        let differences = (&mask - mask_at(step + 1)).unwrap().abs().unwrap();
        let off = golden::values(&differences).iter().filter(|d| **d > tolerance).count();
        assert!(
            off as f64 <= 0.005 * differences.elem_count() as f64,
            "{name}: {off} entries differ after step {step}"
        );
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_mask_training() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case4_masks.safetensors");
    let model = golden_core(&tensors);
    let json = golden::json(&folder, "case4_masks.json");
    let runs = json["train"].as_array().unwrap();
    assert!(!runs.is_empty());
    for run in runs {
        check_run(run, &tensors, &model);
    }
}

fn small_model() -> FrozenModel {
    FrozenModel::folded(&core([1, 8, 8], 4, 3)).unwrap()
}

fn images(count: usize) -> Tensor {
    use rand::Rng;
    let mut stream = random::stream(11, &[]);
    let values: Vec<f32> = (0..count * 64).map(|_| stream.random()).collect();
    Tensor::from_vec(values, (count, 8, 8, 1), &Device::Cpu).unwrap()
}

fn all(model: &FrozenModel, images: &Tensor, config: &ImageConfig) -> Vec<ImageMask> {
    let mut learner = ImageLearner::new(model, images.clone(), None, config.clone()).unwrap();
    let mut masks = Vec::new();
    while !learner.is_finished() {
        masks.extend(learner.step(None).unwrap());
    }
    masks.sort_by_key(|mask| mask.index);
    masks
}

#[test]
fn image_masks_do_not_depend_on_their_neighbors() {
    let (model, images) = (small_model(), images(7));
    let config =
        ImageConfig { max_steps: 60, patience: 5, l1_tolerance: 1e-3, batch_size: 3, ..Default::default() };
    let together = all(&model, &images, &config);
    let alone = all(&model, &images, &ImageConfig { batch_size: 1, ..config.clone() });
    assert_eq!(together.len(), 7);
    for (a, b) in together.iter().zip(&alone) {
        assert_eq!(
            (a.index, a.steps, a.prediction, a.converged),
            (b.index, b.steps, b.prediction, b.converged)
        );
        assert!(a.mask.values.iter().zip(&b.mask.values).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!(a.mask.relative_l1() < 1.0 && a.mask.values.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn an_image_mask_is_a_data_set_mask_of_one_image() {
    let (model, images) = (small_model(), images(1));
    let label = Tensor::new(&[2u32], &Device::Cpu).unwrap();
    let config = ImageConfig {
        decay: 0.2,
        learning_rate: 0.1,
        max_steps: 12,
        schedule: ImageSchedule::WholeCycle,
        ..Default::default()
    };
    let mut learner = ImageLearner::new(&model, images.clone(), Some(label.clone()), config).unwrap();
    let mut own = vec![];
    while !learner.is_finished() {
        own.extend(learner.step(None).unwrap());
    }
    let config =
        SharedMaskConfig { learning_rate: 0.1, epochs: 12, accuracy_kept: 0.0, ..Default::default() };
    let mut learner = SharedMaskLearner::new(&model, images, label, config).unwrap();
    while learner.epoch(None).unwrap().is_some() {}
    assert_eq!(own[0].mask, learner.result().unwrap().mask);
}

#[test]
fn learning_goes_on_after_a_stop_as_if_there_was_none() {
    let (model, images) = (small_model(), images(9));
    let labels = Tensor::new(&[0u32, 1, 2, 3, 0, 1, 2, 3, 0], &Device::Cpu).unwrap();
    let config =
        SharedMaskConfig { learning_rate: 0.02, epochs: 4, batch_size: 2, seed: 5, ..Default::default() };
    let learner = || SharedMaskLearner::new(&model, images.clone(), labels.clone(), config.clone()).unwrap();
    let mut whole = learner();
    while whole.epoch(None).unwrap().is_some() {}
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut first = learner();
    first.epoch(None).unwrap();
    first.epoch(None).unwrap();
    let settings = |decay: f64| serde_json::json!({ "config": { "decay": decay } });
    first.state().save(&path, &settings(0.2)).unwrap();
    let message = SharedMaskState::load(&path, &settings(0.3), &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("config.decay: the mask has 0.2, the command 0.3"), "{message}");
    let mut second =
        learner().resume(SharedMaskState::load(&path, &settings(0.2), &Device::Cpu).unwrap()).unwrap();
    while second.epoch(None).unwrap().is_some() {}
    let (whole, second) = (whole.result().unwrap(), second.result().unwrap());
    assert_eq!(whole.mask, second.mask);
    assert_eq!(whole.history, second.history);
    assert!(whole.mask.relative_l1() < 1.0);
}

#[test]
fn a_hopeless_mask_does_not_turn_into_nan() {
    let model = core([1, 8, 8], 4, 3);
    for parameter in model.parameters().into_iter().filter(|p| p.name() == "fc.weight") {
        parameter.set(&(parameter.tensor() * 1e4).unwrap()).unwrap();
    }
    let model = FrozenModel::folded(&model).unwrap();
    let config = ImageConfig { max_steps: 50, schedule: ImageSchedule::WholeCycle, ..Default::default() };
    for mask in all(&model, &images(3), &config) {
        assert!(mask.mask.values.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn interruption_and_bad_settings_are_reported() {
    let (model, images) = (small_model(), images(2));
    let raised = crate::Interrupt::default();
    raised.raise();
    let mut learner = ImageLearner::new(&model, images.clone(), None, ImageConfig::default()).unwrap();
    assert!(matches!(learner.step(Some(&raised)), Err(crate::Error::Interrupted(_))));
    let bad = ImageConfig { decay: f64::NAN, ..Default::default() };
    assert!(
        ImageLearner::new(&model, images.clone(), None, bad).err().unwrap().to_string().contains("decay")
    );
    let labels = Tensor::new(&[0u32, 1], &Device::Cpu).unwrap();
    let bad = SharedMaskConfig { batch_size: 0, ..Default::default() };
    assert!(
        SharedMaskLearner::new(&model, images, labels, bad).err().unwrap().to_string().contains("batch size")
    );
}

#[test]
fn masks_go_through_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.npy");
    let mask = Mask::new(2, 3, vec![0.0, 0.25, 0.5, 1.0, 0.0, 0.125]);
    mask.write_npy(&path).unwrap();
    assert_eq!(Mask::read_npy(&path).unwrap(), std::slice::from_ref(&mask));
    Mask::write_all_npy(&path, &[mask.clone(), mask.even()]).unwrap();
    assert_eq!(Mask::read_npy(&path).unwrap(), [mask.clone(), mask.even()]);
    assert_eq!(mask.even().values, [0.0, 0.375, 0.375, 1.0, 0.0625, 0.0625]);
    assert_eq!(mask.complement(1e-8).values, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    crate::files::write_atomic(&path, &crate::formats::npy::encode_integers(&[1], &[3])).unwrap();
    assert!(Mask::read_npy(&path).unwrap_err().to_string().contains("[height, width]"));
}
