//! Which of the built-in architectures a file's tensors are for, by names and shapes.

use std::collections::BTreeMap;

use super::NetworkConfig;
use crate::nn::weights::{self, LoadReport, Names, StateDict, StateFile};
use crate::nn::{Plan, zoo};
use crate::{Error, Result};

/// Beginnings of names under which networks lie beside each other, whatever their architecture.
const COPIES: [&str; 10] = [
    "average",
    "ema",
    "ema_model",
    "ema_state_dict",
    "model_ema",
    "shadow",
    "student",
    "swa",
    "swa_model",
    "teacher",
];
/// So many beginnings of names, the most frequent, are tried as networks of their own.
const TRIED: usize = 8;

/// The error for a file whose tensors fit no architecture: several networks to choose from, or what the nearest one
/// lacks.
pub(super) fn nothing_fits(file: &StateFile) -> Error {
    let path = file.path.display();
    let names = file.tensors.keys().take(3).cloned().collect::<Vec<_>>().join(", ");
    let parts = parts(&file.tensors);
    let advice = match (&parts[..], nearest(&file.tensors)) {
        ([first, _, ..], _) => {
            let listed = parts.join(" and ");
            format!("it holds {} networks: {listed}; choose with --weights {path}#{first}", parts.len())
        }
        (_, Some((config, report))) => {
            let width = config.width.map_or(String::new(), |width| format!(" of width {width}"));
            format!(
                "the nearest is {}{width} ({}); --model {} --allow-mismatch loads what fits all the same",
                config.architecture,
                report.mismatch(),
                config.architecture
            )
        }
        _ => "if one nearly fits, name it with --model to see what differs".into(),
    };
    Error::model(format!(
        "{path}: the file does not say which architecture it is for, and its {} tensors ({names}, …) fit none that is \
         built in (see `bandwise models`); {advice}",
        file.tensors.len(),
    ))
}

/// What stands before the first dot of names that are a network of their own: each fits an architecture, or is known
/// for holding copies.
fn parts(tensors: &StateDict) -> Vec<String> {
    let mut groups: BTreeMap<&str, StateDict> = BTreeMap::new();
    for (name, tensor) in tensors {
        if let Some((first, rest)) = name.split_once('.') {
            groups.entry(first).or_default().insert(rest.to_owned(), tensor.clone());
        }
    }
    let mut groups: Vec<(&str, StateDict)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.len()));
    groups.truncate(TRIED);
    let is_network =
        |(first, group): &&(&str, StateDict)| COPIES.contains(first) || !fitting(group).is_empty();
    let mut parts: Vec<String> =
        groups.iter().filter(is_network).map(|(first, _)| (*first).to_owned()).collect();
    parts.sort();
    parts
}

/// The architecture that most of the tensors fit, if that is most of its own.
fn nearest(tensors: &StateDict) -> Option<(NetworkConfig, LoadReport)> {
    let compared = |name: String| {
        let config = completed(NetworkConfig::new(&name), tensors).ok()?;
        let report = weights::compare(config.plan().ok()?.tensors(), tensors).report;
        let amiss = report.missing.len() + report.misshaped.len() + report.unexpected.len();
        (report.loaded > amiss).then_some((amiss, config, report))
    };
    let all = zoo::candidates(&Names(tensors)).into_iter().filter_map(compared);
    all.min_by_key(|(amiss, ..)| *amiss).map(|(_, config, report)| (config, report))
}

/// Every built-in network that a state dict fits exactly, sizes read from its shapes.
pub(super) fn fitting(tensors: &StateDict) -> Vec<NetworkConfig> {
    let fits = |name: String| {
        let config = completed(NetworkConfig::new(&name), tensors).ok()?;
        let plan = config.plan().ok()?;
        weights::compare(plan.tensors(), tensors).report.is_exact().then_some(config)
    };
    zoo::candidates(&Names(tensors)).into_iter().filter_map(fits).collect()
}

/// The configuration with everything that names and shapes of the file tell where it is open: blocks and
/// decomposition of official files, channels, classes, width.
pub(super) fn completed(mut config: NetworkConfig, tensors: &StateDict) -> Result<NetworkConfig> {
    config = config.completed_by_file(None, tensors);
    let published = config.plan()?;
    let shapes = published.tensors();
    let located = weights::locate(shapes, tensors);
    let found = |index: usize| Some(tensors.get(located.keys.get(index).copied()??)?.elem_count());
    let planned = |index: usize| shapes.get(index).map(|(_, shape)| shape.elem_count());
    // The first batch norm has as many channels as the network is wide, in every architecture.
    let norm = shapes.iter().position(|(name, _)| name.ends_with(".running_mean"));
    // Where the file has no running statistics, its scale is as long.
    let scale = norm.and_then(|norm| {
        let name = shapes[norm].0.replace(".running_mean", ".weight");
        shapes.iter().position(|(other, _)| *other == name)
    });
    if let (Some(index), None) = (norm, config.width)
        && let Some(width) = found(index).or_else(|| found(scale?))
        && let Some(usual) = planned(index)
        && width != usual
    {
        config.width = Some(width);
    }
    let plan = config.plan()?;
    // The first tensor is a convolution of the image: its size is proportional to the channels.
    if let (None, Some(there)) = (config.channels, found(0)) {
        let per_channel = plan.tensors()[0].1.elem_count() / NetworkConfig::USUAL_CHANNELS;
        config.channels = there.checked_div(per_channel).filter(|&channels| channels > 0);
    }
    if let (None, Some(head)) = (config.classes, head(&plan)) {
        let key = located.keys.get(head).copied().flatten();
        config.classes = key.and_then(|key| tensors[key].dims().first().copied());
    }
    Ok(config)
}

/// Where the last tensor of the network proper stands, the head's bias or weight: blocks come behind it.
fn head(plan: &Plan) -> Option<usize> {
    plan.tensors().iter().rposition(|(name, _)| !name.starts_with("attn"))
}
