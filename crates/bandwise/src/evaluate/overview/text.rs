//! Results as lines for a terminal and as CSV.

use super::super::comparison::{Comparison, Sample};
use super::super::record::Record;
use super::results::{Column, Results, Row};
use crate::formats::csv::{Csv, optional};
use crate::wording::{counted, p_value};

/// One block per column: what was evaluated, then one line per measurement.
pub fn lines(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for (place, column) in results.columns.iter().enumerate() {
        if results.columns.len() > 1 {
            if place > 0 {
                lines.push(String::new());
            }
            lines.push(format!("{}:", column.name));
        }
        lines.extend(subjects(column));
        for row in shown(results) {
            let Some(sample) = &row.cells[place] else { continue };
            lines.push(format!("{}  {}", number(sample), named(row, sample)));
            lines.extend(sample.warnings().iter().map(|warning| format!("         warning: {warning}")));
        }
    }
    lines
}

/// The rows, each set of images once.
fn shown<'a>(results: &'a Results) -> impl Iterator<Item = &'a Row> {
    results.rows.iter().filter(|row| !results.is_repeated(row))
}

/// What the column's records say about model and data, once each.
pub fn subjects(column: &Column) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    for subject in column.records.iter().flatten().map(|record| &record.provenance.subject) {
        if !subject.is_empty() && !subjects.contains(subject) {
            subjects.push(subject.clone());
        }
    }
    subjects
}

/// A line for every pair of the first column and a later one that a test can judge.
pub fn comparisons(results: &Results) -> Vec<String> {
    let mut lines = Vec::new();
    for row in shown(results) {
        let Some(first) = row.cells.first().and_then(Option::as_ref) else { continue };
        for (column, second) in results.columns.iter().zip(&row.cells).skip(1) {
            let Some(second) = second else { continue };
            let Some(comparison) = first.compare(second) else { continue };
            let (difference, [low, high]) = comparison.difference();
            let test = match comparison {
                Comparison::Paired(_) => "McNemar's test on the same images",
                Comparison::Means(_) => "Welch's t-test between seeds",
            };
            lines.push(format!(
                "{}: {} {:.2} % against {} {:.2} %: difference {:+.2} (95 % interval {:+.2} to {:+.2}), {} ({test})",
                row.name,
                results.columns[0].name,
                100.0 * first.value(),
                column.name,
                100.0 * second.value(),
                100.0 * difference,
                100.0 * low,
                100.0 * high,
                p_value(comparison.p()),
            ));
        }
    }
    lines
}

/// One line per number.
pub fn csv(results: &Results) -> String {
    let columns = "configuration,model,measurement,attack,norm,epsilon,value,correct,total,ci95_low,ci95_high,seeds,\
                   mean_queries,mean_gradients,warnings";
    let mut csv = Csv::new(&columns.split(',').collect::<Vec<_>>());
    for (place, column) in results.columns.iter().enumerate() {
        for row in shown(results) {
            let Some(sample) = &row.cells[place] else { continue };
            let one = if let [one] = sample.records.as_slice() { Some(one) } else { None };
            let extra = |key: &str| optional(one.and_then(|r| r.extra.get(key)));
            let bound = |end: usize| optional(sample.interval().map(|interval| interval[end]));
            csv.row(&[
                &column.name,
                &row.example.provenance.model,
                &named(row, sample),
                &row.example.attack,
                &optional(row.example.norm.as_ref()),
                &row.example.epsilon,
                &sample.value(),
                &optional(one.and_then(|r| r.correct)),
                &optional(one.and_then(|r| r.total)),
                &bound(0),
                &bound(1),
                &sample.seeds(),
                &extra("mean_queries"),
                &extra("mean_gradients"),
                &sample.warnings().join("; "),
            ]);
        }
    }
    csv.into_text()
}

/// The measurement, with the seed of what is random in it.
fn named(row: &Row, sample: &Sample) -> String {
    match sample.records.as_slice() {
        [one] if one.attack != "none" => match one.provenance.seeds.as_slice() {
            [] => row.name.clone(),
            seeds => {
                let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
                format!("{}, seed {}", row.name, seeds.join(" "))
            }
        },
        _ => row.name.clone(),
    }
}

fn number(sample: &Sample) -> String {
    let percent = 100.0 * sample.value();
    match (sample.records.as_slice(), sample.interval()) {
        ([Record { correct: Some(correct), total: Some(total), .. }], Some([low, high])) => format!(
            "{percent:6.2} % ({correct} of {total}, 95 % interval {:.2} to {:.2} %)",
            100.0 * low,
            100.0 * high
        ),
        ([one], _) if !one.metric.contains("accuracy") => format!("{:8.4}", one.value),
        ([_], _) => format!("{percent:6.2} %"),
        (_, Some([low, high])) => format!(
            "{percent:6.2} % (mean over {}; 95 % interval {:.2} to {:.2} %)",
            counted(sample.seeds(), "seed"),
            100.0 * low,
            100.0 * high
        ),
        (_, None) => format!("{percent:6.2} % (mean over {})", counted(sample.seeds(), "seed")),
    }
}
