//! Runs that differ in nothing but their seed are one configuration, shown as one.

use std::collections::BTreeSet;

use super::super::identity::Identity;
use super::Source;
use crate::wording::counted;

/// Settings in which the runs of one configuration may differ.
const OF_ONE_RUN: [&str; 3] = ["seed", "name", "source"];

/// One configuration: a run, or several that differ in seeds alone.
#[derive(Debug, Clone)]
pub struct Configuration<'a> {
    /// What the page calls it.
    pub name: String,
    /// Its runs.
    pub runs: Vec<&'a Source>,
}

impl Configuration<'_> {
    /// The values of a setting over its runs; `None` where no run has it.
    pub fn setting(&self, key: &str) -> Option<String> {
        let mut values: Vec<&str> = Vec::new();
        for value in self.runs.iter().filter_map(|run| run.setting(key)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// The configurations of the runs, in the order of their first runs.
pub fn group(runs: &[Source]) -> Vec<Configuration<'_>> {
    let mut groups: Vec<(Option<Key>, Vec<&Source>)> = Vec::new();
    for run in runs {
        let key = Key::of(run);
        let known = key.is_some().then(|| groups.iter_mut().find(|(known, _)| *known == key)).flatten();
        match known {
            // The same seed twice is no repetition.
            Some((_, members)) if members.iter().all(|member| seeds(member) != seeds(run)) => {
                members.push(run)
            }
            _ => groups.push((key, vec![run])),
        }
    }
    groups.into_iter().map(|(_, runs)| Configuration { name: name(&runs), runs }).collect()
}

/// What the runs of one configuration have in common.
#[derive(PartialEq)]
enum Key {
    /// The recipe of training.
    Recipe(Vec<(String, String)>),
    /// What the records of an evaluation say about themselves.
    Records(BTreeSet<Identity>),
}

impl Key {
    /// `None` for what cannot be a repetition of something: an analysis without records.
    fn of(run: &Source) -> Option<Self> {
        if !run.settings.is_empty() {
            let settings = run.settings.iter().filter(|(key, _)| !OF_ONE_RUN.contains(&key.as_str()));
            return Some(Self::Recipe(settings.cloned().collect()));
        }
        let records: BTreeSet<Identity> = run.records.iter().map(|r| r.identity().without_seeds()).collect();
        (!records.is_empty()).then_some(Self::Records(records))
    }
}

/// The seeds of a run.
fn seeds(run: &Source) -> (Option<&str>, Vec<u64>) {
    let of_recipe = run.setting("seed");
    let of_records = match of_recipe {
        Some(_) => Vec::new(),
        None => run.records.iter().flat_map(|record| record.provenance.seeds.clone()).collect(),
    };
    (of_recipe, of_records)
}

/// A run's own name; of several what their names begin with, without the seed.
fn name(runs: &[&Source]) -> String {
    let [first, rest @ ..] = runs else { return String::new() };
    if rest.is_empty() {
        return first.name.clone();
    }
    let common = rest.iter().fold(first.name.as_str(), |common, run| {
        let same = common.char_indices().zip(run.name.chars()).take_while(|((_, a), b)| a == b);
        let length = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
        &common[..length]
    });
    let separators = |c: char| c.is_ascii_digit() || "-_ ./#=".contains(c);
    let stem = common.trim_end_matches(separators);
    let stem = stem.strip_suffix("seed").unwrap_or(stem).trim_end_matches(separators);
    let stem = match stem {
        // Folders called seed0, seed1: the recipe's own name says more.
        "" | "s" => first.setting("name").unwrap_or("one configuration"),
        stem => stem,
    };
    format!("{stem}, {}", counted(runs.len(), "seed"))
}
