//! Curves over training, from the metrics of one or several runs.

use serde_json::Value;

use super::folder::Run;
use crate::report::{Axis, LinePlot, Section, Series};

/// Parts of a run over which the same quantity is measured: `train/loss` and `validation/loss` are
/// curves of one plot. Any other prefix names a plot, and what follows it a curve (`omega/stage1`).
const PARTS: [&str; 7] = ["train", "validation", "test", "robust", "ema", "swa", "unperturbed"];
/// Quantities whose name alone does not say enough: title, and what it means.
const EXPLAINED: [(&str, &str, &str); 3] = [
    (
        "omega",
        "FPCM: mean ω per stage",
        "ω is the weight of the low frequencies in a stage's output, between ½ (both alike) and 1 (low ones only); \
         its mean over channels and the evaluated clean test images.",
    ),
    (
        "omega_spread",
        "FPCM: spread of ω per stage",
        "The standard deviation over a stage's channels of ω, each averaged over the evaluated clean test images.",
    ),
    (
        "overfitting",
        "Catastrophic overfitting: accuracy on watched training images",
        "A network that overfits catastrophically keeps its accuracy under the training attack and loses that under \
         PGD.",
    ),
];
/// The quantities that come first, in this order.
const FIRST: [&str; 4] = ["loss", "accuracy", "robust_accuracy", "learning_rate"];

/// The curves of all runs, one plot per quantity; `None` if no run wrote metrics.
pub(super) fn section(runs: &[Run]) -> Option<Section> {
    let mut quantities: Vec<String> = Vec::new();
    for key in keys(runs) {
        let quantity = split(&key).0.to_owned();
        if !quantities.contains(&quantity) {
            quantities.push(quantity);
        }
    }
    if quantities.is_empty() {
        return None;
    }
    let rank = |quantity: &String| FIRST.iter().position(|f| f == quantity).unwrap_or(FIRST.len());
    quantities.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    let mut section = Section::new("Training").text(
        "What training wrote down at the end of each epoch. Where several runs are compared, each keeps its \
         colour on the whole page, and values on the training images are dashed.",
    );
    for run in runs {
        for warning in &run.metrics.warnings {
            section = section.warning(format!("{}: {warning}", run.name));
        }
        for note in &run.metrics.notes {
            section = section.text(format!("{}: {note}.", run.name));
        }
    }
    if keys(runs).iter().any(|key| key == "unperturbed/loss") {
        section = section.text(
            "Adversarial weight perturbation: the loss “train” is that at the perturbed weights, “unperturbed” that \
             at the weights themselves.",
        );
    }
    Some(quantities.iter().fold(section, |section, quantity| {
        let section = match EXPLAINED.iter().find(|(name, ..)| name == quantity) {
            Some((_, _, meaning)) => section.text(*meaning),
            None => section,
        };
        section.line_plot(plot(runs, quantity))
    }))
}

/// All metric names, in the order in which they first appear.
fn keys(runs: &[Run]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (_, values) in runs.iter().flat_map(|r| &r.metrics.epochs) {
        for (key, value) in values {
            if (value.is_number() || value.is_null()) && !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
    keys
}

/// A metric's quantity and curve: `train/loss` is the curve `train` of `loss`.
fn split(key: &str) -> (&str, &str) {
    match key.split_once('/') {
        Some((part, quantity)) if PARTS.contains(&part) => (quantity, part),
        Some((quantity, curve)) => (quantity, curve),
        None => (key, ""),
    }
}

fn plot(runs: &[Run], quantity: &str) -> LinePlot {
    let readable = quantity.replace(['_', '/'], " ");
    let watched = quantity == "overfitting";
    let fraction = quantity.contains("accuracy") || quantity.contains("share") || watched;
    let y = match quantity {
        "omega" => Axis::new("ω"),
        "omega_spread" => Axis::new("standard deviation of ω"),
        _ if watched => Axis::percent("accuracy"),
        _ if fraction => Axis::percent(&readable),
        _ => Axis::new(&readable),
    };
    let title = match EXPLAINED.iter().find(|(name, ..)| *name == quantity) {
        Some((_, title, _)) => (*title).to_owned(),
        None => capitalized(&readable),
    };
    let curves: Vec<String> = keys(runs).into_iter().filter(|key| split(key).0 == quantity).collect();
    let mut plot = LinePlot::new(title, Axis::new("epoch"), y);
    for (run_index, run) in runs.iter().enumerate() {
        for (curve_index, key) in curves.iter().enumerate() {
            let points = points(run, key);
            if points.is_empty() {
                continue;
            }
            let curve = split(key).1.replace('_', " ");
            let curve = curve.as_str();
            let label = match (runs.len(), curve) {
                (1, curve) => curve.to_owned(),
                (_, "") => run.name.clone(),
                (_, curve) => format!("{}, {curve}", run.name),
            };
            let mut series = Series::new(label, points);
            series.colour = Some(if runs.len() > 1 { run_index } else { curve_index });
            series.dashed = runs.len() > 1 && curve == "train";
            plot = plot.series(series);
        }
    }
    plot
}

fn points(run: &Run, key: &str) -> Vec<[f64; 2]> {
    let epochs = run.metrics.epochs.iter();
    let value = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    epochs.filter_map(|(epoch, values)| Some([*epoch, value(values.get(key)?)])).collect()
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
