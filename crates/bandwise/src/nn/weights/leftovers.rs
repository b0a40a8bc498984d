//! What a file of weights holds beside the tensors of the model, and what of that is harmless.
//!
//! Everything else that is left over means that another network was trained than the one that was named: it is
//! refused, as by PyTorch's `load_state_dict`.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::StateDict;
use super::matching::part_starts;
use super::report::{FoundNormalization, LoadReport};
use crate::nn::Normalization;

/// Parts of names that are harmless to leave out, and why. Copies of the network's own tensors under another
/// prefix (with the same numbers) and the constants of an input normalization are harmless, too.
pub const HARMLESS: [(&str, &str); 6] = [
    ("num_batches_tracked", "batch norm's counter, which evaluation does not use"),
    ("n_averaged", "the counter of PyTorch's `AveragedModel`"),
    (
        "basis",
        "the fixed cosine basis of decomposed convolutions (official code of filter frequency regularization)",
    ),
    ("basis_coef", "the same, under its other name"),
    ("learnable_freq_control", "declared by the official code of FPCM, never used"),
    ("sub_block1", "declared by TRADES' WideResNet (and RobustBench's after it), never used"),
];

/// How a normalizing layer calls its mean and standard deviation.
const NORMALIZATIONS: [(&str, &str); 4] =
    [("mean", "std"), ("new_mean", "new_std"), ("mu", "sigma"), ("_mean", "_std")];

/// Distributes the names that were not used: normalization, ignored, unexpected. `used` maps names in the file to
/// names in the model.
pub(super) fn sort_out(report: &mut LoadReport, found: &StateDict, used: &BTreeMap<&str, &str>) {
    let of_model: BTreeMap<&str, &str> =
        used.keys().map(|key| (&key[report.prefix.len().min(key.len())..], *key)).collect();
    let rest: Vec<&str> = found.keys().map(String::as_str).filter(|key| !used.contains_key(key)).collect();
    let normalizations: Vec<(FoundNormalization, [String; 2])> =
        rest.iter().filter_map(|key| normalization(key, found)).collect();
    let first = normalizations.first().map(|(found, _)| found.clone());
    // A second layer with other constants is not one that we know how to apply.
    let alike = |(other, _): &&(FoundNormalization, [String; 2])| {
        first.as_ref().is_some_and(|first| first.constants == other.constants)
    };
    let constants: Vec<&String> = normalizations.iter().filter(alike).flat_map(|(_, keys)| keys).collect();
    let (same, different) = copies(&rest, found, &of_model);
    report.alternatives =
        different.iter().map(|prefix| prefix.trim_end_matches(['.', '/']).to_owned()).collect();
    // Averaged weights beside the trained ones are a choice; two networks that are not told apart are none.
    let averages = different.into_iter().filter(|prefix| is_average(prefix));
    let copies: Vec<&str> = same.into_iter().chain(averages).collect();
    for key in rest {
        let copied = copies
            .iter()
            .any(|prefix| key.strip_prefix(prefix).is_some_and(|name| of_model.contains_key(name)));
        let harmless = key.split(['.', '/']).any(|part| HARMLESS.iter().any(|(name, _)| *name == part));
        if harmless || copied {
            report.ignored.push(key.to_owned());
        } else if !constants.iter().any(|constant| *constant == key) {
            report.unexpected.push(key.to_owned());
        }
    }
    report.normalization = first;
}

/// Whether a prefix is that of averaged weights.
fn is_average(prefix: &str) -> bool {
    let mut words = prefix.split(['.', '_', '/', '-']);
    words.any(|word| ["ema", "swa", "average", "averaged", "avg", "shadow"].contains(&word))
}

/// The prefixes under which the file holds the whole network again: with the same numbers, as wrappers leave them, and
/// with others.
fn copies<'a>(
    rest: &[&'a str],
    found: &StateDict,
    of_model: &BTreeMap<&str, &str>,
) -> (Vec<&'a str>, Vec<&'a str>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for key in rest {
        for start in part_starts(key) {
            *counts.entry(&key[..start]).or_default() += usize::from(of_model.contains_key(&key[start..]));
        }
    }
    let holds = |prefix: &str, fits: fn(&Tensor, &Tensor) -> bool| {
        let copy = |name: &str| found.get(&format!("{prefix}{name}"));
        of_model.iter().all(|(name, original)| copy(name).is_some_and(|copy| fits(copy, &found[*original])))
    };
    let whole = counts.iter().filter(|(_, count)| **count == of_model.len() && !of_model.is_empty());
    let whole =
        whole.map(|(prefix, _)| *prefix).filter(|prefix| holds(prefix, |a, b| a.shape() == b.shape()));
    whole.partition(|prefix| holds(prefix, equal))
}

fn equal(a: &Tensor, b: &Tensor) -> bool {
    let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    a.shape() == b.shape() && matches!((values(a), values(b)), (Ok(a), Ok(b)) if a == b)
}

/// The normalization whose mean is under `key`, and the names of both its tensors.
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
    let found = FoundNormalization { name: key.to_owned(), constants: Normalization { mean, std } };
    Some((found, [key.to_owned(), std_key]))
}
