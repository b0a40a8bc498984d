use serde_json::json;

use super::*;

fn sample() -> Record {
    let provenance = Provenance {
        model: "resnet20".into(),
        data: "cifar10-bin:a,b.bin".into(),
        split: "test".into(),
        seeds: vec![7],
        ..Provenance::default()
    };
    Record::accuracy(&[true, true, false, true])
        .under_attack("pgd", 8.0 / 255.0, Some("linf"), json!({"steps": 10}))
        .with_provenance(&provenance)
}

#[test]
fn records_that_contradict_themselves_are_refused() {
    let path = Path::new("x.json");
    let record = Record::accuracy(&[true, true, false, true]);
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(parse(path, &text).unwrap()[0].value, 0.75);
    let message = parse(path, &text.replace("\"value\":0.75", "\"value\":0.3")).unwrap_err().to_string();
    assert!(message.contains("accuracy 0.3 with 3 of 4"), "{message}");
}

#[test]
fn an_accuracy_has_the_documented_json_shape() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/result.json");
    write_json(&path, &[sample()]).unwrap();
    let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let record = &value["records"][0];
    assert_eq!(record["metric"], "accuracy");
    assert_eq!(record["attack"], "pgd");
    assert_eq!(record["epsilon"], 8.0 / 255.0);
    assert_eq!(record["value"], 0.75);
    assert_eq!((&record["correct"], &record["total"]), (&json!(3), &json!(4)));
    assert_eq!(record["per_image"], "1101");
    let interval = wilson_interval(3, 4);
    assert_eq!(record["ci95"], json!([interval[0], interval[1]]));
    assert_eq!(record["model"], "resnet20");
    assert_eq!(record["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(read(&path).unwrap(), vec![sample_created(&read(&path).unwrap()[0].created)]);
}

fn sample_created(created: &str) -> Record {
    Record { created: created.into(), ..sample() }
}

#[test]
fn reading_is_tolerant() {
    let text = r#"{"records":[{"metric":"accuracy","value":0.5},
        {"metric":"loss","attack":null,"epsilon":"8/255","value":null,"colour":"blue"}]}"#;
    let records = parse(Path::new("x.json"), text).unwrap();
    assert_eq!(records[0].attack, "none");
    assert_eq!(records[0].epsilon, 0.0);
    assert!((records[1].epsilon - 8.0 / 255.0).abs() < 1e-15);
    assert!(records[1].value.is_nan());
    assert_eq!(records[1].extra["colour"], "blue");
}

#[test]
fn a_journal_is_appended_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    append_jsonl(&path, &[sample()]).unwrap();
    append_lines(&path, "{\"kind\":\"image\",\"index\":3}\n").unwrap();
    // A process was killed while it wrote: reading drops the torn line, appending removes it.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"metric\":\"accur");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read(&path).unwrap().len(), 1);
    append_jsonl(&path, &[Record::scalar("loss", 0.25)]).unwrap();
    let records = read(&path).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].metric.as_str(), records[1].value), ("accuracy", 0.25));
}

#[test]
fn malformed_records_name_file_and_line() {
    let message = |text: &str| parse(Path::new("runs/results.jsonl"), text).unwrap_err().to_string();
    let good = "{\"metric\":\"a\",\"value\":1}\n";
    for (text, expected) in [
        (format!("{good}{{broken\n{good}"), "line 2: not valid JSON"),
        (format!("{good}{good}{{\"metric\":\"a\"}}\n"), "line 3: not a result record"),
        ("{\"records\":\n [{\"value\": 3}]}".to_string(), "line 2"),
        (format!("{good}{{\"metric\":\"a\",\"value\":1,\"epsilon\":\"big\"}}\n"), "epsilon \"big\""),
    ] {
        let message = message(&text);
        assert!(message.contains("results.jsonl") && message.contains(expected), "{message}");
    }
}

#[test]
fn csv_quotes_what_needs_quoting() {
    let csv = to_csv(&[sample()]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].starts_with("accuracy,pgd,linf,0.03137"), "{}", lines[1]);
    assert!(lines[1].contains("\"cifar10-bin:a,b.bin\""), "{}", lines[1]);
}

#[test]
fn means_over_seeds_carry_their_interval_and_seeds() {
    let mut records: Vec<Record> = (0..5).map(|_| sample()).collect();
    for (seed, record) in records.iter_mut().enumerate() {
        record.value = seed as f64;
        record.provenance.seeds = vec![seed as u64];
    }
    let mean = Record::mean_of(&records).unwrap();
    assert_eq!(mean.value, 2.0);
    assert_eq!(mean.total, Some(5));
    assert_eq!(mean.provenance.seeds, vec![0, 1, 2, 3, 4]);
    assert!(mean.ci95.unwrap()[0] < 0.1 && mean.per_image.is_none());
    assert!(Record::mean_of(&[]).is_none());
    assert!(Record::mean_of(&records[..1]).unwrap().ci95.is_none());
}
