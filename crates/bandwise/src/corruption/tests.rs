use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::Value;

use super::table::Draws;
use super::*;
use crate::golden;

/// `[…, height, width, channels]` u8 as images.
fn inputs(tensor: &Tensor) -> Vec<ByteImage> {
    let dims = tensor.dims();
    let [height, width, channels] = dims[dims.len() - 3..] else { panic!("{dims:?}") };
    let bytes: Vec<u8> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    let chunks = bytes.chunks_exact(height * width * channels);
    chunks.map(|bytes| ByteImage::new(height, width, channels, bytes.to_vec())).collect()
}

/// The images that the statistics of a case are over: as many as its `correct_of_N` says.
fn all_images(folder: &Path, json: &Value, case: &Value) -> Vec<ByteImage> {
    let counts = case.as_object().unwrap().keys().find_map(|key| key.strip_prefix("correct_of_"));
    let records = golden::records(folder, json, counts.unwrap().parse().unwrap());
    let inputs = records.pixels.chunks_exact(3072);
    inputs.map(|bytes| ByteImage::new(32, 32, 3, bytes.to_vec())).collect()
}

fn load(folder: &Path) -> (Value, HashMap<String, Tensor>) {
    (golden::json(folder, "case6_corruptions.json"), golden::tensors(folder, "case6_corruptions.safetensors"))
}

/// How often each absolute difference occurs.
fn differences(ours: &[ByteImage], theirs: &[ByteImage]) -> [usize; 256] {
    assert_eq!(ours.len(), theirs.len());
    let mut counts = [0; 256];
    for (a, b) in ours.iter().zip(theirs) {
        assert_eq!(a.bytes.len(), b.bytes.len());
        a.bytes.iter().zip(&b.bytes).for_each(|(a, b)| counts[usize::from(a.abs_diff(*b))] += 1);
    }
    counts
}

fn beyond(counts: &[usize; 256], level: usize) -> usize {
    counts[level + 1..].iter().sum()
}

fn mean(counts: &[usize; 256]) -> f64 {
    let total: usize = counts.iter().enumerate().map(|(level, count)| level * count).sum();
    total as f64 / counts.iter().sum::<usize>() as f64
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_deterministic_corruptions() {
    let folder = golden::folder();
    let (json, tensors) = load(&folder);
    let clean = inputs(&tensors["clean"]);
    let corruptor = Corruptor::new(Protocol::Cifar, 0);
    let mut seen = 0;
    for name in json["deterministic"].as_object().unwrap().keys() {
        let corruption: Corruption = name.parse().unwrap();
        for (severity, theirs) in Severity::all().zip(inputs(&tensors[name]).chunks(clean.len())) {
            let counts = differences(&corruptor.apply_all(&clean, corruption, severity, 0).unwrap(), theirs);
            let pixels: usize = counts.iter().sum();
            let (over_one, over_two) = (beyond(&counts, 1), beyond(&counts, 2));
            println!("{name} {severity}: {:?} of {pixels}, mean {:.4}", &counts[..4], mean(&counts));
            let passes = match corruption {
                Corruption::DefocusBlur | Corruption::ZoomBlur => over_one * 100 <= pixels && over_two == 0,
                Corruption::Pixelate => over_two == 0,
                Corruption::JpegCompression => mean(&counts) <= 1.5,
                _ => over_one == 0,
            };
            assert!(passes, "{name} {severity}: {counts:?}");
        }
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_deterministic_corruptions_change_as_much_as_published() {
    let folder = golden::folder();
    let (json, tensors) = load(&folder);
    let corruptor = Corruptor::new(Protocol::Cifar, 0);
    for (name, expected) in json["deterministic"].as_object().unwrap() {
        let clean = all_images(&folder, &json, expected);
        let first = inputs(&tensors["clean"]);
        assert_eq!(clean[..first.len()], first, "these are other images");
        for severity in Severity::all() {
            let ours = corruptor.apply_all(&clean, name.parse().unwrap(), severity, 0).unwrap();
            let ours = mean(&differences(&ours, &clean));
            let theirs = golden::number(&expected["mean_abs_diff_u8"][severity.index()]);
            assert!((ours - theirs).abs() <= 0.01 * theirs, "{name} {severity}: {ours} against {theirs}");
        }
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_given_randomness() {
    let folder = golden::folder();
    let (json, tensors) = load(&folder);
    let clean = inputs(&tensors["clean"]);
    let z = golden::values(&tensors["given.z"]);
    let mut seen = 0;
    for (key, theirs) in &tensors {
        let Some((name, level)) = key.strip_prefix("given.").and_then(|rest| rest.rsplit_once('.')) else {
            continue;
        };
        if name == "fog_plasma" {
            continue;
        }
        let severity: Severity = level.parse().unwrap();
        let theirs = inputs(theirs);
        let length = clean[0].bytes.len();
        let apply = |index: usize, input: &ByteImage| {
            let mut draws = z[index * length % z.len()..].iter().copied();
            let mut draw = || draws.next().unwrap();
            match name {
                "gaussian_noise" => noise::gaussian_noise(
                    input,
                    constants::GAUSSIAN_NOISE.at(Protocol::Cifar, severity),
                    &mut draw,
                ),
                "speckle_noise" => noise::speckle_noise(
                    input,
                    constants::SPECKLE_NOISE.at(Protocol::Cifar, severity),
                    &mut draw,
                ),
                "fog" => {
                    let map = &tensors[&format!("given.fog_plasma.{level}")];
                    let amount = constants::FOG.at(Protocol::Cifar, severity).0;
                    weather::fog(input, amount, &golden::values(map), map.dims()[1])
                }
                "motion_blur" => {
                    let (radius, sigma) = constants::MOTION_BLUR.at(Protocol::Cifar, severity);
                    let angle = golden::number(&json["given_motion_angles"][severity.index()]);
                    blur::motion_blur(input, radius, sigma, angle)
                }
                other => panic!("no test for given.{other}"),
            }
        };
        let ours: Vec<ByteImage> =
            clean.iter().take(theirs.len()).enumerate().map(|(i, p)| apply(i, p)).collect();
        let counts = differences(&ours, &theirs);
        println!("{key}: {:?}", &counts[..4]);
        let allowed = if name == "motion_blur" { 2 } else { 1 };
        assert_eq!(beyond(&counts, allowed), 0, "{key}: {counts:?}");
        seen += 1;
    }
    assert!(seen > 0);
}

/// The statistics that the reference keeps of a difference from the clean images.
struct Statistics {
    values: HashMap<&'static str, f64>,
    radial_power: Vec<f64>,
}

fn statistics(corrupted: &[ByteImage], clean: &[ByteImage]) -> Statistics {
    let (mut all, mut rms) = (Vec::new(), Vec::new());
    for (a, b) in corrupted.iter().zip(clean) {
        let difference: Vec<f64> =
            a.bytes.iter().zip(&b.bytes).map(|(&a, &b)| (f64::from(a) - f64::from(b)) / 255.0).collect();
        rms.push((difference.iter().map(|d| d * d).sum::<f64>() / difference.len() as f64).sqrt());
        all.extend(difference);
    }
    let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let mean = average(&all);
    let deviation = average(&all.iter().map(|d| (d - mean).powi(2)).collect::<Vec<_>>()).sqrt();
    let mean_abs = average(&all.iter().map(|d| d.abs()).collect::<Vec<_>>());
    let radial_power = DifferenceSpectrum::between(corrupted, clean).unwrap().radial_power;
    let values = [("mean", mean), ("std", deviation), ("mean_abs", mean_abs), ("rms_mean", average(&rms))];
    Statistics { values: values.into(), radial_power }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_stochastic_statistics() {
    let folder = golden::folder();
    let (json, _) = load(&folder);
    let mut failures = Vec::new();
    for (name, case) in json["stochastic"].as_object().unwrap() {
        let corruption: Corruption = name.parse().unwrap();
        let (of_values, of_rings) = match corruption.draws() {
            Draws::Apart => (0.15, 0.5),
            Draws::Same | Draws::Alike => (0.05, 0.25),
        };
        for level in case["levels"].as_array().unwrap() {
            let severity = Severity::new(level["severity"].as_u64().unwrap() as u8).unwrap();
            let clean = all_images(&folder, &json, level);
            let runs = [1, 2].map(|seed| {
                let mut corruptor = Corruptor::new(Protocol::Cifar, seed);
                if let Some(textures) = std::env::var_os("BANDWISE_FROST") {
                    corruptor =
                        corruptor.with_frost(FrostTextures::from_folder(Path::new(&textures)).unwrap());
                }
                statistics(&corruptor.apply_all(&clean, corruption, severity, 0).unwrap(), &clean)
            });
            for key in ["std", "mean_abs", "rms_mean"] {
                let ours = runs.iter().map(|run| run.values[key]).sum::<f64>() / 2.0;
                let theirs = golden::number(&level[key]);
                let gap = level["seed_gap"].get(key).map_or(0.0, golden::number);
                println!("{name} {severity} {key}: {:+.2}%", 100.0 * (ours / theirs - 1.0));
                if (ours - theirs).abs() > (of_values * theirs).max(4.0 * gap) {
                    failures
                        .push(format!("{name} {severity} {key}: {ours} against {theirs} (seed gap {gap})"));
                }
            }
            for (ring, theirs) in
                level["radial_power"].as_array().unwrap().iter().map(golden::number).enumerate()
            {
                let ours = runs.iter().map(|run| run.radial_power[ring]).sum::<f64>() / 2.0;
                if (ours / theirs - 1.0).abs() > of_rings {
                    failures.push(format!("{name} {severity} ring {ring}: {ours} against {theirs}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_size_and_color_works_and_repeats() {
    for (height, width, channels) in [(1, 1, 3), (2, 3, 1), (28, 28, 1), (17, 40, 3), (70, 33, 3)] {
        let bytes = (0..height * width * channels).map(|i| (i * 7919 % 256) as u8).collect();
        let input = ByteImage::new(height, width, channels, bytes);
        for protocol in [Protocol::Cifar, Protocol::Side64, Protocol::Side224] {
            let corruptor = Corruptor::new(protocol, 3);
            for corruption in Corruption::all() {
                let severity = Severity::new(3).unwrap();
                let once = corruptor.apply(&input, corruption, severity, 5).unwrap();
                assert_eq!(
                    (once.height, once.width, once.channels),
                    (height, width, channels),
                    "{corruption}"
                );
                assert_eq!(once, corruptor.apply(&input, corruption, severity, 5).unwrap(), "{corruption}");
            }
        }
    }
}

#[test]
fn results_depend_on_seed_and_index_only_where_random() {
    let input = ByteImage::new(32, 32, 3, (0..3072).map(|i| (i * 31 % 251) as u8).collect());
    let severity = Severity::new(5).unwrap();
    for corruption in Corruption::all() {
        let apply =
            |seed, index| Corruptor::new(Protocol::Cifar, seed).apply(&input, corruption, severity, index);
        let same =
            apply(1, 1).unwrap() == apply(2, 1).unwrap() && apply(1, 1).unwrap() == apply(1, 2).unwrap();
        assert_eq!(same, corruption.is_deterministic(), "{corruption}");
    }
}

#[test]
fn odd_pictures_are_refused() {
    let corruptor = Corruptor::new(Protocol::Cifar, 0);
    let severity = Severity::new(1).unwrap();
    for input in [ByteImage::new(0, 4, 3, vec![]), ByteImage::new(2, 2, 4, vec![0; 16])] {
        assert!(corruptor.apply(&input, Corruption::Fog, severity, 0).is_err());
    }
}
