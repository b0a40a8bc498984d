use super::*;

const MINIMAL: &str =
    "name = \"test\"\nepochs = 2\nlearning_rate = 0.1\n[model]\narchitecture = \"smallcnn\"\n";

#[test]
fn a_minimal_recipe_survives_writing_and_reading() {
    let recipe = Recipe::parse(MINIMAL, &[]).unwrap();
    assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
}

/// Every file in `recipes/`, as it is and after a round trip.
#[test]
fn all_recipes_of_the_repository_are_valid() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let recipe = Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(Recipe::parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
                let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap();
                assert!(recipe.name.ends_with(stem), "{} is called {}", path.display(), recipe.name);
                count += 1;
            }
        }
    }
    assert!(count > 2, "{count} recipes");
}

#[test]
fn overrides_reach_nested_keys() {
    let changes =
        ["epochs=5", "data.source=synthetic:shape=0.5", "objective={name=\"standard\",label_smoothing=0.1}"];
    let recipe = Recipe::parse(MINIMAL, &changes.map(str::to_string)).unwrap();
    assert_eq!(recipe.epochs, 5);
    assert!(recipe.data.source.to_string().contains("shape=0.5"));
    assert!(matches!(recipe.objective, Objective::Standard(s) if s.label_smoothing == 0.1));
}

#[test]
fn unknown_keys_name_the_nearest() {
    let text = MINIMAL.replace("epochs", "epocs");
    let message = Recipe::parse(&text, &[]).unwrap_err().to_string();
    assert!(message.contains("did you mean `epochs`"), "{message}");
    let message = Recipe::parse(MINIMAL, &["optimizer.momentun=0.5".into()]).unwrap_err().to_string();
    assert!(message.contains("did you mean `momentum`"), "{message}");
}

#[test]
fn overrides_reach_into_default_sections() {
    let recipe = Recipe::parse(MINIMAL, &["optimizer.momentum=0.8".into()]).unwrap();
    assert!(matches!(recipe.optimizer, OptimizerConfig::Sgd { momentum: 0.8, weight_decay: 5e-4, .. }));
    let recipe = Recipe::parse(MINIMAL, &["optimizer.name=\"adam\"".into()]).unwrap();
    assert!(matches!(recipe.optimizer, OptimizerConfig::Adam { .. }));
}

#[test]
fn impossible_values_are_refused() {
    for change in ["epochs=0", "batch_size=0", "learning_rate=-1", "learning_rate=nan", "name=\"a/b\""] {
        assert!(Recipe::parse(MINIMAL, &[change.into()]).is_err(), "{change}");
    }
}

#[test]
fn settings_that_do_not_fit_together_are_refused() {
    let adversarial = "objective={name=\"adversarial\",attack={name=\"fgsm\"}}";
    for (changes, expected) in [
        (&["awp.gamma=0.01"][..], "[awp] needs an adversarial objective"),
        (&["overfitting={}"], "[overfitting] needs an adversarial objective"),
        (&[adversarial, "awp.gamma=0"], "awp.gamma"),
        (&[adversarial, "awp.gama=1"], "did you mean `gamma`"),
        (&[adversarial, "overfitting.threshold=2"], "overfitting.threshold"),
        (&[adversarial, "overfitting.action=\"halt\""], "restore"),
        (
            &["objective={name=\"adversarial\",attack={name=\"apgd-ce\",norm=\"l1\"}}", "overfitting={}"],
            "overfitting.attack must be given",
        ),
        (&[adversarial, "objective.epsilon_warmup=3"], "more than the 2 that are trained"),
        (&[adversarial, "objective.epsilon_warmup=-1"], "objective.epsilon_warmup"),
        (&["objective={name=\"free\",replays=0}"], "objective.replays"),
        (&["objective={name=\"free\",epsilon=8}"], "pixel range"),
        (&["objective={name=\"standard\",label_smoothing=1}"], "label_smoothing"),
        (&["accumulate=0"], "accumulate must lie between 1 and batch_size"),
        (&["batch_size=4", "accumulate=5"], "batch_size (4)"),
        (&["averaging={name=\"ema\",decay=1.0}"], "averaging.decay"),
        (&["averaging={name=\"emma\"}"], "did you mean `ema`"),
        (&["early_stopping.patience=0"], "early_stopping.patience"),
        (&["early_stopping.patience=3", "evaluation.every=0"], "evaluation.every"),
        (&["evaluation.every_after=70"], "evaluation.every_after"),
        (&["evaluation.limit=0"], "evaluation.limit must be at least 1"),
        (&["data.train_limit=0"], "data.train_limit must be at least 1"),
        (&["epochs=1000000000000000000"], "epochs must be at most 1000000"),
        (&["objective={name=\"free\",replays=1000000000000}"], "objective.replays"),
        (&["evaluation.weights=\"ema\""], "expected `average` or `trained`"),
    ] {
        let changes: Vec<String> = changes.iter().map(|change| change.to_string()).collect();
        let message = Recipe::parse(MINIMAL, &changes).unwrap_err().to_string();
        assert!(message.contains(expected), "{changes:?}: {message}");
    }
}
