//! Corrupted sets written, verified, read back and evaluated; shifts and shape bias.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use bandwise::data::{DataSpec, Split};
use bandwise::evaluate::record::{self, Record};
use bandwise::network::{Network, NetworkConfig};

fn bandwise() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
}

/// What a command that must end with `code` prints to standard output and standard error.
fn ended(arguments: &[&str], code: i32) -> (String, String) {
    let output = bandwise().args(arguments).output().unwrap();
    let [out, err] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

fn refused(arguments: &[&str]) -> String {
    ended(arguments, 2).1
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn weights(folder: &Path) -> PathBuf {
    let path = folder.join("weights.safetensors");
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
    Network::new(config, 3, &candle_core::Device::Cpu).unwrap().save(&path).unwrap();
    path
}

fn accuracies(records: &[Record]) -> Vec<&Record> {
    records.iter().filter(|record| record.metric == "accuracy").collect()
}

const DATA: &str = "synthetic:test_count=20";

#[test]
fn corrupted_files_are_written_once_verified_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("corrupted");
    let arguments = ["corrupt", DATA, "--out", text(&out), "--corruption", "contrast,frost"];
    let (printed, _) = ended(&arguments, 0);
    assert!(
        printed.contains("wrote 2 files of 100 images") && printed.contains("marked so: frost"),
        "{printed}"
    );
    for file in ["contrast.npy", "frost.npy", "labels.npy", "corruptions.json"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let written = std::fs::metadata(out.join("frost.npy")).unwrap().modified().unwrap();
    let (_, said) = ended(&arguments, 0);
    assert!(said.contains("frost.npy: already there"), "{said}");
    assert_eq!(std::fs::metadata(out.join("frost.npy")).unwrap().modified().unwrap(), written);
    let message = refused(&[&arguments[..], &["--seed", "1"]].concat());
    assert!(message.contains("seed: 0 → 1") && message.contains("another folder"), "{message}");

    let spec = format!("cifar10c:{},corruption=contrast,severity=2", out.display());
    let set = spec.parse::<DataSpec>().unwrap().open(Split::Test).unwrap();
    assert_eq!((set.len(), set.image_shape()), (20, Some([32, 32, 3])));

    // The same command verifies its own files; a folder of other constants differs, with exit code 1.
    let (same, _) = ended(&["corrupt", DATA, "--verify", text(&out)], 0);
    assert!(same.matches("agrees").count() >= 10 && !same.contains("DIFFERS"), "{same}");
    let (other, _) = ended(&["corrupt", DATA, "--verify", text(&out), "--protocol", "224"], 1);
    assert!(other.contains("DIFFERS"), "{other}");
    let file = out.join("contrast.npy");
    ended(&["corrupt", DATA, "--verify", text(&file)], 0);
    let message = refused(&["corrupt", "synthetic:test_count=30", "--verify", text(&file)]);
    assert!(message.contains("expected uint8 of shape [150, 32, 32, 3]"), "{message}");
}

#[test]
fn accuracy_under_corruption_is_the_same_streamed_and_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, out) = (weights(folder.path()), folder.path().join("evaluated"));
    let base = [
        "evaluate",
        "--weights",
        text(&weights),
        "--corruption",
        "fog,gaussian_noise,frost",
        "--severity",
        "1,3",
    ];
    let streamed = [&base[..], &["--data", DATA, "--corruption-seed", "7", "--out", text(&out)]].concat();
    let (printed, _) = ended(&streamed, 0);
    assert!(printed.contains("severity 3") && printed.contains("frost *"), "{printed}");
    for file in ["results.jsonl", "corruptions.csv", "sections/corruptions.json", "report.html", "figures"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let records = record::read(&out.join("results.jsonl")).unwrap();
    let measured = accuracies(&records);
    // Clean, and three corruptions at two severities.
    assert_eq!(measured.len(), 7);
    for record in &measured[1..] {
        assert!(record.ci95.is_some() && record.per_image.as_ref().unwrap().len() == 20);
        assert!(record.extra["spectrum_centroid"].as_f64().unwrap() > 0.0);
        let procedural = record.corruption.as_deref() == Some("frost");
        assert_eq!(record.extra["official_protocol"], !procedural);
        assert_eq!(record.extra.get("frost").is_some_and(|frost| frost == "procedural"), procedural);
    }
    let centroid = |name: &str| {
        measured.iter().find(|r| r.corruption.as_deref() == Some(name)).unwrap().extra["spectrum_centroid"]
            .as_f64()
    };
    assert!(centroid("fog") < centroid("gaussian_noise"));
    assert!(records.iter().any(|record| record.metric == "mean_corruption_accuracy_high_frequency"));

    // From files: the same images, so the same answers.
    let files = folder.path().join("files");
    let names = "fog,gaussian_noise,frost";
    ended(
        &["corrupt", DATA, "--out", text(&files), "--corruption", names, "--severity", "1,3", "--seed", "7"],
        0,
    );
    let (published, json) = (format!("cifar10c:{}", files.display()), folder.path().join("published.json"));
    let from_files = ["evaluate", "--weights", text(&weights), "--data", &published, "--severity", "1,3"];
    ended(&[&from_files[..], &["--clean-data", DATA, "--json", text(&json)]].concat(), 0);
    let read = record::read(&json).unwrap();
    let read = accuracies(&read);
    assert_eq!(read.len(), 7);
    for streamed in &measured {
        let same = |other: &&&Record| {
            (&other.corruption, other.severity) == (&streamed.corruption, streamed.severity)
        };
        let other = read.iter().find(same).unwrap();
        assert_eq!(other.per_image, streamed.per_image, "{:?} {:?}", streamed.corruption, streamed.severity);
        assert_eq!(other.extra.get("official_protocol"), streamed.extra.get("official_protocol"));
    }

    // More severities join what is there; other settings are refused; a baseline gives corruption errors.
    let more =
        [&streamed[..6], &["1-3", "--data", DATA, "--corruption-seed", "7", "--out", text(&out)]].concat();
    ended(&more, 0);
    let all = record::read(&out.join("results.jsonl")).unwrap();
    assert_eq!(accuracies(&all).len(), 10);
    let old = |r: &&Record| measured.iter().any(|old| old.created == r.created && old.severity == r.severity);
    assert!(
        accuracies(&all).iter().filter(|r| old(r)).count() >= 7,
        "finished conditions were measured again"
    );
    let message =
        refused(&[&base[..], &["--data", DATA, "--corruption-seed", "8", "--out", text(&out)]].concat());
    assert!(message.contains("another folder"), "{message}");
    let results = out.join("results.jsonl");
    let against =
        [&base[..], &["--data", DATA, "--baseline", text(&results), "--json", text(&json)]].concat();
    ended(&against, 0);
    let errors = record::read(&json).unwrap();
    assert_eq!(errors.iter().filter(|record| record.metric == "corruption_error").count(), 3);
}

#[test]
fn shifts_and_shape_bias_are_records() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, json) = (weights(folder.path()), folder.path().join("out.json"));
    let evaluate = |data: &str, more: &[&str]| {
        ended(
            &[&["evaluate", "--weights", text(&weights), "--data", data, "--json", text(&json)], more]
                .concat(),
            0,
        );
        record::read(&json).unwrap()
    };
    let clean = evaluate(DATA, &[]);
    let shifted = evaluate(DATA, &["--shift", "low-pass:3", "--attack", "fgsm", "--eps", "4/255"]);
    assert_eq!((clean.len(), shifted.len()), (1, 2));
    assert!(shifted.iter().all(|record| record.extra["shift"] == "low_pass:3"));
    assert_ne!(shifted[0].provenance.data_sha256, clean[0].provenance.data_sha256);

    let conflict = evaluate("synthetic:test_count=40,test=conflict", &[]);
    let bias = conflict.iter().find(|record| record.metric == "shape_share").unwrap();
    let count = |key: &str| bias.extra[key].as_u64().unwrap();
    assert_eq!(bias.correct, Some(count("by_shape")));
    assert_eq!(bias.total, Some(count("by_shape") + count("by_texture")));
}

#[test]
fn what_does_not_fit_together_gets_its_message() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let evaluate =
        |more: &[&str]| refused(&[&["evaluate", "--weights", text(&weights), "--data", DATA], more].concat());
    let all = ["--corruption", "all"];
    assert!(
        evaluate(&[&all[..], &["--attack", "pgd", "--eps", "8/255"]].concat()).contains("bandwise corrupt")
    );
    assert!(evaluate(&[&all[..], &["--shift", "low_pass:3"]].concat()).contains("--shift"));
    assert!(evaluate(&[&all[..], &["--journal", "x.jsonl"]].concat()).contains("--out DIR"));
    assert!(evaluate(&[&all[..], &["--severity", "6"]].concat()).contains("severity is 1, 2, 3, 4 or 5"));
    assert!(evaluate(&[&all[..], &["--clean-data", DATA]].concat()).contains("published"));
    assert!(evaluate(&[&all[..], &["--frost", text(folder.path())]].concat()).contains("frost1.png"));
    assert!(evaluate(&["--corruption", "fogg"]).contains("did you mean `fog`"));
    assert!(evaluate(&["--severity", "3"]).contains("--corruption all"));
    assert!(evaluate(&["--shift", "low_pas:3"]).contains("low_pass:RADIUS"));
    assert!(refused(&["corrupt", DATA]).contains("--out"));
    let message = refused(&["data", "info", &format!("imagefolder:{}", folder.path().display())]);
    assert!(message.contains("one folder per class"), "{message}");
    let empty = format!("cifar10c:{}", folder.path().join("nowhere").display());
    let message = refused(&["evaluate", "--weights", text(&weights), "--data", &empty]);
    assert!(message.contains("nowhere"), "{message}");
}

/// Maps and bias of what corruptions change: the same for images corrupted while they are read, and for files.
#[test]
fn what_corruptions_change_is_the_same_streamed_and_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let [files, made, read] = ["files", "made", "read"].map(|name| folder.path().join(name));
    let chosen = ["--corruption", "fog,gaussian_noise", "--severity", "2,4"];
    ended(&[&["corrupt", DATA, "--out", text(&files)], &chosen[..]].concat(), 0);
    let analyze = ["analyze", "corruptions", "--limit", "15", "--batch-size", "4"];
    let (said, _) = ended(&[&analyze[..], &chosen, &["--data", DATA, "--out", text(&made)]].concat(), 0);
    assert!(said.contains("fog: low-frequency bias"), "{said}");
    let published = format!("cifar10c:{}", files.display());
    let of_files = [&analyze[..], &chosen, &["--data", &published, "--out", text(&read)]].concat();
    assert!(refused(&of_files).contains("--clean-data"));
    ended(&[&of_files[..], &["--clean-data", DATA]].concat(), 0);
    let table = |folder: &Path| std::fs::read_to_string(folder.join("corruption_spectra.csv")).unwrap();
    assert!(table(&made) == table(&read) && table(&made).lines().count() == 1 + 4 * 32 * 32);
    let records = record::read(&made.join("results.jsonl")).unwrap();
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|r| r.metric == "corruption_low_frequency_bias" && r.severity.is_some()));
    assert!(std::fs::read_dir(made.join("figures")).unwrap().count() >= 4);
}
