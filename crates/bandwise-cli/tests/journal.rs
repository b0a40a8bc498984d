//! An evaluation that is killed again and again ends with the journal of an undisturbed one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bandwise::network::{Network, NetworkConfig};

/// The evaluation under test, writing its journal to `results`.
fn evaluate(weights: &Path, results: &Path, more: &[&str]) -> Command {
    let attacks = ["--attack", "pgd,square", "--eps", "0.2/255", "--queries", "60", "--steps", "10"];
    let images = ["--limit", "240", "--batch-size", "4"];
    run(weights, results, &[&attacks[..], &images, more].concat())
}

/// `bandwise evaluate` on synthetic images, silent.
fn run(weights: &Path, results: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bandwise"));
    command.args(["evaluate", "--data", "synthetic"]).args(arguments);
    command.arg("--weights").arg(weights).arg("--journal").arg(results);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// What a command that must fail says.
fn refusal(mut command: Command) -> String {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    message
}

fn weights(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("weights.safetensors");
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
    Network::new(config, 3, &candle_core::Device::Cpu).unwrap().save(&path).unwrap();
    path
}

#[test]
fn twenty_kills_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let undisturbed = folder.path().join("undisturbed.jsonl");
    let began = Instant::now();
    assert!(evaluate(&weights, &undisturbed, &[]).status().unwrap().success());
    let whole = began.elapsed();
    let expected = std::fs::read_to_string(&undisturbed).unwrap();
    assert!(expected.lines().count() > 240, "only clean images were judged: the test shows nothing");

    let killed = folder.path().join("killed.jsonl");
    let mut kills = 0;
    for attempt in 0..20u32 {
        let mut child = evaluate(&weights, &killed, &[]).spawn().unwrap();
        // Spread over the whole run, in no particular order.
        std::thread::sleep(whole.mul_f64(f64::from(attempt * 7 % 20) / 20.0) + Duration::from_millis(5));
        if child.try_wait().unwrap().is_some() {
            std::fs::remove_file(&killed).unwrap(); // it was done: once more from the beginning
            continue;
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 5, "only {kills} kills came in time");
    assert!(evaluate(&weights, &killed, &[]).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&killed).unwrap(), expected);
}

#[test]
fn shares_merge_and_changed_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let path = |name: &str| folder.path().join(name);
    assert!(evaluate(&weights, &path("whole"), &[]).status().unwrap().success());
    for share in ["1/3", "2/3", "3/3"] {
        let results = path(&share.replace('/', "-"));
        assert!(evaluate(&weights, &results, &["--shard", share]).status().unwrap().success());
    }
    let merge = Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
        .arg("merge")
        .args([path("1-3"), path("2-3"), path("3-3")])
        .arg("--out")
        .arg(path("merged"))
        .output()
        .unwrap();
    assert!(merge.status.success(), "{}", String::from_utf8_lossy(&merge.stderr));
    assert_eq!(std::fs::read(path("merged")).unwrap(), std::fs::read(path("whole")).unwrap());

    let message = refusal(evaluate(&weights, &path("whole"), &["--seed", "5"]));
    assert!(message.contains("seed: the journal has 0, the command 5"), "{message}");
    let message = refusal(evaluate(&weights, &path("1-3"), &["--shard", "9999/9999"]));
    assert!(message.contains("share 9999/9999 of 240 images has no image"), "{message}");
}

#[test]
fn a_job_that_is_killed_every_moment_comes_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let arguments = ["--attack", "autoattack", "--eps", "0.2/255", "--limit", "200", "--steps", "10"];
    let arguments = [&arguments[..], &["--targets", "3", "--queries", "300"]].concat();
    let undisturbed = folder.path().join("undisturbed.jsonl");
    let began = Instant::now();
    assert!(run(&weights, &undisturbed, &arguments).status().unwrap().success());
    // Less than the first attack of AutoAttack needs for all images together.
    let moment = (began.elapsed() / 8).max(Duration::from_millis(400));

    let killed = folder.path().join("killed.jsonl");
    let mut kills = 0;
    loop {
        let mut child = run(&weights, &killed, &arguments).spawn().unwrap();
        let deadline = Instant::now() + moment;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if let Some(status) = status {
            assert!(status.success());
            break;
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        kills += 1;
        assert!(kills < 100, "no end after {kills} kills");
    }
    assert!(kills >= 3, "only {kills} kills came in time");
    let expected = std::fs::read_to_string(&undisturbed).unwrap();
    assert_eq!(std::fs::read_to_string(&killed).unwrap(), expected);
    assert!(expected.lines().filter(|line| line.contains("\"part\":\"square\"")).count() > 10);
}

#[test]
fn a_second_writer_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let path = folder.path().join("journal.jsonl");
    let slow = ["--attack", "square", "--eps", "0.01/255", "--limit", "200", "--queries", "100000"];
    let mut first = run(&weights, &path, &slow).spawn().unwrap();
    while !path.exists() {
        assert!(first.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    let message = refusal(run(&weights, &path, &slow));
    assert!(message.contains(&format!("is being written by process {}", first.id())), "{message}");
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock ended with the process.
    let message = refusal(run(&weights, &path, &["--limit", "200", "--attack", "square", "--eps", "1/255"]));
    assert!(message.contains("attacks[0].epsilon: the journal has 0.01/255, the command 1/255"), "{message}");

    let precious = folder.path().join("precious.txt");
    std::fs::write(&precious, "precious").unwrap();
    let message = refusal(run(&weights, &precious, &["--limit", "20"]));
    assert!(message.contains("beginning with `precious`"), "{message}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn a_journal_belongs_to_one_normalization_and_grows() {
    let folder = tempfile::tempdir().unwrap();
    // Weights as from elsewhere: the normalization is given on the command line.
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
    let network = Network::new(config, 3, &candle_core::Device::Cpu).unwrap();
    let weights = folder.path().join("foreign.safetensors");
    let tensors: std::collections::HashMap<_, _> = network.model.state().into_iter().collect();
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    let path = folder.path().join("journal.jsonl");
    let base = ["--model", "smallcnn", "--width", "4", "--std", "0.2,0.2,0.2", "--attack", "fgsm"];
    let arguments = |mean: &'static str, more: &[&'static str]| [&base[..], &["--mean", mean], more].concat();
    let first = arguments("0.5,0.5,0.5", &["--limit", "40", "--eps", "1/255"]);
    assert!(run(&weights, &path, &first).status().unwrap().success());
    let other = arguments("0.1,0.5,0.5", &["--limit", "40", "--eps", "1/255"]);
    let message = refusal(run(&weights, &path, &other));
    assert!(
        message.contains("configuration.normalization.mean[0]: the journal has 0.5, the command 0.1;"),
        "{message}"
    );

    // The same attack in other words.
    let same = arguments("0.5,0.5,0.5", &["--limit", "40", "--eps", "0.00392156862745098"]);
    let before = std::fs::read(&path).unwrap();
    assert!(run(&weights, &path, &same).status().unwrap().success());
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let more = arguments("0.5,0.5,0.5", &["--limit", "60", "--eps", "1/255,2/255"]);
    assert!(run(&weights, &path, &more).status().unwrap().success());
    let fresh = folder.path().join("fresh.jsonl");
    assert!(run(&weights, &fresh, &more).status().unwrap().success());
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&fresh).unwrap());
    let table =
        Command::new(assert_cmd::cargo::cargo_bin!("bandwise")).arg("table").arg(&path).output().unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("ε = 1/255") && table.contains("ε = 2/255") && table.contains("of 60"), "{table}");
}
