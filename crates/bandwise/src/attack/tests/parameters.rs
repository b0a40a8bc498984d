//! Names, parameters and protocol lines of attacks.

use super::*;

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
    let given = AttackOverrides { steps: Some(50), norm: Some(Norm::L2), ..AttackOverrides::default() };
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
            let Ok((attack, _)) = (AttackOverrides { norm: Some(norm), ..AttackOverrides::default() })
                .apply(&name.parse().unwrap())
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
            let given = AttackOverrides { norm: Some(norm), ..AttackOverrides::default() };
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
            let refused = AttackOverrides { norm: Some(norm), ..AttackOverrides::default() }
                .apply(&attack)
                .unwrap_err();
            assert!(refused.to_string().contains(&norm.to_string()), "{refused}");
        }
    }
}

#[test]
fn attacks_of_no_strength_are_refused() {
    let size = |text: &str| Some(text.parse::<Epsilon>().unwrap());
    for (name, given) in [
        ("pgd", AttackOverrides { steps: Some(0), ..AttackOverrides::default() }),
        ("pgd", AttackOverrides { step_size: size("0"), ..AttackOverrides::default() }),
        ("pgd", AttackOverrides { restarts: Some(0), ..AttackOverrides::default() }),
        ("pgd", AttackOverrides { epsilon: size("0/255"), ..AttackOverrides::default() }),
        ("rfgsm", AttackOverrides { step_size: size("0"), ..AttackOverrides::default() }),
        ("apgd-ce", AttackOverrides { restarts: Some(0), ..AttackOverrides::default() }),
        ("apgd-t", AttackOverrides { targets: Some(0), ..AttackOverrides::default() }),
        ("fab", AttackOverrides { steps: Some(0), ..AttackOverrides::default() }),
        ("fab-t", AttackOverrides { targets: Some(0), ..AttackOverrides::default() }),
        ("cw-l2", AttackOverrides { steps: Some(0), ..AttackOverrides::default() }),
        ("deepfool", AttackOverrides { steps: Some(0), ..AttackOverrides::default() }),
        ("mifgsm", AttackOverrides { steps: Some(0), ..AttackOverrides::default() }),
        ("square", AttackOverrides { restarts: Some(0), ..AttackOverrides::default() }),
        ("low-frequency", AttackOverrides { queries: Some(0), ..AttackOverrides::default() }),
        ("fourier-basis", AttackOverrides { queries: Some(0), ..AttackOverrides::default() }),
        ("autoattack", AttackOverrides { steps: Some(0), ..AttackOverrides::default() }),
        ("autoattack", AttackOverrides { targets: Some(0), ..AttackOverrides::default() }),
        ("autoattack", AttackOverrides { queries: Some(0), ..AttackOverrides::default() }),
        ("pgd", AttackOverrides { steps: Some(usize::MAX), ..AttackOverrides::default() }),
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
    let (images, labels, ids) = random_images(&model, 2);
    let context = AttackContext::evaluation(0, &ids, 8);
    for name in ["fgsm", "rfgsm", "pgd", "mifgsm", "cw-linf", "fourier-basis", "low-frequency"] {
        for band in ["60:90", "99999999999,0", "-9223372036854775808,0", "0,3"] {
            let given = AttackOverrides { band: Some(band.parse().unwrap()), ..AttackOverrides::default() };
            let (attack, _) = given.apply(&name.parse().unwrap()).unwrap();
            let refused = attack.run(&model, &images, &labels, &context).unwrap_err().to_string();
            assert!(refused.contains("4×4"), "{name} {band}: {refused}");
        }
    }
}

#[test]
fn attacks_are_the_same_however_they_are_written() {
    let with = |epsilon: &str, step: Option<&str>| {
        let step_size = step.map(|step| step.parse().unwrap());
        let given = AttackOverrides {
            epsilon: Some(epsilon.parse().unwrap()),
            step_size,
            ..AttackOverrides::default()
        };
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
        let given = AttackOverrides { targets: Some(50), ..AttackOverrides::default() };
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
        let refused = AttackOverrides { epsilon, step_size, ..AttackOverrides::default() }.attacks(&["pgd"]);
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
fn the_documentation_lists_every_attack() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/attacks.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let table = Attack::documentation();
    assert!(text.contains(&table), "docs/attacks.md should have this table:\n{table}");
}

#[test]
fn senseless_parameters_are_refused() {
    let model = Linear::random(48, 3, 1);
    let (images, labels, ids) = random_images(&model, 2);
    let huge = Attack::Fgsm(Fgsm { epsilon: Epsilon::new(8.0).unwrap(), ..Fgsm::default() });
    let context = AttackContext::evaluation(0, &ids, 8);
    let message = huge.run(&model, &images, &labels, &context).unwrap_err().to_string();
    assert!(message.contains("8/255"), "{message}");
    let missing = AttackContext::evaluation(0, &ids[..1], 8);
    assert!(Attack::Fgsm(Fgsm::default()).run(&model, &images, &labels, &missing).is_err());
}
