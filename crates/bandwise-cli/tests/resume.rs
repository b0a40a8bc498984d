//! Runs that are stopped, edited, shared and resumed from the command line.

use std::path::Path;
use std::process::{Child, Stdio};

use assert_cmd::Command;

const RECIPE: &str = "name = \"tiny\"\nepochs = 2\nbatch_size = 20\nlearning_rate = 0.05\n[data]\nsource = \
    \"synthetic:count=60,test_count=20\"\n[model]\narchitecture = \"smallcnn\"\nwidth = 4\n";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
        Self { folder }
    }

    fn run(&self) -> std::path::PathBuf {
        self.folder.path().join("run")
    }

    /// Exit code and standard error of a command in the folder.
    fn bandwise(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
            .current_dir(self.folder.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("panicked"), "{text}");
        (output.status.code(), text)
    }

    fn started(&self, more: &[&str]) -> Child {
        std::process::Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
            .current_dir(self.folder.path())
            .args(["train", "recipe.toml", "--out", "run"])
            .args(more)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

fn wait_for(path: &Path) {
    while !std::fs::read(path).is_ok_and(|bytes| !bytes.is_empty()) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_second_trainer_is_told_who_is_there() {
    let place = Place::new();
    let mut child = place.started(&["--set", "epochs=100000"]);
    wait_for(&place.run().join("metrics.jsonl"));
    let holder = format!("is being written by process {}", child.id());
    for arguments in [&["train", "recipe.toml", "--out", "run"][..], &["train", "--resume", "--out", "run"]] {
        let (code, message) = place.bandwise(arguments);
        assert!(code == Some(2) && message.contains(&holder), "{message}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The lock has ended with the process; the run is as it was.
    let (code, message) = place.bandwise(&["train", "recipe.toml", "--out", "run"]);
    assert!(code == Some(2) && message.contains("already holds a run"), "{message}");
    let metrics = std::fs::read_to_string(place.run().join("metrics.jsonl")).unwrap();
    let epochs: Vec<u64> = metrics
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["epoch"].as_u64())
        .collect();
    assert_eq!(epochs, (1..=epochs.len() as u64).collect::<Vec<_>>());
}

#[test]
fn an_edited_run_is_refused_by_key_and_the_resumed_one_says_its_name() {
    let place = Place::new();
    let mut child = place.started(&["--set", "epochs=100000"]);
    wait_for(&place.run().join("checkpoints/epoch-0001.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    let left_over = place.run().join(".bandwise-AbCdEf.tmp");
    std::fs::write(&left_over, b"of the killed process").unwrap();
    let recipe = place.run().join("run.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let edited = text.replace("learning_rate = 0.05", "learning_rate = 0.5");
    std::fs::write(&recipe, edited).unwrap();
    let (code, message) = place.bandwise(&["train", "--resume", "--out", "run"]);
    assert_eq!(code, Some(2));
    let expected = "learning_rate: the checkpoint was made with 0.05, run.toml says 0.5";
    assert!(message.contains(expected) && message.contains("--accept-changes"), "{message}");

    // Few epochs more than there are, whatever the kill has left.
    std::fs::write(&recipe, text).unwrap();
    let (code, message) = place.bandwise(&["train", "--resume", "--out", "run", "--set", "epochs=1"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("epochs: the checkpoint was made with 100000, now it is 1"), "{message}");
    assert!(!left_over.exists());
    let count = std::fs::read_to_string(place.run().join("metrics.jsonl")).unwrap().lines().count();
    let epochs = format!("epochs={}", count + 2);
    let resume = ["train", "--resume", "--out", "run", "--accept-changes", "--set", &epochs];
    let (code, message) = place.bandwise(&resume);
    assert_eq!(code, Some(0), "{message}");
    assert!(message.contains("tiny: settings changed") && !message.contains("run: "), "{message}");
    let (code, message) = place.bandwise(&["train", "--resume", "--out", "run"]);
    assert!(code == Some(0) && message.contains("tiny: this run is complete already"), "{message}");
}

#[test]
fn training_starts_from_a_file() {
    let place = Place::new();
    assert_eq!(place.bandwise(&["train", "recipe.toml", "--out", "run"]).0, Some(0));
    let tune = ["train", "recipe.toml", "--out", "tuned", "--set", "epochs=1"];
    let (code, said) = place.bandwise(&[&tune[..], &["--init", "run/model.safetensors"]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("starting from run/model.safetensors") && said.contains("normalization: none"),
        "{said}"
    );
    assert!(said.contains("tiny: before training, test "), "{said}");
    let records = std::fs::read_to_string(place.folder.path().join("tuned/results.jsonl")).unwrap();
    for line in records.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let initial = &record["training"]["initial_weights"];
        assert_eq!(initial["file"], "run/model.safetensors");
        assert_eq!(initial["sha256"].as_str().unwrap().len(), 64);
    }
    let (code, message) = place.bandwise(&["train", "recipe.toml", "--out", "other", "--init", "nowhere.pt"]);
    assert!(code == Some(2) && message.contains("nowhere.pt"), "{message}");
    assert!(!place.folder.path().join("other").exists());
}

#[test]
fn far_too_many_threads_are_not_started() {
    let place = Place::new();
    let output = Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
        .env("RAYON_NUM_THREADS", "99999")
        .current_dir(place.folder.path())
        .args(["train", "recipe.toml", "--out", "run"])
        .timeout(std::time::Duration::from_secs(240))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("RAYON_NUM_THREADS=99999 is more than 4 threads for each"), "{said}");
}

#[test]
fn a_number_of_threads_is_a_number() {
    let with = |threads: &str| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bandwise"));
        let output = command.env("RAYON_NUM_THREADS", threads).args(["data", "list"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for fine in ["0", "1", " 1 ", ""] {
        assert_eq!(with(fine), (Some(0), String::new()), "{fine:?}");
    }
    for nonsense in ["-1", "abc"] {
        let (code, said) = with(nonsense);
        assert!(code == Some(2) && said.contains("is no number of threads"), "{said}");
    }
}

#[test]
fn a_missing_recipe_and_a_model_of_too_few_classes_are_explained() {
    let place = Place::new();
    let (code, message) = place.bandwise(&["train", "recipes/resnet9.toml"]);
    assert!(code == Some(2) && message.contains("there is no such recipe"), "{message}");
    let few = ["train", "recipe.toml", "--out", "run", "--set", "model.classes=2"];
    let (code, message) = place.bandwise(&few);
    assert!(code == Some(2) && message.contains("model.classes is 2"), "{message}");
    assert!(!place.run().exists());
}
