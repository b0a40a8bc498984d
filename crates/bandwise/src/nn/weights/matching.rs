//! From the names in a file to the names of a model.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use candle_core::{DType, Device, Shape, Tensor};

use super::StateDict;
use super::report::{FoundNormalization, LoadReport, Misshaped};
use crate::nn::Normalization;
use crate::{Error, Result};

/// Names that different code bases give to the same layer; the first stands for all.
const SYNONYMS: [&[&str]; 2] = [&["linear", "fc", "classifier"], &["shortcut", "downsample"]];
/// How a normalising layer calls its mean and standard deviation.
const NORMALIZATIONS: [(&str, &str); 4] =
    [("mean", "std"), ("new_mean", "new_std"), ("mu", "sigma"), ("_mean", "_std")];
/// What state dicts hold beside weights: batch norm's counter, the fixed cosine basis of decomposed
/// convolutions (official code of filter frequency regularization), and a parameter that the official code of
/// FPCM declares but never uses.
const NOT_LEARNED: [&str; 4] = ["num_batches_tracked", "basis", "basis_coef", "learnable_freq_control"];

/// The tensors of a file that fit a model.
#[derive(Debug)]
pub struct Matched {
    /// The fitting tensors under the model's names, as `f32` on the CPU.
    pub tensors: StateDict,
    /// What was found, what was not, and what was left over.
    pub report: LoadReport,
}

impl Matched {
    /// The tensors, if every one of the model is there.
    ///
    /// # Errors
    /// Something is missing or of another shape; the message is the report.
    pub fn complete(self) -> Result<StateDict> {
        if self.report.is_complete() {
            return Ok(self.tensors);
        }
        Err(Error::model(format!("the weights do not fit the model: {}", self.report)))
    }
}

/// Finds the tensors of a model in a state dict.
///
/// Wrappers leave prefixes in names (`module.`, `model.`, `attacker.model.`, `1.` of a
/// `Sequential(normalise, network)`): the prefix under which most names and shapes fit is taken.
/// Where names are still missing, usual other names of the same layers (`fc` for `linear`,
/// `downsample` for `shortcut`) are tried.
///
/// # Errors
/// No name of the model is in the file, or a weight is not a finite number.
pub fn match_keys(expected: &[(String, Shape)], found: &StateDict) -> Result<Matched> {
    let shapes: HashMap<&str, &Shape> = expected.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
    let exact = best_prefix(&shapes, found, str::to_owned);
    let canonical_shapes: BTreeMap<String, &Shape> =
        expected.iter().map(|(n, s)| (canonical(n), s)).collect();
    let by_synonym = {
        let shapes = canonical_shapes.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
        best_prefix(&shapes, found, canonical)
    };
    // Two layers of one model may be synonyms of each other: then names count as they are.
    let synonyms = by_synonym.fits > exact.fits && canonical_shapes.len() == expected.len();
    let best = if synonyms { by_synonym } else { exact };
    if best.named == 0 {
        return Err(Error::model(nothing_fits(expected, found)));
    }

    let normal: fn(&str) -> String = if synonyms { canonical } else { str::to_owned };
    let in_file: HashMap<String, &String> = found
        .keys()
        .filter_map(|key| key.strip_prefix(&best.prefix).map(|rest| (normal(rest), key)))
        .collect();
    let mut report = LoadReport { prefix: best.prefix.clone(), ..LoadReport::default() };
    let mut tensors = StateDict::new();
    let mut used = BTreeSet::new();
    for (name, shape) in expected {
        let Some(&key) = in_file.get(&normal(name)) else {
            report.missing.push(name.clone());
            continue;
        };
        used.insert(key.as_str());
        let tensor = &found[key];
        if tensor.shape() != shape {
            let (expected, found) = (shape.dims().to_vec(), tensor.dims().to_vec());
            report.misshaped.push(Misshaped { name: name.clone(), expected, found });
            continue;
        }
        note_renaming(&mut report, &key[best.prefix.len()..], name);
        tensors.insert(name.clone(), finite(key, tensor)?);
    }
    report.loaded = tensors.len();
    sort_out_the_rest(&mut report, found, &used);
    Ok(Matched { tensors, report })
}

/// A prefix and how well it serves.
struct Prefix {
    prefix: String,
    /// Names that are there in the right shape.
    fits: usize,
    /// Names that are there.
    named: usize,
}

/// The prefix under which most names and shapes of the model are found.
fn best_prefix(shapes: &HashMap<&str, &Shape>, found: &StateDict, normal: impl Fn(&str) -> String) -> Prefix {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (key, tensor) in found {
        let starts = std::iter::once(0).chain(key.match_indices(['.', '/']).map(|(i, _)| i + 1));
        for start in starts {
            if let Some(&shape) = shapes.get(normal(&key[start..]).as_str()) {
                let (fits, named) = counts.entry(&key[..start]).or_default();
                *named += 1;
                *fits += usize::from(shape == tensor.shape());
            }
        }
    }
    counts.into_iter().max_by_key(|(prefix, counts)| (*counts, std::cmp::Reverse(prefix.len()))).map_or(
        Prefix { prefix: String::new(), fits: 0, named: 0 },
        |(prefix, (fits, named))| Prefix { prefix: prefix.to_owned(), fits, named },
    )
}

/// The name with every part in its first synonym.
fn canonical(name: &str) -> String {
    let part = |part| SYNONYMS.iter().find(|group| group.contains(&part)).map_or(part, |group| group[0]);
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn nothing_fits(expected: &[(String, Shape)], found: &StateDict) -> String {
    let some = |names: Vec<&String>| names.into_iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    format!(
        "these weights belong to another architecture: none of the model's {} tensors ({}, …) is among the \
         file's {} ({}, …); choose the model that the file was trained with",
        expected.len(),
        some(expected.iter().map(|(name, _)| name).collect()),
        found.len(),
        some(found.keys().collect()),
    )
}

/// Remembers which part of a name differs, once per layer.
fn note_renaming(report: &mut LoadReport, there: &str, here: &str) {
    for (there, here) in there.split('.').zip(here.split('.')).filter(|(there, here)| there != here) {
        let pair = (there.to_owned(), here.to_owned());
        if !report.renamed.contains(&pair) {
            report.renamed.push(pair);
        }
    }
}

/// The tensor as `f32`, refused where it holds something that is no number.
fn finite(name: &str, tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    if let Some(at) = values.iter().position(|v| !v.is_finite()) {
        let bad = values.iter().filter(|v| !v.is_finite()).count();
        return Err(Error::model(format!(
            "weight {name:?} holds {bad} values that are no finite numbers (the first, at {at}, is {}): training \
             diverged or the file is damaged; use an earlier checkpoint",
            values[at]
        )));
    }
    Ok(tensor)
}

/// Distributes the names that were not used: normalisation, ignored, unexpected.
fn sort_out_the_rest(report: &mut LoadReport, found: &StateDict, used: &BTreeSet<&str>) {
    let rest: Vec<&String> = found.keys().filter(|key| !used.contains(key.as_str())).collect();
    let normalization = rest.iter().find_map(|key| normalization(key, found));
    for key in rest {
        let part_of_normalization = normalization.as_ref().is_some_and(|(_, keys)| keys.contains(key));
        let last = key.trim_end_matches(".weight").rsplit('.').next();
        if last.is_some_and(|last| NOT_LEARNED.contains(&last)) {
            report.ignored.push(key.clone());
        } else if !part_of_normalization {
            report.unexpected.push(key.clone());
        }
    }
    report.normalization = normalization.map(|(found, _)| found);
}

/// The normalisation whose mean is under `key`, and the names of both its tensors.
fn normalization(key: &str, found: &StateDict) -> Option<(FoundNormalization, [String; 2])> {
    let (name, last) = key.rsplit_once('.').unwrap_or(("", key));
    let (_, std) = NORMALIZATIONS.iter().find(|(mean, _)| *mean == last)?;
    let std_key = if name.is_empty() { (*std).to_owned() } else { format!("{name}.{std}") };
    let values = |key: &str| -> Option<Vec<f64>> {
        let tensor = found.get(key).filter(|tensor| (1..=4).contains(&tensor.elem_count()))?;
        let values = tensor
            .to_dtype(DType::F64)
            .and_then(|t| t.flatten_all())
            .and_then(|t| t.to_vec1::<f64>())
            .ok()?;
        values.iter().all(|v| v.is_finite()).then_some(values)
    };
    let (mean, std) = (values(key)?, values(&std_key)?);
    let found = FoundNormalization { name: name.to_owned(), constants: Normalization { mean, std } };
    Some((found, [key.to_owned(), std_key]))
}
