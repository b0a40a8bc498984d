//! Pages and tables say what the records say, and no command replaces another one's page.

use std::path::Path;
use std::process::Output;

use bandwise::network::{Network, NetworkConfig};

fn bandwise(arguments: &[&str]) -> Output {
    std::process::Command::new(assert_cmd::cargo::cargo_bin!("bandwise")).args(arguments).output().unwrap()
}

/// Standard output of a command that must succeed.
fn said(arguments: &[&str]) -> String {
    let output = bandwise(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn weights(folder: &Path, seed: u64) -> std::path::PathBuf {
    let path = folder.join(format!("weights{seed}.safetensors"));
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
    Network::new(config, seed, &candle_core::Device::Cpu).unwrap().save(&path).unwrap();
    path
}

#[test]
fn attacks_that_differ_stand_apart_in_tables_and_on_pages() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path(), 3);
    let out = folder.path().join("results");
    std::fs::create_dir(&out).unwrap();
    for steps in ["2", "5"] {
        let json = out.join(format!("pgd{steps}.json"));
        let evaluate = ["evaluate", "--data", "synthetic", "--limit", "20", "--weights", text(&weights)];
        let attack = ["--attack", "pgd", "--eps", "1/255", "--steps", steps, "--json", text(&json)];
        said(&[&evaluate[..], &attack].concat());
    }
    let journal = folder.path().join("journal.jsonl");
    let evaluate = ["evaluate", "--data", "synthetic", "--limit", "20", "--weights", text(&weights)];
    said(&[&evaluate[..], &["--attack", "pgd", "--steps", "2", "--results", text(&journal)]].concat());

    let table = said(&["table", text(&out)]);
    let lines: Vec<&str> = table.lines().filter(|line| line.to_lowercase().contains("pgd")).collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines.iter().all(|line| line.contains("1/255") && line.contains("seed 0")), "{table}");
    assert!(!table.contains("0.0039"), "{table}");
    // Journals, files and folders, side by side.
    let csv = folder.path().join("table.csv");
    let (one, other) = (out.join("pgd2.json"), out.join("pgd5.json"));
    said(&["table", text(&one), text(&other), text(&journal), "--csv", text(&csv)]);
    assert!(std::fs::read_to_string(&csv).unwrap().lines().count() >= 5);
    let info = folder.path().join("info.json");
    said(&["table", text(&journal), "--robustbench", text(&info)]);
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(&info).unwrap()).unwrap();
    assert_eq!(info["dataset"], "synthetic");

    said(&["report", text(&out)]);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    let rows = page.lines().filter(|line| line.contains("<th scope=\"row\">")).collect::<String>();
    let named = rows.split("<th scope=\"row\">").filter(|row| row.to_lowercase().starts_with("pgd")).count();
    assert!(named >= 2, "both attacks have a row");
    // Its own page may be written again.
    said(&["report", text(&out)]);
}

#[test]
fn what_is_named_twice_is_shown_once_and_one_is_no_plural() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path(), 3);
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let journal = run.join("journal.jsonl");
    let evaluate = ["evaluate", "--data", "synthetic", "--limit", "20", "--weights", text(&weights)];
    let attack = ["--attack", "square,square", "--queries", "1", "--journal", text(&journal)];
    let output = bandwise(&[&evaluate[..], &attack].concat());
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(notes.contains("is named more than once; it runs once"), "{notes}");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("1 query") && !printed.contains("worst case"), "{printed}");
    let fewer = [&evaluate[..], &["--journal", text(&journal)]].concat();
    assert!(!said(&fewer).contains("Square"));

    let once = said(&["table", text(&journal)]);
    let again = folder.path().join("run/../run/journal.jsonl");
    let output = bandwise(&["table", text(&journal), text(&again), "--against", text(&journal)]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), once);
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is shown once"));
    // So is a folder beside the records in it.
    let records = folder.path().join("own/results.jsonl");
    std::fs::create_dir(records.parent().unwrap()).unwrap();
    let one = [&evaluate[..], &["--json", text(&records)]].concat();
    said(&one);
    let own = records.parent().unwrap();
    let output = bandwise(&["table", text(own), text(&records)]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is shown once"), "{output:?}");
    // A folder stands for the only journal in it.
    assert!(said(&["table", text(&run), "--robustbench", "-"]).contains("\"clean_acc\""));
    std::fs::copy(&journal, run.join("second.jsonl")).unwrap();
    let refused = bandwise(&["table", text(&run), "--robustbench", "-"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("the folder holds 2 journals; name one"), "{message}");
}

#[test]
fn a_page_of_another_command_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, out) = (weights(folder.path(), 4), folder.path().join("filters"));
    said(&["analyze", "filters", "--weights", text(&weights), "--out", text(&out)]);
    let page = out.join("report.html");
    let before = std::fs::read(&page).unwrap();
    let refused = bandwise(&["report", text(&out)]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--out"));
    assert_eq!(std::fs::read(&page).unwrap(), before);
    let other = folder.path().join("other.html");
    said(&["report", text(&out), "--out", text(&other)]);
    assert!(std::fs::read_to_string(&other).unwrap().contains("filter high frequency share"));
    // A slip of the finger costs no weights.
    let slip = bandwise(&["report", text(&out), "--out", text(&weights)]);
    assert_eq!(slip.status.code(), Some(2));
    assert!(Network::load(&weights, &candle_core::Device::Cpu).is_ok());
}

#[test]
fn a_mask_folder_has_the_numbers_of_its_own_page() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, out) = (weights(folder.path(), 5), folder.path().join("masks"));
    let base = ["--weights", text(&weights), "--data", "synthetic", "--limit", "12"];
    let printed = said(&[&["mask", "--epochs", "1", "--out", text(&out)], &base[..]].concat());
    let clean = printed.split("clean ").nth(1).unwrap().split(" %").next().unwrap().to_owned();
    let table = said(&["table", text(&out)]);
    let line = table.lines().find(|line| line.trim_end().ends_with("clean")).unwrap();
    assert_eq!(line.trim().split(" %").next().unwrap(), clean, "{table}");
    let other =
        bandwise(&[&["mask", "--epochs", "1", "--sparsity", "0.3", "--out", text(&out)], &base[..]].concat());
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(2), "{message}");
    assert!(message.contains("learning.decay: the folder has 0.2, the command 0.3"), "{message}");
    // What the folder holds is not replaced by another analysis.
    let before = std::fs::read(out.join("results.jsonl")).unwrap();
    let heat = ["analyze", "heatmap", "--largest-frequency", "1", "--out", text(&out)];
    let other = bandwise(&[&heat[..], &base].concat());
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(2), "{message}");
    assert!(message.contains("another analysis (learning, masks)"), "{message}");
    assert_eq!(std::fs::read(out.join("results.jsonl")).unwrap(), before);
    let heat = folder.path().join("heat");
    let arguments = ["analyze", "heatmap", "--largest-frequency", "1", "--out", text(&heat)];
    said(&[&arguments[..], &base].concat());
    let page = folder.path().join("heat.html");
    said(&["report", text(&heat), "--out", text(&page)]);
    assert!(std::fs::read_to_string(&page).unwrap().contains("wave of L2 norm 4"));
}
