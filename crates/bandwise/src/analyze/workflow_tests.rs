//! Whole analyses, called as a library's user calls them.

use candle_core::Device;
use serde_json::json;

use super::masks::data_set::{self, DataSetMasksConfig};
use super::masks::per_image::{self, ImageMasksConfig};
use super::*;
use crate::data::{DataSpec, Split};
use crate::evaluate::subject::{Compute, TestSet};
use crate::network::{ModelSource, Network, NetworkConfig};

fn subject(width: usize, data: &str) -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let config = NetworkConfig { width: Some(width), ..NetworkConfig::new("resnet20") }.resolved(10, 3);
    Network::new(config, 1, &Device::Cpu).unwrap().save(&path).unwrap();
    let data = TestSet::open(&data.parse::<DataSpec>().unwrap(), Split::Test, Some(4)).unwrap();
    let subject = Subject::load(&ModelSource::new(&path), &data, &Compute::default()).unwrap();
    Subject { label: format!("width {width}"), ..subject }
}

/// A configuration as a file says it: everything else is by default.
fn config<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

const DATA: &str = "synthetic:test_count=10,size=16";

#[test]
fn every_analysis_is_a_call() {
    let (subjects, job) = ([subject(2, DATA), subject(4, DATA)], Job { batch_size: 3, ..Job::default() });
    let mut all = vec![
        heatmap::run(&subjects, &job, &config(json!({"largest_frequency": 1, "seed": 5}))).unwrap().findings,
        bands::run(&subjects, &job, &config(json!({"radius_step": 6.0, "sectors": 1}))).unwrap().findings,
        perturbations::run(&subjects, &job, &config(json!({"attack": {"name": "fgsm"}}))).unwrap().findings,
        features::run(&subjects, &job).unwrap().findings,
        gradients::run(&subjects, &job).unwrap().findings,
    ];
    assert!(all[0].records.iter().all(|record| record.provenance.seeds == [5]));
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("model.safetensors");
    subjects[0].network.save(&weights).unwrap();
    let loaded = ModelSource::new(&weights).load(&Device::Cpu).unwrap();
    all.push(filters::run(&[("width 2".into(), loaded)]).unwrap().findings);
    for findings in all {
        assert!(findings.tables[0].1.lines().count() > 2 && !findings.sections[0].1.blocks.is_empty());
        assert!(findings.lines[0].starts_with("width 2"), "{:?}", findings.lines);
        assert!(findings.records.iter().all(|record| record.provenance.weights_sha256.len() == 64));
    }
}

#[test]
fn what_cannot_be_set_side_by_side_is_refused_and_a_stop_ends_an_analysis() {
    let message = |result: Result<Analysis<_>>| result.err().unwrap().to_string();
    let other = subject(2, "synthetic:test_count=10,size=16,seed=3");
    let subjects = [subject(2, DATA), other];
    assert!(message(gradients::run(&subjects, &Job::default())).contains("the same images"));
    assert!(message(gradients::run(&[], &Job::default())).contains("at least one network"));
    let none = Job { batch_size: 0, ..Job::default() };
    assert!(message(gradients::run(&subjects[..1], &none)).contains("at least 1"));
    let stopped = Job::default();
    stopped.interrupt.raise();
    assert!(message(gradients::run(&subjects[..1], &stopped)).contains("nothing was written"));
}

#[test]
fn masks_are_learned_kept_and_resumed() {
    let (subjects, job) = ([subject(2, DATA)], Job::default());
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared");
    let one: DataSetMasksConfig = config(json!({"learning": {"epochs": 1}}));
    let first = data_set::run(&subjects, &job, &one, &shared).unwrap();
    let stopped = Job::default();
    stopped.interrupt.raise();
    // Everything is learned already: nothing is left that could be stopped.
    let again = data_set::run(&subjects, &stopped, &one, &shared).unwrap();
    assert_eq!(first.results[0].learned.mask, again.results[0].learned.mask);
    assert!(shared.join("mask.npy").is_file() && shared.join("mask.png").is_file());
    let two: DataSetMasksConfig = config(json!({"learning": {"epochs": 2}}));
    let message = data_set::run(&subjects, &job, &two, &shared).err().unwrap().to_string();
    assert!(message.contains("choose another folder"), "{message}");

    let single = folder.path().join("single");
    let few: ImageMasksConfig = config(json!({"learning": {"max_steps": 2}}));
    let message = per_image::run(&subjects, &stopped, &few, &single).err().unwrap().to_string();
    assert!(message.contains("saved so far: 0 masks"), "{message}");
    let first = per_image::run(&subjects, &job, &few, &single).unwrap();
    let again = per_image::run(&subjects, &stopped, &few, &single).unwrap();
    assert_eq!(first.results.len(), 4);
    assert_eq!(first.results, again.results);
    assert!(first.findings.lines[0].starts_with("4 masks: "), "{:?}", first.findings.lines);
    assert!(single.join("mean.png").is_file() && single.join("pictures/00000.png").is_file());
    let two = [subject(2, DATA), subject(4, DATA)];
    let message = per_image::run(&two, &job, &few, &single).err().unwrap().to_string();
    assert!(message.contains("one model at a time"), "{message}");
}
