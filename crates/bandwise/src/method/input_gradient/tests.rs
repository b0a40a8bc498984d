//! Second-order gradients against finite differences of first-order ones, for every architecture.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::golden;
use crate::method::filter_frequency::{Decomposition, decompose};
use crate::method::{GradAlign, GradientNorm, GroupSparsity, InputPenalty, Jafr};
use crate::nn::decomposed::Domain;
use crate::nn::tests::{FAMILIES, disturb, model, noise};
use crate::nn::{ForwardContext, Model};

type Function<'a> = &'a dyn Fn(&Tensor) -> Result<Penalty>;

fn labels() -> Tensor {
    Tensor::new(&[3u32, 7], &Device::Cpu).unwrap()
}

fn gradient(model: &Model, images: &Tensor, pass: &ForwardContext) -> Tensor {
    gradient_for(model, images, &labels(), pass)
}

fn gradient_for(model: &Model, images: &Tensor, labels: &Tensor, pass: &ForwardContext) -> Tensor {
    InputGradient::of(&model.frozen(), images, labels, pass).unwrap().gradient
}

/// Moves all weights along fixed random directions, as far as `step` says.
fn moved<T>(model: &Model, step: f64, measure: impl Fn() -> T) -> T {
    let before: Vec<Tensor> = model.trainable().iter().map(|(_, var)| var.copy().unwrap()).collect();
    for ((_, var), (old, direction)) in model.trainable().iter().zip(before.iter().zip(directions(model))) {
        var.set(&(old + (direction * step).unwrap()).unwrap()).unwrap();
    }
    let result = measure();
    for ((_, var), old) in model.trainable().iter().zip(&before) {
        var.set(old).unwrap();
    }
    result
}

fn directions(model: &Model) -> Vec<Tensor> {
    let trainable = model.trainable();
    let draw = |(index, (_, var)): (usize, &(String, Var))| {
        let size = golden::values(var).iter().fold(0.01f64, |largest, v| largest.max(v.abs()));
        ((noise(var.dims(), DType::F64, 100 + index as u64) - 0.5).unwrap() * size).unwrap()
    };
    trainable.iter().enumerate().map(draw).collect()
}

/// `gradients` along the random direction against central differences of `measure`. J jumps where a ReLU
/// switches, so several steps are tried: a wrong gradient is wrong at all of them.
fn assert_slope(what: &str, model: &Model, gradients: &GradStore, measure: impl Fn() -> f64) {
    let slope: f64 = model
        .trainable()
        .iter()
        .zip(directions(model))
        .filter_map(|((_, var), direction)| {
            let gradient = gradients.get(var)?;
            Some(golden::values(&(gradient * direction).unwrap()).iter().sum::<f64>())
        })
        .sum();
    let errors: Vec<f64> = [1e-5, 1e-6, 1e-7, 1e-8]
        .iter()
        .map(|&step| {
            let difference = moved(model, step, &measure) - moved(model, -step, &measure);
            (difference / (2.0 * step) - slope).abs() / slope.abs()
        })
        .collect();
    let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best < 1e-4, "{what}: {slope}, relative errors {errors:?}");
}

#[test]
fn penalty_gradients_equals_finite_differences_for_every_architecture() {
    for (name, width) in FAMILIES {
        for pass in [ForwardContext::batch_statistics(0.5), ForwardContext::eval()] {
            let model = model(name, width, DType::F64);
            disturb(&model);
            assert_jafr_slope(&format!("{name} in {:?}", pass.mode), &model, &labels(), &pass);
        }
    }
}

/// With two images, batch norm at this network's last, tiny maps makes the derivative too steep for finite differences.
#[test]
fn penalty_gradients_equals_finite_differences_for_efficientnet_pytorch() {
    let model = model("efficientnet-b0", 8, DType::F64);
    disturb(&model);
    let labels = Tensor::new(&[3u32, 7, 1, 0, 9, 4, 4, 2], &Device::Cpu).unwrap();
    assert_jafr_slope("efficientnet-b0", &model, &labels, &ForwardContext::batch_statistics(0.5));
}

fn assert_jafr_slope(what: &str, model: &Model, labels: &Tensor, pass: &ForwardContext) {
    let images = noise(&[labels.elem_count(), 32, 32, 3], DType::F64, 9);
    let jafr = Jafr { per_image: true, ..Jafr::default() };
    let measure = || jafr.penalty(&gradient_for(model, &images, labels, pass)).unwrap();
    let gradients = penalty_gradients(model, &images, labels, &measure().derivative, pass).unwrap();
    assert_slope(what, model, &gradients, || measure().value);
}

#[test]
fn penalty_gradients_equals_finite_differences_for_decomposed_convolutions() {
    for kind in [Domain::Weight, Domain::Signal] {
        let mut model = model("smallcnn", 4, DType::F64);
        disturb(&model);
        decompose(&mut model, &Decomposition { kind, ..Decomposition::default() }, 1).unwrap();
        for pass in [ForwardContext::batch_statistics(0.5), ForwardContext::eval()] {
            assert_jafr_slope(&format!("{kind:?} in {:?}", pass.mode), &model, &labels(), &pass);
        }
    }
}

#[test]
fn every_penalty_equals_finite_differences() {
    let model = model("smallcnn", 4, DType::F64);
    disturb(&model);
    let (pass, images) = (ForwardContext::batch_statistics(0.0), noise(&[2, 16, 12, 3], DType::F64, 9));
    let others = (&images + (noise(&[2, 16, 12, 3], DType::F64, 10) * 0.05).unwrap()).unwrap();
    let at_images = || gradient(&model, &images, &pass);
    let penalties: [(&str, Function); 7] = [
        ("jafr on a map that is not square", &|j| Jafr::default().penalty(j)),
        ("norm", &|j| GradientNorm::default().penalty(j)),
        ("squared norm", &|j| GradientNorm { squared: true, ..GradientNorm::default() }.penalty(j)),
        ("group sparsity", &|j| GroupSparsity::default().penalty(j)),
        ("norm, own gradients", &|j| GradientNorm { per_image: true, ..GradientNorm::default() }.penalty(j)),
        ("group sparsity, p = 1.5", &|j| GroupSparsity { power: 1.5, ..GroupSparsity::default() }.penalty(j)),
        ("group sparsity, p = 1", &|j| GroupSparsity { power: 1.0, ..GroupSparsity::default() }.penalty(j)),
    ];
    for (what, penalty) in penalties {
        let found = penalty(&at_images()).unwrap();
        let gradients = penalty_gradients(&model, &images, &labels(), &found.derivative, &pass).unwrap();
        assert_slope(what, &model, &gradients, || penalty(&at_images()).unwrap().value);
    }
    let align = GradAlign { detach_clean: false, ..GradAlign::default() };
    let both = || align.penalty(&at_images(), &gradient(&model, &others, &pass)).unwrap();
    let (first, second) = both();
    let first = first.expect("both gradients carry a derivative").derivative;
    let mut gradients = penalty_gradients(&model, &images, &labels(), &first, &pass).unwrap();
    gradients
        .extend(penalty_gradients(&model, &others, &labels(), &second.derivative, &pass).unwrap())
        .unwrap();
    assert_slope("gradient alignment", &model, &gradients, || both().1.value);
}

#[test]
fn penalties_follow_their_definitions() {
    let values: Vec<f64> = (0..2 * 4 * 6 * 2).map(|i| ((i * 7 % 13) as f64 - 6.0) / 10.0).collect();
    let j = Tensor::from_vec(values.clone(), (2, 4, 6, 2), &Device::Cpu).unwrap();
    let at = |b: usize, h: usize, w: usize, c: usize| values[((b * 4 + h) * 6 + w) * 2 + c].abs();
    let p = 3.0;
    let mut pooled = 0.0;
    for (b, c) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for (h, w) in (0..2).flat_map(|h| (0..3).map(move |w| (2 * h, 2 * w))) {
            let window = [at(b, h, w, c), at(b, h, w + 1, c), at(b, h + 1, w, c), at(b, h + 1, w + 1, c)];
            pooled += window.iter().map(|v| v.powf(p)).sum::<f64>().powf(1.0 / p);
        }
    }
    // As `grad_group_norm_sum.mean()` and `l2_norm_batch(grad).mean()` in the official train.py: sums over an image,
    // means over the two images; with `per_image`, of twice the J.
    for (per_image, factor) in [(false, 1.0), (true, 2.0)] {
        let sparsity = GroupSparsity { power: p, per_image, ..GroupSparsity::default() };
        let sparsity = scalar(&sparsity.value(&j).unwrap()).unwrap();
        assert!((sparsity - factor * pooled / 2.0).abs() < 1e-12, "{sparsity} against {pooled}");
        let squares: Vec<f64> = values.chunks(48).map(|image| image.iter().map(|v| v * v).sum()).collect();
        for (squared, expected) in [
            (false, factor * squares.iter().map(|s| s.sqrt()).sum::<f64>() / 2.0),
            (true, factor * factor * squares.iter().sum::<f64>() / 2.0),
        ] {
            let norm = GradientNorm { squared, per_image, ..GradientNorm::default() };
            let norm = scalar(&norm.value(&j).unwrap()).unwrap();
            assert!((norm - expected).abs() < 1e-12);
        }
    }
}

#[test]
fn tiny_gradients_keep_their_norm_and_direction_in_float32() {
    let tiny =
        Tensor::new(&[[3e-30f32, 4e-30], [0.0, 0.0]], &Device::Cpu).unwrap().reshape((2, 1, 2, 1)).unwrap();
    let found = Penalty::of(&tiny, |j| Ok(norms(j)?.sum_all()?)).unwrap();
    assert!((found.value / 5e-30 - 1.0).abs() < 1e-6);
    let derivative = golden::values(&found.derivative);
    assert!((derivative[0] - 0.6).abs() < 1e-6 && (derivative[1] - 0.8).abs() < 1e-6);
    assert_eq!(derivative[2..], [0.0, 0.0]);
    let (_, align) = GradAlign::default().penalty(&tiny, &tiny).unwrap();
    assert!(align.value.abs() < 1e-6 && golden::values(&align.derivative).iter().all(|v| v.is_finite()));
}

#[test]
fn penalty_gradients_leaves_running_statistics_alone() {
    let model = model("smallcnn", 4, DType::F32);
    let images = noise(&[2, 16, 16, 3], DType::F32, 1);
    let statistics = || -> Vec<f64> {
        let running = model.state().into_iter().filter(|(name, _)| name.contains("running"));
        running.flat_map(|(_, values)| golden::values(&values)).collect()
    };
    let before = statistics();
    penalty_gradients(&model, &images, &labels(), &images, &ForwardContext::train(0.0)).unwrap();
    assert_eq!(before, statistics());
}

#[test]
fn joint_gradients_are_the_sum_of_both() {
    let model = model("smallcnn", 4, DType::F64);
    let (pass, images) = (ForwardContext::batch_statistics(0.0), noise(&[2, 16, 16, 3], DType::F64, 1));
    let direction = noise(&[2, 16, 16, 3], DType::F64, 2);
    let mut separate = InputGradient::of(&model, &images, &labels(), &pass).unwrap();
    separate
        .parameters
        .extend(penalty_gradients(&model, &images, &labels(), &direction, &pass).unwrap())
        .unwrap();
    let loss = |logits: &Tensor| loss::mean_cross_entropy(logits, &labels());
    let joint = joint_gradients(&model, &images, &labels(), &direction, &pass, loss).unwrap();
    assert!(golden::max_abs_difference(&joint.loss, &separate.loss) < 1e-12);
    for (name, var) in model.trainable() {
        let [ours, sum] = [&joint.parameters, &separate.parameters].map(|store| store.get(&var).unwrap());
        assert!(golden::relative_l2(ours, sum) < 1e-10, "{name}");
    }
}
