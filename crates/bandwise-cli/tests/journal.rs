//! An evaluation that is killed again and again ends with the journal of an undisturbed one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bandwise::method::{Network, NetworkConfig};

/// The evaluation under test, writing its journal to `results`.
fn evaluate(weights: &Path, results: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bandwise"));
    command.args(["evaluate", "--data", "synthetic", "--limit", "240", "--attack", "pgd,square"]);
    command.args(["--eps", "0.2/255", "--queries", "60", "--steps", "10", "--batch-size", "4"]);
    command.arg("--weights").arg(weights).arg("--results").arg(results).args(more);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
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

    let other = evaluate(&weights, &path("whole"), &["--seed", "5"]).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("seed: 0 → 5"));
}
