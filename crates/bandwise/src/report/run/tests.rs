use std::path::Path;

use serde_json::Value;

use super::*;
use crate::evaluate::record::{Provenance, Record, append_jsonl, append_lines};

fn write_run(folder: &Path, model: &str, right: usize) {
    let write = |name: &str, text: &str| append_lines(&folder.join(name), text).unwrap();
    write("run.toml", &format!("seed = 3\nmodel = \"{model}\"\n[schedule]\nkind = \"cosine\"\nepochs = 2\n"));
    write(
        "metrics.jsonl",
        "{\"kind\":\"epoch\",\"epoch\":1,\"step\":10,\"values\":{\"train/loss\":2.0,\"validation/loss\":2.1,\"learning_rate\":0.1,\"omega/stage1\":0.5,\"unperturbed/loss\":1.9,\"overfitting/pgd\":0.3,\"overfitting/training_attack\":0.9}}\n\
         {\"kind\":\"epoch\",\"epoch\":2,\"step\":20,\"values\":{\"train/loss\":9.0,\"validation/accuracy\":0.4}}\n\
         {\"kind\":\"step\",\"step\":25,\"values\":{}}\n\
         {\"kind\":\"warning\",\"message\":\"loss <b>rises</b>\"}\n\
         {\"kind\":\"note\",\"epoch\":2,\"message\":\"training was stopped\"}\n\
         {\"kind\":\"epoch\",\"epoch\":2,\"step\":20,\"values\":{\"train/loss\":1.5,\"validation/accuracy\":0.5}}\n\
         {\"kind\":\"epoch\",\"epo",
    );
    let record = |split: &str, right: usize| {
        let provenance = Provenance {
            model: model.into(),
            split: split.into(),
            data: "synthetic".into(),
            data_sha256: format!("images of {split}"),
            ..Provenance::default()
        };
        let flags: Vec<bool> = (0..100).map(|i| i < right).collect();
        Record::accuracy(&flags).with_provenance(&provenance)
    };
    let mut records: Vec<Record> =
        ["iid", "shape", "texture", "conflict"].iter().map(|split| record(split, right)).collect();
    for levels in [2.0, 4.0, 8.0] {
        records.push(record("iid", right / 2).under_attack("pgd", levels / 255.0, Some("linf"), Value::Null));
    }
    records.push(record("test", right).under_corruption("gaussian_noise", 3));
    records.push(Record::scalar("low_frequency_bias", 0.625));
    append_jsonl(&folder.join("results.jsonl"), &records).unwrap();
    Section::new("Filters")
        .text("left by an analysis")
        .write_json(&folder.join("sections/filters.json"))
        .unwrap();
}

fn find<'a>(report: &'a Report, heading: &str) -> &'a Section {
    report.sections().iter().find(|s| s.heading == heading).unwrap_or_else(|| {
        panic!(
            "no section {heading:?} among {:?}",
            report.sections().iter().map(|s| &s.heading).collect::<Vec<_>>()
        )
    })
}

fn table(section: &Section) -> &Table {
    section.blocks.iter().find_map(|b| if let Block::Table(t) = b { Some(t) } else { None }).unwrap()
}

#[test]
fn one_run_becomes_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("plain");
    write_run(&run, "resnet9", 60);
    let report = report_for_runs(&[run]).unwrap();
    let accuracy = table(find(&report, "Accuracy"));
    assert_eq!(accuracy.rows.len(), 4, "clean and three strengths of pgd: {accuracy:?}");
    assert_eq!(accuracy.rows[3][0], Cell::text("pgd, ε = 8/255"));
    assert_eq!(accuracy.rows[3][1].value(), Some(0.3));
    assert_eq!(find(&report, "Other measurements").blocks.len(), 1);
    assert_eq!(find(&report, "Filters").blocks.len(), 1);
    let html = report.to_html();
    assert!(html.contains("resnet9") && html.contains("cosine") && html.contains("gaussian noise"));
    assert!(html.contains("loss &lt;b&gt;rises") && html.contains("epoch 2: training was stopped"));
}

#[test]
fn curves_are_grouped_and_repeated_epochs_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("plain");
    write_run(&run, "resnet9", 60);
    let report = report_for_runs(&[run]).unwrap();
    let plots: Vec<_> = find(&report, "Training")
        .blocks
        .iter()
        .filter_map(|b| if let Block::LinePlot(p) = b { Some(p) } else { None })
        .collect();
    const OVERFITTING: &str = "Catastrophic overfitting: accuracy on watched training images";
    let titles: Vec<_> = plots.iter().map(|p| p.title.as_str()).collect();
    assert_eq!(titles, ["Loss", "Accuracy", "Learning rate", "FPCM: mean ω per stage", OVERFITTING]);
    let labels: Vec<_> = plots[0].series.iter().map(|s| s.label.as_str()).collect();
    assert_eq!(labels, ["train", "unperturbed", "validation"]);
    let labels: Vec<_> = plots[4].series.iter().map(|s| s.label.as_str()).collect();
    assert_eq!(labels, ["pgd", "training attack"]);
    assert_eq!(plots[0].series[0].points, [[1.0, 2.0], [2.0, 1.5]]);
    assert_eq!(plots[3].series[0].label, "stage1");
}

#[test]
fn several_runs_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let runs = ["plain", "robust"].map(|name| folder.path().join(name));
    write_run(&runs[0], "resnet9", 60);
    write_run(&runs[1], "vgg11", 80);
    let report = report_for_runs(&runs).unwrap();
    assert_eq!(table(find(&report, "Accuracy")).columns, ["images", "plain", "robust"]);
    let Block::Table(paired) = &find(&report, "Accuracy").blocks[3] else { panic!("no paired comparison") };
    assert_eq!(paired.rows[0][3].value(), Some(20.0), "images that only the second run gets right");
    let settings = table(find(&report, "What was trained"));
    assert_eq!(settings.rows[0], [Cell::text("model"), Cell::text("resnet9"), Cell::text("vgg11")]);
    find(&report, "Filters: robust");
}

#[test]
fn later_records_replace_earlier_ones_and_seeds_are_averaged() {
    let folder = tempfile::tempdir().unwrap();
    let with_seed = |seed: u64, value: f64| {
        let mut record = Record::scalar("accuracy", value);
        record.provenance.seeds = vec![seed];
        record
    };
    let records = [with_seed(1, 0.1), with_seed(1, 0.5), with_seed(2, 0.7)];
    append_jsonl(&folder.path().join("results.jsonl"), &records).unwrap();
    let report = report_for_runs(&[folder.path().into()]).unwrap();
    let accuracy = table(find(&report, "Accuracy"));
    assert_eq!(accuracy.rows.len(), 1);
    assert!((accuracy.rows[0][1].value().unwrap() - 0.6).abs() < 1e-12);
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = |name: &str, text: &str| {
        let run = folder.path().join("run");
        let _ = std::fs::remove_dir_all(&run);
        std::fs::create_dir_all(run.join("analysis")).unwrap();
        std::fs::write(run.join(name), text).unwrap();
        report_for_runs(&[run]).unwrap_err().to_string()
    };
    for (name, text, expected) in [
        ("run.toml", "a = 1\nb = \n", "line 2"),
        ("metrics.jsonl", "{\"kind\":\"epoch\",\"epoch\":1}\n{oops}\n", "line 2"),
        ("metrics.jsonl", "{\"kind\":\"epoch\"}\n", "line 1: an epoch's line needs its number"),
        ("metrics.jsonl", "[1, 2]\n", "line 1"),
        ("results.jsonl", "{\"metric\":\"a\",\"value\":1}\n{\"metric\":7}\n", "line 2"),
        ("analysis/a.json", "{\"heading\":\n3}", "line 2"),
        ("notes.txt", "", "no run.toml"),
    ] {
        let message = message(name, text);
        assert!(message.contains(expected), "{name}: {message}");
        assert!(message.contains(if expected.starts_with("no ") { "run" } else { name }), "{message}");
    }
    assert!(report_for_runs(&[]).is_err());
    assert!(report_for_runs(&[folder.path().join("absent")]).unwrap_err().to_string().contains("absent"));
}
