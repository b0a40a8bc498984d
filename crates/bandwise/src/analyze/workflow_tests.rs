//! Whole analyses, called as a library's user calls them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor};
use serde_json::json;

use super::masks::data_set::{self, DataSetMasksConfig};
use super::masks::per_image::{self, ImageMasksConfig};
use super::*;
use crate::data::{DataSpec, Split};
use crate::evaluate::subject::{Compute, TestSet};
use crate::job::{Progress, Stage};
use crate::lock::Lock;
use crate::network::{ModelSource, Network, NetworkConfig};
use crate::plot::Block;

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

/// A network whose last layer is scaled, by 0 to a constant, and that favors the class of the first image by `bias`.
fn scaled(factor: f64, bias: f64) -> Subject {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    subject(2, DATA).network.save(&path).unwrap();
    let mut tensors: HashMap<String, Tensor> = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let data = TestSet::open(&DATA.parse::<DataSpec>().unwrap(), Split::Test, Some(4)).unwrap();
    let right = data.load(&Device::Cpu).unwrap().label_values[0];
    let favor: Vec<f32> = (0..10).map(|class| if class == right { bias as f32 } else { 0.0 }).collect();
    let last = |tensors: &HashMap<String, Tensor>, name: &str| (&tensors[name] * factor).unwrap();
    let weight = last(&tensors, "linear.weight");
    let bias = (last(&tensors, "linear.bias") + Tensor::new(favor, &Device::Cpu).unwrap()).unwrap();
    tensors.extend([("linear.weight".into(), weight), ("linear.bias".into(), bias)]);
    let metadata = {
        let bytes = std::fs::read(&path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        metadata.metadata().clone()
    };
    safetensors::serialize_to_file(tensors, metadata, &path).unwrap();
    Subject::load(&ModelSource::new(&path), &data, &Compute::default()).unwrap()
}

/// A job that keeps what is said.
fn listening() -> (Job, Arc<Mutex<Vec<String>>>) {
    struct Notes(Arc<Mutex<Vec<String>>>);
    impl Progress for Notes {
        fn update(&self, _: &Stage<'_>) {}
        fn note(&self, line: &str) {
            self.0.lock().unwrap().push(line.into());
        }
    }
    let notes = Arc::new(Mutex::new(Vec::new()));
    (Job { progress: Arc::new(Notes(notes.clone())), ..Job::default() }, notes)
}

fn warns(findings: &Findings, what: &str) {
    assert!(!findings.records.is_empty());
    for record in &findings.records {
        assert!(record.warnings.iter().any(|warning| warning.contains(what)), "{:?}", record.warnings);
    }
    let is_told = |block: &Block| matches!(block, Block::Note { text, warning: true } if text.contains(what));
    assert!(is_told(&findings.sections[0].1.blocks[0]), "{:?}", findings.sections[0].1.blocks[0]);
}

#[test]
fn masked_gradients_are_told_by_every_analysis_that_follows_them() {
    let (job, notes) = listening();
    let pgd = json!({"name": "pgd", "steps": 2});
    for (network, what) in [
        (scaled(0.0, 0.0), "masked gradients: on 4 of 4 images pgd would see no gradient; the logits"),
        (scaled(1.0, 1e3), "images pgd would see no gradient; its loss is saturated there"),
    ] {
        let found = perturbations::run(&[network], &job, &config(json!({"attack": pgd}))).unwrap();
        warns(&found.findings, what);
    }
    let said = notes.lock().unwrap().join("\n");
    assert!(said.contains("attack: PGD") && said.contains("seed 0"), "{said}");
    assert!(said.contains("warning: ") && said.contains("masked gradients"), "{said}");
    let plain = perturbations::run(&[scaled(1.0, 0.0)], &job, &config(json!({"attack": pgd}))).unwrap();
    assert!(plain.findings.records.iter().all(|record| record.warnings.is_empty()));

    // Before masks of images that it breaks, of which there are none here.
    let (job, notes) = listening();
    let folder = tempfile::tempdir().unwrap();
    let few: ImageMasksConfig = config(json!({"learning": {"max_steps": 1}, "attack": pgd}));
    let refused = per_image::run(&[scaled(1.0, 1e3)], &job, &few, folder.path()).err().unwrap();
    assert!(refused.to_string().contains("breaks no image"), "{refused}");
    let said = notes.lock().unwrap().join("\n");
    assert!(said.contains("attack: PGD") && said.contains("masked gradients"), "{said}");
}

#[test]
fn a_constant_network_has_no_low_frequency_bias() {
    let constant = Subject { label: "constant".into(), ..scaled(0.0, 0.0) };
    let found = gradients::run(&[constant, subject(4, DATA)], &Job::default()).unwrap().findings;
    assert_eq!(found.lines[0], "constant: no low-frequency bias, mean norm 0.0000");
    let what = "the gradient is zero on 4 of 4 images; there is no bias";
    assert!(found.lines[1].starts_with("warning: constant: ") && found.lines[1].contains(what), "{found:?}");
    let of = |label: &str| found.records.iter().filter(|r| r.extra["label"] == label).collect::<Vec<_>>();
    let [norm] = of("constant")[..] else { panic!("{:?}", of("constant")) };
    assert_eq!((norm.metric.as_str(), norm.value), ("gradient_norm", 0.0));
    assert!(norm.warnings[0].contains(what));
    assert!(of("width 4").len() == 2 && of("width 4").iter().all(|record| record.warnings.is_empty()));
    let first = &found.sections[0].1.blocks[0];
    assert!(matches!(first, Block::Note { text, warning: true } if text.contains(what)), "{first:?}");
}

#[test]
fn masks_are_learned_by_one_writer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let lock = Lock::folder(folder.path()).unwrap();
    let (subjects, job) = ([subject(2, DATA)], Job::default());
    let one: DataSetMasksConfig = config(json!({"learning": {"epochs": 1}}));
    let few: ImageMasksConfig = config(json!({"learning": {"max_steps": 1}}));
    for message in [
        data_set::run(&subjects, &job, &one, folder.path()).err().unwrap().to_string(),
        per_image::run(&subjects, &job, &few, folder.path()).err().unwrap().to_string(),
    ] {
        assert!(message.contains("is being written by process"), "{message}");
    }
    drop(lock);
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
