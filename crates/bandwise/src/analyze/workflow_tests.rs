//! Whole analyses, called as a library's user calls them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Tensor};
use serde_json::json;

use super::masks::Learned;
use super::masks::data_set::{self, DataSetMasksConfig};
use super::masks::per_image::{self, ImageLine, ImageMasksConfig};
use super::space::{Space, View};
use super::*;
use crate::data::{DataSpec, Split};
use crate::evaluate::subject::{Compute, TestSet};
use crate::job::{Progress, Stage};
use crate::lock::Lock;
use crate::method::fourier_mask::Mask;
use crate::network::{ModelSource, Network, NetworkConfig};
use crate::nn::Normalization;
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
    subjects[0].network.as_ref().unwrap().save(&weights).unwrap();
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
    subject(2, DATA).network.unwrap().save(&path).unwrap();
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
    assert!(refused.to_string().contains("breaks 0 of 4 images: there are no masks to learn"), "{refused}");
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
    let ([first_masks], [again]) = (&first.results[..], &again.results[..]) else { panic!("one family") };
    assert_eq!(first_masks.masks.len(), 4);
    assert_eq!((&first_masks.lines, &first_masks.masks), (&again.lines, &again.masks));
    assert!(first.findings.lines[0].starts_with("width 2: 4 masks, "), "{:?}", first.findings.lines);
    assert!(single.join("mean.png").is_file() && single.join("pictures/00000.png").is_file());
    let pixels: ImageMasksConfig = config(json!({"learning": {"max_steps": 2}, "space": "pixels"}));
    let message = per_image::run(&subjects, &job, &pixels, &single).err().unwrap().to_string();
    assert!(message.contains("space: the folder has input, the command pixels"), "{message}");
}

#[test]
fn networks_are_compared_on_images_that_both_judge_alike_and_the_attack_turns() {
    // Both favor the first image's class, and get it right.
    let subjects = [0.5, 1.0].map(|bias| {
        let subject = scaled(1.0, bias);
        Subject { data: TestSet { limit: None, ..subject.data.clone() }, ..subject }
    });
    let job = Job::default();
    let attack = json!({"name": "pgd", "epsilon": 1.0, "steps": 10});
    let compared: ImageMasksConfig = config(json!({"learning": {"max_steps": 3}, "attack": attack}));
    let folder = tempfile::tempdir().unwrap();
    let found = per_image::run(&subjects, &job, &compared, folder.path()).unwrap();
    let [standard, robust, attacked] = &found.results[..] else { panic!("{:?}", found.findings.lines) };
    let images = |learned: &Learned| learned.lines.iter().map(|line| line.image).collect::<Vec<_>>();
    assert!(!standard.lines.is_empty());
    assert!(images(standard) == images(robust) && images(standard) == images(attacked));
    for ((line, other), turned) in standard.lines.iter().zip(&robust.lines).zip(&attacked.lines) {
        let right = |line: &ImageLine| line.clean_prediction == line.label;
        assert!(right(line) == right(other) && right(line) != right(turned));
        assert_eq!((line.target, other.target), (Some(line.clean_prediction), Some(line.clean_prediction)));
        assert_eq!(turned.target, None);
    }
    let folders = std::fs::read_dir(folder.path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 3);
    let names: Vec<&str> = found.findings.sections.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["masks", "seen", "paired"]);
    let sets = found.findings.records.iter().filter(|record| record.metric == "accuracy_through_masks");
    assert_eq!(sets.count(), 3 * 6);
    assert!(found.findings.records.iter().all(|record| record.extra["mask_space"] == "input"));
    let attacked_sets = found.findings.records.iter().filter(|record| record.extra.get("set").is_some());
    for record in attacked_sets.filter(|record| record.extra["set"].as_str().unwrap().contains("x_A")) {
        assert_eq!(record.attack, "pgd");
    }
    let with = |change: serde_json::Value| {
        let mut settings = serde_json::to_value(&compared).unwrap();
        settings.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let changed: ImageMasksConfig = config(settings);
        per_image::run(&subjects, &job, &changed, folder.path()).err().unwrap().to_string()
    };
    assert!(with(json!({"seed": 7})).contains("settings.seed: the folder has 0, the command 7"));
    assert!(with(json!({"attack": null})).contains("settings.attack"));
    let alone = per_image::run(&subjects[..1], &job, &compared, folder.path()).err().unwrap().to_string();
    assert!(alone.contains("belongs to other masks: networks[1]"), "{alone}");
    // Nothing is left to learn, and the same is found.
    let again = per_image::run(&subjects, &job, &compared, folder.path()).unwrap();
    assert_eq!(again.results[1].masks, robust.masks);
}

#[test]
fn masks_act_on_what_the_network_sees_after_its_normalization() {
    let normalization = Normalization { mean: vec![0.2, 0.5, 0.4], std: vec![0.3, 0.2, 0.25] };
    let plain = subject(2, DATA);
    let mut normalizing = plain.network.as_ref().unwrap().config.clone();
    normalizing.normalization = Some(normalization.clone());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    Network::new(normalizing, 1, &Device::Cpu).unwrap().save(&path).unwrap();
    let with = Subject::load(&ModelSource::new(&path), &plain.data, &Compute::default()).unwrap();

    let pixels = plain.data.load(&Device::Cpu).unwrap().images;
    let tensor = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
    let seen = pixels.broadcast_sub(&tensor(&normalization.mean)).unwrap();
    let seen = seen.broadcast_div(&tensor(&normalization.std)).unwrap();
    let values: Vec<f32> = (0..256).map(|p| (p * 37 % 101) as f32 / 100.0).collect();
    let mask = Mask::new(16, 16, values);
    // The same weights without normalization, shown the masked input.
    let expected = plain.classifier.logits_no_graph(&mask.apply(&seen).unwrap()).unwrap();
    let logits = |space: Space| {
        let view = View::of(&with, space).unwrap();
        let images = view.enter(&pixels).unwrap();
        view.logits_no_graph(&mask.apply(&images).unwrap()).unwrap().to_vec2::<f32>().unwrap().concat()
    };
    let expected = expected.to_vec2::<f32>().unwrap().concat();
    let furthest =
        |space: Space| logits(space).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest(Space::Input) < 1e-4, "{}", furthest(Space::Input));
    assert!(furthest(Space::Pixels) > 1e-2, "{}", furthest(Space::Pixels));
}
