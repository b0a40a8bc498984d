use std::path::Path;

use candle_core::{DType, Device};

use super::*;
use crate::attack::{Attack, Fgsm};
use crate::golden;
use crate::method::grad_align::GradAlign;
use crate::method::{GradientNorm, GroupSparsity, Jafr};
use crate::nn::tests::{disturb, model, noise};
use crate::nn::{Mode, Model};
use crate::train::objective::{Adversarial, Standard};
use crate::train::recipe::Recipe;
use crate::train::step::AttackMode;

fn everything() -> Regularizers {
    Regularizers {
        filter_frequency: Some(FilterPenalty { depth: 1.0, ..FilterPenalty::default() }),
        jafr: Some(Jafr { lambda: 0.1, per_image: true, ..Jafr::default() }),
        grad_align: Some(GradAlign { detach_clean: false, ..GradAlign::default() }),
        gradient_norm: Some(GradientNorm::default()),
        group_sparsity: Some(GroupSparsity::default()),
        ..Regularizers::default()
    }
}

fn with_step<T>(model: &Model, action: impl FnOnce(&Step) -> T) -> T {
    with_step_of_epoch(model, 0, action)
}

fn with_step_of_epoch<T>(model: &Model, epoch: u64, action: impl FnOnce(&Step) -> T) -> T {
    let images = noise(&[3, 16, 16, 3], DType::F64, 5);
    let labels = Tensor::new(&[1u32, 4, 7], &Device::Cpu).unwrap();
    let (image_ids, seed) = (&[10, 11, 12][..], 3);
    let (carried_delta, mode) = (None, Mode::Train);
    let (time, progress) = (epoch as f64 + 0.1, 0.1);
    action(&Step { model, images, labels, image_ids, carried_delta, seed, epoch, time, progress, mode })
}

/// Loss and its slope along a fixed random direction of all weights, at weights moved by `at` along it.
fn loss_and_slope(regularizers: &Regularizers, objective: &Objective, model: &Model, at: f64) -> (f64, f64) {
    let trainable = model.trainable();
    let before: Vec<Tensor> = trainable.iter().map(|(_, var)| var.copy().unwrap()).collect();
    let directions: Vec<Tensor> = (0..trainable.len())
        .map(|i| (noise(before[i].dims(), DType::F64, 50 + i as u64) - 0.5).unwrap())
        .collect();
    for (((_, var), old), direction) in trainable.iter().zip(&before).zip(&directions) {
        var.set(&(old + (direction * (0.1 * at)).unwrap()).unwrap()).unwrap();
    }
    let (outcome, gradients) = with_step(model, |step| {
        TrainingLoss { objective, regularizers }.backward(step, &objective.attack(step).unwrap()).unwrap()
    });
    let slope = trainable.iter().zip(&directions).filter_map(|((_, var), direction)| {
        let along = (gradients.get(var)? * direction).unwrap();
        Some(0.1 * golden::values(&along).iter().sum::<f64>())
    });
    let slope = slope.sum();
    for ((_, var), old) in trainable.iter().zip(&before) {
        var.set(old).unwrap();
    }
    (golden::values(&outcome.loss.reshape(1).unwrap())[0], slope)
}

#[test]
fn all_regularizers_together_equal_finite_differences() {
    let model = model("smallcnn", 4, DType::F64);
    disturb(&model);
    let objective = Objective::Standard(Standard { label_smoothing: 0.1 });
    let (_, slope) = loss_and_slope(&everything(), &objective, &model, 0.0);
    // J jumps where a ReLU switches: a wrong slope is wrong for all steps.
    let errors = [1e-5, 1e-6, 1e-7].map(|step| {
        let [above, below] = [step, -step].map(|at| loss_and_slope(&everything(), &objective, &model, at).0);
        ((above - below) / (2.0 * step) - slope).abs() / slope.abs()
    });
    assert!(errors.iter().any(|error| *error < 1e-4), "{slope}: {errors:?}");
}

#[test]
fn clean_images_cost_one_pass_less_and_give_the_same() {
    // The weakest attack that there is: nearly the same loss through the general path.
    let attack = Attack::Fgsm(Fgsm { epsilon: "1e-7".parse().unwrap(), ..Fgsm::default() });
    let general = Objective::Adversarial(Adversarial {
        attack,
        perturbation: Default::default(),
        attack_mode: AttackMode::Eval,
        epsilon_warmup: 0.0,
        label_smoothing: 0.0,
    });
    let model = model("smallcnn", 4, DType::F64);
    let one = loss_and_slope(&everything(), &Objective::default(), &model, 0.0);
    let other = loss_and_slope(&everything(), &general, &model, 0.0);
    assert!((one.0 - other.0).abs() < 1e-5 && (one.1 - other.1).abs() < 1e-4, "{one:?} {other:?}");
}

#[test]
fn gradients_taken_beside_the_images_equal_finite_differences() {
    let model = model("smallcnn", 4, DType::F64);
    disturb(&model);
    let regularizers = Regularizers { gradient_noise: Some("8/255".parse().unwrap()), ..everything() };
    let objective = Objective::default();
    let (loss, slope) = loss_and_slope(&regularizers, &objective, &model, 0.0);
    assert_ne!(loss, loss_and_slope(&everything(), &objective, &model, 0.0).0, "J is taken elsewhere");
    let errors = [1e-5, 1e-6, 1e-7].map(|step| {
        let [above, below] = [step, -step].map(|at| loss_and_slope(&regularizers, &objective, &model, at).0);
        ((above - below) / (2.0 * step) - slope).abs() / slope.abs()
    });
    assert!(errors.iter().any(|error| *error < 1e-4), "{slope}: {errors:?}");
    let far = Regularizers { gradient_noise: Some("8".parse().unwrap()), ..Regularizers::default() };
    assert!(far.validate().unwrap_err().to_string().contains("gradient_noise"));
}

/// As the official `epoch > epochs_warmup_before_…`, with epochs counted from 1.
#[test]
fn regularizers_wait_for_their_warm_up() {
    let model = model("smallcnn", 4, DType::F64);
    let late = Regularizers {
        jafr: Some(Jafr { warmup: 2, ..Jafr::default() }),
        gradient_norm: Some(GradientNorm { lambda: 1.0, warmup: 3, ..GradientNorm::default() }),
        ..Regularizers::default()
    };
    let loss = |regularizers: &Regularizers, epoch| {
        with_step_of_epoch(&model, epoch, |step| {
            let loss = TrainingLoss { objective: &Objective::default(), regularizers };
            let outcome = loss.backward(step, &step.images).unwrap().0;
            golden::values(&outcome.loss.reshape(1).unwrap())[0]
        })
    };
    let only = |jafr: bool, norm: bool| Regularizers {
        jafr: jafr.then(Jafr::default),
        gradient_norm: norm.then(|| GradientNorm { lambda: 1.0, ..GradientNorm::default() }),
        ..Regularizers::default()
    };
    for (epoch, expected) in
        [(0, only(false, false)), (1, only(false, false)), (2, only(true, false)), (3, only(true, true))]
    {
        assert!((loss(&late, epoch) - loss(&expected, epoch)).abs() < 1e-12, "epoch {epoch}");
    }
    assert_ne!(loss(&only(true, false), 0), loss(&only(false, false), 0));
}

/// The official `--track_…` flags: the loss and its gradient are those without them, and the values those of penalties.
#[test]
fn what_is_tracked_is_logged_and_changes_nothing() {
    let model = model("smallcnn", 4, DType::F64);
    let run = |regularizers: &Regularizers| {
        with_step(&model, |step| {
            let objective = Objective::default();
            let (outcome, gradients) =
                TrainingLoss { objective: &objective, regularizers }.backward(step, &step.images).unwrap();
            let (_, var) = &model.trainable()[0];
            let terms = outcome.terms.iter().map(|(name, v)| (*name, scalar(v).unwrap()));
            let terms: std::collections::BTreeMap<&str, f64> = terms.collect();
            (scalar(&outcome.loss).unwrap(), golden::values(gradients.get(var).unwrap()), terms)
        })
    };
    let all =
        [Tracked::LowFrequencyBias, Tracked::GradientNorm, Tracked::GroupSparsity, Tracked::FilterFrequency];
    let (plain, slope, few) = run(&Regularizers::default());
    let (same, same_slope, tracked) = run(&Regularizers { track: all.to_vec(), ..Regularizers::default() });
    assert_eq!((plain, &slope), (same, &same_slope));
    assert_eq!((few.len(), tracked.len()), (1, 5), "{tracked:?}");
    // Penalties with λ = 0, or in their warm-up, are logged and change nothing, either.
    let idle = Regularizers {
        jafr: Some(Jafr { lambda: 0.0, ..Jafr::default() }),
        gradient_norm: Some(GradientNorm { warmup: 1, ..GradientNorm::default() }),
        grad_align: Some(GradAlign { lambda: 0.0, ..GradAlign::default() }),
        ..Regularizers::default()
    };
    let (idle, idle_slope, values) = run(&idle);
    assert_eq!((plain, &slope), (idle, &idle_slope));
    assert!(values["penalty/grad_align"] > 0.0, "{values:?}");
    // On, they have the same values.
    let on = run(&Regularizers { gradient_noise: None, ..everything() }).2;
    assert!((values["penalty/gradient_norm"] - on["penalty/gradient_norm"]).abs() < 1e-12);
    for (tracked, penalty) in [
        (tracked["input_gradient/norm"], on["penalty/gradient_norm"]),
        (tracked["input_gradient/group_sparsity"], on["penalty/group_sparsity"]),
        (tracked["input_gradient/low_frequency_bias"], -values["penalty/jafr"]),
    ] {
        assert!((tracked - penalty).abs() < 1e-12 * penalty.abs(), "{tracked} {penalty}");
    }
    assert!(tracked["penalty/filter_frequency"] > 0.0);
}

#[test]
fn without_regularizers_nothing_changes() {
    let model = model("smallcnn", 4, DType::F64);
    with_step(&model, |step| {
        let (outcome, gradients) =
            TrainingLoss { objective: &Objective::default(), regularizers: &Regularizers::default() }
                .backward(step, &step.images)
                .unwrap();
        let plain = Objective::default().loss(step, &step.images).unwrap();
        let expected = plain.loss.backward().unwrap();
        assert!(golden::max_abs_difference(&outcome.loss, &plain.loss) < 1e-12);
        for (name, var) in model.trainable() {
            let [ours, plain] = [&gradients, &expected].map(|store| store.get(&var).unwrap());
            assert!(golden::max_abs_difference(ours, plain) < 1e-12, "{name}");
        }
    });
}

#[test]
fn recipes_of_the_paper_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/jafr");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in &files {
        let recipe = Recipe::read(file, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(file.file_stem().and_then(|s| s.to_str()), Some(recipe.name.as_str()));
        assert_eq!(recipe.regularizers.jafr.is_some(), recipe.name.contains("-jafr"), "{}", recipe.name);
    }
    assert!(files.len() >= 20);
}
