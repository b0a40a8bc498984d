//! The binary as its users meet it: exit codes, messages, files.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

fn bandwise() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
}

/// The standard error output of a command that must fail with exit code 2.
fn refused(arguments: &[&str]) -> String {
    let output = bandwise().args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

const TINY: &str = "name = \"tiny\"\nepochs = 2\nbatch_size = 20\nlearning_rate = 0.05\n[data]\nsource = \
    \"synthetic:count=100,test_count=50\"\n[model]\narchitecture = \"smallcnn\"\nwidth = 4\n[evaluation]\nfinal = \
    [{ name = \"fgsm\", epsilon = \"4/255\" }]\n";

fn recipe(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn only_commands_with_room_for_several_attacks_offer_several_epsilons() {
    for (command, several) in [
        (&["evaluate"][..], true),
        (&["test"], true),
        (&["mask"], false),
        (&["analyze", "perturbations"], false),
    ] {
        for help in ["--help", "-h"] {
            let output = bandwise().args(command).arg(help).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let eps = text.split("--eps").nth(1).unwrap().split("--norm").next().unwrap().to_owned();
            let words = eps.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains("linf 8/255, l2 0.5, l1 12"), "{command:?}: {words}");
            assert_eq!(words.contains("several separated by commas"), several, "{command:?}: {words}");
        }
    }
}

#[test]
fn a_run_trains_evaluates_reports_and_does_not_start_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(folder.path(), TINY), folder.path().join("run"));
    bandwise().args(["train", text(&recipe), "--out", text(&run)]).assert().success();
    for file in
        ["run.toml", "metrics.jsonl", "model.safetensors", "best.safetensors", "results.jsonl", "report.html"]
    {
        assert!(run.join(file).exists(), "{file}");
    }
    let status = std::fs::read_to_string(run.join("status.json")).unwrap();
    assert!(status.contains("complete"), "{status}");
    let message = refused(&["train", text(&recipe), "--out", text(&run)]);
    assert!(message.contains("--resume"), "{message}");

    let json = folder.path().join("out.json");
    let weights = run.join("model.safetensors");
    let arguments = [
        "evaluate",
        "--weights",
        text(&weights),
        "--data",
        "synthetic:test_count=40",
        "--attack",
        "fgsm,pgd",
        "--eps",
        "2/255",
        "--json",
        text(&json),
    ];
    bandwise().args(arguments).assert().success();
    let records: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let records = records["records"].as_array().unwrap();
    // Clean, each attack, and the pointwise worst case.
    assert_eq!(records.len(), 4);
    for record in records {
        assert_eq!(record["per_image"].as_str().unwrap().len(), 40);
        let correct = record["per_image"].as_str().unwrap().matches('1').count() as u64;
        assert_eq!(record["correct"].as_u64(), Some(correct));
        let interval = record["ci95"].as_array().unwrap();
        assert!(
            interval[0].as_f64() <= record["value"].as_f64()
                && record["value"].as_f64() <= interval[1].as_f64()
        );
    }
    assert!(records[1]["correct"].as_u64() <= records[0]["correct"].as_u64());
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let features = "\n[objective]\nname = \"free\"\nreplays = 2\n[awp]\n[averaging]\nname = \"ema\"\ndecay = 0.9\n\
        [overfitting]\nimages = 20\naction = \"restore\"\n";
    let recipe = recipe(folder.path(), &(TINY.replace("epochs = 2", "epochs = 6") + features));
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    bandwise().args(["train", text(&recipe), "--out", text(&whole)]).assert().success();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
        .args(["train", text(&recipe), "--out", text(&broken)])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Wherever the kill falls (before, in or after an epoch, or when all is done), the end is the same.
    let metrics = broken.join("metrics.jsonl");
    while !metrics.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    bandwise().args(["train", "--resume", "--out", text(&broken)]).assert().success();
    for file in ["model.safetensors", "trained.safetensors", "metrics.jsonl"] {
        let read = |run: &Path| std::fs::read(run.join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file} differs");
    }
}

/// The first signal ends the step and saves; the run then goes on to the same end.
#[cfg(unix)]
#[test]
fn signals_end_a_run_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let text_of_recipe = TINY.replace("epochs = 2", "epochs = 400").replace("count=100,", "count=60,");
    let recipe = recipe(folder.path(), &text_of_recipe);
    for signal in ["INT", "TERM"] {
        let run = folder.path().join(signal);
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
            .args(["train", text(&recipe), "--out", text(&run), "--set", "early_stopping.patience=400"])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let metrics = run.join("metrics.jsonl");
        while !std::fs::read(&metrics).is_ok_and(|bytes| !bytes.is_empty())
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let kill = ["-s", signal, &child.id().to_string()].map(str::to_string);
        assert!(std::process::Command::new("kill").args(kill).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{message}");
        assert!(message.contains("continue with --resume"), "{message}");
        let status = std::fs::read_to_string(run.join("status.json")).unwrap();
        assert!(status.contains("interrupted"), "{status}");
        let checkpoints: Vec<_> = std::fs::read_dir(run.join("checkpoints")).unwrap().collect();
        assert!(!checkpoints.is_empty());
    }
}

/// Coefficients in training, plain convolutions afterwards, the same filters.
#[test]
fn a_decomposed_network_is_recomposed_and_analyzed() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(folder.path(), TINY), folder.path().join("run"));
    let arguments = [
        "train",
        text(&recipe),
        "--out",
        text(&run),
        "--set",
        "epochs=1",
        "--set",
        "model.decomposition={ kind = \"signal\" }",
        "--set",
        "regularizers.filter_frequency={ lambda = 0.1, depth = 1.0 }",
    ];
    bandwise().args(arguments).assert().success();
    let (weights, plain) = (run.join("model.safetensors"), folder.path().join("plain.safetensors"));
    bandwise().args(["convert", text(&weights), text(&plain), "--recompose"]).assert().success();
    let out = folder.path().join("analysis");
    let arguments =
        ["analyze", "filters", "--weights", text(&weights), "--weights", text(&plain), "--out", text(&out)];
    let output = bandwise().args(arguments).assert().success();
    let printed = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    let shares = |line: &&str| line.ends_with("is high-frequency");
    let share = |label| printed.lines().filter(shares).find_map(|line| line.strip_prefix(label)).unwrap();
    assert_eq!(share("run: "), share("plain: "), "{printed}");
    for file in ["filters.csv", "results.jsonl", "report.html", "sections/filters.json"] {
        assert!(out.join(file).exists(), "{file}");
    }
}

#[test]
fn a_precision_says_what_it_is_and_enters_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(folder.path(), TINY), folder.path().join("run"));
    let train = ["train", text(&recipe), "--out", text(&run), "--set", "epochs=1", "--set", "precision=bf16"];
    let output = bandwise().args(train).assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("bf16"), "{said}");
    let (weights, out) = (run.join("model.safetensors"), folder.path().join("masks"));
    let data = "synthetic:test_count=6";
    let arguments = ["--weights", text(&weights), "--data", data, "--out", text(&out), "--max-steps", "3"];
    let mask = ["mask", "--per-image", "--precision", "f32-fast"];
    let output = bandwise().args(mask).args(arguments).assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("convolutions in f32-fast by"), "{said}");
    let records = std::fs::read_to_string(out.join("results.jsonl")).unwrap();
    assert!(records.lines().all(|line| line.contains(r#""precision":"f32-fast""#)), "{records}");
    assert!(records.lines().all(|line| line.contains(r#""algorithm":""#)), "{records}");
    // masks learned in another arithmetic are not gone on with
    let message = refused(&[&["mask", "--per-image"], &arguments[..]].concat());
    assert!(
        message.contains("precision: the folder has f32-fast, the command f32; choose another"),
        "{message}"
    );
}

#[test]
fn wrong_recipes_get_their_message() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (from, to, expected) in [
        ("epochs", "epocs", "did you mean `epochs`"),
        ("smallcnn", "smalcnn", "did you mean `smallcnn`"),
        ("synthetic:count", "synthetik:count", "synthetic"),
        ("count=100", "coumt=100", "count"),
        ("4/255", "400/1", "pixel range"),
        ("\"fgsm\"", "\"fgms\"", "fgsm"),
        ("= 0.05", "= -0.05", "learning_rate"),
    ] {
        let path = recipe(folder.path(), &TINY.replacen(from, to, 1));
        let message = refused(&["train", text(&path), "--out", text(&out)]);
        assert!(message.contains(expected), "{to}: {message}");
        assert!(!out.join("run.toml").exists(), "{to} left a run behind");
    }
}

#[test]
fn wrong_files_get_their_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let record = [&[3u8][..], &[100; 3072]].concat();
    let good = path("good.bin", &record);
    let weights = path("noise.pth", b"not weights at all");
    let page = path("page.safetensors", b"<!DOCTYPE html><html></html>");
    let evaluate = |weights: &Path, data: &Path| {
        let data = format!("cifar10-bin:{}", text(data));
        refused(&["evaluate", "--weights", text(weights), "--model", "resnet20", "--data", &data])
    };
    assert!(evaluate(&weights, &good).contains("noise.pth"));
    assert!(evaluate(&page, &good).contains("web page"));
    assert!(evaluate(&weights, &path("short.bin", &record[..1000])).contains("short.bin"));
    let wild = path("wild.bin", &[&[77u8][..], &record[1..]].concat());
    assert!(evaluate(&weights, &wild).contains("77"));
    assert!(evaluate(Path::new("nowhere.pth"), &good).contains("nowhere.pth"));
    let idx = folder.path().join("t10k-images-idx3-ubyte");
    std::fs::write(&idx, b"\0\0\x08\x01junk").unwrap();
    std::fs::write(folder.path().join("t10k-labels-idx1-ubyte"), b"").unwrap();
    let message = refused(&["data", "info", "--split", "test", &format!("idx:{}", text(folder.path()))]);
    assert!(message.contains("idx"), "{message}");
}

#[test]
fn wrong_arguments_get_their_message() {
    let base = ["evaluate", "--weights", "w.safetensors", "--data", "synthetic:test_count=10"];
    let with = |more: &[&str]| refused(&[&base, more].concat());
    assert!(with(&["--attack", "pdg", "--eps", "8/255"]).contains("did you mean `pgd`"));
    assert!(with(&["--attack", "pgd", "--eps", "8"]).contains("8/255"));
    assert!(with(&["--attack", "pgd", "--eps", "eight"]).contains("eight"));
    assert!(with(&["--attack", "fgsm", "--steps", "5"]).contains("steps"));
    assert!(with(&["--eps", "8/255"]).contains("--attack"));
    for nothing in [["--steps", "0"], ["--restarts", "0"], ["--step-size", "0"], ["--eps", "0"]] {
        assert!(with(&[&["--attack", "pgd"], &nothing[..]].concat()).contains("0"), "{nothing:?}");
    }
    assert!(with(&["--attack", "cw-linf", "--norm", "l2"]).contains("cw-linf has no l2 form"));
    assert!(with(&["--device", "cuda"]).contains("cuda"));
    assert!(with(&["--device", "tpu"]).contains("expected cpu"));
    assert!(refused(&["train", "--resume"]).contains("--out"));
    assert!(refused(&["report", "nowhere"]).contains("nowhere"));
}

/// Settings of attacks are the same flags, and mean the same, wherever attacks are used.
#[test]
fn settings_that_would_do_nothing_are_refused() {
    let mask = |more: &[&str]| {
        let base = ["mask", "--weights", "w.safetensors", "--data", "synthetic", "--out", "masks"];
        refused(&[&base[..], more].concat())
    };
    assert!(mask(&["--eps", "8/255"]).contains("--attack"));
    assert!(mask(&["--per-image", "--steps", "3"]).contains("--attack"));
    assert!(mask(&["--max-steps", "9"]).contains("--per-image"));
    assert!(mask(&["--attack", "pgd"]).contains("--per-image"));
    assert!(mask(&["--per-image", "--attack", "pdg"]).contains("did you mean `pgd`"));
    assert!(mask(&["--per-image", "--attack", "pgd", "--queries", "5"]).contains("`queries`"));
}

#[test]
fn every_command_takes_the_same_radius_for_a_norm() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (recipe(folder.path(), TINY), folder.path().join("run"));
    bandwise().args(["train", text(&recipe), "--out", text(&run)]).assert().success();
    let weights = run.join("model.safetensors");
    let said = |arguments: &[&str]| {
        let output = bandwise().args(arguments).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let line = "PGD-10, L2 ε = 0.5, step 0.125, random start, 1 restart, cross-entropy";
    let base =
        ["--weights", text(&weights), "--data", "synthetic:test_count=20", "--attack", "pgd", "--norm", "l2"];
    let evaluated = said(&[&["evaluate"], &base[..]].concat());
    assert!(evaluated.contains(&format!("{line}, seed 0: accuracy")), "{evaluated}");
    assert!(evaluated.contains("pre-flight on 16 images: "), "{evaluated}");
    let out = folder.path().join("perturbations");
    said(&[&["analyze", "perturbations", "--out", text(&out)], &base[..]].concat());
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains(line), "the page names another attack");
}
