use std::collections::BTreeMap;

use candle_core::{DType, Device, Var};

use super::*;
use crate::golden;
use crate::nn::layer::{Activation, Layer};
use crate::nn::tests::{disturb, model, noise};
use crate::nn::{Model, Role};

const RECIPE: &str = "name = \"test\"\nepochs = 4\nbatch_size = 7\nlearning_rate = 0.1\n[model]\narchitecture = \
    \"smallcnn\"\n[optimizer]\nname = \"sgd\"\nweight_decay = 0.01\n";

const ADVERSARIAL: [&str; 4] = [
    "{name=\"adversarial\",attack={name=\"rfgsm\",epsilon=\"8/255\"}}",
    "{name=\"trades\",attack={name=\"pgd\",steps=2,loss=\"kl-divergence\",start=\"gaussian\"}}",
    "{name=\"mart\",attack={name=\"pgd\",steps=2}}",
    "{name=\"free\",replays=2}",
];

fn recipe(changes: &[&str]) -> Recipe {
    Recipe::parse(RECIPE, &changes.iter().map(|change| change.to_string()).collect::<Vec<_>>()).unwrap()
}

fn step(model: &Model) -> Step<'_> {
    Step {
        model,
        images: noise(&[7, 16, 16, 3], DType::F64, 5),
        labels: Tensor::new(&[1u32, 4, 7, 0, 9, 2, 2], &Device::Cpu).unwrap(),
        image_ids: &[10, 11, 12, 13, 14, 15, 16],
        carried_delta: None,
        seed: 3,
        epoch: 1,
        time: 1.5,
        progress: 0.5,
        mode: Mode::Train,
    }
}

fn copies(model: &Model) -> BTreeMap<String, Tensor> {
    model.state().into_iter().map(|(name, tensor)| (name, tensor.copy().unwrap())).collect()
}

fn small() -> Model {
    model("smallcnn", 4, DType::F64)
}

fn smooth() -> Model {
    without_batch_norm(small())
}

/// The same layers with tanh in place of batch norm.
fn without_batch_norm(mut model: Model) -> Model {
    fn replace(layers: &mut [Layer]) {
        for layer in layers {
            if let Layer::BatchNorm(_) = layer {
                *layer = Layer::Activation(Activation::Tanh);
            }
            layer.children_mut().into_iter().for_each(|group| replace(group));
        }
    }
    replace(&mut model.layers);
    model
}

/// One step from the model's weights; the weights after it.
fn after(recipe: &Recipe, model: Model) -> (StepOutput, BTreeMap<String, Tensor>) {
    let mut optimizer = Optimizer::new(recipe.optimizer.clone(), model.trainable()).unwrap();
    let updated = update(recipe, &step(&model), &mut optimizer, 0.1).unwrap();
    (updated, copies(&model))
}

#[test]
fn parts_of_a_batch_give_the_step_of_the_whole() {
    for objective in ADVERSARIAL.iter().chain(&["{name=\"standard\",label_smoothing=0.1}"]) {
        let objective = format!("objective={objective}");
        for awp in ["awp={gamma=0.01}", "seed=0"] {
            if awp.starts_with("awp") && objective.contains("standard") {
                continue;
            }
            let (whole, weights) = after(&recipe(&[&objective, awp]), smooth());
            for accumulate in ["accumulate=2", "accumulate=3", "accumulate=7"] {
                let (parts, found) = after(&recipe(&[&objective, awp, accumulate]), smooth());
                assert!(golden::max_abs_difference(&parts.outcome.loss, &whole.outcome.loss) < 1e-12);
                assert!(golden::max_abs_difference(&parts.outcome.logits, &whole.outcome.logits) < 1e-12);
                for (name, expected) in &weights {
                    let error = golden::max_abs_difference(&found[name], expected);
                    assert!(error < 1e-12, "{objective} {awp} {accumulate} {name}: {error}");
                }
            }
        }
    }
}

/// The equations of the paper, written out with plain tensors.
#[test]
fn weight_perturbation_follows_its_equations() {
    const GAMMA: f64 = 0.02;
    for objective in ADVERSARIAL {
        let recipe = recipe(&[&format!("objective={objective}"), &format!("awp={{gamma={GAMMA}}}")]);
        let (updated, found) = after(&recipe, small());

        let model = small();
        let adversarial = recipe.objective.attack(&step(&model)).unwrap();
        let gradients = |mode| {
            let outcome = recipe.objective.loss(&Step { mode, ..step(&model) }, &adversarial).unwrap();
            (outcome.loss.detach(), outcome.loss.backward().unwrap())
        };
        let norm = |x: &Tensor| golden::values(x).iter().map(|v| v * v).sum::<f64>().sqrt();
        let (loss, ascent) = gradients(Mode::BatchStatistics);
        let before = copies(&model);
        for (name, w) in model.trainable() {
            if w.rank() > 1 {
                let g = ascent.get(&w).unwrap();
                let v = (g * (GAMMA * norm(&before[&name]) / norm(g))).unwrap();
                assert!((norm(&v) - GAMMA * norm(&before[&name])).abs() < 1e-9);
                w.set(&(&before[&name] + v).unwrap()).unwrap();
            }
        }
        let perturbed = copies(&model);
        let (perturbed_loss, descent) = gradients(Mode::Train);
        assert!(
            golden::values(&perturbed_loss.reshape(1).unwrap()) > golden::values(&loss.reshape(1).unwrap())
        );
        assert!(golden::max_abs_difference(&updated.unperturbed_loss.unwrap(), &loss) < 1e-12);
        assert!(golden::max_abs_difference(&updated.outcome.loss, &perturbed_loss) < 1e-12);
        for parameter in model.parameters() {
            let name = parameter.name();
            let expected = if parameter.role() == Role::Buffer {
                parameter.var().as_detached_tensor()
            } else {
                let slope =
                    (descent.get(parameter.var()).unwrap() + (&perturbed[name] * 0.01).unwrap()).unwrap();
                (&before[name] - (slope * 0.1).unwrap()).unwrap()
            };
            let error = golden::max_abs_difference(&found[name], &expected);
            assert!(error < 1e-12, "{objective} {name}: {error}");
        }
    }
}

#[test]
fn weight_perturbation_waits_for_its_warm_up() {
    let objective = format!("objective={}", ADVERSARIAL[0]);
    let (updated, late) = after(&recipe(&[&objective, "awp={warmup=2}"]), small());
    assert!(updated.unperturbed_loss.is_none());
    let (_, never) = after(&recipe(&[&objective]), small());
    for (name, expected) in &never {
        assert_eq!(golden::max_abs_difference(&late[name], expected), 0.0, "{name}");
    }
}

#[test]
fn attacks_grow_to_full_strength_and_every_start_works() {
    let model = small();
    disturb(&model);
    let radius = |attack: &str, time: f64| {
        let objective = format!("objective={{name=\"adversarial\",attack={attack},epsilon_warmup=2}}");
        let step = Step { time, ..step(&model) };
        let moved = recipe(&[&objective]).objective.attack(&step).unwrap();
        golden::max_abs_difference(&moved, &step.images) * 255.0
    };
    for attack in ["{name=\"fgsm\"}", "{name=\"rfgsm\"}", "{name=\"pgd\",step_size=\"8/255\"}"] {
        for (time, expected) in [(0.5, 2.0), (1.0, 4.0), (2.0, 8.0), (3.0, 8.0)] {
            let found = radius(attack, time);
            assert!((found - expected).abs() < 1e-9, "{attack} at {time}: {found}/255");
        }
    }
    let start = |attack: &str| {
        let objective = format!("objective={{name=\"adversarial\",attack={attack}}}");
        recipe(&[&objective]).objective.attack(&step(&model)).unwrap()
    };
    let (zero, random) = (start("{name=\"fgsm\"}"), start("{name=\"rfgsm\"}"));
    assert!(golden::max_abs_difference(&zero, &random) > 1.0 / 255.0);
}

/// `θ ← θ − η·g_θ` and `δ ← clip(δ + α·sign(g_x))` from one backward pass.
#[test]
fn free_training_moves_weights_and_images_by_the_same_pass() {
    const ALPHA: f64 = 6.0 / 255.0;
    const EPSILON: f64 = 8.0 / 255.0;
    let recipe = recipe(&["objective={name=\"free\",step_size=\"6/255\"}", "optimizer.weight_decay=0.0"]);
    let model = small();
    let mut optimizer = Optimizer::new(recipe.optimizer.clone(), model.trainable()).unwrap();
    let mut step = step(&model);
    // Some pixels leave [0, 1] under the perturbation and are clipped.
    let start = ((noise(&[7, 16, 16, 3], DType::F64, 6) - 0.5).unwrap() * (2.0 * EPSILON)).unwrap();
    step.carried_delta = Some(start.clone());

    let before = copies(&model);
    let delta = Var::from_tensor(&start).unwrap();
    let clipped = (&step.images + delta.as_tensor()).unwrap().clamp(0.0, 1.0).unwrap();
    let outcome =
        recipe.objective.loss(&Step { mode: Mode::BatchStatistics, ..step.clone() }, &clipped).unwrap();
    let gradients = outcome.loss.backward().unwrap();
    let updated = update(&recipe, &step, &mut optimizer, 0.1).unwrap();

    let slopes = golden::values(gradients.get(&delta).unwrap());
    let (start, images) = (golden::values(&start), golden::values(&step.images));
    let found = golden::values(&updated.carried_delta.unwrap());
    let mut cut = 0;
    for i in 0..found.len() {
        let inside = (0.0..=1.0).contains(&(images[i] + start[i]));
        cut += usize::from(!inside);
        let slope = if inside { slopes[i] } else { 0.0 };
        let sign = if slope == 0.0 { 0.0 } else { slope.signum() };
        let expected = (start[i] + ALPHA * sign).clamp(-EPSILON, EPSILON);
        assert!((found[i] - expected).abs() < 1e-12, "pixel {i}: {} for {expected}", found[i]);
    }
    assert!(cut > 10, "only {cut} pixels were clipped");
    for (name, w) in model.trainable() {
        let expected = (&before[&name] - (gradients.get(&w).unwrap() * 0.1).unwrap()).unwrap();
        assert!(golden::max_abs_difference(w.as_tensor(), &expected) < 1e-12, "{name}");
    }
}
