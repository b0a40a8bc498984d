//! Attacks on small models whose answers can be computed by hand.

mod parameters;
mod warnings;

use candle_core::{Device, Tensor};

use super::*;

/// `logits = flatten(images) · weights + bias`.
pub(crate) struct Linear {
    pub weights: Tensor,
    pub bias: Tensor,
}

impl Linear {
    /// A random linear classifier for images of `size` values.
    pub fn random(size: usize, classes: usize, seed: u64) -> Self {
        let like = Tensor::zeros((1, size, classes, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let weights = geometry::noise(&like, seed, &[[1, 2, 3]], geometry::Noise::Normal).unwrap();
        Self {
            weights: weights.reshape((size, classes)).unwrap(),
            bias: Tensor::zeros((1, classes), candle_core::DType::F32, &Device::Cpu).unwrap(),
        }
    }
}

impl Classifier for Linear {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        Ok(images.flatten_from(1)?.matmul(&self.weights)?.broadcast_add(&self.bias)?)
    }

    fn num_classes(&self) -> usize {
        self.weights.dim(1).unwrap()
    }
}

/// Gray-centered random images `[count, 4, 4, 3]` and their predicted labels.
pub(crate) fn random_images(model: &dyn Classifier, count: usize) -> (Tensor, Tensor, Vec<u64>) {
    let like = Tensor::zeros((count, 4, 4, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let ids: Vec<u64> = (0..count as u64).collect();
    let tags: Vec<[u64; 3]> = ids.iter().map(|&id| [9, id, 0]).collect();
    let noise = geometry::noise(&like, 5, &tags, geometry::Noise::Uniform).unwrap();
    let images = noise.affine(0.4, 0.5).unwrap();
    let labels = model.logits_no_graph(&images).unwrap().argmax(1).unwrap();
    (images, labels, ids)
}

#[test]
fn fgsm_is_optimal_against_two_linear_classes() {
    // The margin of a linear model changes by exactly ε‖w‖₁ (L∞) or ε‖w‖₂ (L2) inside the box.
    let model = Linear::random(48, 2, 3);
    let (images, labels, ids) = random_images(&model, 6);
    let mut context = AttackContext::evaluation(0, &ids, 4);
    context.early_stop = false;
    let before =
        active_batch::judge_logits(&model.logits(&images).unwrap(), &labels.to_vec1().unwrap()).unwrap();
    let gap = (model.weights.narrow(1, 0, 1).unwrap() - model.weights.narrow(1, 1, 1).unwrap()).unwrap();
    let gap = gap.reshape((1, 4, 4, 3)).unwrap();
    for (norm, dual) in [(Norm::Linf, Norm::L1), (Norm::L2, Norm::L2)] {
        let attack = Attack::Fgsm(Fgsm { norm, epsilon: Epsilon::new(0.01).unwrap(), ..Fgsm::default() });
        let result = attack.run(&model, &images, &labels, &context).unwrap();
        let drop = 0.01 * geometry::host_norms(&gap, dual).unwrap()[0];
        for (before, outcome) in before.iter().zip(&result.outcomes) {
            assert!((before.margin - drop - outcome.margin).abs() < 1e-4, "{norm}");
            assert_eq!(outcome.broken, outcome.margin < 0.0);
            assert_eq!((outcome.queries, outcome.gradients), (2, 1));
        }
    }
}

#[test]
fn results_do_not_depend_on_batch_size_order_or_company() {
    let model = Linear::random(48, 5, 4);
    let (images, labels, ids) = random_images(&model, 7);
    let reversed = Tensor::from_vec((0..7u32).rev().collect(), 7, &Device::Cpu).unwrap();
    for name in Attack::names() {
        let attack: Attack = name.parse().unwrap();
        let run = |images: &Tensor, labels: &Tensor, ids: &[u64], batch_size| {
            attack.run(&model, images, labels, &AttackContext::evaluation(1, ids, batch_size)).unwrap()
        };
        let together = run(&images, &labels, &ids, 7);
        let backwards_ids: Vec<u64> = ids.iter().rev().copied().collect();
        let backwards = run(
            &images.index_select(&reversed, 0).unwrap(),
            &labels.index_select(&reversed, 0).unwrap(),
            &backwards_ids,
            2,
        );
        let alone = run(&images.narrow(0, 3, 1).unwrap(), &labels.narrow(0, 3, 1).unwrap(), &ids[3..4], 1);
        let picture = |result: &AttackResult, row: usize| {
            result.images.get(row).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for row in 0..7 {
            assert_eq!(picture(&together, row), picture(&backwards, 6 - row), "{name}, image {row}");
            assert_eq!(together.outcomes[row].broken, backwards.outcomes[6 - row].broken);
        }
        assert_eq!(picture(&together, 3), picture(&alone, 0), "{name}");
    }
}

#[test]
fn perturbations_stay_in_the_ball_and_broken_images_are_misclassified() {
    let model = Linear::random(48, 5, 4);
    let (images, labels, ids) = random_images(&model, 8);
    let truth = labels.to_vec1::<u32>().unwrap();
    for name in Attack::names() {
        // Large enough that even random search breaks something on sixteen pixels.
        let attack: Attack = name.parse().unwrap();
        let epsilon =
            if attack.norm() == Norm::Linf { Epsilon::of_255(96.0) } else { Epsilon::of_255(200.0) };
        let (attack, _) =
            AttackOverrides { epsilon: Some(epsilon), ..AttackOverrides::default() }.apply(&attack).unwrap();
        let result = attack.run(&model, &images, &labels, &AttackContext::evaluation(2, &ids, 3)).unwrap();
        let sizes = geometry::host_norms(&(&result.images - &images).unwrap(), attack.norm()).unwrap();
        let judged = active_batch::judge_logits(&model.logits(&result.images).unwrap(), &truth).unwrap();
        for ((size, verdict), outcome) in sizes.iter().zip(&judged).zip(&result.outcomes) {
            assert!(
                !outcome.broken || *size <= attack.epsilon().value() * (1.0 + 1e-5) + 1e-6,
                "{name}: {size}"
            );
            // Minimum-norm attacks may return a misclassified image outside the ball.
            let inside = outcome.distance.is_none_or(|distance| distance <= attack.epsilon().value());
            assert_eq!(verdict.wrong && inside, outcome.broken, "{name}");
            assert!((verdict.margin - outcome.margin).abs() < 1e-4, "{name}");
        }
        // A single wave, alone of all attacks, need not break any image of a random linear model.
        let may_fail = name == "fourier-basis";
        assert!(may_fail || result.outcomes.iter().any(|o| o.broken), "{name} broke nothing");
    }
}

#[test]
fn restarts_only_visit_survivors() {
    let model = Linear::random(48, 3, 8);
    let (images, labels, ids) = random_images(&model, 6);
    let attack =
        |restarts| Attack::Pgd(Pgd { restarts, steps: 3, epsilon: Epsilon::of_255(2.0), ..Pgd::default() });
    let context = AttackContext::evaluation(1, &ids, 8);
    let once = attack(1).run(&model, &images, &labels, &context).unwrap();
    let thrice = attack(3).run(&model, &images, &labels, &context).unwrap();
    for (once, thrice) in once.outcomes.iter().zip(&thrice.outcomes) {
        if once.broken {
            assert_eq!(once, thrice);
        } else {
            assert!(thrice.gradients > once.gradients);
        }
    }
}

#[test]
fn without_early_stop_restarts_keep_the_strongest_end_point() {
    let model = Linear::random(48, 4, 8);
    let (images, labels, ids) = random_images(&model, 5);
    let attack =
        |restarts| Attack::Pgd(Pgd { restarts, steps: 1, epsilon: Epsilon::of_255(4.0), ..Pgd::default() });
    let mut context = AttackContext::evaluation(1, &ids, 8);
    context.early_stop = false;
    let loss_of = |restarts| {
        let images = attack(restarts).perturb(&model, &images, &labels, &context).unwrap();
        let logits = model.logits(&images).unwrap();
        crate::nn::loss::to_host(&crate::nn::loss::cross_entropy(&logits, &labels).unwrap()).unwrap()
    };
    let (once, often) = (loss_of(1), loss_of(4));
    assert!(once.iter().zip(&often).all(|(once, often)| often >= once), "{once:?} {often:?}");
    assert_ne!(once, often);
}

#[test]
fn a_raised_flag_interrupts() {
    let model = Linear::random(48, 3, 1);
    let (images, labels, ids) = random_images(&model, 2);
    let interrupt = Interrupt::default();
    interrupt.raise();
    let context = AttackContext { interrupt: Some(&interrupt), ..AttackContext::evaluation(0, &ids, 8) };
    let attack = Attack::Pgd(Pgd::default());
    assert!(matches!(attack.run(&model, &images, &labels, &context), Err(crate::Error::Interrupted(_))));
}
