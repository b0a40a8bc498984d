//! Curves over training, from the metrics of one or several runs.

use serde_json::Value;

use super::folder::{Metrics, Run};
use crate::evaluate::overview::Configuration;
use crate::evaluate::statistics::mean_interval;
use crate::report::{Axis, LinePlot, Section, Series};

/// Parts of a run over which the same quantity is measured: `train/loss` and `validation/loss` are
/// curves of one plot. Any other prefix names a plot, and what follows it a curve (`omega/stage1`).
const PARTS: [&str; 7] = ["train", "validation", "test", "robust", "ema", "swa", "unperturbed"];
/// Quantities whose name alone does not say enough: title, and what it means.
const EXPLAINED: [(&str, &str, &str); 6] = [
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
        "high_frequency_filter_share",
        "Filters: share of energy at high frequencies",
        "High frequencies are those that filter frequency regularization penalizes (for 3×3 kernels the last row and \
         column of the cosine basis); the mean over all layers.",
    ),
    (
        "input_gradient/low_frequency_bias",
        "Input gradient: low-frequency bias",
        "JaFR's r of the training batches' input gradient: the larger, the lower the frequencies.",
    ),
    (
        "input_gradient/norm",
        "Input gradient: norm",
        "The mean over images of the norm of the batch-mean loss's gradient: it carries 1/batch, unlike the gradient norm of \
         the test images.",
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

/// What the runs of one configuration wrote down.
pub(super) struct Curves<'a> {
    name: &'a str,
    /// Name and metrics of each run.
    runs: Vec<(&'a str, &'a Metrics)>,
}

/// The metrics of each configuration's runs.
pub(super) fn curves_of<'a>(configurations: &'a [Configuration<'a>], runs: &'a [Run]) -> Vec<Curves<'a>> {
    let of = |configuration: &'a Configuration<'a>| Curves {
        name: &configuration.name,
        runs: configuration.runs.iter().filter_map(|source| metrics_of(&source.name, runs)).collect(),
    };
    configurations.iter().map(of).collect()
}

/// Names tell runs apart.
fn metrics_of<'a>(name: &str, runs: &'a [Run]) -> Option<(&'a str, &'a Metrics)> {
    let run = runs.iter().find(|run| run.source.name == name)?;
    Some((&run.source.name, &run.metrics))
}

/// The curves of all configurations, one plot per quantity; `None` if no run wrote metrics.
pub(super) fn section(configurations: &[Curves]) -> Option<Section> {
    let mut quantities: Vec<String> = Vec::new();
    for key in keys(configurations) {
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
        "What training wrote down at the end of each epoch. Where several configurations are compared, each keeps its \
         color on the whole page, and values on the training images are dashed. Of several seeds the mean is drawn, in \
         Student's 95 % interval.",
    );
    for (name, metrics) in configurations.iter().flat_map(|c| &c.runs) {
        for warning in &metrics.warnings {
            section = section.warning(format!("{name}: {warning}"));
        }
        for note in &metrics.notes {
            section = section.text(format!("{name}: {note}."));
        }
    }
    if keys(configurations).iter().any(|key| key == "unperturbed/loss") {
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
        section.line_plot(plot(configurations, quantity))
    }))
}

/// All metric names, in the order in which they first appear.
fn keys(configurations: &[Curves]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (_, values) in configurations.iter().flat_map(|c| &c.runs).flat_map(|(_, m)| &m.epochs) {
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

fn plot(configurations: &[Curves], quantity: &str) -> LinePlot {
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
    let curves: Vec<String> =
        keys(configurations).into_iter().filter(|key| split(key).0 == quantity).collect();
    let mut plot = LinePlot::new(title, Axis::integers("epoch"), y);
    let several = configurations.len() > 1;
    for (place, configuration) in configurations.iter().enumerate() {
        for (curve_index, key) in curves.iter().enumerate() {
            let (points, band) = points(&configuration.runs, key);
            if points.is_empty() {
                continue;
            }
            let curve = split(key).1.replace('_', " ");
            let label = match (several, curve.as_str()) {
                (false, curve) => curve.to_owned(),
                (true, "") => configuration.name.to_owned(),
                (true, curve) => format!("{}, {curve}", configuration.name),
            };
            let mut series = Series::new(label, points).band(band);
            series.color = Some(if several { place } else { curve_index });
            series.dashed = several && curve == "train";
            plot = plot.series(series);
        }
    }
    plot
}

/// A metric over epochs: of one run as it is, of several the mean and its interval.
fn points(runs: &[(&str, &Metrics)], key: &str) -> (Vec<[f64; 2]>, Vec<[f64; 2]>) {
    let value = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let mut epochs: Vec<(f64, Vec<f64>)> = Vec::new();
    for (epoch, values) in runs.iter().flat_map(|(_, metrics)| &metrics.epochs) {
        let Some(found) = values.get(key).map(value) else { continue };
        match epochs.iter_mut().find(|(known, _)| known == epoch) {
            Some((_, list)) => list.push(found),
            None => epochs.push((*epoch, vec![found])),
        }
    }
    epochs.sort_by(|a, b| a.0.total_cmp(&b.0));
    if runs.len() == 1 {
        return (epochs.iter().map(|(epoch, list)| [*epoch, list[0]]).collect(), Vec::new());
    }
    // Where fewer seeds have arrived yet, the mean would jump.
    epochs.retain(|(_, list)| list.len() == runs.len());
    let means = epochs.iter().filter_map(|(epoch, list)| Some((*epoch, mean_interval(list)?)));
    means.map(|(epoch, m)| ([epoch, m.mean], [m.low, m.high])).unzip()
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
