//! From the names in a file to the names of a model.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use candle_core::{DType, Device, Shape, Tensor};

use super::StateDict;
use super::leftovers::sort_out;
use super::report::{LoadReport, Misshaped};
use crate::{Error, Result};

/// Names that different code bases give to the same layer; the first stands for all.
const SYNONYMS: [&[&str]; 2] = [&["linear", "fc", "classifier"], &["shortcut", "downsample"]];

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
/// `Sequential(normalize, network)`): the prefix under which most names are found is taken.
/// Where names are still missing, usual other names of the same layers (`fc` for `linear`,
/// `downsample` for `shortcut`) are tried.
///
/// # Errors
/// No name of the model is in the file, or a weight is not a finite number, or a whole one.
pub fn match_keys(expected: &[(String, Shape)], found: &StateDict) -> Result<Matched> {
    let Comparison { report, keys } = compare(expected, found);
    if keys.is_empty() && report.misshaped.is_empty() {
        return Err(Error::model(nothing_fits(expected, found)));
    }
    let tensor = |(name, key): (String, &str)| Ok((name, finite(key, &found[key])?));
    Ok(Matched { tensors: keys.into_iter().map(tensor).collect::<Result<_>>()?, report })
}

/// How names and shapes of a model and a file compare.
pub(crate) struct Comparison<'a> {
    /// What was found, what was not, and what was left over.
    pub(crate) report: LoadReport,
    /// The name in the file of each tensor that fits.
    pub(crate) keys: Vec<(String, &'a str)>,
}

/// [`match_keys`] without looking at values.
pub(crate) fn compare<'a>(expected: &[(String, Shape)], found: &'a StateDict) -> Comparison<'a> {
    let located = locate(expected, found);
    let mut report = LoadReport { prefix: located.prefix.clone(), ..LoadReport::default() };
    let mut keys = Vec::new();
    let mut used = BTreeMap::new();
    for ((name, shape), key) in expected.iter().zip(located.keys) {
        let Some(key) = key else {
            report.missing.push(name.clone());
            continue;
        };
        used.insert(key, name.as_str());
        let tensor = &found[key];
        if tensor.shape() != shape {
            let (expected, found) = (shape.dims().to_vec(), tensor.dims().to_vec());
            report.misshaped.push(Misshaped { name: name.clone(), expected, found });
            continue;
        }
        note_renaming(&mut report, &key[located.prefix.len()..], name);
        keys.push((name.clone(), key));
    }
    report.loaded = keys.len();
    sort_out(&mut report, found, &used);
    Comparison { report, keys }
}

/// Where the tensors of a model lie in a file.
pub(crate) struct Located<'a> {
    prefix: String,
    /// For each of the model's names, in order, the name in the file, whatever its shape.
    pub(crate) keys: Vec<Option<&'a str>>,
}

/// Finds a model's names in a file.
pub(crate) fn locate<'a>(expected: &[(String, Shape)], found: &'a StateDict) -> Located<'a> {
    let shapes: HashMap<&str, &Shape> = expected.iter().map(|(name, shape)| (name.as_str(), shape)).collect();
    let exact = best_prefix(&shapes, found, str::to_owned);
    let canonical_shapes: BTreeMap<String, &Shape> =
        expected.iter().map(|(n, s)| (canonical(n), s)).collect();
    let by_synonym = {
        let shapes = canonical_shapes.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
        best_prefix(&shapes, found, canonical)
    };
    // Two layers of one model may be synonyms of each other: then names count as they are.
    let distinct = canonical_shapes.len() == expected.len();
    let synonyms = distinct && (by_synonym.named, by_synonym.fits) > (exact.named, exact.fits);
    let best = if synonyms { by_synonym } else { exact };
    let normal: fn(&str) -> String = if synonyms { canonical } else { str::to_owned };
    let in_file: HashMap<String, &str> = found
        .keys()
        .filter_map(|key| key.strip_prefix(&best.prefix).map(|rest| (normal(rest), key.as_str())))
        .collect();
    let keys = expected.iter().map(|(name, _)| in_file.get(&normal(name)).copied()).collect();
    Located { prefix: best.prefix, keys }
}

/// A prefix and how well it serves.
struct Prefix {
    prefix: String,
    /// Names that are there in the right shape.
    fits: usize,
    /// Names that are there.
    named: usize,
}

/// The prefix under which most names of the model are found, most shapes among equals: a single block of another
/// network, which may hold a few names in the right shape, is no network under a prefix.
fn best_prefix(shapes: &HashMap<&str, &Shape>, found: &StateDict, normal: impl Fn(&str) -> String) -> Prefix {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (key, tensor) in found {
        for start in part_starts(key) {
            if let Some(&shape) = shapes.get(normal(&key[start..]).as_str()) {
                let (named, fits) = counts.entry(&key[..start]).or_default();
                *named += 1;
                *fits += usize::from(shape == tensor.shape());
            }
        }
    }
    counts.into_iter().max_by_key(|(prefix, counts)| (*counts, std::cmp::Reverse(prefix.len()))).map_or(
        Prefix { prefix: String::new(), fits: 0, named: 0 },
        |(prefix, (named, fits))| Prefix { prefix: prefix.to_owned(), fits, named },
    )
}

/// Where the dotted parts of a name begin.
pub(super) fn part_starts(key: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(key.match_indices(['.', '/']).map(|(i, _)| i + 1))
}

/// What the names and shapes of a state dict tell about the size of its network.
pub(crate) struct Names<'a>(pub(crate) &'a StateDict);

impl Names<'_> {
    /// How many members a list has, such as `layer1.` in `layer1.0.conv1.weight`; `None` if it has none.
    pub(crate) fn count(&self, list: &str) -> Option<usize> {
        let members: BTreeSet<usize> = self
            .0
            .keys()
            .filter_map(|key| {
                let start = part_starts(key).find(|&start| key[start..].starts_with(list))?;
                key[start + list.len()..].split('.').next()?.parse().ok()
            })
            .collect();
        (!members.is_empty()).then_some(members.len())
    }

    /// How many numbers the tensor of that name holds.
    pub(crate) fn elements(&self, name: &str) -> Option<usize> {
        let named = |key: &String| part_starts(key).any(|start| &key[start..] == name);
        self.0.iter().find(|(key, _)| named(key)).map(|(_, tensor)| tensor.elem_count())
    }
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

/// The tensor as `f32`, refused where it holds something that is no number, or codes of a quantized weight.
fn finite(name: &str, tensor: &Tensor) -> Result<Tensor> {
    if !tensor.dtype().is_float() {
        return Err(Error::model(format!(
            "weight {name:?} holds whole numbers ({}), as quantized networks do: without their scale they mean \
             nothing; save the network with float weights (in PyTorch, dequantize it first)",
            tensor.dtype().as_str()
        )));
    }
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
