//! The journal survives kills, shards merge, and nothing but the parameters changes a result.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use serde_json::json;

use super::engine::run;
use super::journal::{CLEAN, FORMAT, Header, Journal, merge};
use super::preflight;
use super::record::Provenance;
use super::shard::Shard;
use super::tables::{self, WORST_CASE};
use crate::attack::{Attack, AttackOverrides, Classifier, Warning};
use crate::data::array::{ArrayDataset, Pixels, numbered_classes};
use crate::job::Stage;
use crate::{Error, Interrupt, Job, Result, random};

const SIDE: usize = 6;
pub(super) const IMAGES: usize = 23;

/// `logits = images · weights`, optionally through a softmax.
pub(super) struct Linear {
    pub weights: Tensor,
    pub softmax: bool,
}

impl Linear {
    pub fn new() -> Self {
        let mut stream = random::stream(3, &[]);
        let values: Vec<f32> = (0..SIDE * SIDE * 3 * 4).map(|_| stream.random_range(-1.0..1.0)).collect();
        Self {
            weights: Tensor::from_vec(values, (SIDE * SIDE * 3, 4), &Device::Cpu).unwrap(),
            softmax: false,
        }
    }
}

impl Classifier for Linear {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        // Row by row, so that no matrix product of another size can round differently.
        let flat = images.flatten_from(1)?.unsqueeze(2)?;
        let logits = flat.broadcast_mul(&self.weights)?.sum(1)?;
        Ok(if self.softmax { crate::nn::loss::log_softmax(&logits)?.exp()? } else { logits })
    }

    fn num_classes(&self) -> usize {
        4
    }
}

pub(super) fn dataset(model: &Linear) -> ArrayDataset {
    let mut stream = random::stream(4, &[]);
    let pixels: Vec<f32> = (0..IMAGES * SIDE * SIDE * 3).map(|_| stream.random_range(0.2..0.8)).collect();
    let images = Tensor::from_slice(&pixels, (IMAGES, SIDE, SIDE, 3), &Device::Cpu).unwrap();
    let mut labels = model.logits(&images).unwrap().argmax(1).unwrap().to_vec1::<u32>().unwrap();
    labels[5] = (labels[5] + 1) % 4; // one clean mistake
    let shape = [SIDE, SIDE, 3];
    ArrayDataset::new("test", Path::new("test"), Pixels::Floats(pixels), shape, labels, numbered_classes(4))
        .unwrap()
}

pub(super) fn header(shard: Shard) -> Header {
    let small = AttackOverrides {
        epsilon: Some("3/255".parse().unwrap()),
        queries: Some(20),
        ..AttackOverrides::default()
    };
    let attacks =
        ["fgsm", "pgd", "square", "fgsm"].map(|name| small.apply(&name.parse().unwrap()).unwrap().0);
    Header {
        format: FORMAT,
        model: "linear".into(),
        subject: "linear; test".into(),
        configuration: json!({"width": 8, "normalization": {"mean": [0.1, 0.25], "std": [1.0, 0.2]}}),
        weights_sha256: "w".into(),
        data: "test".into(),
        data_sha256: "d".into(),
        split: "test".into(),
        images: IMAGES,
        seed: 7,
        attacks: attacks.to_vec(),
        precision: "f32".into(),
        algorithm: "direct".into(),
        device: "cpu".into(),
        shard,
        version: "0".into(),
    }
}

/// Runs (or continues) the evaluation in `path`.
fn evaluate(path: &Path, shard: Shard, batch_size: usize) -> Result<Journal> {
    judge(path, header(shard), batch_size)
}

pub(super) fn judge(path: &Path, header: Header, batch_size: usize) -> Result<Journal> {
    let model = Linear::new();
    let mut journal = Journal::open(path, header)?;
    let progress = Arc::new(|stage: &Stage<'_>| assert!(stage.done <= stage.total));
    let job = Job { batch_size, progress, ..Job::default() };
    run(&model, &dataset(&model), &mut journal, &job, None)?;
    Ok(journal)
}

pub(super) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_journal_cut_anywhere_continues_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.jsonl");
    evaluate(&whole, Shard::WHOLE, 4).unwrap();
    let expected = text(&whole);
    let mut stream = random::stream(1, &[]);
    let header_end = expected.find('\n').unwrap() + 1;
    for attempt in 0..20 {
        // What is on the disk after a kill: any prefix of the file, mostly ending inside a line.
        let cut = stream.random_range(header_end..expected.len());
        let path = folder.path().join(format!("cut-{attempt}.jsonl"));
        std::fs::write(&path, &expected.as_bytes()[..cut]).unwrap();
        evaluate(&path, Shard::WHOLE, 1 + attempt % 5).unwrap();
        assert_eq!(text(&path), expected, "cut at {cut}");
    }
    // Cut inside the header: the evaluation simply begins anew.
    let path = folder.path().join("header.jsonl");
    std::fs::write(&path, &expected.as_bytes()[..header_end / 2]).unwrap();
    evaluate(&path, Shard::WHOLE, 3).unwrap();
    assert_eq!(text(&path), expected);
}

#[test]
fn shards_merge_to_the_journal_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.jsonl");
    evaluate(&whole, Shard::WHOLE, 8).unwrap();
    let paths: Vec<_> = (1..=3)
        .map(|index| {
            let path = folder.path().join(format!("{index}.jsonl"));
            evaluate(&path, Shard { index, count: 3 }, index).unwrap();
            path
        })
        .collect();
    let out = folder.path().join("merged.jsonl");
    merge(&paths, &out).unwrap();
    assert_eq!(text(&out), text(&whole));
    let missing = merge(&paths[..2], &folder.path().join("two.jsonl")).unwrap_err().to_string();
    assert!(missing.contains("not judged") && missing.contains("first: 2, 5"), "{missing}");
    assert!(!folder.path().join("two.jsonl").exists());
}

#[test]
fn an_unfinished_journal_gives_no_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let journal = Journal::open(&path, header(Shard::WHOLE)).unwrap();
    assert!(tables::rows(&journal).unwrap_err().to_string().contains("not judged"));
}

#[test]
fn tables_show_each_attack_and_the_worst_case() {
    let folder = tempfile::tempdir().unwrap();
    let journal = evaluate(&folder.path().join("results.jsonl"), Shard::WHOLE, 8).unwrap();
    let rows = tables::rows(&journal).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.attack.as_str()).collect();
    assert_eq!(names, [CLEAN, "fgsm 3/255", "pgd 3/255", "square 3/255", "fgsm 3/255#2", WORST_CASE]);
    assert_eq!(rows[0].correct as usize, IMAGES - 1);
    for image in 0..IMAGES {
        let all = rows[..rows.len() - 1].iter().all(|row| row.flags[image]);
        assert_eq!(rows.last().unwrap().flags[image], all);
    }
    assert!(rows[1].correct < rows[0].correct, "the attack broke nothing: the test shows nothing");
    assert_eq!(tables::to_csv(&rows).lines().count(), rows.len() + 1);
    let records = tables::records(&journal, &Provenance::default()).unwrap();
    assert_eq!(records[1].epsilon, 3.0 / 255.0);
    assert_eq!(records.last().unwrap().attack, WORST_CASE);
    let info = tables::robustbench(&journal).unwrap();
    assert_eq!(info["clean_acc"], "95.65");
    assert_eq!(info["eps"], "3/255");
    let comparison = tables::compare(&journal, &journal).unwrap();
    assert_eq!(comparison.len(), rows.len());
    assert!(comparison.iter().all(|c| c.test.difference == 0.0 && c.test.p_exact == 1.0));
}

#[test]
fn each_strength_has_a_worst_case_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |epsilon: &str, names: &[&str]| -> Vec<Attack> {
        let epsilon = Some(epsilon.parse().unwrap());
        let given = AttackOverrides { epsilon, queries: Some(20), ..AttackOverrides::default() };
        names.iter().map(|name| given.apply(&name.parse().unwrap()).unwrap().0).collect()
    };
    let both = ["fgsm", "square"];
    let attacks = [at("1/255", &both), at("3/255", &both), at("6/255", &["fgsm"])].concat();
    let asked = Header { attacks, ..header(Shard::WHOLE) };
    let journal = judge(&folder.path().join("journal.jsonl"), asked, 8).unwrap();
    let rows = tables::rows(&journal).unwrap();
    let worst: Vec<_> = rows.iter().filter(|row| row.attack == WORST_CASE).collect();
    assert_eq!(worst.iter().map(|row| row.bound.as_str()).collect::<Vec<_>>(), ["linf 1/255", "linf 3/255"]);
    assert_eq!(worst[0].members, ["fgsm 1/255", "square 1/255"]);
    for image in 0..IMAGES {
        assert_eq!(worst[1].flags[image], rows[3].flags[image] && rows[4].flags[image]);
    }
    let records = tables::records(&journal, &Provenance::default()).unwrap();
    let strengths: Vec<f64> =
        records.iter().filter(|r| r.attack == WORST_CASE).map(|record| record.epsilon * 255.0).collect();
    assert!((strengths[0] - 1.0).abs() < 1e-9 && (strengths[1] - 3.0).abs() < 1e-9, "{strengths:?}");
    let info = tables::robustbench(&journal).unwrap();
    assert!(info["worst_case_acc linf 1/255"].is_string(), "{info}");
}

#[test]
fn attacked_images_are_kept_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let model = Linear::new();
    let mut journal = Journal::open(&folder.path().join("results.jsonl"), header(Shard::WHOLE)).unwrap();
    let kept = folder.path().join("adversarial");
    let job = Job { batch_size: 50, ..Job::default() };
    run(&model, &dataset(&model), &mut journal, &job, Some(&kept)).unwrap();
    let tensors =
        candle_core::safetensors::load(kept.join("pgd-3-255/000000-000022.safetensors"), &Device::Cpu)
            .unwrap();
    let judged = crate::attack::judge_logits(
        &model.logits(&tensors["images"]).unwrap(),
        &tensors["labels"].to_vec1().unwrap(),
    )
    .unwrap();
    for (verdict, image) in judged.iter().zip(tensors["indices"].to_vec1::<u32>().unwrap()) {
        assert_eq!(!verdict.wrong, journal.get("pgd 3/255", image as usize).unwrap().correct);
    }
    assert!(kept.join("fgsm-3-255-2").is_dir());

    // The same evaluation finds them, and what it has not judged begins anew; another one is refused.
    let path = folder.path().join("results.jsonl");
    let save = |path: &Path, header: Header| {
        let mut journal = Journal::open(path, header).unwrap();
        run(&model, &dataset(&model), &mut journal, &job, Some(&kept)).map(|_| ())
    };
    drop(journal);
    save(&path, header(Shard::WHOLE)).unwrap();
    let smaller = Header { images: 9, ..header(Shard::WHOLE) };
    save(&folder.path().join("new.jsonl"), smaller).unwrap();
    let names = |folder: &str| {
        let entries = std::fs::read_dir(kept.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names("pgd-3-255"), ["000000-000008.safetensors"]);
    let message = save(&path, header(Shard::WHOLE)).unwrap_err().to_string();
    assert!(message.contains("judged under fgsm 3/255 before, without keeping"), "{message}");
    let other = Header { seed: 8, ..header(Shard::WHOLE) };
    let message = save(&folder.path().join("other.jsonl"), other).unwrap_err().to_string();
    assert!(message.contains("seed: the folder has 7, the command 8; choose another folder"), "{message}");
}

#[test]
fn a_stop_keeps_what_was_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.jsonl");
    let model = Linear::new();
    let interrupt = Interrupt::default();
    let mut journal = Journal::open(&path, header(Shard::WHOLE)).unwrap();
    let raised = interrupt.clone();
    let progress = Arc::new(move |stage: &Stage<'_>| {
        if stage.name == "pgd 3/255" {
            raised.raise();
        }
    });
    let job = Job { batch_size: 4, interrupt, progress, ..Job::default() };
    let stopped = run(&model, &dataset(&model), &mut journal, &job, None);
    assert!(matches!(stopped, Err(Error::Interrupted(_))));
    drop(journal);
    assert!(Journal::read(&path).unwrap().missing("fgsm 3/255").is_empty());
    evaluate(&path, Shard::WHOLE, 8).unwrap();
    let whole = folder.path().join("whole.jsonl");
    evaluate(&whole, Shard::WHOLE, 8).unwrap();
    assert_eq!(text(&path), text(&whole));
}

#[test]
fn the_contract_is_checked_before_anything_expensive() {
    let model = Linear::new();
    let images = Tensor::full(0.4f32, (3, SIDE, SIDE, 3), &Device::Cpu).unwrap();
    let labels = Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap();
    let check = |model: &Linear, images: &Tensor| preflight::check(model, images, &labels, &[]);
    let found = check(&model, &images).unwrap();
    assert!(found.warnings.is_empty() && found.correct <= 1);
    assert!(found.to_string().starts_with("pre-flight on 3 images: "), "{found}");
    let attacks: Vec<Attack> = vec!["autoattack".parse().unwrap()];
    assert!(found.longest(&attacks, 100, 4) >= found.longest(&[], 100, 4));
    let standardized = (images.affine(4.0, -2.0)).unwrap();
    let message = check(&model, &standardized).unwrap_err().to_string();
    assert!(message.contains("[0, 1]"), "{message}");
    let broken = Linear { weights: (&model.weights * f64::INFINITY).unwrap(), softmax: false };
    assert!(check(&broken, &images).unwrap_err().to_string().contains("finite"));
    // Finite, though their sum is not.
    let weights = (&model.weights * 0.0).unwrap();
    let large = Tensor::new(&[7e36f32, 5e36, 4e36, 3e36], &Device::Cpu).unwrap();
    let large = Linear { weights: weights.broadcast_add(&large).unwrap(), softmax: false };
    assert_eq!(check(&large, &images).unwrap().correct, 1);
    let softmax = Linear { softmax: true, ..Linear::new() };
    assert_eq!(check(&softmax, &images).unwrap().warnings, [Warning::SoftmaxOutput]);
    let unknown = Tensor::new(&[0u32, 1, 9], &Device::Cpu).unwrap();
    assert!(preflight::check(&model, &images.to_dtype(DType::F32).unwrap(), &unknown, &[]).is_err());
    let outside = AttackOverrides { band: Some("60:90".parse().unwrap()), ..AttackOverrides::default() };
    let outside = outside.attacks(&["pgd"]).unwrap();
    let message = preflight::check(&model, &images, &labels, &outside).unwrap_err().to_string();
    assert!(message.contains("60:90"), "{message}");
}

#[test]
fn a_stop_after_every_few_passes_still_comes_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let answers = folder.path().join(".journal.jsonl.answers");
    let model = Linear::new();
    let long = AttackOverrides {
        epsilon: Some("0.5/255".parse().unwrap()),
        queries: Some(60),
        ..AttackOverrides::default()
    };
    let attacks = ["autoattack", "deepfool", "cw-l2", "fourier-basis"].map(|name| {
        let few = AttackOverrides { queries: (name == "autoattack").then_some(60), ..long.clone() };
        few.apply(&name.parse().unwrap()).unwrap().0
    });
    let asked = Header { attacks: attacks.to_vec(), images: 6, ..header(Shard::WHOLE) };
    let (mut stops, mut kept) = (0, 0);
    loop {
        // Far fewer passes than any of the attacks needs for one image; what is recalled is not counted.
        let counted =
            Counted { model: Linear::new(), left: AtomicUsize::new(150), interrupt: Interrupt::default() };
        let mut journal = Journal::open(&path, asked.clone()).unwrap();
        let job = Job { batch_size: 8, interrupt: counted.interrupt.clone(), ..Job::default() };
        match run(&counted, &dataset(&model), &mut journal, &job, None) {
            Ok(_) => break,
            Err(Error::Interrupted(_)) => stops += 1,
            Err(error) => panic!("{error}"),
        }
        kept += usize::from(answers.exists());
        assert!(stops < 400, "no end");
    }
    assert!(kept > 10, "{kept} of {stops} stops left answers behind");
    assert!(!answers.exists());
    let undisturbed = folder.path().join("undisturbed.jsonl");
    judge(&undisturbed, asked, 8).unwrap();
    assert_eq!(text(&path), text(&undisturbed));
}

/// Stops the job after so many passes.
struct Counted {
    model: Linear,
    left: AtomicUsize,
    interrupt: Interrupt,
}

impl Classifier for Counted {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.interrupt.raise();
        }
        self.model.logits(images)
    }

    fn num_classes(&self) -> usize {
        self.model.num_classes()
    }
}
