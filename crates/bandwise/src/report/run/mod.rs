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
    tell_apart(&mut runs, folders);
    let title = match runs.as_slice() {
        [run] => run.name.clone(),
        several => several.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" · "),
    };
    let mut report = Report::new(title).subtitle(subtitle(&runs));
    report.sections.extend(configuration_section(&runs));
    report.sections.extend(accuracy::sections(&runs));
    report.sections.extend(curves::section(&runs));
    for run in &runs {
        for section in &run.sections {
            let mut section = section.clone();
            if runs.len() > 1 {
                section.heading = format!("{}: {}", section.heading, run.name);
            }
            report.push(section);
        }
    }
    Ok(report)
}

/// Runs of equal names get their paths instead.
fn tell_apart(runs: &mut [Run], folders: &[PathBuf]) {
    let names: Vec<String> = runs.iter().map(|r| r.name.clone()).collect();
    for (run, folder) in runs.iter_mut().zip(folders) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = folder.display().to_string();
        }
    }
}

fn subtitle(runs: &[Run]) -> String {
    let numbers: usize = runs.iter().map(|r| r.records.len()).sum();
    let epochs =
        runs.iter().filter_map(|r| r.metrics.epochs.last()).map(|(epoch, _)| *epoch).fold(0.0, f64::max);
    let mut parts = vec![if runs.len() == 1 {
        "One run".to_owned()
    } else {
        format!("{} runs side by side", runs.len())
    }];
    if epochs > 0.0 {
        parts.push(format!("{epochs} epochs"));
    }
    if numbers > 0 {
        parts.push(format!("{numbers} result records"));
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

/// What was trained: the settings that matter most, those in which the runs differ, and all of them
/// behind a line.
fn configuration_section(runs: &[Run]) -> Option<Section> {
    if runs.iter().all(|r| r.configuration.is_empty()) {
        return None;
    }
    let section = Section::new("What was trained");
    let (keys, differing) = headline_keys(runs);
    let section = match runs {
        [run] => {
            let fact = |facts: Facts, key: &String| match run.setting(key) {
                Some(value) => facts.fact(readable(key, &keys), value),
                None => facts,
            };
            section.facts(keys.iter().fold(Facts::new(), fact))
        }
        several => {
            let section = section.table(comparison(several, &keys));
            match differing.is_empty() {
                true => section,
                false => {
                    section.details("Other differences", vec![Block::Table(comparison(several, &differing))])
                }
            }
        }
    };
    let complete = runs.iter().filter(|r| !r.configuration.is_empty()).fold(section, |section, run| {
        let summary = if runs.len() == 1 {
            "Complete configuration".to_owned()
        } else {
            format!("Complete configuration: {}", run.name)
        };
        section.details(summary, vec![Block::Facts(Facts { entries: run.configuration.clone() })])
    });
    Some(complete)
}

/// The keys to show (headline settings; all, if these are few), and the others in which the runs differ.
fn headline_keys(runs: &[Run]) -> (Vec<String>, Vec<String>) {
    let mut keys: Vec<&String> = Vec::new();
    for (key, _) in runs.iter().flat_map(|r| &r.configuration) {
        // The runs' names head the columns.
        if !keys.contains(&key) && key != "name" {
            keys.push(key);
        }
    }
    let rank = |key: &str| HEADLINE.iter().position(|headline| *headline == subject(key) || *headline == key);
    // How pictures are evaluated is no headline, though its keys end alike.
    let is_headline = |key: &str| rank(key).is_some() && !key.starts_with("evaluation.");
    let differs = |key: &str| runs.iter().any(|r| r.setting(key) != runs[0].setting(key));
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

fn comparison(runs: &[Run], keys: &[String]) -> Table {
    let columns: Vec<&str> = std::iter::once("setting").chain(runs.iter().map(|r| r.name.as_str())).collect();
    keys.iter().fold(Table::new("", &columns), |table, key| {
        let values = runs.iter().map(|run| Cell::text(run.setting(key).unwrap_or("–")));
        table.row(std::iter::once(Cell::text(readable(key, keys))).chain(values).collect())
    })
}

#[cfg(test)]
mod tests;
