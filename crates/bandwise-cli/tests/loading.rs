//! Weights and images that do not belong together, and what is said before any number.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use bandwise::data::Image;
use bandwise::network::{Network, NetworkConfig};
use bandwise::nn::Normalization;
use bandwise::nn::weights::write_safetensors;
use bandwise::train::checkpoint::{Checkpoints, Point, Snapshot};
use candle_core::Device;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(assert_cmd::cargo::cargo_bin!("bandwise")).args(arguments).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

fn refused(arguments: &[&str]) -> String {
    let (code, text) = run(arguments);
    assert_eq!(code, Some(2), "{arguments:?}: {text}");
    text
}

fn done(arguments: &[&str]) -> String {
    let (code, text) = run(arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {text}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Weights as PyTorch would save them.
fn foreign(folder: &Path, architecture: &str) -> PathBuf {
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new(architecture) };
    let network = Network::new(config, 3, &Device::Cpu).unwrap();
    let path = folder.join(format!("{architecture}.safetensors"));
    write_safetensors(&path, &network.model.state().into_iter().collect(), &BTreeMap::new()).unwrap();
    path
}

const DATA: [&str; 2] = ["--data", "synthetic:test_count=20"];

#[test]
fn one_line_says_what_is_evaluated_and_stands_in_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, json) = (foreign(folder.path(), "resnet20"), folder.path().join("r.json"));
    let evaluate = [&["evaluate", "--weights", text(&weights), "--json", text(&json)], &DATA[..]].concat();
    let printed = done(&evaluate);
    let line = "resnet20 of width 4 (guessed from the file), 0.02 M parameters; no normalization; synthetic (iid): 20 \
                images, 10 classes";
    assert!(printed.starts_with(line), "{printed}");
    assert!(printed.contains("warning: no input normalization is known for this file"), "{printed}");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(record["records"][0]["subject"], line);
    assert!(record["records"][0]["warnings"][0].as_str().unwrap().contains("--mean"), "{record}");
    let printed = done(&[&evaluate[..], &["--mean", "0.5", "--std", "0.25"]].concat());
    assert!(printed.contains("normalization mean 0.5, std 0.25 (given)"), "{printed}");
    assert!(!printed.contains("warning"), "{printed}");
    for (constants, expected) in [
        (["--mean", "123", "--std", "58"], "Then divide mean and std by 255"),
        (["--mean", "nan", "--std", "0.2"], "normalization: NaN is no finite number"),
    ] {
        let message = refused(&[&evaluate[..], &constants].concat());
        assert!(message.contains(expected), "{message}");
    }
    let message = refused(&[&evaluate[..], &["--width", "8"]].concat());
    assert!(message.contains("holds resnet20 in width 4; leave --width out"), "{message}");
}

#[test]
fn another_architecture_is_refused_unless_it_is_insisted_on() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, json) = (foreign(folder.path(), "resnet32"), folder.path().join("r.json"));
    let evaluate = ["evaluate", "--weights", text(&weights), "--model", "resnet20", "--json", text(&json)];
    let evaluate = [&evaluate[..], &DATA].concat();
    let message = refused(&evaluate);
    assert!(message.contains("--model resnet32") && message.contains("--allow-mismatch"), "{message}");
    assert!(!json.exists());
    let printed = done(&[&evaluate[..], &["--allow-mismatch"]].concat());
    assert!(printed.contains("warning: the weights do not fit the network"), "{printed}");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let mismatch = record["records"][0]["configuration"]["mismatch"].as_str().unwrap();
    assert!(mismatch.contains("the model has no: layer1.3."), "{mismatch}");
}

#[test]
fn ten_classes_are_not_evaluated_on_two() {
    let folder = tempfile::tempdir().unwrap();
    let weights = foreign(folder.path(), "smallcnn");
    let images = folder.path().join("images");
    for class in ["cat", "dog"] {
        let png = Image::filled(32, 32, 3, 0.2).to_png().unwrap();
        bandwise::files::write_atomic(&images.join(class).join("a.png"), &png).unwrap();
    }
    let data = format!("imagefolder:{}", images.display());
    let message = refused(&["evaluate", "--weights", text(&weights), "--data", &data]);
    assert!(
        message.contains("the network knows 10 classes") && message.contains("has 2 (cat, dog)"),
        "{message}"
    );
    let out = folder.path().join("bands");
    let bands = ["analyze", "bands", "--weights", text(&weights), "--data", &data, "--out", text(&out)];
    assert!(refused(&bands).contains("the network knows 10 classes"));
}

/// What was doubtful before is doubtful afterwards.
#[test]
fn converting_hides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, out) = (foreign(folder.path(), "resnet32"), folder.path().join("out.safetensors"));
    done(&["convert", text(&weights), text(&out), "--model", "resnet20", "--width", "4", "--allow-mismatch"]);
    let evaluate = [&["evaluate", "--weights", text(&out)], &DATA[..]].concat();
    let printed = done(&evaluate);
    for expected in [
        "resnet20 of width 4 (from the file), 0.02 M parameters; no normalization;",
        "warning: said when this file was converted: the weights do not fit the network",
        "warning: no input normalization is known for this file",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}

/// A checkpoint is converted with its network's configuration, and what is no network is refused.
#[test]
fn a_checkpoint_is_converted_into_a_file_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let normalization = Some(Normalization { mean: vec![0.5], std: vec![0.25] });
    let config = NetworkConfig { width: Some(4), normalization, ..NetworkConfig::new("smallcnn") };
    let network = Network::new(config, 3, &Device::Cpu).unwrap();
    let state: BTreeMap<_, _> = network.model.state().into_iter().collect();
    let snapshot = Snapshot {
        point: Point::after(4),
        model: state.clone(),
        optimizer: state
            .iter()
            .map(|(name, tensor)| (format!("momentum/{name}"), tensor.clone()))
            .take(1)
            .collect(),
        average: BTreeMap::new(),
        perturbation: BTreeMap::new(),
        metadata: serde_json::Value::Null,
        network: network.metadata().unwrap(),
        recipe: None,
    };
    let checkpoint = Checkpoints::new(folder.path()).save(&snapshot).unwrap();
    let out = folder.path().join("out.safetensors");
    done(&["convert", text(&checkpoint), text(&out)]);
    for weights in [&checkpoint, &out] {
        let printed = done(&[&["evaluate", "--weights", text(weights)], &DATA[..]].concat());
        assert!(printed.contains("normalization mean 0.5, std 0.25 (from the file)"), "{printed}");
        assert!(!printed.contains("warning"), "{printed}");
    }
    refused(&["convert", &format!("{}#optimizer", checkpoint.display()), text(&out)]);
}

/// None of these may take memory or time: they are judged before anything is made.
#[test]
fn absurd_sizes_are_messages() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, out) = (foreign(folder.path(), "smallcnn"), folder.path().join("o.safetensors"));
    for (more, reason) in [
        (["--model", "smallcnn", "--classes", "1000000000000"], "number of classes"),
        (["--model", "smallcnn", "--width", "99999999999"], "width must lie between"),
        (["--model", "smallcnn", "--channels", "1000000000000"], "number of input channels"),
        (["--model", "wrn-10-99999999", "--classes", "10"], "widening lies between"),
        (["--model", "cifar_resnet_20_99999999", "--classes", "10"], "width must lie between"),
        (["--model", "cifar_resnet_99999999998", "--classes", "10"], "the most is 10000"),
    ] {
        let message = refused(&[&["convert", text(&weights), text(&out)], &more[..]].concat());
        assert!(message.contains(reason), "{more:?}: {message}");
    }
}
