//! The report of one or several runs, from their folders alone.
//!
//! | file | gives |
//! |---|---|
//! | `run.toml` | what was trained |
//! | `metrics.jsonl` | curves over training |
//! | `results.jsonl` | accuracies with intervals, cue splits, corruptions, paired tests |
//! | `sections/*.json`, `analysis/*.json` | [`Section`]s that analyses left there |
//!
//! A file that is missing leaves its part out; one that is malformed is an error naming file and line.

mod accuracy;
mod curves;
mod folder;

use std::path::PathBuf;

use folder::Run;

use super::{Block, Cell, Facts, Report, Section, Table};
use crate::evaluate::overview::{self, Configuration, Results, Source};
use crate::{Error, Result};

/// Builds the page for one or several run folders; several are compared side by side.
///
/// # Errors
/// When no folder is named, one is not a run folder, or a file in it is malformed.
pub fn report_for_runs(folders: &[PathBuf]) -> Result<Report> {
    if folders.is_empty() {
        return Err(Error::config("a report needs at least one run folder"));
    }
    let mut runs = folders.iter().map(|folder| Run::read(folder)).collect::<Result<Vec<_>>>()?;
    overview::tell_apart(runs.iter_mut().map(|run| &mut run.source), folders);
    let sources: Vec<Source> = runs.iter().map(|run| run.source.clone()).collect();
    let configurations = overview::group(&sources);
    let results = Results::collect(&configurations);
    let title = match sources.as_slice() {
        [source] => title_of(source),
        _ => configurations.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(" · "),
    };
    let mut report = Report::new(title).subtitle(subtitle(&runs, &configurations)).made_from_records();
    report.sections.extend(configuration_section(&configurations));
    report.sections.extend(accuracy::sections(&results));
    report.sections.extend(curves::section(&curves::curves_of(&configurations, &runs)));
    for run in &runs {
        for section in &run.sections {
            let mut section = section.clone();
            if runs.len() > 1 {
                section.heading = format!("{}: {}", section.heading, run.source.name);
            }
            report.push(section);
        }
    }
    Ok(report)
}

/// A folder is often called after what was done in it: the model says more.
fn title_of(run: &Source) -> String {
    let of_corruptions = run.records.iter().any(|record| record.corruption.is_some());
    let mut models: Vec<&str> = run.records.iter().map(|r| r.provenance.model.as_str()).collect();
    models.dedup();
    match models.as_slice() {
        [model] if !model.is_empty() && run.settings.is_empty() => {
            let what = if of_corruptions { ": accuracy under corruptions" } else { "" };
            format!("{model}{what}")
        }
        _ => run.name.clone(),
    }
}

fn subtitle(runs: &[Run], configurations: &[Configuration]) -> String {
    let numbers: usize = runs.iter().map(|r| r.source.records.len()).sum();
    let epochs =
        runs.iter().filter_map(|r| r.metrics.epochs.last()).map(|(epoch, _)| *epoch).fold(0.0, f64::max);
    let counted = |count: usize, what: &str| {
        if count == 1 { format!("one {what}") } else { format!("{count} {what}s") }
    };
    let mut parts = vec![match (runs.len(), configurations.len()) {
        (1, _) => format!("From {}", runs[0].source.name),
        (all, distinct) if all == distinct => format!("{all} runs side by side"),
        (all, distinct) => format!("{all} runs of {}", counted(distinct, "configuration")),
    }];
    if epochs > 0.0 {
        parts.push(counted(epochs as usize, "epoch"));
    }
    if numbers > 0 {
        parts.push(counted(numbers, "result record"));
    }
    parts.join(", ") + "."
}

/// Settings that say what a run is, by their key or its last part, in the order of the report.
const HEADLINE: [&str; 22] = [
    "recipe",
    "model",
    "architecture",
    "data",
    "objective",
    "method",
    "epsilon",
    "beta",
    "epsilon_warmup",
    "epochs",
    "batch_size",
    "accumulate",
    "optimizer",
    "schedule",
    "learning_rate",
    "weight_decay",
    "awp.gamma",
    "averaging",
    "overfitting.action",
    "seed",
    "precision",
    "device",
];

/// What was trained: the settings that matter most, those in which the configurations differ, and all of them
/// behind a line.
fn configuration_section(configurations: &[Configuration]) -> Option<Section> {
    let runs = || configurations.iter().flat_map(|c| c.runs.iter());
    if runs().all(|r| r.settings.is_empty()) {
        return None;
    }
    let section = Section::new("What was trained");
    let (keys, differing) = headline_keys(configurations);
    let section = match configurations {
        [one] => {
            let fact = |facts: Facts, key: &String| match one.setting(key) {
                Some(value) => facts.fact(readable(key, &keys), value),
                None => facts,
            };
            section.facts(keys.iter().fold(Facts::new(), fact))
        }
        several => {
            let section = section.table(comparison("Settings", several, &keys));
            match differing.is_empty() {
                true => section,
                false => {
                    let table = comparison("Other differences", several, &differing);
                    section.details("Other differences", vec![Block::Table(table)])
                }
            }
        }
    };
    let several_runs = runs().count() > 1;
    let complete = runs().filter(|r| !r.settings.is_empty()).fold(section, |section, run| {
        let summary = match several_runs {
            false => "Complete configuration".to_owned(),
            true => format!("Complete configuration: {}", run.name),
        };
        section.details(summary, vec![Block::Facts(Facts { entries: run.settings.clone() })])
    });
    Some(complete)
}

/// The keys to show (headline settings; all, if these are few), and the others in which the configurations differ.
fn headline_keys(configurations: &[Configuration]) -> (Vec<String>, Vec<String>) {
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in configurations.iter().flat_map(|c| &c.runs).flat_map(|r| &r.settings) {
        // The names head the columns.
        if !keys.contains(&key) && key != "name" {
            keys.push(key);
        }
    }
    let rank = |key: &str| HEADLINE.iter().position(|headline| *headline == subject(key) || *headline == key);
    // How images are evaluated is no headline, though its keys end alike.
    let is_headline = |key: &str| rank(key).is_some() && !key.starts_with("evaluation.");
    let differs = |key: &str| configurations.iter().any(|c| c.setting(key) != configurations[0].setting(key));
    let few = keys.len() <= 12;
    let (mut shown, rest): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| few || is_headline(key));
    shown.sort_by_key(|key| rank(key).unwrap_or(HEADLINE.len()));
    let owned = |keys: Vec<&String>| keys.into_iter().cloned().collect();
    (owned(shown), owned(rest.into_iter().filter(|key| differs(key)).collect()))
}

/// What a setting is about: the last part of its key, but `optimizer.kind` is about the optimizer.
fn subject(key: &str) -> &str {
    let mut parts = key.rsplit('.');
    let last = parts.next().unwrap_or(key);
    if matches!(last, "kind" | "name" | "spec") { parts.next().unwrap_or(last) } else { last }
}

/// A key for readers: its subject where that is clear among `keys`, else all its parts.
fn readable(key: &str, keys: &[String]) -> String {
    let clear = keys.iter().filter(|other| subject(other) == subject(key)).count() == 1;
    let name = if clear && HEADLINE.contains(&subject(key)) { subject(key) } else { key };
    name.replace('_', " ").replace('.', " · ")
}

fn comparison(title: &str, configurations: &[Configuration], keys: &[String]) -> Table {
    let names = configurations.iter().map(|c| c.name.as_str());
    let columns: Vec<&str> = std::iter::once("setting").chain(names).collect();
    keys.iter().fold(Table::new(title, &columns), |table, key| {
        let values = configurations.iter().map(|c| Cell::text(c.setting(key).unwrap_or("–".into())));
        table.row(std::iter::once(Cell::text(readable(key, keys))).chain(values).collect())
    })
}

#[cfg(test)]
mod tests;
