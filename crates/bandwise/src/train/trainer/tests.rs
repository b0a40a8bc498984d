use std::path::Path;
use std::sync::atomic::Ordering;

use candle_core::Device;

use super::*;
use crate::golden;
use crate::network::{ModelSource, NetworkConfig};
use crate::nn::weights;
use crate::train::checkpoint::{self, Point};
use crate::train::initial::start_from;
use crate::train::run_folder::MetricsLine;

/// 4 batches, the last a smaller one, in each of 3 epochs.
const RECIPE: &str = "name = \"test\"\nepochs = 3\nbatch_size = 14\nlearning_rate = 0.05\n[data]\nsource = \
    \"synthetic:count=50,test_count=40\"\naugment = [\"horizontal_flip\"]\n[model]\narchitecture = \"smallcnn\"\n\
    width = 4\n[evaluation]\nattack = { name = \"fgsm\", epsilon = \"2/255\" }\n";
const FGSM: &str = "objective={name=\"adversarial\",attack={name=\"rfgsm\",epsilon=\"4/255\"}}";

fn recipe(changes: &[&str]) -> Recipe {
    Recipe::parse(RECIPE, &changes.iter().map(|change| change.to_string()).collect::<Vec<_>>()).unwrap()
}

/// Raises the interrupt flag after so many batches, or when an epoch has been saved.
struct StopAfter<'a> {
    batches: std::sync::atomic::AtomicUsize,
    at_epoch_end: bool,
    flag: &'a Interrupt,
}

impl Observer for StopAfter<'_> {
    fn step(&self, _: u64, _: usize, _: usize, _: &Sums) {
        if self.batches.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.flag.raise();
        }
    }
    fn epoch(&self, _: &MetricsLine, _: u64, _: f64) {
        if self.at_epoch_end {
            self.flag.raise();
        }
    }
}

fn train(folder: &Path, recipe: &Recipe, observer: &dyn Observer, flag: &Interrupt) -> Result<Network> {
    let resume = folder.join("run.toml").exists();
    let run = if resume { RunFolder::open(folder)?.0 } else { RunFolder::create(folder, recipe)? };
    let saved = Saved::latest(&run.checkpoints(), observer)?;
    let prepared = Prepared::new(recipe.clone(), saved.is_some(), &Device::Cpu)?;
    Ok(Trainer::new(prepared, run, saved, observer, flag)?.run()?.0)
}

fn train_whole(folder: &Path, recipe: &Recipe) -> Network {
    train(folder, recipe, &Silent, &Interrupt::default()).unwrap()
}

fn metrics(folder: &Path) -> Vec<MetricsLine> {
    RunFolder::open(folder).unwrap().0.metrics().unwrap()
}

/// Every file that must not depend on interruptions.
fn results(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = [
        "model.safetensors",
        "trained.safetensors",
        "average.safetensors",
        "best.safetensors",
        "best_sum.safetensors",
        "metrics.jsonl",
    ];
    let read = |name: &str| Some((name.to_string(), std::fs::read(folder.join(name)).ok()?));
    names.into_iter().filter_map(read).collect()
}

#[test]
fn every_feature_resumes_to_the_same_bytes() {
    let recipes: [&[&str]; 6] = [
        &[
            FGSM,
            "awp={gamma=0.01,warmup=1}",
            "averaging={name=\"ema\",decay=0.9,warmup=true}",
            "accumulate=3",
            "overfitting={images=20,every=1}",
            "early_stopping={patience=2}",
            "model.fpcm={}",
        ],
        &[
            "objective={name=\"free\",replays=3,epsilon=\"4/255\",epsilon_warmup=1.5}",
            "awp={}",
            "averaging={name=\"swa\",from=0.3}",
            "accumulate=2",
            "overfitting={images=16,action=\"restore\",attack={name=\"fgsm\",epsilon=1e-7}}",
        ],
        &[
            "objective={name=\"trades\",attack={name=\"pgd\",steps=2},attack_mode=\"train\"}",
            "averaging={name=\"swa\",from=0.0}",
            "evaluation={weights=\"trained\",every=2,every_after=0.9,select={images=12,every=3,attack={name=\"fgsm\"}}}",
        ],
        &[
            "objective={name=\"mart\",attack={name=\"pgd\",steps=1},attack_mode=\"batch_statistics\"}",
            "overfitting={images=20,action=\"restore\",attack={name=\"pgd\",epsilon=\"64/255\"},threshold=0.9}",
            "averaging={name=\"ema\",decay=0.5}",
            "epochs=5",
            "learning_rate=0.02",
        ],
        &["optimizer={name=\"adahessian\"}", "regularizers={jafr={lambda=0.01}}", FGSM, "accumulate=2"],
        // Dropout and drop-connect decide as they would have, in the passes of an attack and of penalties, too. All
        // batches are full: with two images, batch norm at the last layers makes the penalty's gradient 1e10 long (in
        // float64 as well).
        &[
            "objective={name=\"adversarial\",attack={name=\"fgsm\"},attack_mode=\"train\"}",
            "model.architecture=\"efficientnet-b0\"",
            "data.source=\"synthetic:count=28,test_count=10\"",
            "regularizers={gradient_norm={lambda=0.1}}",
            "learning_rate=0.001",
            "epochs=2",
        ],
    ];
    for (number, changes) in recipes.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = recipe(changes);
        let whole = folder.path().join("whole");
        train_whole(&whole, &recipe);
        let expected = results(&whole);
        assert!(expected.len() >= 3, "{:?}", expected.keys());
        let restored = metrics(&whole).iter().any(|line| line.message.contains("restored"));
        assert_eq!(restored, number == 3, "recipe {number}");
        // Stopped again and again: after a few batches, or right after an epoch.
        for (batches, at_epoch_end) in [(3, false), (usize::MAX, true)] {
            let broken = folder.path().join(format!("broken-{batches}-{at_epoch_end}"));
            let mut parts = 0;
            loop {
                // Now and then the flag is up from the start: also measuring is then cut short, where it comes first.
                let flag = Interrupt::default();
                if parts % 3 == 2 {
                    flag.raise();
                }
                let observer = StopAfter { batches: batches.into(), at_epoch_end, flag: &flag };
                parts += 1;
                match train(&broken, &recipe, &observer, &flag) {
                    Ok(_) => break,
                    Err(Error::Interrupted(_)) => assert!(parts < 60),
                    Err(error) => panic!("{error}"),
                }
            }
            assert!(parts > 1, "recipe {number} was stopped {parts} times only");
            let found = results(&broken);
            assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
            for (name, bytes) in &expected {
                assert!(found[name] == *bytes, "recipe {number}, {name} after stops every {batches} batches");
            }
        }
    }
}

#[test]
fn the_average_is_evaluated_and_saved_where_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let state = |run: &str, file: &str| weights::read(&folder.path().join(run).join(file)).unwrap().tensors;
    let run = |name: &str, changes: &[&str]| {
        train_whole(&folder.path().join(name), &recipe(changes));
    };
    run("plain", &[]);
    run("ema", &["averaging={name=\"ema\",decay=0.8}"]);
    run("trained", &["averaging={name=\"ema\",decay=0.8}", "evaluation.weights=\"trained\""]);
    run("swa", &["averaging={name=\"swa\",from=0.0}"]);
    let same = |a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>| {
        a.iter().all(|(name, tensor)| golden::max_abs_difference(tensor, &b[name]) == 0.0)
    };
    // Averaging never changes what is trained, and each file is what its name says.
    let plain = state("plain", "model.safetensors");
    assert!(same(&plain, &state("ema", "trained.safetensors")));
    assert!(same(&plain, &state("trained", "model.safetensors")));
    let ema = state("ema", "model.safetensors");
    assert!(same(&ema, &state("trained", "average.safetensors")) && !same(&ema, &plain));
    let accuracies = |run: &str| {
        let lines = metrics(&folder.path().join(run)).into_iter();
        lines.map(|line| (line.values["test/accuracy"], line.values["train/loss"])).collect::<Vec<_>>()
    };
    assert_eq!(accuracies("plain"), accuracies("trained"));
    assert_ne!(accuracies("plain"), accuracies("ema"));
    // SWA: weights are means over epochs, statistics those of one pass with them.
    let swa = state("swa", "model.safetensors");
    assert!(!same(&swa, &plain));
    let key = swa.keys().find(|name| name.ends_with("running_mean")).unwrap();
    assert!(golden::max_abs_difference(&swa[key], &plain[key]) > 0.0);
}

/// A checkpoint is a file that Bandwise wrote: its network is as trained, also of versions that stored a recipe only.
#[test]
fn a_checkpoint_is_loaded_as_trained() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    let changes = [
        "epochs=1",
        "averaging={name=\"ema\",decay=0.8}",
        "model.normalization={mean=[0.5,0.4,0.3],std=[0.2,0.2,0.2]}",
    ];
    let network = train_whole(&folder, &recipe(&changes));
    let new = Checkpoints::new(folder.join("checkpoints")).path(Point::after(1));
    let mut snapshot = checkpoint::read(&new).unwrap();
    snapshot.network.clear();
    let old = Checkpoints::new(guard.path().join("old")).save(&snapshot).unwrap();
    for path in [&new, &old] {
        let loaded = ModelSource::new(path).load(&Device::Cpu).unwrap();
        assert_eq!(loaded.network.config, network.config);
        assert!(loaded.describe().contains("std 0.2, 0.2, 0.2 (from the file)"), "{}", loaded.describe());
        assert!(
            loaded.warnings.len() == 1 && loaded.warnings[0].contains("FILE#average"),
            "{:?}",
            loaded.warnings
        );
        assert!(loaded.report.is_exact());
        let average = ModelSource::new(format!("{}#average", path.display())).load(&Device::Cpu).unwrap();
        assert!(average.warnings.is_empty() && average.report.is_exact(), "{:?}", average.warnings);
        for ((name, a), (_, b)) in average.network.model.state().iter().zip(network.model.state()) {
            assert_eq!(golden::max_abs_difference(a, &b), 0.0, "{name}");
        }
        let wanted = NetworkConfig::new("smallcnn").resolved(10, 3);
        let started = start_from(&wanted, path, 0, &Device::Cpu).unwrap();
        assert_eq!(started.network.config.normalization, network.config.normalization);
        assert!(started.notes.iter().any(|note| note.contains("#average would take")), "{:?}", started.notes);
    }
    let classes = ModelSource::new(&new).load(&Device::Cpu).unwrap().network.class_names;
    assert_eq!(classes, network.class_names);

    // An average whose statistics are computed anew for every use says that these are not.
    let swa = guard.path().join("swa");
    train_whole(&swa, &recipe(&["epochs=1", "averaging={name=\"swa\",from=0.0}"]));
    let path = Checkpoints::new(swa.join("checkpoints")).path(Point::after(1));
    let average = ModelSource::new(format!("{}#average", path.display())).load(&Device::Cpu).unwrap();
    assert!(average.warnings[0].contains("statistics of this average"), "{:?}", average.warnings);
}

#[test]
fn overfitting_warns_stops_and_restores() {
    let folder = tempfile::tempdir().unwrap();
    // A "strong attack" that nothing survives raises the alarm as soon as the training attack's accuracy rises.
    let run = |action: &str| {
        let watch = format!(
            "overfitting={{images=40,threshold=0.9,action=\"{action}\",attack={{name=\"pgd\",epsilon=\"128/255\"}}}}"
        );
        let path = folder.path().join(action);
        let changes =
            ["epochs=8", "objective={name=\"adversarial\",attack={name=\"fgsm\",epsilon=\"1/255\"}}"];
        train_whole(&path, &recipe(&[&changes[..], &[watch.as_str(), "checkpoint.every=5"]].concat()));
        metrics(&path)
    };
    let of = |lines: &[MetricsLine], kind: &str| -> Vec<u64> {
        lines.iter().filter(|line| line.kind == kind).map(|line| line.epoch).collect()
    };
    let warned = run("warn");
    let alarms = of(&warned, "warning");
    assert_eq!(of(&warned, "epoch").len(), 8);
    let first = *alarms.first().expect("an alarm");
    assert!(first > 1, "the first epoch must pass for this test");
    assert!(warned.iter().any(|line| line.message.contains("catastrophic overfitting")));

    let stopped = run("stop");
    assert_eq!(of(&stopped, "epoch").last(), Some(&first));
    assert!(stopped.last().unwrap().message.contains("stopped"));

    let restored = run("restore");
    assert_eq!(of(&restored, "epoch").last(), Some(&first));
    let note = &restored.last().unwrap().message;
    assert!(note.contains(&format!("state of epoch {} restored", first - 1)), "{note}");
    // What was restored is what training for so many epochs gives.
    let short = folder.path().join("short");
    let epochs = format!("epochs={}", first - 1);
    train_whole(
        &short,
        &recipe(&[&epochs, "objective={name=\"adversarial\",attack={name=\"fgsm\",epsilon=\"1/255\"}}"]),
    );
    let model = |path: &Path| std::fs::read(path.join("model.safetensors")).unwrap();
    assert!(model(&short) == model(&folder.path().join("restore")));
}

#[test]
fn training_that_does_not_get_better_ends() {
    let folder = tempfile::tempdir().unwrap();
    let changes = ["epochs=20", "learning_rate=1e-12", "early_stopping={patience=3}", "checkpoint.every=50"];
    train_whole(folder.path(), &recipe(&changes));
    let lines = metrics(folder.path());
    // Running statistics still move, so the best may come after the first epoch.
    let epochs = lines.iter().filter(|line| line.kind == "epoch").count();
    assert!((4..20).contains(&epochs), "{epochs} epochs");
    let note = lines.last().unwrap();
    assert!(note.kind == "note" && note.message.contains("early stopping"), "{note:?}");
    assert!(note.message.contains("for 3 epochs"), "{note:?}");
    // A finished run stays finished.
    train_whole(folder.path(), &recipe(&changes));
    assert_eq!(metrics(folder.path()), lines);
}

#[test]
fn omega_of_every_stage_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    train_whole(folder.path(), &recipe(&["model.fpcm={stages=[1,3]}", "learning_rate=0.5"]));
    let lines = metrics(folder.path());
    let omega = |stage: usize| -> Vec<f64> {
        lines.iter().filter_map(|line| line.values.get(&format!("omega/stage{stage}")).copied()).collect()
    };
    for stage in [1, 3] {
        let values = omega(stage);
        assert_eq!(values.len(), 3);
        assert!(values.iter().all(|omega| (0.5..1.0).contains(omega)), "{values:?}");
        assert!(values[0] != values[2], "{values:?}");
    }
    assert!(omega(2).is_empty());
    assert!(lines.iter().all(|line| line.values["omega_spread/stage1"] > 0.0));
    // All evaluated images count, one batch after another, and an epoch without evaluation has none.
    let of = |name: &str, changes: &[&str]| {
        let run = folder.path().join(name);
        train_whole(&run, &recipe(&[&["model.fpcm={stages=[1]}", "evaluation.every=2"], changes].concat()));
        metrics(&run).iter().map(|line| line.values.get("omega/stage1").copied()).collect::<Vec<_>>()
    };
    let (whole, parts) = (of("whole", &[]), of("parts", &["evaluation.batch_size=7"]));
    assert!(whole[0].is_none() && whole[1].is_some() && whole[2].is_some(), "{whole:?}");
    for (whole, part) in whole.iter().flatten().zip(parts.iter().flatten()) {
        assert!((whole - part).abs() < 1e-7, "{whole} {part}");
    }
    assert_ne!(whole[1], of("few", &["evaluation.limit=9"])[1]);
}

/// Fine-tuning begins where the checkpoint ended, and resumes like any other run.
#[test]
fn training_from_weights_begins_with_their_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("first");
    train_whole(&first, &recipe(&["epochs=8"]));
    let weights = first.join("model.safetensors");
    let from = format!("model.weights={:?}", weights.to_str().unwrap());
    for (name, change) in [
        ("plain", "seed=3"),
        ("weight", "model.decomposition={kind=\"weight\"}"),
        ("signal", "model.decomposition={kind=\"signal\"}"),
        ("jafr", "regularizers.jafr={lambda=0.1}"),
    ] {
        let run = folder.path().join(name);
        let recipe = recipe(&[&from, change, "epochs=1"]);
        train_whole(&run, &recipe);
        let lines = metrics(&run);
        let last = metrics(&first).pop().unwrap();
        assert_eq!(lines.iter().map(|line| line.epoch).collect::<Vec<_>>(), [0, 1], "{name}");
        for value in ["test/accuracy", "test/robust_accuracy"] {
            assert_eq!(lines[0].values[value], last.values[value], "{name} {value}");
        }
    }
    assert!(metrics(&first)[7].values["test/accuracy"] > 0.0);
    // The file is needed once only.
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let recipe = recipe(&[&from, "epochs=2"]);
    train_whole(&whole, &recipe);
    let flag = Interrupt::default();
    let observer = StopAfter { batches: 3.into(), at_epoch_end: false, flag: &flag };
    assert!(matches!(train(&broken, &recipe, &observer, &flag), Err(Error::Interrupted(_))));
    std::fs::remove_file(&weights).unwrap();
    train_whole(&broken, &recipe);
    let expected = results(&whole);
    assert!(expected.iter().all(|(name, bytes)| results(&broken)[name] == *bytes));
}

/// The best weights by training images: at the start, and every so many steps, whatever the test images say.
#[test]
fn training_images_choose_the_best_weights() {
    let folder = tempfile::tempdir().unwrap();
    let select = |every: u64| {
        format!("evaluation.select={{images=30,every={every},attack={{name=\"fgsm\",epsilon=1e-5}}}}")
    };
    let run = |name: &str, changes: &[&str]| {
        let path = folder.path().join(name);
        train_whole(&path, &recipe(&[&["evaluation.limit=5"], changes].concat()));
        (std::fs::read(path.join("best.safetensors")).unwrap(), metrics(&path))
    };
    // Only the start is judged.
    let (best, lines) = run("start", &[&select(1000)]);
    let start = Network::load(&folder.path().join("start/best.safetensors"), &Device::Cpu).unwrap();
    let recipe = recipe(&[]);
    let config = recipe.model.clone().resolved(10, 3);
    let fresh = Network::new(config, recipe.seed, &Device::Cpu).unwrap();
    for ((name, ours), (_, theirs)) in start.model.state().iter().zip(&fresh.model.state()) {
        assert_eq!(golden::values(ours), golden::values(theirs), "{name}");
    }
    // At the start of the first epoch, and never again.
    let judged = |lines: &[MetricsLine]| -> Vec<bool> {
        lines.iter().map(|line| line.values.contains_key("train/robust_accuracy")).collect()
    };
    assert_eq!(judged(&lines), [true, false, false]);
    // 20 steps in 5 epochs, judged after 0, 5, 10, 15 and 20 of them; it learns enough for a later one to be better.
    let (other, lines) = run("steps", &[&select(5), "epochs=5"]);
    assert_eq!(judged(&lines), [true; 5]);
    assert_ne!(best, other);
    assert_eq!(other, run("other-test-images", &[&select(5), "epochs=5", "evaluation.limit=20"]).0);
}

/// Loss = cross-entropy + β · divergence + Σ λ · penalty, each written down by itself.
#[test]
fn the_parts_of_the_loss_are_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let values = |name: &str, changes: &[&str]| {
        let run = folder.path().join(name);
        train_whole(&run, &recipe(&[&["epochs=1", "accumulate=2"], changes].concat()));
        metrics(&run)[0].values.clone()
    };
    let found = values(
        "standard",
        &["regularizers={filter_frequency={lambda=0.5},jafr={lambda=0.1},grad_align={lambda=0.2}}"],
    );
    let sum = found["train/cross_entropy"]
        + 0.5 * found["train/penalty/filter_frequency"]
        + 0.1 * found["train/penalty/jafr"]
        + 0.2 * found["train/penalty/grad_align"];
    assert!((sum - found["train/loss"]).abs() < 1e-5 * sum.abs(), "{found:?}");
    assert!(found["train/penalty/filter_frequency"] > 0.0);
    let found = values("trades", &["objective={name=\"trades\",attack={name=\"pgd\",steps=1},beta=3.0}"]);
    let sum = found["train/cross_entropy"] + 3.0 * found["train/divergence"];
    assert!((sum - found["train/loss"]).abs() < 1e-5 * sum, "{found:?}");
    // Also where it costs nothing: what a penalty would be.
    let found = values("zero", &["regularizers={filter_frequency={lambda=0.0}}"]);
    assert!(
        found["train/penalty/filter_frequency"] > 0.0 && found["train/cross_entropy"] == found["train/loss"]
    );
    assert!((0.0..1.0).contains(&found["high_frequency_filter_share"]));
    // Or without any penalty, if it is asked for.
    let track = "regularizers={track=[\"low_frequency_bias\",\"gradient_norm\",\"group_sparsity\",\"filter_frequency\"]}";
    let tracked = values("tracked", &[track]);
    assert_eq!(tracked["train/loss"], found["train/loss"]);
    assert_eq!(tracked["train/penalty/filter_frequency"], found["train/penalty/filter_frequency"]);
    assert_eq!(tracked["high_frequency_filter_share"], found["high_frequency_filter_share"]);
    for name in ["low_frequency_bias", "norm", "group_sparsity"] {
        assert!(tracked[&format!("train/input_gradient/{name}")].is_finite(), "{tracked:?}");
    }
    let page = crate::report::report_for_runs(&[folder.path().join("tracked")]).unwrap().to_html();
    assert!(page.contains("Input gradient: low-frequency bias") && page.contains("share of energy at high"));
}
