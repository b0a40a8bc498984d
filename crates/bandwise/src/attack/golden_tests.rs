//! Attacks against the reference values of golden case 5, on a trained network.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::*;
use crate::golden;

/// A trained network of the folder, in float32 or float64, folded or not.
pub(crate) fn network(folder: &Path, name: &str, dtype: DType, folded: bool) -> FrozenModel {
    let model = golden::network(folder, name, dtype);
    if folded {
        return FrozenModel::folded(&model).unwrap();
    }
    FrozenModel::in_pass(&model, &crate::nn::ForwardContext::eval())
}

/// The attack behind a row such as `pgd10_zero_8`, `square1000_1` or `aa_L2_0.5`.
fn attack_of(name: &str, row: &Value) -> Option<Attack> {
    let epsilon = Epsilon::new(golden::number(row.get("eps")?)).unwrap();
    let step_size = row.get("alpha").map(|alpha| Epsilon::new(golden::number(alpha)).unwrap());
    let norm: Norm = row.get("norm").map_or(Norm::Linf, |norm| norm.as_str().unwrap().parse().unwrap());
    let parts: Vec<&str> = name.split('_').collect();
    let digits: String = parts[0].chars().skip_while(|c| !c.is_ascii_digit()).collect();
    let number = digits.parse::<usize>().ok();
    let start = if parts.contains(&"rand") { Start::Random } else { Start::Zero };
    let kind: String = parts[0].chars().take_while(|c| !c.is_ascii_digit()).collect();
    Some(match (kind.as_str(), parts.get(1).copied()) {
        ("fgsm", _) => Attack::Fgsm(Fgsm { norm, epsilon, ..Fgsm::default() }),
        ("pgd", _) => Attack::Pgd(Pgd { norm, epsilon, step_size, steps: number?, start, ..Pgd::default() }),
        ("cw", _) => {
            Attack::CwLinf(CwLinf { epsilon, step_size, steps: number?, start, ..CwLinf::default() })
        }
        ("apgd", Some("ce")) => Attack::ApgdCe(Apgd { norm, epsilon, ..Apgd::default() }),
        ("apgd", Some("dlr")) => Attack::ApgdDlr(Apgd { norm, epsilon, ..Apgd::default() }),
        ("apgd", Some("t")) => {
            Attack::ApgdTargeted(ApgdTargeted { norm, epsilon, ..ApgdTargeted::default() })
        }
        ("square", _) => Attack::Square(Square { norm, epsilon, queries: number?, ..Square::default() }),
        ("fab", Some("t")) => Attack::FabTargeted(Fab { norm, epsilon, ..Fab::default() }),
        ("aa", _) => Attack::AutoAttack(AutoAttack { norm, epsilon, ..AutoAttack::default() }),
        _ => return None,
    })
}

/// Which of the first `count` images are right and stay right under `attack`, and what it cost.
fn robust(folder: &Path, json: &Value, row: &Value, attack: &Attack) -> (Vec<bool>, Vec<Outcome>) {
    let count = row["n"].as_u64().unwrap() as usize;
    let records = golden::records(folder, json, count);
    let (images, labels, ids) = (records.images(), records.label_tensor(), records.ids());
    let model = network(folder, row["model"].as_str().unwrap(), DType::F32, true);
    let context = AttackContext::evaluation(0, &ids, 50);
    let logits = oracle::Oracle::new(&model, &context).logits(&images).unwrap();
    let clean = judge_logits(&logits, &records.labels).unwrap();
    let right: Vec<u32> = (0..count as u32).filter(|&i| !clean[i as usize].wrong).collect();
    let chosen = Tensor::from_slice(&right, right.len(), &Device::Cpu).unwrap();
    let right_ids: Vec<u64> = right.iter().map(|&i| ids[i as usize]).collect();
    let context = AttackContext::evaluation(0, &right_ids, 32);
    let images = images.index_select(&chosen, 0).unwrap();
    let labels = labels.index_select(&chosen, 0).unwrap();
    let outcomes = attack.run(&model, &images, &labels, &context).unwrap().outcomes;
    let mut robust = vec![false; count];
    for (&image, outcome) in right.iter().zip(&outcomes) {
        robust[image as usize] = !outcome.broken;
    }
    (robust, outcomes)
}

/// Runs one row and compares robust correctness with the tolerances of golden/README.md.
fn check_row(folder: &Path, json: &Value, name: &str, row: &Value) {
    let began = std::time::Instant::now();
    let (robust, outcomes) = robust(folder, json, row, &attack_of(name, row).unwrap());
    let count = robust.len();
    let expected: Vec<bool> = row["bits"].as_str().unwrap().chars().map(|c| c == '1').collect();
    let survivors = robust.iter().filter(|&&r| r).count() as i64;
    let reference = row["robust_correct"].as_i64().unwrap();
    let different = robust.iter().zip(&expected).filter(|(a, b)| a != b).count();
    let passes: u64 = outcomes.iter().map(|o| o.gradients).sum();
    let queries: u64 = outcomes.iter().map(|o| o.queries).sum();
    let who: Vec<usize> = (0..count).filter(|&i| robust[i] != expected[i]).collect();
    eprintln!(
        "{name}: {survivors} robust of {count} (reference {reference}), {different} images differ {who:?}, \
         {passes} gradients, {queries} queries, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let (off, limit) = ((survivors - reference).abs(), |share: f64| (share * count as f64).ceil() as i64);
    if name.starts_with("fgsm") || (name.starts_with("pgd") && name.contains("zero")) {
        assert!(off <= 2 && different as f64 <= 0.01 * count as f64, "{name}");
    } else if name.starts_with("aa") {
        assert!(off <= 2, "{name}");
    } else if name.starts_with("square") {
        assert!(off <= limit(0.05), "{name}");
    } else {
        assert!(off <= limit(0.03), "{name}");
    }
}

fn check_rows(wanted: impl Fn(&str, &Value) -> bool) {
    let folder = golden::folder();
    let json = golden::json(&folder, "case5_attacks.json");
    let mut seen = 0;
    for (name, row) in json["attacks"].as_object().unwrap() {
        if attack_of(name, row).is_some() && wanted(name, row) {
            check_row(&folder, &json, name, row);
            seen += 1;
        }
    }
    assert!(seen > 0, "no row was checked");
}

/// Rows that take up to a minute: early stopping makes the number of survivors count, times the steps each takes.
fn is_cheap(name: &str, row: &Value) -> bool {
    let survivors = row["robust_correct"].as_f64().unwrap();
    let steps = match attack_of(name, row) {
        Some(Attack::AutoAttack(_)) => 9000.0,
        Some(Attack::FabTargeted(_)) => 2000.0,
        Some(attack) => (attack.passes(10).gradient + attack.passes(10).forward / 3) as f64,
        None => return false,
    };
    survivors * steps <= 20_000.0
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_gradient_attacks() {
    check_rows(|name, row| is_cheap(name, row) && (name.starts_with("fgsm") || name.starts_with("pgd")));
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_stronger_attacks() {
    check_rows(|name, row| is_cheap(name, row) && !(name.starts_with("fgsm") || name.starts_with("pgd")));
}

/// What the exact gradient of the cross-entropy adds to FGSM on confident images.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_exact_gradients_are_stronger() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case5_attacks.json");
    for (name, row) in json["attacks"].as_object().unwrap() {
        let Some(Attack::Fgsm(plain)) = attack_of(name, row) else { continue };
        let exact = Attack::Fgsm(Fgsm { exact_gradient: true, ..plain });
        let left = robust(&folder, &json, row, &exact).0.iter().filter(|&&r| r).count();
        let reference = row["robust_correct"].as_u64().unwrap() as usize;
        eprintln!("{name}: {left} robust with the exact gradient, {reference} in the reference's float32");
        assert!(left <= reference + 2, "{name}");
    }
}

/// Rows that take minutes.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_attacks_with_many_survivors() {
    check_rows(|name, row| !is_cheap(name, row));
}

/// Adversarial images pixel by pixel: in float64 against the reference's float64 run, in float32 on
/// the images where the reference's own float32 run agrees with it.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_adversarial_images() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case5_attacks.json");
    let tensors = golden::tensors(&folder, "case5_adv16.safetensors");
    let mut seen = 0;
    for (name, gaps) in json["fp32_vs_fp64_first16"].as_object().unwrap() {
        let row = &json["attacks"][name];
        for (dtype, suffix) in [(DType::F64, "_f64"), (DType::F32, "")] {
            let expected = &tensors[&format!("{name}{suffix}")];
            let expected = expected.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            let count = expected.dim(0).unwrap();
            let records = golden::records(&folder, &json, count);
            let (images, labels, ids) = (records.images(), records.label_tensor(), records.ids());
            let images = images.to_dtype(dtype).unwrap();
            let model = network(&folder, row["model"].as_str().unwrap(), dtype, false);
            let context = AttackContext { early_stop: false, ..AttackContext::evaluation(0, &ids, 16) };
            let ours = attack_of(name, row).unwrap().perturb(&model, &images, &labels, &context).unwrap();
            let ours = ours.to_dtype(DType::F32).unwrap();
            let size = expected.elem_count() / count;
            let row_of = |t: &Tensor, i| golden::values(&t.get(i).unwrap());
            let mut shares = Vec::new();
            for (image, gap) in gaps["per_image_frac"].as_array().unwrap().iter().enumerate() {
                if dtype == DType::F32 && golden::number(gap) >= 0.001 {
                    continue;
                }
                let (ours, expected) = (row_of(&ours, image), row_of(&expected, image));
                let off = ours.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
                shares.push((image, off as f64 / size as f64));
                seen += 1;
            }
            eprintln!("{name} {dtype:?}: share of different pixels {:.4?}", shares);
            let agree = shares.iter().filter(|(_, share)| *share <= 0.001).count();
            // Several float32 steps amplify a single flipped sign, and which signs flip depends on the
            // order of sums; so a few images may part from the reference there, but never in float64.
            let allowed = if dtype == DType::F32 && name.starts_with("pgd") { shares.len() / 5 } else { 0 };
            assert!(shares.len() - agree <= allowed, "{name} {dtype:?}");
        }
    }
    assert!(seen > 0);
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_fab_distances() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case5_adv16.safetensors");
    let json = golden::json(&folder, "case5_attacks.json");
    let Some((_, row)) =
        json["attacks"].as_object().unwrap().iter().find(|(name, _)| name.starts_with("fab_t"))
    else {
        return;
    };
    let expected = golden::values(&tensors["fab_t_min_linf"]);
    let records = golden::records(&folder, &json, expected.len());
    let (images, labels, ids) = (records.images(), records.label_tensor(), records.ids());
    let model = network(&folder, row["model"].as_str().unwrap(), DType::F32, true);
    let context = AttackContext { early_stop: false, ..AttackContext::evaluation(0, &ids, 16) };
    let began = std::time::Instant::now();
    let result = Attack::FabTargeted(Fab::default()).run(&model, &images, &labels, &context).unwrap();
    let ours: Vec<f64> = result.outcomes.iter().map(|o| o.distance.unwrap_or(f64::INFINITY)).collect();
    let mut ratios: Vec<f64> =
        ours.iter().zip(&expected).filter(|(_, e)| e.is_finite() && **e > 0.0).map(|(o, e)| o / e).collect();
    eprintln!("FAB-T distances / reference: {ratios:.3?} in {:.1} s", began.elapsed().as_secs_f64());
    for (ours, expected) in ours.iter().zip(&expected) {
        assert_eq!(*ours == 0.0, *expected == 0.0);
    }
    assert!(ratios.iter().all(|r| (0.75..=1.25).contains(r)));
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2] + values[(values.len() - 1) / 2]) / 2.0
    };
    let (mut ours, mut expected) = (ours, expected);
    assert!((median(&mut ours) / median(&mut expected) - 1.0).abs() < 0.05);
    ratios.sort_by(f64::total_cmp);
}

/// A network whose last layer is multiplied: the same predictions, another softmax.
struct Scaled<'a>(&'a FrozenModel, f64);

impl Classifier for Scaled<'_> {
    fn logits(&self, images: &Tensor) -> crate::Result<Tensor> {
        Ok((self.0.logits(images)? * self.1)?)
    }

    fn num_classes(&self) -> usize {
        self.0.num_classes()
    }
}

/// Trained networks get no warning; the same with a saturated softmax do, from the attacks that follow it.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_networks_have_gradients_unless_the_softmax_is_saturated() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case5_attacks.json");
    let rows = json["attacks"].as_object().unwrap().values();
    let mut names: Vec<&str> = rows.filter_map(|row| row["model"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert!(!names.is_empty());
    let records = golden::records(&folder, &json, 64);
    let (images, labels, ids) = (records.images(), records.label_tensor(), records.ids());
    let context = AttackContext::evaluation(0, &ids, 64);
    for name in names {
        let model = network(&folder, name, DType::F32, true);
        let check = |factor: f64, norm: Norm| {
            let known = Attack::names().into_iter().map(|name| name.parse::<Attack>().unwrap());
            let known: Vec<&str> = known.filter(|a| a.norms().contains(&norm)).map(|a| a.name()).collect();
            let attacks =
                AttackOverrides { norm: Some(norm), ..AttackOverrides::default() }.attacks(&known).unwrap();
            check_gradients(&Scaled(&model, factor), &images, &labels, &attacks, &context).unwrap()
        };
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            assert_eq!(check(1.0, norm), [], "{name} {norm}");
            let found = check(1e4, norm);
            let [Warning::MaskedGradients { attacks, images, .. }] = &found[..] else {
                panic!("{name}: {found:?}")
            };
            let climbers: &[&str] = match norm {
                Norm::L1 => &["apgd-ce"],
                Norm::L2 | Norm::Linf => &["fgsm", "rfgsm", "pgd", "mifgsm", "apgd-ce"],
            };
            assert_eq!(attacks.split(", ").collect::<Vec<_>>(), climbers, "{name} {norm}");
            assert!(*images > 32, "{name} {norm}: {images}");
        }
    }
}
