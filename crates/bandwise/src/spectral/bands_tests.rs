use super::*;
use crate::golden;
use crate::spectral::fourier::transform::{inverse_spectrum, spectrum};
use proptest::prelude::*;

fn differing(ours: &[bool], theirs: &[f64]) -> usize {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).filter(|(a, b)| **a != (**b != 0.0)).count()
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_single_bands() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case4_masks.json");
    let tensors = golden::tensors(&folder, "case4_masks.safetensors");
    let side = |case: &serde_json::Value, axis: usize| case["size"][axis].as_u64().unwrap() as usize;
    for case in json["radial_band"].as_array().unwrap() {
        let distance = if case["p"] == 1 { Distance::Manhattan } else { Distance::Euclidean };
        let inner = case["radius_in"].as_f64().unwrap() as f32;
        let outer = case["radius_out"].as_f64().map(|r| r as f32);
        let ours = radial_band(side(case, 0), side(case, 1), inner, outer, distance);
        let theirs = golden::values(&tensors[case["key"].as_str().unwrap()]);
        assert_eq!(differing(&ours, &theirs), 0, "{}", case["key"]);
    }
    for case in json["circular_band"].as_array().unwrap() {
        let angles = [&case["angle1"], &case["angle2"]].map(|angle| angle.as_f64().unwrap());
        let ours = angular_band(side(case, 0), side(case, 1), angles[0], angles[1]);
        let theirs = golden::values(&tensors[case["key"].as_str().unwrap()]);
        assert!(
            differing(&ours, &theirs) as f64 <= 0.02 * case["count"].as_f64().unwrap(),
            "{}",
            case["key"]
        );
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_rings_and_sectors() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case4_masks.safetensors");
    let mut seen = 0;
    for (name, radial) in &tensors {
        let Some(prefix) = name.strip_suffix(".radial").filter(|p| p.starts_with("bands")) else { continue };
        let (count, height, width) = radial.dims3().unwrap();
        let masks = BandMasks::new(height, width, count).unwrap();
        let radial = golden::values(radial);
        let angular = golden::values(&tensors[&format!("{prefix}.angular")]);
        for band in 0..count {
            let part = band * height * width..(band + 1) * height * width;
            assert_eq!(differing(&masks.radial[band], &radial[part.clone()]), 0, "{prefix} ring {band}");
            let pixels = angular[part.clone()].iter().sum::<f64>();
            let wrong = differing(&masks.angular[band], &angular[part]);
            assert!(wrong as f64 <= 0.02 * pixels, "{prefix} sector {band}: {wrong} of {pixels}");
        }
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_energies() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case4_masks.safetensors");
    let mut seen = 0;
    for (name, expected) in &tensors {
        let Some((prefix, count)) = name.split_once(".radial").filter(|(p, _)| p.starts_with("energy."))
        else {
            continue;
        };
        let (height, width) = tensors[prefix].dims2().unwrap();
        let image: Vec<f32> = tensors[prefix].flatten_all().unwrap().to_vec1().unwrap();
        let (radial, angular) =
            BandMasks::new(height, width, count.parse().unwrap()).unwrap().energies(&image);
        for (ours, theirs) in radial.iter().zip(golden::values(expected)) {
            assert!((ours - theirs).abs() <= 1e-5, "{name}: {ours} against {theirs}");
        }
        for (ours, theirs) in
            angular.iter().zip(golden::values(&tensors[&format!("{prefix}.angular{count}")]))
        {
            assert!((ours - theirs).abs() <= 2e-2 * theirs, "{name}: {ours} against {theirs}");
        }
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_radius_index() {
    let folder = golden::folder();
    let expected = &golden::tensors(&folder, "case7_spectral.safetensors")["radius_index"];
    let (height, width) = expected.dims2().unwrap();
    let ours: Vec<f64> = radius_index(height, width).iter().map(|&r| r as f64).collect();
    assert_eq!(ours, golden::values(expected));
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_low_and_high_pass() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case7_spectral.json");
    let mut seen = 0;
    for (name, expected) in golden::tensors(&folder, "case7_spectral.safetensors") {
        let Some((kind, radius)) = name.split_once("_r") else { continue };
        let build = match kind {
            "lowpass" => low_pass,
            "highpass" => high_pass,
            _ => continue,
        };
        let (count, channels, height, width) = expected.dims4().unwrap();
        let mask = build(height, width, radius.parse().unwrap());
        let area = height * width;
        let images = golden::records(&folder, &json, count).pixels;
        let expected = golden::values(&expected);
        for plane in 0..count * channels {
            let image = &images[plane / channels * channels * area..][..channels * area];
            let pixels: Vec<f64> = image
                .iter()
                .skip(plane % channels)
                .step_by(channels)
                .map(|&v| f64::from(v) / 255.0)
                .collect();
            let mut frequencies = spectrum(&pixels, height, width);
            frequencies.iter_mut().zip(&mask).for_each(|(z, &m)| *z *= f64::from(m));
            for (ours, theirs) in
                inverse_spectrum(&frequencies, height, width).iter().zip(&expected[plane * area..])
            {
                assert!((ours - theirs).abs() <= 1e-5, "{name} plane {plane}");
            }
        }
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn odd_sizes_have_whole_sectors() {
    let masks = BandMasks::new(15, 20, 6).unwrap();
    let covered = (0..300).filter(|&p| masks.angular.iter().any(|mask| mask[p])).count();
    assert_eq!(covered, 300);
    assert!(BandMasks::new(15, 20, 2).is_err());
}

proptest! {
    #[test]
    fn shift_is_undone(height in 1usize..9, width in 1usize..9) {
        let values: Vec<usize> = (0..height * width).collect();
        let shifted = shift(&values, height, width);
        prop_assert_eq!(shifted[height / 2 * width + width / 2], 0);
        prop_assert_eq!(unshift(&shifted, height, width), values);
    }

    #[test]
    fn windows_complement_each_other(height in 1usize..20, width in 1usize..20, radius in 0.0f64..12.0) {
        let low = low_pass(height, width, radius);
        let high = high_pass(height, width, radius);
        prop_assert!(low.iter().zip(&high).all(|(a, b)| a + b == 1.0));
    }
}
