//! Warnings are part of a journal, and come out with its numbers.

use std::path::Path;

use super::engine::run;
use super::engine_tests::{IMAGES, Linear, dataset, header, text};
use super::journal::{Header, Journal, Noted, merge};
use super::journal_tests::{attack, autoattack};
use super::record::Provenance;
use super::shard::Shard;
use super::tables;
use crate::Job;
use crate::attack::{Attack, AutoAttack, AutoAttackVersion, Classifier, Epsilon, Warning};

#[test]
fn doubts_about_the_subject_stand_beside_every_number_and_those_about_an_attack_beside_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let asked = Header { attacks: vec![attack("fgsm", 3.0), attack("square", 3.0)], ..header(Shard::WHOLE) };
    let doubt = Warning::Subject { text: "weights are missing".into() };
    let masked =
        Warning::MaskedGradients { attacks: "fgsm".into(), images: 3, total: 4, advice: "use square".into() };
    let model = Linear::new();
    let mut journal = Journal::open(&path, asked).unwrap();
    journal.note(None, &[doubt.clone(), masked.clone()]).unwrap();
    run(&model, &dataset(&model), &mut journal, &Job::default(), None).unwrap();
    drop(journal);
    let journal = Journal::read(&path).unwrap();
    let records = tables::records(&journal, &tables::provenance(journal.header())).unwrap();
    let [clean, fgsm, square, worst] = &records[..] else { panic!("{} records", records.len()) };
    let (doubt, masked) = (doubt.to_string(), masked.to_string());
    for (record, is_masked) in [(clean, false), (fgsm, true), (square, false), (worst, false)] {
        assert!(record.warnings.contains(&doubt), "{record:?}");
        assert_eq!(record.warnings.contains(&masked), is_masked, "{record:?}");
        assert_eq!(record.provenance.subject, "linear; test");
    }
}

#[test]
fn warnings_stay_with_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Header { attacks: vec![attack("fgsm", 3.0), autoattack(6.0)], ..header(Shard::WHOLE) };
    let model = Linear { softmax: true, ..Linear::new() };
    let data = dataset(&model);
    let evaluate = |path: &Path, shard| {
        let mut journal = Journal::open(path, Header { shard, ..asked.clone() }).unwrap();
        journal.note(None, &[Warning::SoftmaxOutput]).unwrap();
        run(&model, &data, &mut journal, &Job::default(), None).unwrap().warnings
    };
    let path = folder.path().join("whole.jsonl");
    let expected = evaluate(&path, Shard::WHOLE);
    let of = |label: Option<&str>| Noted { attack: label.map(Into::into), warning: Warning::SoftmaxOutput };
    assert!(expected.starts_with(&[of(None), of(Some("autoattack-custom 6/255"))]), "{expected:?}");
    let bytes = text(&path);
    // Continued with nothing to do, read, and merged from shares: the same warnings, the same bytes.
    assert_eq!(evaluate(&path, Shard::WHOLE), expected);
    assert_eq!(text(&path), bytes);
    assert_eq!(Journal::read(&path).unwrap().warnings(), expected);
    let shares: Vec<_> = (1..=2)
        .map(|index| {
            let path = folder.path().join(format!("{index}.jsonl"));
            evaluate(&path, Shard { index, count: 2 });
            path
        })
        .collect();
    let merged = merge(&shares, &folder.path().join("merged.jsonl")).unwrap();
    assert_eq!(merged.warnings(), expected);
    assert_eq!(text(merged.path()), bytes);
    let records = tables::records(&merged, &Provenance::default()).unwrap();
    let softmax = Warning::SoftmaxOutput.to_string();
    assert!(records.iter().all(|record| record.warnings.contains(&softmax)));
    let json = serde_json::to_value(&records[1]).unwrap();
    assert_eq!(json["warnings"][0], softmax.as_str());
    // A copy of a share adds nothing; images with zero gradients in different shares add up.
    let zeros = |journal: &mut Journal, images| {
        let warning = Warning::ZeroGradients { images, advice: String::new() };
        let noted = Noted { attack: Some("fgsm 3/255".into()), warning };
        journal.append(Vec::new(), vec![noted]).unwrap();
    };
    for (index, images) in [(1, 3), (2, 4)] {
        let header = Header { shard: Shard { index, count: 2 }, ..asked.clone() };
        zeros(&mut Journal::open(&shares[index - 1], header).unwrap(), images);
    }
    let copy = folder.path().join("copy.jsonl");
    std::fs::copy(&shares[0], &copy).unwrap();
    let all = [shares[0].clone(), shares[1].clone(), copy];
    let merged = merge(&all, &folder.path().join("again.jsonl")).unwrap();
    let counted: Vec<Warning> = merged.warnings().into_iter().map(|noted| noted.warning).collect();
    let seven = |warning: &Warning| matches!(warning, Warning::ZeroGradients { images: 7, .. });
    assert!(counted.iter().any(seven), "{counted:?}");
}

#[test]
fn zero_gradients_are_counted_from_the_judgments() {
    let folder = tempfile::tempdir().unwrap();
    let linear = Linear::new();
    let data = dataset(&linear);
    // Right on the images as they are, and without any gradient.
    struct Flat(Linear);
    impl Classifier for Flat {
        fn logits(&self, images: &candle_core::Tensor) -> crate::Result<candle_core::Tensor> {
            Ok(self.0.logits(&images.detach())?.detach())
        }
        fn num_classes(&self) -> usize {
            self.0.num_classes()
        }
    }
    let auto = Attack::AutoAttack(AutoAttack {
        epsilon: Epsilon::of_255(0.001),
        version: AutoAttackVersion::Custom,
        attacks: ["apgd-ce", "apgd-t", "fab-t"].map(String::from).to_vec(),
        steps: 2,
        ..AutoAttack::default()
    });
    let label = "autoattack-custom 0.001/255";
    let evaluate = |path: &Path, shard: Shard| {
        let asked = Header { attacks: vec![auto.clone(), attack("fgsm", 0.001)], ..header(shard) };
        let mut journal = Journal::open(path, asked).unwrap();
        run(&Flat(Linear::new()), &data, &mut journal, &Job::default(), None).unwrap()
    };
    let counts = |warnings: &[Noted]| -> Vec<(String, usize)> {
        let count = |noted: &Noted| match &noted.warning {
            Warning::ZeroGradients { images, .. } => Some((noted.attack.clone()?, *images)),
            _ => None,
        };
        warnings.iter().filter_map(count).collect()
    };
    let path = folder.path().join("whole.jsonl");
    let expected = vec![(label.to_string(), IMAGES - 1), ("fgsm 0.001/255".to_string(), IMAGES - 1)];
    assert_eq!(counts(&evaluate(&path, Shard::WHOLE).warnings), expected);
    assert_eq!(counts(&evaluate(&path, Shard::WHOLE).warnings), expected, "continued");
    let shares: Vec<_> = (1..=2)
        .map(|index| {
            let path = folder.path().join(format!("{index}.jsonl"));
            evaluate(&path, Shard { index, count: 2 });
            path
        })
        .collect();
    let merged = merge(&shares, &folder.path().join("merged.jsonl")).unwrap();
    assert_eq!(counts(&merged.warnings()), expected);
    assert_eq!(text(merged.path()), text(&path));
    // Each attack's row has its own; the worst case repeats none.
    let records = tables::records(&merged, &Provenance::default()).unwrap();
    let zero = |text: &String| text.contains("zero gradients on 22 images");
    let told: Vec<usize> = records.iter().map(|r| r.warnings.iter().filter(|w| zero(w)).count()).collect();
    assert_eq!(told, [0, 1, 1, 0]);
}

#[test]
fn square_breaking_what_gradients_left_is_told_from_the_judgments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    /// Right on every clean image; its gradients are zero, and large changes break it.
    struct Masked(Linear);
    impl Classifier for Masked {
        fn logits(&self, images: &candle_core::Tensor) -> crate::Result<candle_core::Tensor> {
            // Rounding has no gradient.
            self.0.logits(&images.affine(12.0, 0.0)?.round()?.affine(1.0 / 12.0, 0.0)?.detach())
        }
        fn num_classes(&self) -> usize {
            self.0.num_classes()
        }
    }
    let model = Masked(Linear::new());
    let data = dataset(&model.0);
    let attack = Attack::AutoAttack(AutoAttack {
        epsilon: Epsilon::of_255(24.0),
        version: AutoAttackVersion::Custom,
        attacks: vec!["apgd-t".into(), "square".into()],
        queries: 60,
        steps: 2,
        ..AutoAttack::default()
    });
    let asked = Header { attacks: vec![attack], ..header(Shard::WHOLE) };
    let mut journal = Journal::open(&path, asked).unwrap();
    let warnings = run(&model, &data, &mut journal, &Job::default(), None).unwrap().warnings;
    drop(journal);
    let better = warnings.iter().any(|noted| matches!(noted.warning, Warning::SquareBetter { .. }));
    let zero = warnings.iter().any(|noted| matches!(noted.warning, Warning::ZeroGradients { .. }));
    assert!(better && zero, "{warnings:?}");
    assert_eq!(Journal::read(&path).unwrap().warnings(), warnings);
}
