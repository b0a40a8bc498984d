//! Gradients that attacks cannot use, and what is said about them.

use super::*;

impl Linear {
    /// The same network with its logits multiplied, which changes no prediction.
    fn times(self, factor: f64) -> Self {
        Self { weights: (self.weights * factor).unwrap(), bias: (self.bias * factor).unwrap() }
    }
}

/// Finite logits with gradients that are not numbers: the square root of zero has an infinite slope.
struct Cliff(Linear);

impl Classifier for Cliff {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let flat = images.flatten_from(1)?;
        let nothing = flat.sub(&flat)?.sqrt()?.sum_keepdim(1)?;
        Ok(self.0.logits(images)?.broadcast_add(&nothing)?)
    }

    fn num_classes(&self) -> usize {
        self.0.num_classes()
    }
}

/// What the pre-flight check says of attacks on a network, by the name of the attack.
fn masked(model: &dyn Classifier, norm: Option<Norm>, name: &str) -> Vec<Warning> {
    let (images, labels, ids) = random_images(model, 6);
    let attacks = AttackOverrides { norm, ..AttackOverrides::default() }.attacks(&[name]).unwrap();
    check_gradients(model, &images, &labels, &attacks, &AttackContext::evaluation(0, &ids, 4)).unwrap()
}

#[test]
fn masked_gradients_are_flagged_before_an_attack() {
    let saturated = || Linear::random(48, 5, 4).times(1e4);
    let constant = || Linear {
        bias: Tensor::new(&[[3f32, 1.0, 0.0, 0.0, 0.0]], &Device::Cpu).unwrap(),
        ..saturated().times(0.0)
    };
    let needs_gradients = |name: &str| !["square", "fourier-basis", "low-frequency"].contains(&name);
    for name in Attack::names() {
        let climbs_softmax = ["fgsm", "rfgsm", "pgd", "mifgsm", "apgd-ce"].contains(&name);
        let found = masked(&saturated(), None, name);
        assert_eq!(!found.is_empty(), climbs_softmax, "{name}: {found:?}");
        if let [warning] = &found[..] {
            let text = warning.to_string();
            assert!(text.contains("6 of 6 images") && text.contains("use cw-linf, whose loss"), "{text}");
        }
        let found = masked(&constant(), None, name);
        assert_eq!(!found.is_empty(), needs_gradients(name), "{name}: {found:?}");
        let has_square = name.parse::<Attack>().unwrap().part_names().iter().any(|part| part == "square");
        let advice = if has_square { "whose part square needs none" } else { "use square" };
        assert!(found.iter().all(|warning| warning.to_string().contains(advice)), "{name}: {found:?}");
        // Sure of itself (1 − p about 1e-9), but not out of reach of float32.
        for factor in [1.0, 5.0] {
            assert_eq!(masked(&Linear::random(48, 5, 4).times(factor), None, name), [], "{name}");
        }
        let not_a_number = masked(&Cliff(Linear::random(48, 5, 4)), None, name);
        assert_eq!(!not_a_number.is_empty(), needs_gradients(name), "{name}");
    }
    let l2 = masked(&saturated(), Some(Norm::L2), "pgd");
    assert!(l2[0].to_string().contains("use cw-l2"), "{l2:?}");
}

/// Nothing that was just run is recommended, and nothing without the norm.
#[test]
fn advice_knows_what_is_run_already() {
    let attacks = |norm: Norm, names: &[&str]| {
        AttackOverrides { norm: Some(norm), ..AttackOverrides::default() }.attacks(names).unwrap()
    };
    for (names, expected) in [
        (&["pgd"][..], "use square, which needs none, or autoattack"),
        (&["pgd", "square"], "go by square"),
        (&["pgd", "autoattack"], "go by autoattack, whose part square"),
        (&["autoattack-rand"], "use square"),
    ] {
        let text = advice(Norm::L2, &attacks(Norm::L2, names));
        assert!(text.contains(expected) && !text.contains("linf"), "{names:?}: {text}");
    }
    let saturated = |names: &[&str]| {
        let attacks = AttackOverrides::default().attacks(names).unwrap();
        let model = Linear::random(48, 5, 4).times(1e4);
        let (images, labels, ids) = random_images(&model, 6);
        check_gradients(&model, &images, &labels, &attacks, &AttackContext::evaluation(0, &ids, 4)).unwrap()
            [0]
        .to_string()
    };
    assert!(saturated(&["pgd", "cw-linf"]).contains("go by cw-linf"));
    assert!(saturated(&["pgd", "autoattack"]).contains("go by autoattack"));
    let other_norm = attacks(Norm::Linf, &["square"]);
    assert!(advice(Norm::L2, &other_norm).starts_with("use square"));
}

/// The number in the warning is that of the images that survived without having been attacked.
#[test]
fn attacks_count_the_zero_gradients_that_they_met() {
    let model = Linear::random(48, 5, 4).times(1e4);
    let (images, labels, ids) = random_images(&model, 6);
    let context = AttackContext::evaluation(1, &ids, 4);
    for name in ["fgsm", "rfgsm", "pgd", "mifgsm", "apgd-ce"] {
        let attack = name.parse::<Attack>().unwrap();
        let result = attack.run(&model, &images, &labels, &context).unwrap();
        let survived = result.outcomes.iter().filter(|outcome| !outcome.broken).count();
        let advice = advice(Norm::Linf, &[attack]);
        assert_eq!(result.warnings, [Warning::ZeroGradients { images: survived, advice }], "{name}");
        assert!(survived > 0, "{name}");
    }
    for name in ["cw-linf", "deepfool", "fab", "autoattack"] {
        let result = name.parse::<Attack>().unwrap().run(&model, &images, &labels, &context).unwrap();
        assert_eq!(result.warnings, [], "{name}");
    }
}

/// Several parts of AutoAttack may fail on the same image; it is one image, and none if a part saw a gradient.
#[test]
fn autoattack_counts_images_not_parts() {
    let sharp = Linear::random(48, 5, 4).times(1e4);
    let flat = Linear {
        bias: Tensor::new(&[[3f32, 1.0, 0.0, 0.0, 0.0]], &Device::Cpu).unwrap(),
        ..Linear::random(48, 5, 4).times(0.0)
    };
    for (model, parts, all) in [
        (&flat, &["apgd-ce", "apgd-t", "fab-t", "square"][..], true),
        (&sharp, &["apgd-ce"], true),
        (&sharp, &["apgd-ce", "square"], true),
        (&sharp, &["apgd-ce", "apgd-t", "square"], false),
        (&flat, &["square"], false),
    ] {
        let (images, labels, ids) = random_images(model, 6);
        let attack = Attack::AutoAttack(AutoAttack {
            epsilon: Epsilon::of_255(0.01),
            version: AutoAttackVersion::Custom,
            attacks: parts.iter().map(|part| part.to_string()).collect(),
            queries: 5,
            steps: 3,
            ..AutoAttack::default()
        });
        let context = AttackContext::evaluation(1, &ids, 4);
        let result = attack.run(model, &images, &labels, &context).unwrap();
        let survived = result.outcomes.iter().filter(|outcome| !outcome.broken).count();
        assert!(survived > 0, "{parts:?}");
        let counted = result.warnings.iter().find_map(|warning| match warning {
            Warning::ZeroGradients { images, .. } => Some(*images),
            _ => None,
        });
        assert_eq!(counted, all.then_some(survived), "{parts:?}");
    }
}

#[test]
fn warnings_merge_by_kind_and_keep_their_old_names() {
    let masked = |attacks: &str, images| Warning::MaskedGradients {
        attacks: attacks.into(),
        images,
        total: 16,
        advice: "none".into(),
    };
    let merged = Warning::merge(vec![
        masked("fgsm", 3),
        Warning::ZeroGradients { images: 2, advice: String::new() },
        masked("pgd", 5),
        Warning::SoftmaxOutput,
        Warning::ZeroGradients { images: 4, advice: "a".into() },
        Warning::SoftmaxOutput,
    ]);
    assert_eq!(
        merged,
        [
            masked("fgsm, pgd", 5),
            Warning::ZeroGradients { images: 6, advice: "a".into() },
            Warning::SoftmaxOutput
        ]
    );
    let old = r#"{"warning":"randomised","difference":0.5}"#;
    assert_eq!(serde_json::from_str::<Warning>(old).unwrap(), Warning::Randomized { difference: 0.5 });
}
