//! Analyses against reference values, and their promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Device, Tensor};

use super::bands::{BandConfig, Window, mask_accuracy, measure};
use super::heatmap::{FourierHeatMap, HeatMapConfig, HeatMapData};
use super::masks::{ClassSimilarity, MaskProfile, differences, rescaled, similarity};
use super::*;
use crate::attack::FrozenModel;
use crate::golden;
use crate::job::Stage;
use crate::method::fourier_mask::Mask;

/// `heatG_wrong_clip_vV`, `heatG_wrong_noclip_vV`: G×G cells, L2 norm V.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_fourier_heat_maps() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case7_spectral.safetensors");
    let json = golden::json(&folder, "case7_spectral.json");
    let number = |key: &str| json[key].as_u64().map(|n| n as usize);
    let network = golden::network(&folder, json["model"].as_str().unwrap(), DType::F32);
    let model = FrozenModel::folded(&network).unwrap();
    let mut seen = 0;
    for (name, expected) in &tensors {
        let Some((grid, rest)) = name.strip_prefix("heat").and_then(|n| n.split_once("_wrong_")) else {
            continue;
        };
        let Some((clip, norm)) = rest.split_once("_v") else { continue };
        let side = expected.dim(0).unwrap();
        let frequencies: Vec<i64> = match json[format!("grid{grid}")].as_array() {
            Some(list) => list.iter().map(|f| f.as_i64().unwrap()).collect(),
            None => (0..side as i64).map(|i| i - side as i64 / 2).collect(),
        };
        assert_eq!(frequencies.len(), side, "{name}");
        let count = number(&format!("n_heat{grid}")).or(number("n_heatmap")).unwrap();
        let records = golden::records(&folder, &json, count);
        let images = records.images();
        let signs = golden::values(&tensors["signs"].narrow(0, 0, count).unwrap());
        let signs = signs.into_iter().map(|s| s as f32).collect();
        let data = HeatMapData { images: &images, labels: &records.labels, signs };
        let clip = clip == "clip";
        let config = HeatMapConfig { norm: norm.parse().unwrap(), clip, ..Default::default() };
        let model = NamedClassifier { label: "model", classifier: &model };
        // Of large maps every fifth row: a whole one takes minutes.
        let step = if side > 16 { 5 } else { 1 };
        let rows: Vec<i64> = frequencies.iter().copied().step_by(step).collect();
        let grid = [&*rows, &*frequencies];
        let ours = FourierHeatMap::measure(&model, &data, grid, &config, &Job::default()).unwrap();
        let theirs = golden::values(expected);
        let theirs = theirs.chunks(side).step_by(step).flatten().copied().collect::<Vec<f64>>();
        assert_eq!(ours.wrong.len(), theirs.len());
        let worst =
            ours.wrong.iter().zip(&theirs).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 2.0, "{name}: a cell differs by {worst} images");
        seen += 1;
    }
    assert!(seen > 0);
}

/// A classifier that only sees the mean of each of its classes' channels.
struct Brightness;

impl Classifier for Brightness {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        Ok(images.mean((1, 2))?)
    }

    fn num_classes(&self) -> usize {
        3
    }
}

fn colored() -> (Tensor, Vec<u32>) {
    let labels = vec![0u32, 1, 2, 1];
    let pixels = labels
        .iter()
        .flat_map(|l| (0..42).flat_map(move |_| (0..3).map(move |c| if c == *l { 0.9f32 } else { 0.2 })));
    (Tensor::from_vec(pixels.collect(), (4, 6, 7, 3), &Device::Cpu).unwrap(), labels)
}

#[test]
fn batches_and_symmetry_change_no_heat_map() {
    let (images, labels) = colored();
    let model = NamedClassifier { label: "mean", classifier: &Brightness };
    let measure = |batch_size| {
        let config = HeatMapConfig { norm: 6.0, clip: true, ..Default::default() };
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let progress = move |stage: &Stage<'_>| {
            counted.fetch_add(1, Ordering::Relaxed);
            assert_eq!((stage.name, stage.total), ("mean", (5 * 7usize).div_ceil(2)));
        };
        let job = Job { batch_size, progress: Arc::new(progress), ..Job::default() };
        let map = FourierHeatMap::full(&model, &images, &labels, &config, &job);
        assert!(calls.load(Ordering::Relaxed) > 1);
        map.unwrap()
    };
    let (one, other) = (measure(3), measure(1000));
    assert_eq!(one.wrong, other.wrong);
    assert_eq!((one.rows.len(), one.columns.len(), one.clean_wrong), (5, 7, 0));
    let cell = |i: usize, j: usize| one.wrong[i * 7 + j];
    assert!((0..5).all(|i| (0..7).all(|j| cell(i, j) == cell(4 - i, 6 - j))));
    // Only the constant wave moves a mean.
    assert!(cell(2, 3) > 0, "{:?}", one.wrong);
}

#[test]
fn a_model_of_the_mean_needs_the_mean_alone() {
    let (images, labels) = colored();
    let model = NamedClassifier { label: "mean", classifier: &Brightness };
    let config = BandConfig { sectors: 4, ..Default::default() };
    let found = measure(&[model], &images, &labels, &config, &Job::default()).unwrap();
    for result in &found {
        let all = result.correct == 4;
        let expected = matches!(result.window, Window::LowPass | Window::WithoutSector);
        assert_eq!(all, expected, "{result:?}");
    }
    let kept = BandConfig { keep_mean: true, ..config };
    let found = measure(&[model], &images, &labels, &kept, &Job::default()).unwrap();
    assert!(found.iter().all(|r| r.correct == 4));
    assert!(super::bands::csv(&found).lines().count() == found.len() + 1);

    let mut mask = Mask::new(6, 7, vec![0.0; 42]);
    mask.values[0] = 1.0;
    let accuracy = mask_accuracy(&model, &images, &labels, &mask, 3).unwrap();
    assert!(accuracy.masked.iter().all(|c| *c) && !accuracy.complement.iter().all(|c| *c));
}

#[test]
fn profiles_and_differences_of_masks() {
    let profile = |values: Vec<f32>| MaskProfile::new("a", &Mask::new(8, 8, values)).unwrap();
    let low = profile((0..64).map(|p| if matches!(p, 0 | 1 | 7 | 8 | 56) { 1.0 } else { 0.0 }).collect());
    let whole = profile(vec![1.0; 64]);
    assert!(low.centroid() < whole.centroid());
    assert!((low.relative_l1 - 5.0 / 64.0).abs() < 1e-9 && (low.support - 5.0 / 64.0).abs() < 1e-9);
    let pairs = differences(&[whole.clone(), low.clone()]).unwrap();
    assert_eq!(pairs.len(), 1);
    assert_eq!(pairs[0].1.iter().sum::<f32>(), 5.0 - 64.0);
    let scaled = rescaled(&pairs);
    assert!(scaled[0].1.iter().all(|v| *v == -0.5 || *v == 0.5));
    let small = MaskProfile::new("b", &Mask::ones(4, 4)).unwrap();
    assert!(differences(&[whole, small]).unwrap_err().to_string().contains("differ in size"));
}

#[test]
fn masks_of_a_class_are_alike() {
    let mask = |at: usize| {
        let mut mask = Mask::new(4, 4, vec![0.1; 16]);
        (mask.values[at], mask.values[4 - at]) = (1.0, 1.0);
        mask
    };
    let masks = [mask(1), mask(1), mask(2), mask(2)];
    assert!((similarity(&masks[0], &masks[1]) - 1.0).abs() < 1e-9);
    let classes = ["a".to_string(), "b".to_string()];
    let found = ClassSimilarity::new(&masks, &[0, 0, 1, 1], &classes);
    assert!(found.within > 0.99 && found.between < 0.5);
    assert_eq!(found.matrix.len(), 4);
}
