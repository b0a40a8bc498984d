use candle_core::DType;
use serde_json::Value;

use super::*;
use crate::attack::golden_tests::network;
use crate::corruption::{FrostTextures, Protocol};
use crate::golden;

/// Records of every given corruption with the accuracies of severities 1, 2, …, over ten images.
fn records(accuracies: &[(Corruption, f64, &[u8])]) -> Vec<Record> {
    let mut records = Vec::new();
    for &(corruption, centroid, right) in accuracies {
        for (index, &right) in right.iter().enumerate() {
            let flags: Vec<bool> = (0..10).map(|image| image < right).collect();
            let mut record = Record::accuracy(&flags).under_corruption(corruption.name(), index as u8 + 1);
            record.extra.insert(CENTROID.into(), centroid.into());
            records.push(record);
        }
    }
    records
}

fn value(summary: &[Record], metric: &str) -> f64 {
    summary.iter().find(|record| record.metric == metric).map_or(f64::NAN, |record| record.value)
}

#[test]
fn means_are_over_what_they_say() {
    let few = records(&[
        (Corruption::GaussianNoise, 0.8, &[9, 1]),
        (Corruption::Fog, 0.1, &[10, 8]),
        (Corruption::DefocusBlur, 0.3, &[6, 4]),
    ]);
    let found = summary(&few, None).unwrap();
    assert_eq!(by_frequency(&few), [Corruption::Fog, Corruption::DefocusBlur, Corruption::GaussianNoise]);
    assert!((value(&found, "mean_corruption_accuracy") - 38.0 / 60.0).abs() < 1e-12);
    assert!((value(&found, "mean_corruption_accuracy_low_frequency") - 0.9).abs() < 1e-12);
    assert!((value(&found, "mean_corruption_accuracy_high_frequency") - 0.5).abs() < 1e-12);
    assert!(value(&found, "mean_corruption_accuracy_15").is_nan());

    let all: Vec<_> = Corruption::all().map(|c| (c, 0.5, &[7u8][..])).collect();
    let mut all = records(&all);
    all[15..].iter_mut().for_each(|record| *record = Record { value: 0.0, ..record.clone() });
    let found = summary(&all, None).unwrap();
    assert!((value(&found, "mean_corruption_accuracy_15") - 0.7).abs() < 1e-12);
    assert!((value(&found, "mean_corruption_accuracy_19") - 0.7 * 15.0 / 19.0).abs() < 1e-12);
    assert!(value(&found, "mean_corruption_accuracy").is_nan());
    // Seven of ten images are right under everything: the sample is ten, not 150.
    let [low, high] = found[0].ci95.unwrap();
    let student = 2.262_157 * (0.21f64 / 9.0).sqrt();
    assert!((high - low - (1.0 - (0.7 - student)).min(2.0 * student)).abs() < 1e-3, "{low} {high}");
}

#[test]
fn corruption_errors_are_those_of_the_paper() {
    let list = |right: &'static [u8]| {
        let main: Vec<_> = Corruption::MAIN.iter().map(|&c| (c, 0.5, right)).collect();
        let mut records = records(&main);
        records.push(Record::accuracy(&[true; 10]));
        records
    };
    // Errors of 1 + 3 tenths against 4 + 4 tenths; both are perfect on clean images.
    let found = summary(&list(&[9, 7]), Some(&list(&[6, 6]))).unwrap();
    assert!((value(&found, "mce") - 0.5).abs() < 1e-12);
    assert!((value(&found, "relative_mce") - 0.5).abs() < 1e-12);
    assert_eq!(found.iter().filter(|record| record.metric == "corruption_error").count(), 15);
    let message = summary(&list(&[9, 7]), Some(&list(&[6]))).unwrap_err().to_string();
    assert!(message.contains("severity 2"), "{message}");
}

#[test]
fn thirds_hold_everything_once() {
    for count in 3..20 {
        let list: Vec<usize> = (0..count).collect();
        let parts = thirds(&list);
        assert_eq!(parts.concat(), list);
        assert!(parts.iter().all(|part| !part.is_empty() && part.len() <= count / 3 + 1), "{parts:?}");
    }
}

/// `correct_of_N` of a case: how many of the first N images the model gets right, one number or one per seed.
fn expected(case: &Value) -> Option<(usize, Vec<f64>)> {
    let (key, value) = case.as_object()?.iter().find(|(key, _)| key.starts_with("correct_of_"))?;
    let numbers = value.as_array()?.iter().map(golden::number).collect();
    Some((key["correct_of_".len()..].parse().ok()?, numbers))
}

/// The accuracy of a trained network on corrupted images: as near as the reference is to itself.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_accuracy_under_corruption() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case6_corruptions.json");
    let model = network(&folder, json["accuracy_model"].as_str().unwrap(), DType::F32, true);
    let open = |file: &std::path::Path| {
        let spec = format!("cifar10-bin:{}", file.display());
        spec.parse::<DataSpec>().unwrap().open(Split::Test).unwrap()
    };
    let job = Job { batch_size: 100, ..Job::default() };
    let textures = std::env::var_os("BANDWISE_FROST")
        .map(|folder| FrostTextures::from_folder(std::path::Path::new(&folder)).unwrap());
    let right = |name: &str, severity: Severity, count: usize, seed: u64| {
        let corruptor = Corruptor::new(Protocol::Cifar, seed);
        let corruptor = match &textures {
            Some(textures) => corruptor.with_frost(textures.clone()),
            None => corruptor,
        };
        let (file, start) = golden::place(&folder, &json, count);
        let source = Source::Made { clean: open(&file), corruptor };
        let dataset = source.dataset(name.parse().unwrap(), severity).unwrap();
        let indices: Vec<usize> = (start..start + count).collect();
        let flags = accuracy::correct(&model, dataset.as_ref(), &indices, &job).unwrap();
        flags.into_iter().filter(|right| *right).count() as f64
    };
    let (mut failures, mut seen) = (Vec::new(), 0);
    let mut check = |name: &str, severity: Severity, ours: f64, theirs: f64, allowed: f64| {
        println!("{name} {severity}: {ours} against {theirs}");
        seen += 1;
        if (ours - theirs).abs() > allowed {
            failures.push(format!("{name} {severity}: {ours} right, {theirs} expected"));
        }
    };
    for (name, case) in json["deterministic"].as_object().unwrap() {
        let Some((count, numbers)) = expected(case) else { continue };
        for (severity, theirs) in Severity::all().zip(numbers) {
            let ours = right(name, severity, count, 0);
            check(name, severity, ours, theirs, count as f64 / 100.0);
        }
    }
    for (name, case) in json["stochastic"].as_object().unwrap() {
        if name == "frost" && textures.is_none() {
            eprintln!("SKIPPED: {name} needs the published textures; set BANDWISE_FROST to their folder");
            continue;
        }
        for level in case["levels"].as_array().unwrap() {
            let Some((count, numbers)) = expected(level) else { continue };
            let severity = Severity::new(level["severity"].as_u64().unwrap() as u8).unwrap();
            // One seed alone lies up to a dozen images from the next: as many as the reference took.
            let seeds = numbers.len() as u64;
            let ours = (1..=seeds).map(|seed| right(name, severity, count, seed)).sum::<f64>() / seeds as f64;
            let theirs = numbers.iter().sum::<f64>() / seeds as f64;
            check(name, severity, ours, theirs, 12.0 * count as f64 / 200.0);
        }
    }
    assert!(seen > 0);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
