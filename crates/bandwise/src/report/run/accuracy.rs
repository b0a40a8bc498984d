//! Accuracies with their intervals, and whatever else the result records of one or several runs hold.

use std::collections::{BTreeMap, HashMap};

use crate::evaluate::comparison::{self, Comparison, Sample, winner};
use crate::evaluate::corruptions;
use crate::evaluate::naming::{self, CUES};
use crate::evaluate::overview::{self, Results, Row};
use crate::evaluate::record::Record;
use crate::report::{
    Axis, Bar, BarPlot, BarSeries, Block, Cell, LinePlot, NumberFormat, Section, Series, Table,
};
use crate::wording::{counted, p_value};

/// All sections that records give: accuracies, cue splits, corruptions, other measurements.
pub(super) fn sections(results: &Results) -> Vec<Section> {
    let candidates = [
        accuracy_section(results),
        cue_section(results),
        corruption_section(results),
        other_section(results),
    ];
    candidates.into_iter().flatten().collect()
}

fn is_cue_split(split: &str) -> bool {
    CUES.iter().any(|(cue, _)| *cue == split)
}

fn accuracy_section(results: &Results) -> Option<Section> {
    // Cue splits are shown on their own; the usual test images among them open the table, but once.
    let is_cue =
        |r: &Row| r.is_clean() && is_cue_split(&r.split()) && (r.split() != "iid" || results.is_repeated(r));
    let shown = |r: &Row| r.is_accuracy() && r.example.corruption.is_none() && !is_cue(r);
    let rows = results.matching(shown);
    if rows.is_empty() {
        return None;
    }
    let mut section = Section::new("Accuracy").text(
        "The share of test images classified correctly, clean and under attack. Below each number stands its \
         95 % interval: the accuracies on all images of this kind that fit what was seen on the sample; for several seeds \
         it is that of their mean.",
    );
    for subject in subjects(results) {
        section = section.text(subject);
    }
    let (table, warnings) = numbers("", results, &rows);
    section = section.table(table.caption(caption(results, &rows)));
    for (index, warning) in warnings.iter().enumerate() {
        section = section.warning(format!("**⚠{}** {warning}", index + 1));
    }
    for plot in strength_plots(results) {
        section = section.line_plot(plot);
    }
    for table in comparisons(results, &rows) {
        section = section.table(table);
    }
    Some(section.details("Where these numbers come from", vec![Block::Table(provenance_table(results))]))
}

/// One line for each model that says what it is: architecture, normalization, data.
fn subjects(results: &Results) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for column in &results.columns {
        for subject in overview::subjects(column) {
            let line =
                if results.columns.len() > 1 { format!("**{}**: {subject}", column.name) } else { subject };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// A table of numbers, and the warnings to which it points.
fn numbers(title: &str, results: &Results, rows: &[&Row]) -> (Table, Vec<String>) {
    let names = results.columns.iter().map(|column| column.name.as_str());
    let columns = std::iter::once("images").chain(names).collect::<Vec<_>>();
    let mut warnings: Vec<String> = Vec::new();
    let mut table = Table::new(title, &columns);
    for row in rows {
        let best = row.is_accuracy().then(|| winner(&row.cells)).flatten();
        let mut cells = vec![Cell::text(&row.name)];
        for (place, sample) in row.cells.iter().enumerate() {
            let Some(sample) = sample else {
                cells.push(Cell::empty());
                continue;
            };
            let cell = Cell::formatted(sample.value(), format_of(&row.example.metric))
                .with_interval(sample.interval())
                .seeds(if sample.is_mean() { sample.seeds() } else { 0 })
                .best(best == Some(place));
            cells.push(cell.mark(marks(sample, &mut warnings)));
        }
        table = table.row(cells);
    }
    (table, warnings)
}

/// The numbers of a sample's warnings, which join the list.
fn marks(sample: &Sample, warnings: &mut Vec<String>) -> String {
    let numbers = sample.warnings().into_iter().map(|warning| {
        let known = warnings.iter().position(|w| *w == warning).unwrap_or_else(|| {
            warnings.push(warning);
            warnings.len() - 1
        });
        format!("⚠{}", known + 1)
    });
    numbers.collect::<Vec<_>>().join(" ")
}

fn format_of(metric: &str) -> NumberFormat {
    const SHARES: [&str; 6] = ["accuracy", "share", "kept", "relative_l1", "power_in_mask", "mce"];
    let is_share = SHARES.iter().any(|part| metric.contains(part)) || metric.ends_with("_error");
    if is_share { NumberFormat::Percent } else { NumberFormat::Plain }
}

fn caption(results: &Results, rows: &[&Row]) -> String {
    let records = || rows.iter().flat_map(|r| r.cells.iter().flatten()).flat_map(|sample| &sample.records);
    let mut totals: Vec<u64> = records().filter(|r| r.per_image.is_some()).filter_map(|r| r.total).collect();
    totals.sort_unstable();
    totals.dedup();
    let mut caption = match totals.as_slice() {
        [] => String::new(),
        [total] => format!("{} each; Wilson intervals.", counted(*total as usize, "image")),
        [first, .., last] => format!("{first} to {last} images; Wilson intervals."),
    };
    let mut add = |text: &str| {
        caption.push_str(if caption.is_empty() { "" } else { " " });
        caption.push_str(text);
    };
    if rows.iter().flat_map(|r| r.cells.iter().flatten()).any(Sample::is_mean) {
        add("Numbers over several seeds are means with Student's 95 % interval.");
    }
    let attacked: Vec<&Record> = records().filter(|r| r.attack != "none").collect();
    let mut seeds: Vec<u64> = attacked.iter().flat_map(|r| r.provenance.seeds.clone()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    match seeds.as_slice() {
        [] => {}
        [seed] => add(&format!("Seed of the attacks: {seed}.")),
        several => {
            let several: Vec<String> = several.iter().map(u64::to_string).collect();
            add(&format!("Seeds of the attacks: {}.", several.join(", ")));
        }
    }
    if results.columns.len() > 1 {
        add(comparison::RULE);
    }
    caption
}

/// For each attack that was run at several strengths, its accuracy over ε.
fn strength_plots(results: &Results) -> Vec<LinePlot> {
    let attacked =
        results.matching(|r| r.is_accuracy() && r.example.attack != "none" && r.example.corruption.is_none());
    let mut families: Vec<(BTreeMap<String, String>, Vec<&Row>)> = Vec::new();
    for row in attacked {
        let family = row.family();
        match families.iter_mut().find(|(known, _)| *known == family) {
            Some((_, members)) => members.push(row),
            None => families.push((family, vec![row])),
        }
    }
    let plots = families.into_iter().filter_map(|(_, mut rows)| {
        let split = rows[0].split();
        rows.extend(results.matching(|r| r.is_clean() && r.split() == split));
        rows.sort_by(|a, b| a.epsilon().total_cmp(&b.epsilon()));
        // Of one strength there may be several steps: then it is no curve.
        let curve = rows.windows(2).all(|pair| pair[0].epsilon() < pair[1].epsilon());
        (curve && rows.len() >= 3).then(|| strength_plot(results, &rows))
    });
    plots.collect()
}

fn strength_plot(results: &Results, rows: &[&Row]) -> LinePlot {
    let strongest = rows[rows.len() - 1];
    let (x, scale) = match strongest.example.norm.as_deref() {
        Some("l2" | "l1") => (Axis::new("ε"), 1.0),
        _ => (Axis::new("ε in 1/255"), 255.0),
    };
    let parameters = &strongest.example.attack_parameters;
    let name = parameters.get("name").and_then(|name| name.as_str()).unwrap_or(&strongest.example.attack);
    let title = format!("Accuracy over attack strength: {name}");
    let plot = LinePlot::new(title, x, Axis::percent("accuracy").range(0.0, 1.0))
        .caption(format!("The strongest: {}.", naming::attack_line(&strongest.example)));
    results.columns.iter().enumerate().fold(plot, |plot, (index, column)| {
        let samples = rows.iter().filter_map(|row| Some((row.epsilon() * scale, row.cells[index].as_ref()?)));
        let (points, band): (Vec<_>, Vec<_>) = samples
            .map(|(x, sample)| ([x, sample.value()], sample.interval().unwrap_or([sample.value(); 2])))
            .unzip();
        plot.series(Series::new(&column.name, points).band(band).color(index))
    })
}

/// Every later configuration against the first: on the same images, or between seeds.
fn comparisons(results: &Results, rows: &[&Row]) -> Vec<Table> {
    let columns = ["images", "compared", "only first right", "only second right", "difference", "mid-p"];
    let mut paired = Table::new("Paired comparison on the same images", &columns).caption(
        "McNemar's test: counts of images that only one of the two gets right, the difference in accuracy \
         (percentage points) with its 95 % interval, and the two-sided mid-p value.",
    );
    let columns = ["images", "compared", "seeds", "difference", "p"];
    let mut means = Table::new("Comparison of means over seeds", &columns).caption(
        "Welch's t-test between the seeds of two configurations: the difference of their means (percentage points) with \
         its 95 % interval, and the two-sided p-value.",
    );
    for row in rows {
        let Some(first) = &row.cells[0] else { continue };
        for (column, second) in results.columns.iter().zip(&row.cells).skip(1) {
            let Some(second) = second else { continue };
            let Some(comparison) = first.compare(second) else { continue };
            let (difference, interval) = comparison.difference();
            let difference = Cell::percent(difference).with_interval(Some(interval));
            let compared = Cell::text(format!("{} − {}", results.columns[0].name, column.name));
            let p = Cell::text(p_value(comparison.p()).trim_start_matches("p ").trim_start_matches("= "));
            let name = Cell::text(&row.name);
            match comparison {
                Comparison::Paired(test) => {
                    let [a, b] = [test.only_first, test.only_second].map(|n| Cell::number(n as f64));
                    paired = paired.row(vec![name, compared, a, b, difference, p]);
                }
                Comparison::Means(_) => {
                    let seeds = Cell::text(format!("{} and {}", first.seeds(), second.seeds()));
                    means = means.row(vec![name, compared, seeds, difference, p]);
                }
            }
        }
    }
    [paired, means].into_iter().filter(|table| !table.rows.is_empty()).collect()
}

/// Model, weights, data, seeds and machine behind each column's numbers.
fn provenance_table(results: &Results) -> Table {
    let columns = [
        "column",
        "model",
        "weights SHA-256",
        "data",
        "data SHA-256",
        "seeds",
        "computed",
        "version",
        "last",
    ];
    let mut table = Table::new("Where these numbers come from", &columns);
    for column in &results.columns {
        let mut known: Vec<[String; 3]> = Vec::new();
        for record in column.records.iter().flatten().rev() {
            let p = &record.provenance;
            let seeds = p.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
            let identity = [p.weights_sha256.clone(), p.data_sha256.clone(), seeds.clone()];
            if known.contains(&identity) {
                continue;
            }
            known.push(identity);
            let data = if p.split.is_empty() { p.data.clone() } else { format!("{} ({})", p.data, p.split) };
            let hash = |text: &str| text.chars().take(12).collect::<String>();
            let computed = [&p.device, &p.precision, &p.algorithm].map(String::as_str);
            let computed =
                computed.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
            let cells = [&column.name, &p.model, &hash(&p.weights_sha256), &data, &hash(&p.data_sha256)];
            let cells = cells.into_iter().chain([&seeds, &computed, &p.version, &record.created]);
            table = table.row(cells.map(Cell::text).collect());
        }
    }
    table
}

/// Bars of the synthetic set's cue splits.
fn cue_section(results: &Results) -> Option<Section> {
    let rows: Vec<_> = CUES
        .iter()
        .filter_map(|(split, text)| {
            Some((*text, results.rows.iter().find(|r| r.is_clean() && r.split() == *split)?))
        })
        .collect();
    if rows.len() < 2 {
        return None;
    }
    let groups = rows.iter().map(|(text, _)| (*text).to_owned()).collect();
    let plot = BarPlot::new("Accuracy by cue", Axis::percent("accuracy").range(0.0, 1.0), groups);
    let plot = results.columns.iter().enumerate().fold(plot, |plot, (index, column)| {
        let bar = |(_, row): &(&str, &Row)| match &row.cells[index] {
            Some(sample) => Bar { value: sample.value(), interval: sample.interval() },
            None => Bar::missing(),
        };
        plot.series(BarSeries::new(&column.name, rows.iter().map(bar).collect()).color(index))
    });
    let section = Section::new("Shape or texture").text(
        "The synthetic classes can be told by a large shape (low frequencies) or by a fine texture (high \
         frequencies). Where only one of them is present, the accuracy shows what the network can use; where \
         they contradict each other, it shows which one the network believes.",
    );
    Some(section.bar_plot(plot.caption("Clean images; whiskers are 95 % intervals.").full_width()))
}

/// Accuracy per corruption, over the severities that were measured.
fn corruption_section(results: &Results) -> Option<Section> {
    let rows =
        results.matching(|r| r.is_accuracy() && r.example.corruption.is_some() && r.example.attack == "none");
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().filter_map(|r| r.example.corruption.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return None;
    }
    let ordered = order_by_frequency(&mut names, &rows);
    let mean = |name: Option<&str>, index: usize| {
        let of_name = |r: &&&Row| name.is_none() || r.example.corruption.as_deref() == name;
        let values: Vec<f64> =
            rows.iter().filter(of_name).filter_map(|r| Some(r.cells[index].as_ref()?.value())).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let groups = names.iter().map(|n| n.replace('_', " ")).collect();
    let plot = BarPlot::new("Accuracy by corruption", Axis::percent("accuracy").range(0.0, 1.0), groups);
    let plot = results.columns.iter().enumerate().fold(plot, |plot, (index, column)| {
        let bars = names.iter().map(|name| Bar::new(mean(Some(name), index))).collect();
        plot.series(BarSeries::new(&column.name, bars).color(index))
    });
    let columns: Vec<&str> =
        std::iter::once("").chain(results.columns.iter().map(|c| c.name.as_str())).collect();
    let overall = (0..results.columns.len()).map(|index| Cell::percent(mean(None, index)));
    let overall = std::iter::once(Cell::text("mean over all")).chain(overall).collect();
    let (details, _) = numbers("Every corruption and severity", results, &rows);
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
fn order_by_frequency(names: &mut [&str], rows: &[&Row]) -> &'static str {
    let samples = rows.iter().flat_map(|row| row.cells.iter().flatten());
    let records: Vec<Record> = samples.flat_map(|sample| sample.records.iter().cloned()).collect();
    let of = |name: &str| corruptions::centroid(&records, name.parse().ok()?);
    if !names.iter().all(|name| of(name).is_some()) {
        return "";
    }
    let centroids: HashMap<String, f64> =
        names.iter().map(|n| ((*n).to_owned(), of(n).unwrap_or(0.0))).collect();
    names.sort_by(|a, b| centroids[*a].total_cmp(&centroids[*b]));
    " From left to right: from changes of low to changes of high frequency."
}

/// More rows of one metric than this stand behind a line.
const MANY_ROWS: usize = 16;

fn other_section(results: &Results) -> Option<Section> {
    let rows = results.matching(|r| !r.is_accuracy());
    if rows.is_empty() {
        return None;
    }
    let mut metrics: Vec<&str> = Vec::new();
    for row in &rows {
        if !metrics.contains(&row.example.metric.as_str()) {
            metrics.push(&row.example.metric);
        }
    }
    let of = |metric: &str| -> Vec<&Row> {
        rows.iter().copied().filter(|row| row.example.metric == metric).collect()
    };
    let (few, many): (Vec<&str>, Vec<&str>) =
        metrics.into_iter().partition(|metric| of(metric).len() <= MANY_ROWS);
    let mut section = Section::new("Other measurements");
    let shown: Vec<&Row> = few.into_iter().flat_map(of).collect();
    let heading = |mut table: Table| {
        table.columns[0] = "measurement".into();
        table
    };
    if !shown.is_empty() {
        let (table, warnings) = numbers("Other measurements", results, &shown);
        section = section.table(heading(table));
        for (index, warning) in warnings.iter().enumerate() {
            section = section.warning(format!("**⚠{}** {warning}", index + 1));
        }
    }
    for metric in many {
        let rows = of(metric);
        let name = metric.replace('_', " ");
        let (table, _) = numbers(&name, results, &rows);
        let summary = format!("All {} of {name}", counted(rows.len(), "number"));
        section = section.details(summary, vec![Block::Table(heading(table))]);
    }
    Some(section)
}
