//! One start of APGD from the clean image, against the official implementation (golden case 5).

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde_json::Value;

use super::*;
use crate::attack::FrozenModel;
use crate::attack::golden_tests::network;
use crate::golden;

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_apgd_from_the_clean_image() {
    let folder = golden::folder();
    let runs = golden::json(&folder, "case5_apgd_zero_start.json");
    let tensors = golden::tensors(&folder, "case5_apgd_zero_start.safetensors");
    let targets = tensors["y_target"].to_dtype(DType::U32).unwrap();
    let count = targets.dim(0).unwrap();
    let attacks = golden::json(&folder, "case5_attacks.json");
    let records = golden::records(&folder, &attacks, count);
    let (labels, ids) = (records.label_tensor(), records.ids());
    let images = records.images().to_dtype(DType::F64).unwrap();
    let model = attacked(&folder, &attacks, &images, &targets);
    let context = AttackContext::evaluation(0, &ids, 16);
    for run in runs.as_array().unwrap() {
        let name = run["name"].as_str().unwrap();
        let mut goal = LossTargets::new(&labels);
        let objective = match run["loss"].as_str().unwrap() {
            "ce" => Objective::CrossEntropy,
            "dlr" => Objective::Dlr,
            "dlr_targeted" | "dlr-targeted" => {
                goal.targets = Some(targets.clone());
                Objective::TargetedDlr
            }
            other => panic!("unknown loss {other}"),
        };
        let norm: Norm = run["norm"].as_str().unwrap().parse().unwrap();
        let epsilon = Epsilon::new(golden::number(&run["eps"])).unwrap();
        let steps = run["n_iter"].as_u64().unwrap() as usize;
        let attack = Apgd { norm, epsilon, steps, ..Apgd::default() };
        let oracle = Oracle::new(&model, &context);
        let end =
            Run::start(&oracle, &attack.schedule(), objective, &images, images.clone(), goal, false).unwrap();
        let value = |part: &str| golden::values(&tensors[&format!("{name}.{part}")]);
        let (single, double) = (value("loss_best_f32"), value("loss_best_f64"));
        let right: Vec<bool> = value("acc_f64").iter().map(|acc| *acc == 1.0).collect();
        let broken: Vec<bool> = end.broken.iter().map(|broken| !broken).collect();
        assert_eq!(broken, right, "{name}");
        let expected =
            tensors[&format!("{name}.x_best_f64")].permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let ours = end.best_loss_images.to_dtype(DType::F32).unwrap();
        let mut compared = 0;
        for (image, gap) in run["per_image_frac_pixels_gt_1e5"].as_array().unwrap().iter().enumerate() {
            let stable = (single[image] - double[image]).abs() < 1e-3 * double[image].abs().max(1.0);
            if golden::number(gap) >= 0.001 || !stable {
                continue;
            }
            let off = (end.losses[image] - double[image]).abs() / double[image].abs().max(1e-9);
            assert!(off < 1e-3, "{name} image {image}: loss {} against {}", end.losses[image], double[image]);
            let (ours, expected): (Vec<f64>, Vec<f64>) = (row(&ours, image), row(&expected, image));
            let different = ours.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
            assert!(different as f64 <= 0.01 * ours.len() as f64, "{name} image {image}: {different} pixels");
            compared += 1;
        }
        let differences: Vec<String> = end
            .losses
            .iter()
            .zip(&double)
            .map(|(a, b)| format!("{:.0e}", (a - b).abs() / b.abs().max(1e-9)))
            .collect();
        eprintln!(
            "{name}: {compared} of {count} images compared exactly; losses off by {}",
            differences.join(" ")
        );
        assert!(compared > 0, "{name}");
    }
}

/// The network that the runs attack. They do not name it: of those that the attacks name it is the one for which the
/// targets are the classes of the second-highest logits.
fn attacked(folder: &Path, attacks: &Value, images: &Tensor, targets: &Tensor) -> FrozenModel {
    let rows = attacks["attacks"].as_object().unwrap().values();
    let names: BTreeSet<&str> = rows.map(|row| row["model"].as_str().unwrap()).collect();
    let expected: Vec<u32> = targets.to_vec1().unwrap();
    let found = names.into_iter().map(|name| network(folder, name, DType::F64, false)).find(|model| {
        let logits: Vec<Vec<f64>> = model.logits_no_graph(images).unwrap().to_vec2().unwrap();
        let second = |logits: &Vec<f64>| {
            let mut classes: Vec<u32> = (0..logits.len() as u32).collect();
            classes.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
            classes[1]
        };
        logits.iter().map(second).eq(expected.iter().copied())
    });
    found.expect("one of the networks has these targets")
}

fn row(images: &Tensor, image: usize) -> Vec<f64> {
    golden::values(&images.get(image).unwrap())
}
