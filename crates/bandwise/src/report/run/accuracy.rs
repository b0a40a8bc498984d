//! Accuracies with their intervals, from the result records of one or several runs.

use std::collections::HashMap;

use crate::evaluate::corruptions;
use crate::evaluate::record::Record;
use crate::evaluate::statistics::mcnemar;
use crate::report::{
    Axis, Bar, BarPlot, BarSeries, Block, Cell, LinePlot, NumberFormat, Section, Series, Table,
};

use super::folder::Run;

/// The splits of the synthetic cue set, in the order of reports, and what they show.
const CUES: [(&str, &str); 4] = [
    ("iid", "same distribution"),
    ("shape", "shape only"),
    ("texture", "texture only"),
    ("conflict", "cue conflict: shape decides"),
];

/// What tells two numbers of one run apart.
#[derive(Debug, Clone, PartialEq)]
struct Condition {
    metric: String,
    attack: String,
    norm: Option<String>,
    epsilon: f64,
    corruption: Option<String>,
    severity: Option<u8>,
    split: String,
}

impl Condition {
    fn of(record: &Record) -> Self {
        Self {
            metric: record.metric.clone(),
            attack: record.attack.clone(),
            norm: record.norm.clone().filter(|_| record.attack != "none"),
            epsilon: record.epsilon,
            corruption: record.corruption.clone(),
            severity: record.severity,
            split: split(record),
        }
    }

    fn is_accuracy(&self) -> bool {
        self.metric == "accuracy"
    }

    fn is_clean(&self) -> bool {
        self.is_accuracy() && self.attack == "none" && self.corruption.is_none()
    }

    /// The condition as the reader of a table names it.
    fn name(&self) -> String {
        let mut name = if self.attack == "none" {
            "clean".to_owned()
        } else {
            let norm = match self.norm.as_deref() {
                Some("linf") | None => String::new(),
                Some(norm) => format!(" {}", norm.to_uppercase()),
            };
            format!("{}{norm}, ε = {}", self.attack, epsilon_name(self.epsilon))
        };
        if let Some(corruption) = &self.corruption {
            name = corruption.replace('_', " ");
            name.extend(self.severity.map(|s| format!(", severity {s}")));
        }
        match cue_name(&self.split).filter(|_| self.split != "iid") {
            Some(cue) => format!("{name} ({cue})"),
            None if matches!(self.split.as_str(), "" | "test" | "iid") => name,
            None => format!("{name} ({})", self.split),
        }
    }
}

/// The split of a record; the synthetic set's cue splits are also found in the data's specification.
fn split(record: &Record) -> String {
    let provenance = &record.provenance;
    let options = provenance.data.strip_prefix("synthetic:").unwrap_or_default();
    let cue =
        options.split(',').filter_map(|o| o.trim().strip_prefix("test=")).find(|c| cue_name(c).is_some());
    match cue {
        Some(cue) if provenance.split == "test" || provenance.split.is_empty() => cue.to_owned(),
        _ => provenance.split.clone(),
    }
}

fn cue_name(split: &str) -> Option<&'static str> {
    CUES.iter().find(|(name, _)| *name == split).map(|(_, text)| *text)
}

/// `8/255` where the value is that fraction, else the value.
fn epsilon_name(epsilon: f64) -> String {
    let levels = epsilon * 255.0;
    let halves = (levels * 2.0).round() / 2.0;
    if halves > 0.0 && (levels - halves).abs() < 1e-6 && epsilon < 0.51 {
        return format!("{halves}/255");
    }
    NumberFormat::Plain.write(epsilon)
}

/// One row per condition, one place per run.
struct Results {
    rows: Vec<(Condition, Vec<Option<Record>>)>,
}

impl Results {
    /// Of several numbers for one condition of one run, the last of each seed counts; several seeds
    /// become their mean.
    fn collect(runs: &[Run]) -> Self {
        let mut rows: Vec<(Condition, Vec<Vec<&Record>>)> = Vec::new();
        for (index, run) in runs.iter().enumerate() {
            for record in &run.records {
                let condition = Condition::of(record);
                let row = rows.iter().position(|(known, _)| *known == condition).unwrap_or_else(|| {
                    rows.push((condition, vec![Vec::new(); runs.len()]));
                    rows.len() - 1
                });
                let places = &mut rows[row].1[index];
                places.retain(|older| older.provenance.seeds != record.provenance.seeds);
                places.push(record);
            }
        }
        let merge = |records: Vec<&Record>| match records.as_slice() {
            [one] => Some((*one).clone()),
            several => Record::mean_of(&several.iter().map(|r| (*r).clone()).collect::<Vec<_>>()),
        };
        let merged = |(condition, places): (Condition, Vec<Vec<&Record>>)| {
            (condition, places.into_iter().map(merge).collect())
        };
        Self { rows: rows.into_iter().map(merged).collect() }
    }

    fn matching(&self, keep: impl Fn(&Condition) -> bool) -> Vec<&(Condition, Vec<Option<Record>>)> {
        self.rows.iter().filter(|(condition, _)| keep(condition)).collect()
    }
}

/// All sections that records give: accuracies, cue splits, corruptions, other measurements.
pub(super) fn sections(runs: &[Run]) -> Vec<Section> {
    let results = Results::collect(runs);
    let candidates = [
        accuracy_section(runs, &results),
        cue_section(runs, &results),
        corruption_section(runs, &results),
        other_section(runs, &results),
    ];
    candidates.into_iter().flatten().collect()
}

fn accuracy_section(runs: &[Run], results: &Results) -> Option<Section> {
    // Cue splits are shown on their own; the usual test images among them open the table, but once.
    let tested = results.rows.iter().any(|(c, _)| c.is_clean() && matches!(c.split.as_str(), "" | "test"));
    let is_cue = |c: &Condition| c.is_clean() && cue_name(&c.split).is_some() && (tested || c.split != "iid");
    let shown = |c: &Condition| c.is_accuracy() && c.corruption.is_none() && !is_cue(c);
    let rows = results.matching(shown);
    if rows.is_empty() {
        return None;
    }
    let mut section = Section::new("Accuracy").text(
        "The share of test images classified correctly, clean and under attack. Below each number stands its \
         95 % interval: the accuracies on all images of this kind that fit what was seen on the sample.",
    );
    section = section.table(accuracy_table("", runs, &rows).caption(sample_caption(&rows)));
    for plot in strength_plots(runs, results) {
        section = section.line_plot(plot);
    }
    if let Some(table) = paired_table(runs, &rows) {
        section = section.table(table);
    }
    Some(section.details("Where these numbers come from", vec![Block::Table(provenance_table(runs))]))
}

fn accuracy_table(title: &str, runs: &[Run], rows: &[&(Condition, Vec<Option<Record>>)]) -> Table {
    let columns = std::iter::once("images").chain(runs.iter().map(|r| r.name.as_str())).collect::<Vec<_>>();
    let table = Table::new(title, &columns);
    rows.iter().fold(table, |table, (condition, records)| {
        let is_share = condition.metric.contains("accuracy") || condition.metric.ends_with("_share");
        let format = if is_share { NumberFormat::Percent } else { NumberFormat::Plain };
        let best = records.iter().flatten().map(|r| r.value).fold(f64::NEG_INFINITY, f64::max);
        let cell = |record: &Option<Record>| match record {
            None => Cell::empty(),
            Some(r) => {
                let is_best = condition.is_accuracy() && runs.len() > 1 && r.value == best;
                Cell::formatted(r.value, format).with_interval(r.ci95).best(is_best)
            }
        };
        table.row(std::iter::once(Cell::text(condition.name())).chain(records.iter().map(cell)).collect())
    })
}

fn sample_caption(rows: &[&(Condition, Vec<Option<Record>>)]) -> String {
    let mut totals: Vec<u64> = rows
        .iter()
        .flat_map(|(_, r)| r.iter().flatten())
        .filter(|r| r.per_image.is_some())
        .filter_map(|r| r.total)
        .collect();
    totals.sort_unstable();
    totals.dedup();
    match totals.as_slice() {
        [] => String::new(),
        [total] => format!("{total} images each; Wilson intervals."),
        [first, .., last] => format!("{first} to {last} images; Wilson intervals."),
    }
}

/// For each attack that was run at several strengths, its accuracy over ε.
fn strength_plots(runs: &[Run], results: &Results) -> Vec<LinePlot> {
    let attacked = results.matching(|c| c.is_accuracy() && c.attack != "none" && c.corruption.is_none());
    let mut families: Vec<Condition> = Vec::new();
    for (condition, _) in &attacked {
        let family = Condition { epsilon: 0.0, ..condition.clone() };
        if !families.contains(&family) {
            families.push(family);
        }
    }
    let plots = families.into_iter().filter_map(|family| {
        let of_family = |c: &Condition| Condition { epsilon: 0.0, ..c.clone() } == family;
        let clean = |c: &Condition| c.is_clean() && c.split == family.split;
        let rows = results.matching(|c| of_family(c) || clean(c));
        (rows.len() >= 3).then(|| strength_plot(runs, &family, rows))
    });
    plots.collect()
}

fn strength_plot(
    runs: &[Run],
    family: &Condition,
    mut rows: Vec<&(Condition, Vec<Option<Record>>)>,
) -> LinePlot {
    rows.sort_by(|a, b| a.0.epsilon.total_cmp(&b.0.epsilon));
    let (x, scale) = match family.norm.as_deref() {
        Some("l2" | "l1") => (Axis::new("ε"), 1.0),
        _ => (Axis::new("ε in 1/255"), 255.0),
    };
    let plot = LinePlot::new(
        format!("Accuracy over attack strength: {}", family.attack),
        x,
        Axis::percent("accuracy").range(0.0, 1.0),
    );
    runs.iter().enumerate().fold(plot, |plot, (index, run)| {
        let records =
            rows.iter().filter_map(|(c, records)| Some((c.epsilon * scale, records[index].as_ref()?)));
        let (points, band) = records.map(|(x, r)| ([x, r.value], r.ci95.unwrap_or([r.value; 2]))).unzip();
        plot.series(Series::new(&run.name, points).band(band).colour(index))
    })
}

/// McNemar's test of every later run against the first, where both were judged on the same images.
fn paired_table(runs: &[Run], rows: &[&(Condition, Vec<Option<Record>>)]) -> Option<Table> {
    let columns = ["images", "compared", "only first right", "only second right", "difference", "mid-p"];
    let mut table = Table::new("Paired comparison on the same images", &columns).caption(
        "McNemar's test: counts of images that only one of the two gets right, the difference in accuracy \
         (percentage points) with its 95 % interval, and the two-sided mid-p value.",
    );
    for (condition, records) in rows {
        let Some(first) = &records[0] else { continue };
        for (run, second) in runs.iter().zip(records).skip(1) {
            let Some(test) = second
                .as_ref()
                .filter(|s| same_images(first, s))
                .and_then(|second| mcnemar(&first.flags()?, &second.flags()?).ok())
            else {
                continue;
            };
            table = table.row(vec![
                Cell::text(condition.name()),
                Cell::text(format!("{} − {}", runs[0].name, run.name)),
                Cell::number(test.only_first as f64),
                Cell::number(test.only_second as f64),
                Cell::percent(test.difference).with_interval(Some(test.difference_ci95)),
                Cell::text(p_value(test.p_mid)),
            ]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

fn same_images(first: &Record, second: &Record) -> bool {
    !first.provenance.data_sha256.is_empty() && first.provenance.data_sha256 == second.provenance.data_sha256
}

fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") }
}

/// Model, weights, data and machine behind each run's numbers.
fn provenance_table(runs: &[Run]) -> Table {
    let columns = ["run", "model", "weights SHA-256", "data", "data SHA-256", "computed", "version", "last"];
    let mut table = Table::new("", &columns);
    for run in runs {
        let mut known: Vec<[&str; 2]> = Vec::new();
        for record in run.records.iter().rev() {
            let p = &record.provenance;
            let identity = [p.weights_sha256.as_str(), p.data_sha256.as_str()];
            if known.contains(&identity) {
                continue;
            }
            known.push(identity);
            let data = if p.split.is_empty() { p.data.clone() } else { format!("{} ({})", p.data, p.split) };
            let hash = |text: &str| text.chars().take(12).collect::<String>();
            let computed = format!("{}, {}", p.device, p.precision);
            let cells =
                [&run.name, &p.model, &hash(&p.weights_sha256), &data, &hash(&p.data_sha256), &computed];
            let cells = cells.into_iter().chain([&p.version, &record.created]).map(Cell::text);
            table = table.row(cells.collect());
        }
    }
    table
}

/// Bars of the synthetic set's cue splits.
fn cue_section(runs: &[Run], results: &Results) -> Option<Section> {
    let rows: Vec<_> = CUES
        .iter()
        .filter_map(|(split, text)| {
            let row = results.rows.iter().find(|(c, _)| c.is_clean() && c.split == *split)?;
            Some((*text, row))
        })
        .collect();
    if rows.len() < 2 {
        return None;
    }
    let groups = rows.iter().map(|(text, _)| (*text).to_owned()).collect();
    let plot = BarPlot::new("Accuracy by cue", Axis::percent("accuracy").range(0.0, 1.0), groups);
    let plot = runs.iter().enumerate().fold(plot, |plot, (index, run)| {
        let bar = |(_, (_, records)): &(&str, &(Condition, Vec<Option<Record>>))| match &records[index] {
            Some(r) => Bar { value: r.value, interval: r.ci95 },
            None => Bar::missing(),
        };
        plot.series(BarSeries::new(&run.name, rows.iter().map(bar).collect()).colour(index))
    });
    let section = Section::new("Shape or texture").text(
        "The synthetic classes can be told by a large shape (low frequencies) or by a fine texture (high \
         frequencies). Where only one of them is present, the accuracy shows what the network can use; where \
         they contradict each other, it shows which one the network believes.",
    );
    Some(section.bar_plot(plot.caption("Clean images; whiskers are 95 % intervals.").full_width()))
}

/// Accuracy per corruption, over the severities that were measured.
fn corruption_section(runs: &[Run], results: &Results) -> Option<Section> {
    let rows = results.matching(|c| c.is_accuracy() && c.corruption.is_some() && c.attack == "none");
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().filter_map(|(c, _)| c.corruption.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return None;
    }
    let ordered = order_by_frequency(&mut names, &rows);
    let mean = |name: Option<&str>, index: usize| {
        let values = rows.iter().filter(|(c, _)| name.is_none() || c.corruption.as_deref() == name);
        let values: Vec<f64> = values.filter_map(|(_, r)| Some(r[index].as_ref()?.value)).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let groups = names.iter().map(|n| n.replace('_', " ")).collect();
    let plot = BarPlot::new("Accuracy by corruption", Axis::percent("accuracy").range(0.0, 1.0), groups);
    let plot = runs.iter().enumerate().fold(plot, |plot, (index, run)| {
        let bars = names.iter().map(|name| Bar::new(mean(Some(name), index))).collect();
        plot.series(BarSeries::new(&run.name, bars).colour(index))
    });
    let columns: Vec<&str> = std::iter::once("").chain(runs.iter().map(|r| r.name.as_str())).collect();
    let overall = (0..runs.len()).map(|index| Cell::percent(mean(None, index)));
    let overall = std::iter::once(Cell::text("mean over all")).chain(overall).collect();
    let details = accuracy_table("", runs, &rows);
    Some(
        Section::new("Corruptions")
            .table(Table::new("Mean accuracy under corruption", &columns).row(overall))
            .bar_plot(
                plot.caption(format!("Mean over the severities that were measured.{ordered}")).full_width(),
            )
            .details("Every corruption and severity", vec![Block::Table(details)]),
    )
}

/// Sorts corruptions by where their changes lie in the spectrum, and says so, if the records tell it of all.
fn order_by_frequency(names: &mut [&str], rows: &[&(Condition, Vec<Option<Record>>)]) -> &'static str {
    let records: Vec<Record> = rows.iter().flat_map(|(_, places)| places.iter().flatten().cloned()).collect();
    let of = |name: &str| corruptions::centroid(&records, name.parse().ok()?);
    if !names.iter().all(|name| of(name).is_some()) {
        return "";
    }
    let centroids: HashMap<String, f64> =
        names.iter().map(|n| ((*n).to_owned(), of(n).unwrap_or(0.0))).collect();
    names.sort_by(|a, b| centroids[*a].total_cmp(&centroids[*b]));
    " From left to right: from changes of low to changes of high frequency."
}

fn other_section(runs: &[Run], results: &Results) -> Option<Section> {
    let rows = results.matching(|c| !c.is_accuracy());
    if rows.is_empty() {
        return None;
    }
    let mut table = accuracy_table("", runs, &rows);
    for (row, (condition, _)) in table.rows.iter_mut().zip(&rows) {
        let (metric, images) = (condition.metric.replace('_', " "), condition.name());
        row[0] = Cell::text(if images == "clean" { metric } else { format!("{metric}: {images}") });
    }
    table.columns[0] = "measurement".into();
    Some(Section::new("Other measurements").table(table))
}
