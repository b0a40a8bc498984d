//! Attacks on small models whose answers can be computed by hand.

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
pub(crate) fn pictures(model: &dyn Classifier, count: usize) -> (Tensor, Tensor, Vec<u64>) {
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
    let (images, labels, ids) = pictures(&model, 6);
    let mut context = AttackContext::evaluation(0, &ids, 4);
    context.early_stop = false;
    let before = wave::verdicts(&model.logits(&images).unwrap(), &labels.to_vec1().unwrap()).unwrap();
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
    let (images, labels, ids) = pictures(&model, 7);
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
    let (images, labels, ids) = pictures(&model, 8);
    let truth = labels.to_vec1::<u32>().unwrap();
    for name in Attack::names() {
        // Large enough that even random search breaks something on sixteen pixels.
        let attack: Attack = name.parse().unwrap();
        let epsilon =
            if attack.norm() == Norm::Linf { Epsilon::of_255(96.0) } else { Epsilon::of_255(200.0) };
        let (attack, _) =
            Overrides { epsilon: Some(epsilon), ..Overrides::default() }.apply(&attack).unwrap();
        let result = attack.run(&model, &images, &labels, &AttackContext::evaluation(2, &ids, 3)).unwrap();
        let sizes = geometry::host_norms(&(&result.images - &images).unwrap(), attack.norm()).unwrap();
        let judged = wave::verdicts(&model.logits(&result.images).unwrap(), &truth).unwrap();
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
    let (images, labels, ids) = pictures(&model, 6);
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
    let (images, labels, ids) = pictures(&model, 5);
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
fn attacks_are_plain_values_in_recipes() {
    let parsed: Attack =
        toml::from_str("name = \"pgd\"\nepsilon = \"8/255\"\nsteps = 20\nstart = \"zero\"").unwrap();
    assert_eq!(parsed, Attack::Pgd(Pgd { steps: 20, start: Start::Zero, ..Pgd::default() }));
    assert_eq!(toml::from_str::<Attack>(&toml::to_string(&parsed).unwrap()).unwrap(), parsed);
    let unknown = toml::from_str::<Attack>("name = \"pgd\"\nstep = 3").unwrap_err();
    assert!(unknown.to_string().contains("step_size"), "{unknown}");
    let misspelt = "pdg".parse::<Attack>().unwrap_err().to_string();
    assert!(misspelt.contains("`pgd`"), "{misspelt}");
}

#[test]
fn protocols_say_what_a_paper_must_state() {
    for (name, line) in [
        ("fgsm", "FGSM, L∞ ε = 8/255, cross-entropy"),
        ("rfgsm", "FGSM-RS, L∞ ε = 8/255, step 10/255, random start, 1 restart, cross-entropy"),
        ("pgd", "PGD-10, L∞ ε = 8/255, step 2/255, random start, 1 restart, cross-entropy"),
        ("mifgsm", "MI-FGSM-10, L∞ ε = 8/255, step 0.8/255, decay 1, cross-entropy"),
        ("cw-linf", "CW-50, L∞ ε = 8/255, step 2/255, random start, 1 restart, margin loss"),
        ("cw-l2", "CW, L2 ε = 0.5, 9 × 200 Adam steps, learning rate 0.01, confidence 0"),
        ("deepfool", "DeepFool, L2 ε = 0.5, at most 50 steps, overshoot 0.02"),
        ("apgd-ce", "APGD-CE, L∞ ε = 8/255, 100 steps, random start, 1 restart"),
        ("apgd-dlr", "APGD-DLR, L∞ ε = 8/255, 100 steps, random start, 1 restart"),
        ("apgd-t", "APGD-T, L∞ ε = 8/255, 100 steps, 9 targets, random start, 1 restart"),
        ("fab", "FAB, L∞ ε = 8/255, 100 steps, 1 restart"),
        ("fab-t", "FAB-T, L∞ ε = 8/255, 100 steps, 9 targets, 1 restart"),
        ("square", "Square, L∞ ε = 8/255, 5000 queries, 1 restart"),
        ("autoattack", "AutoAttack standard, L∞ ε = 8/255, 100 steps, 9 targets, 5000 queries"),
        ("autoattack-plus", "AutoAttack plus, L∞ ε = 8/255, 100 steps, 9 targets, 5000 queries"),
        ("autoattack-rand", "AutoAttack rand, L∞ ε = 8/255, 100 steps"),
        ("fourier-basis", "Fourier basis attack, L∞ ε = 8/255, 1000 queries"),
        ("low-frequency", "SimBA-DCT, L2 ε = 0.5, step 0.1, 1000 queries"),
    ] {
        let attack: Attack = name.parse().unwrap();
        assert_eq!(attack.protocol(), line);
        assert_eq!(attack.protocol_with_defaults(), format!("{line} (all defaults)"));
    }
    let given = Overrides { steps: Some(50), norm: Some(Norm::L2), ..Overrides::default() };
    let (pgd, _) = given.apply(&"pgd".parse().unwrap()).unwrap();
    assert_eq!(
        pgd.protocol_with_defaults(),
        "PGD-50, L2 ε = 0.5, step 0.125, random start, 1 restart, cross-entropy (defaults: step size, start, \
         restarts)"
    );
}

/// Every parameter that changes what an attack does changes its line.
#[test]
fn protocols_leave_no_parameter_out() {
    let mut seen = 0;
    for name in Attack::names() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let Ok((attack, _)) =
                (Overrides { norm: Some(norm), ..Overrides::default() }).apply(&name.parse().unwrap())
            else {
                continue;
            };
            let mut values = serde_json::to_value(&attack).unwrap();
            let mut settings = attack.clone();
            let settings = settings.settings();
            for (field, there) in
                [("step_size", settings.step_size.is_some()), ("band", settings.band.is_some())]
            {
                if there {
                    values[field] = serde_json::Value::Null;
                }
            }
            let fields: Vec<String> = values.as_object().unwrap().keys().cloned().collect();
            for field in fields.iter().filter(|field| *field != "name") {
                for other in others(&values[field]) {
                    let mut changed = values.clone();
                    changed.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                    changed[field] = other.clone();
                    let Ok(changed) = serde_json::from_value::<Attack>(changed) else { continue };
                    if changed.validate().is_ok() && changed != attack {
                        let unused =
                            name == "autoattack-rand" && ["queries", "targets"].contains(&field.as_str());
                        assert_eq!(
                            changed.protocol() == attack.protocol(),
                            unused,
                            "{name}: {field} = {other}"
                        );
                        seen += 1;
                    }
                }
            }
        }
    }
    assert!(seen > 200, "{seen}");
}

/// Values that a parameter might also have.
fn others(value: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::json;
    let mut all: Vec<serde_json::Value> =
        ["zero", "random", "gaussian", "margin", "dlr", "kl-divergence", "plus", "linf"]
            .iter()
            .map(|text| json!(text))
            .collect();
    all.extend([json!("l2"), json!("4:8"), json!("1/255"), json!(true), json!(false)]);
    all.extend(value.as_u64().map(|count| json!(count + 1)));
    all.extend(value.as_f64().map(|number| json!(0.5 * number + 0.01)));
    all
}

#[test]
fn one_default_per_attack() {
    for name in Attack::names() {
        let attack: Attack = name.parse().unwrap();
        assert_eq!(attack.name(), name);
        attack.validate().unwrap();
        for &norm in attack.norms() {
            // From a command line, from a recipe, from a journal: the same radius.
            let given = Overrides { norm: Some(norm), ..Overrides::default() };
            let (typed, unused) = given.apply(&attack).unwrap();
            assert!(unused.is_empty() && typed.norm() == norm, "{name}");
            assert_eq!(typed.epsilon(), norm.default_epsilon(), "{name}");
            if attack.norms().len() > 1 {
                let read: Attack = toml::from_str(&format!("name = \"{name}\"\nnorm = \"{norm}\"")).unwrap();
                assert_eq!(read, typed, "{name}");
            }
            let kept: Attack = serde_json::from_str(&serde_json::to_string(&typed).unwrap()).unwrap();
            assert_eq!(kept, typed, "{name}");
        }
        for norm in [Norm::Linf, Norm::L2, Norm::L1].into_iter().filter(|norm| !attack.norms().contains(norm))
        {
            let refused = Overrides { norm: Some(norm), ..Overrides::default() }.apply(&attack).unwrap_err();
            assert!(refused.to_string().contains(&norm.to_string()), "{refused}");
        }
    }
}

#[test]
fn attacks_of_no_strength_are_refused() {
    let size = |text: &str| Some(text.parse::<Epsilon>().unwrap());
    for (name, given) in [
        ("pgd", Overrides { steps: Some(0), ..Overrides::default() }),
        ("pgd", Overrides { step_size: size("0"), ..Overrides::default() }),
        ("pgd", Overrides { restarts: Some(0), ..Overrides::default() }),
        ("pgd", Overrides { epsilon: size("0/255"), ..Overrides::default() }),
        ("rfgsm", Overrides { step_size: size("0"), ..Overrides::default() }),
        ("apgd-ce", Overrides { restarts: Some(0), ..Overrides::default() }),
        ("apgd-t", Overrides { targets: Some(0), ..Overrides::default() }),
        ("fab", Overrides { steps: Some(0), ..Overrides::default() }),
        ("fab-t", Overrides { targets: Some(0), ..Overrides::default() }),
        ("cw-l2", Overrides { steps: Some(0), ..Overrides::default() }),
        ("deepfool", Overrides { steps: Some(0), ..Overrides::default() }),
        ("mifgsm", Overrides { steps: Some(0), ..Overrides::default() }),
        ("square", Overrides { restarts: Some(0), ..Overrides::default() }),
        ("low-frequency", Overrides { queries: Some(0), ..Overrides::default() }),
        ("fourier-basis", Overrides { queries: Some(0), ..Overrides::default() }),
        ("autoattack", Overrides { steps: Some(0), ..Overrides::default() }),
        ("autoattack", Overrides { targets: Some(0), ..Overrides::default() }),
        ("autoattack", Overrides { queries: Some(0), ..Overrides::default() }),
        ("pgd", Overrides { steps: Some(usize::MAX), ..Overrides::default() }),
    ] {
        let refused = given.apply(&name.parse().unwrap()).unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
    }
    for text in [
        "name = \"cw-l2\"\nsearch_steps = 0",
        "name = \"cw-l2\"\nlearning_rate = -1.0",
        "name = \"apgd-ce\"\naveraged_gradients = 0",
        "name = \"mifgsm\"\ndecay = -1.0",
        "name = \"square\"\ninitial_share = 0.0",
        "name = \"pgd\"\nloss = \"kl-divergence\"\nstart = \"zero\"",
    ] {
        assert!(toml::from_str::<Attack>(text).unwrap().validate().is_err(), "{text}");
    }
    for text in
        ["step_size = -0.1", "step_size = nan", "epsilon = nan", "epsilon = -1", "step_size = \"1/0\""]
    {
        assert!(toml::from_str::<Attack>(&format!("name = \"pgd\"\n{text}")).is_err(), "{text}");
    }
}

#[test]
fn a_band_without_a_frequency_of_the_images_is_refused() {
    let model = Linear::random(48, 3, 1);
    let (images, labels, ids) = pictures(&model, 2);
    let context = AttackContext::evaluation(0, &ids, 8);
    for name in ["fgsm", "rfgsm", "pgd", "mifgsm", "cw-linf", "fourier-basis", "low-frequency"] {
        for band in ["60:90", "99999999999,0", "-9223372036854775808,0", "0,3"] {
            let given = Overrides { band: Some(band.parse().unwrap()), ..Overrides::default() };
            let (attack, _) = given.apply(&name.parse().unwrap()).unwrap();
            let refused = attack.run(&model, &images, &labels, &context).unwrap_err().to_string();
            assert!(refused.contains("4×4"), "{name} {band}: {refused}");
        }
    }
}

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
    let (images, labels, ids) = pictures(model, 6);
    let attacks = Overrides { norm, ..Overrides::default() }.attacks(&[name]).unwrap();
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
        Overrides { norm: Some(norm), ..Overrides::default() }.attacks(names).unwrap()
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
        let attacks = Overrides::default().attacks(names).unwrap();
        let model = Linear::random(48, 5, 4).times(1e4);
        let (images, labels, ids) = pictures(&model, 6);
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
    let (images, labels, ids) = pictures(&model, 6);
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
        let (images, labels, ids) = pictures(model, 6);
        let attack = Attack::AutoAttack(AutoAttack {
            epsilon: Epsilon::of_255(0.01),
            version: Version::Custom,
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
fn attacks_are_the_same_however_they_are_written() {
    let with = |epsilon: &str, step: Option<&str>| {
        let step_size = step.map(|step| step.parse().unwrap());
        let given = Overrides { epsilon: Some(epsilon.parse().unwrap()), step_size, ..Overrides::default() };
        given.attacks(&["pgd"]).unwrap().remove(0)
    };
    let plain = with("8/255", None);
    for same in [with("8/255", Some("2/255")), with("0.03137254901960784", Some("0.00784313725490196"))] {
        assert!(plain.is_same(&same) && same.is_same(&plain), "{same}");
    }
    for other in [with("8/255", Some("1/255")), with("0.0314", None), "mifgsm".parse().unwrap()] {
        assert!(!plain.is_same(&other), "{other}");
    }
    let (kept, left_out) =
        Attack::distinct(vec![plain.clone(), with("4/255", None), with("8/255", Some("2/255"))]);
    assert_eq!((kept, left_out.len()), (vec![plain, with("4/255", None)], 1));
    let targets = |classes| {
        let given = Overrides { targets: Some(50), ..Overrides::default() };
        given.attacks(&["apgd-t"]).unwrap().remove(0).for_classes(classes).protocol()
    };
    assert!(targets(10).contains("9 targets"), "{}", targets(10));
    assert!(targets(2).contains("1 target,") || targets(2).ends_with("1 target"), "{}", targets(2));
    let square: Attack = "square".parse().unwrap();
    assert_eq!(square.clone().for_classes(3), square);
}

#[test]
fn strengths_that_rounding_swallows_are_refused() {
    let refusal = |epsilon: Option<&str>, step_size: Option<&str>| {
        let [epsilon, step_size] = [epsilon, step_size].map(|size| size.map(|size| size.parse().unwrap()));
        let refused = Overrides { epsilon, step_size, ..Overrides::default() }.attacks(&["pgd"]);
        refused.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (epsilon, step_size, expected) in [
        (Some("1e-40"), None, "ε = 0.000"),
        (Some("1e-8"), None, "is lost in the rounding"),
        (None, Some("1e-30"), "a step of"),
        // Its own step is a quarter of ε.
        (Some("1e-7"), None, "a step of 0.000000025 is lost"),
        (Some("0"), None, "ε = 0"),
    ] {
        let message = refusal(epsilon, step_size);
        assert!(message.contains(expected), "{epsilon:?}, {step_size:?}: {message}");
    }
    assert_eq!(refusal(Some("1e-6"), Some("1e-7")), "");
    // An ε that grows from nothing begins with one that changes pixels.
    let attack: Attack = "pgd".parse().unwrap();
    attack.warmed_up(1e-12).validate().unwrap();
    assert_eq!(attack.warmed_up(0.5), attack.scaled(0.5));
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

#[test]
fn the_documentation_lists_every_attack() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/attacks.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let table = Attack::documentation();
    assert!(text.contains(&table), "docs/attacks.md should have this table:\n{table}");
}

#[test]
fn senseless_parameters_are_refused() {
    let model = Linear::random(48, 3, 1);
    let (images, labels, ids) = pictures(&model, 2);
    let huge = Attack::Fgsm(Fgsm { epsilon: Epsilon::new(8.0).unwrap(), ..Fgsm::default() });
    let context = AttackContext::evaluation(0, &ids, 8);
    let message = huge.run(&model, &images, &labels, &context).unwrap_err().to_string();
    assert!(message.contains("8/255"), "{message}");
    let missing = AttackContext::evaluation(0, &ids[..1], 8);
    assert!(Attack::Fgsm(Fgsm::default()).run(&model, &images, &labels, &missing).is_err());
}

#[test]
fn a_raised_flag_interrupts() {
    let model = Linear::random(48, 3, 1);
    let (images, labels, ids) = pictures(&model, 2);
    let interrupt = Interrupt::default();
    interrupt.raise();
    let context = AttackContext { interrupt: Some(&interrupt), ..AttackContext::evaluation(0, &ids, 8) };
    let attack = Attack::Pgd(Pgd::default());
    assert!(matches!(attack.run(&model, &images, &labels, &context), Err(crate::Error::Interrupted(_))));
}
