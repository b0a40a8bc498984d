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
            algorithm: "winograd-f4x3, direct".into(),
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
    assert_eq!(accuracy.rows[3][0], Cell::text("pgd, L∞ ε = 8/255"));
    assert_eq!(accuracy.rows[3][1].value(), Some(0.3));
    assert_eq!(find(&report, "Other measurements").blocks.len(), 1);
    assert_eq!(find(&report, "Filters").blocks.len(), 1);
    let html = report.to_html();
    assert!(html.contains("cpu, f32, winograd-f4x3, direct"));
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
        record.provenance.configuration = serde_json::json!({"seed": seed, "epochs": 2});
        record
    };
    let records = [with_seed(1, 0.1), with_seed(1, 0.5), with_seed(2, 0.7)];
    append_jsonl(&folder.path().join("results.jsonl"), &records).unwrap();
    let report = report_for_runs(&[folder.path().into()]).unwrap();
    let accuracy = table(find(&report, "Accuracy"));
    assert_eq!(accuracy.rows.len(), 1);
    assert!((accuracy.rows[0][1].value().unwrap() - 0.6).abs() < 1e-12);
}

/// The folder that `bandwise mask` leaves: three accuracies told apart by one field.
#[test]
fn accuracies_through_a_mask_are_no_clean_accuracies() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = Vec::new();
    for (model, rights) in [("plain", [27, 20, 3]), ("robust", [25, 24, 10])] {
        for (mask, right) in ["none", "masked", "complement"].into_iter().zip(rights) {
            let flags: Vec<bool> = (0..40).map(|i| i < right).collect();
            let mut record = Record::accuracy(&flags);
            record.extra.insert("label".into(), model.into());
            record.extra.insert("fourier_mask".into(), mask.into());
            record.extra.insert("relative_l1".into(), 0.5.into());
            records.push(record);
        }
    }
    for radius in 0..20 {
        let mut record = Record::proportion("band_accuracy", radius, 40);
        record.extra.insert("label".into(), "plain".into());
        record.extra.insert("window".into(), "low-pass".into());
        record.extra.insert("to".into(), radius.into());
        records.push(record);
    }
    append_jsonl(&folder.path().join("results.jsonl"), &records).unwrap();
    let report = report_for_runs(&[folder.path().into()]).unwrap();
    let accuracy = table(find(&report, "Accuracy"));
    assert_eq!(accuracy.columns, ["images", "plain", "robust"]);
    let numbers: Vec<(&Cell, Vec<f64>)> = accuracy
        .rows
        .iter()
        .map(|row| (&row[0], row[1..].iter().filter_map(Cell::value).collect()))
        .collect();
    assert_eq!(
        numbers,
        [
            (&Cell::text("clean"), vec![27.0 / 40.0, 25.0 / 40.0]),
            (&Cell::text("clean, through the Fourier mask"), vec![0.5, 0.6]),
            (&Cell::text("clean, through the mask's complement"), vec![3.0 / 40.0, 0.25]),
        ]
    );
    let Block::Details { summary, blocks } = &find(&report, "Other measurements").blocks[0] else { panic!() };
    let Block::Table(bands) = &blocks[0] else { panic!() };
    assert_eq!((summary.as_str(), bands.rows.len()), ("All 20 numbers of band accuracy", 20));
}

#[test]
fn a_heat_map_of_the_first_version_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let line = "{\"metric\":\"fourier_heat_map_error\",\"value\":0.25,\"norm\":4.0,\"label\":\"a\"}\n";
    append_lines(&folder.path().join("results.jsonl"), line).unwrap();
    let report = report_for_runs(&[folder.path().into()]).unwrap();
    let row = &table(find(&report, "Other measurements")).rows[0];
    assert_eq!(row[0], Cell::text("fourier heat map error: wave of L2 norm 4"));
    assert_eq!(row[1].value(), Some(0.25));
}

/// A run of a recipe with a seed; all seeds judge the same images.
fn write_seed(folder: &Path, name: &str, seed: u64, rate: f64, right: usize) {
    let text = format!("name = \"{name}\"\nseed = {seed}\nepochs = 2\nlearning_rate = {rate:?}\n");
    append_lines(&folder.join("run.toml"), &text).unwrap();
    let loss = 1.0 + seed as f64 / 10.0;
    let line = format!("{{\"kind\":\"epoch\",\"epoch\":1,\"values\":{{\"train/loss\":{loss}}}}}\n");
    append_lines(&folder.join("metrics.jsonl"), &line).unwrap();
    let flags: Vec<bool> = (0..100).map(|i| i < right).collect();
    let provenance = Provenance {
        weights_sha256: format!("{name}{seed}"),
        data_sha256: "images".into(),
        seeds: vec![seed],
        configuration: serde_json::json!({"name": name, "seed": seed, "epochs": 2, "learning_rate": rate}),
        ..Provenance::default()
    };
    let record = Record::accuracy(&flags).with_provenance(&provenance);
    append_jsonl(&folder.join("results.jsonl"), &[record]).unwrap();
}

#[test]
fn seeds_of_one_configuration_are_one_column() {
    let folder = tempfile::tempdir().unwrap();
    let runs: Vec<_> = (0..3).map(|seed| folder.path().join(format!("seed{seed}"))).collect();
    for (seed, run) in runs.iter().enumerate() {
        write_seed(run, "plain", seed as u64, 0.1, 60 + 2 * seed);
    }
    let report = report_for_runs(&runs).unwrap();
    let section = find(&report, "Accuracy");
    let accuracy = table(section);
    assert_eq!(accuracy.columns, ["images", "plain, 3 seeds"]);
    let Cell::Number(mean) = &accuracy.rows[0][1] else { panic!() };
    assert!((mean.value - 0.62).abs() < 1e-12 && mean.seeds == 3 && !mean.best);
    // Student's t(0.975, 2) = 4.302653, standard deviation 0.02.
    assert!((mean.interval.unwrap()[1] - 0.62 - 4.302_653 * 0.02 / 3f64.sqrt()).abs() < 1e-6);
    assert!(!report.to_html().contains("McNemar's test: counts"), "no test among seeds");
    let Block::LinePlot(loss) = &find(&report, "Training").blocks[1] else { panic!() };
    let [epoch, mean_loss] = loss.series[0].points[0];
    assert!(loss.series.len() == 1 && epoch == 1.0 && (mean_loss - 1.1).abs() < 1e-12);
    assert_eq!(loss.series[0].band.len(), 1);

    // Another configuration is tested against them, as a whole; the same seed twice is no repetition.
    let other: Vec<_> = (0..3).map(|seed| folder.path().join(format!("other{seed}"))).collect();
    for (seed, run) in other.iter().enumerate() {
        write_seed(run, "other", seed as u64, 0.2, 80 + seed);
    }
    let all: Vec<_> = runs.iter().chain(&other).cloned().collect();
    let report = report_for_runs(&all).unwrap();
    let section = find(&report, "Accuracy");
    assert_eq!(table(section).columns, ["images", "plain, 3 seeds", "other, 3 seeds"]);
    assert!(matches!(&table(section).rows[0][2], Cell::Number(number) if number.best));
    let tables: Vec<&Table> =
        section.blocks.iter().filter_map(|b| if let Block::Table(t) = b { Some(t) } else { None }).collect();
    assert_eq!((tables.len(), tables[1].rows.len()), (2, 1));
    assert_eq!(tables[1].title, "Comparison of means over seeds");
    let copy = folder.path().join("copy");
    write_seed(&copy, "plain", 0, 0.1, 60);
    let report = report_for_runs(&[runs[0].clone(), copy]).unwrap();
    assert_eq!(table(find(&report, "Accuracy")).columns.len(), 3);
}

#[test]
fn a_lead_by_chance_is_not_set_off() {
    let folder = tempfile::tempdir().unwrap();
    let runs = ["plain", "robust"].map(|name| folder.path().join(name));
    write_run(&runs[0], "resnet9", 60);
    write_run(&runs[1], "vgg11", 62);
    let report = report_for_runs(&runs).unwrap();
    let best = |cell: &Cell| matches!(cell, Cell::Number(number) if number.best);
    assert!(!table(find(&report, "Accuracy")).rows[0].iter().any(best));
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
        ("results.jsonl", "", "nothing to report"),
    ] {
        let message = message(name, text);
        assert!(message.contains(expected), "{name}: {message}");
        assert!(message.contains(if expected.starts_with("no") { "run" } else { name }), "{message}");
    }
    assert!(report_for_runs(&[]).is_err());
    assert!(report_for_runs(&[folder.path().join("absent")]).unwrap_err().to_string().contains("absent"));
}
