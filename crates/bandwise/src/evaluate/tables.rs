//! What journals say: accuracies alone and in the worst case, comparisons, and exchange formats.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::journal::{CLEAN, Header, Journal};
use super::naming;
use super::record::{Provenance, Record};
use super::statistics::{PairedTest, mcnemar, wilson_interval};
use crate::Result;
use crate::attack::Attack;
use crate::formats::csv::Csv;

/// The name of the pointwise worst case: right under every attack.
pub const WORST_CASE: &str = "worst-case";

/// One line of the table of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `none`, the attack's label, or `worst-case`.
    pub attack: String,
    /// Norm and ε, for example `linf 8/255`; empty for clean images.
    pub bound: String,
    /// The attack with all its parameters and the seed; empty for clean images.
    pub protocol: String,
    /// The attack; `None` for clean images and the worst case.
    #[serde(skip)]
    pub parameters: Option<Attack>,
    /// Of the worst case: the attacks that it is over.
    #[serde(skip)]
    pub members: Vec<String>,
    /// Correct images.
    pub correct: u64,
    /// Judged images.
    pub total: u64,
    /// 95 % Wilson interval of the accuracy.
    pub ci95: [f64; 2],
    /// Forward passes, mean per attacked image.
    pub mean_queries: f64,
    /// Backward passes, mean per attacked image.
    pub mean_gradients: f64,
    /// Correctness of each image.
    #[serde(skip)]
    pub flags: Vec<bool>,
}

impl Row {
    /// Share of correct images.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / (self.total as f64).max(1.0)
    }

    fn new(attack: &str, [bound, protocol]: [String; 2], flags: Vec<bool>, passes: [f64; 2]) -> Self {
        let (correct, total) = (flags.iter().filter(|&&flag| flag).count() as u64, flags.len() as u64);
        Self {
            attack: attack.into(),
            bound,
            protocol,
            parameters: None,
            members: Vec::new(),
            correct,
            total,
            ci95: wilson_interval(correct, total),
            mean_queries: passes[0],
            mean_gradients: passes[1],
            flags,
        }
    }
}

/// Clean accuracy, each attack alone, and (of several attacks of one ε) their pointwise worst case.
///
/// # Errors
/// If the journal is not complete.
pub fn rows(journal: &Journal) -> Result<Vec<Row>> {
    let header = journal.header();
    let mut rows =
        vec![Row::new(CLEAN, Default::default(), journal.flags(CLEAN)?, mean_passes(journal, CLEAN))];
    for (label, attack) in journal.attacks() {
        let flags = journal.flags(&label)?;
        let protocol = format!("{}, seed {}", naming::protocol(attack), header.seed);
        let row = Row::new(&label, [bound(attack), protocol], flags, mean_passes(journal, &label));
        rows.push(Row { parameters: Some(attack.clone()), ..row });
    }
    let worst: Vec<Row> = worst_cases(&rows[1..]).collect();
    rows.extend(worst);
    Ok(rows)
}

/// The pointwise worst case of the attacks of each strength that has several: attacks of another ε or norm are
/// answers to another question.
fn worst_cases(attacked: &[Row]) -> impl Iterator<Item = Row> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in attacked {
        let same = |other: &Row| match (&other.parameters, &row.parameters) {
            (Some(a), Some(b)) => a.norm() == b.norm() && a.epsilon().is_about(b.epsilon()),
            _ => false,
        };
        match groups.iter_mut().find(|group| same(group[0])) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups.into_iter().filter(|group| group.len() > 1).map(|group| {
        let flags = (0..group[0].flags.len()).map(|image| group.iter().all(|row| row.flags[image])).collect();
        let sum = |value: fn(&Row) -> f64| group.iter().map(|row| value(row)).sum();
        let passes = [sum(|row| row.mean_queries), sum(|row| row.mean_gradients)];
        let members: Vec<String> = group.iter().map(|row| row.attack.clone()).collect();
        let protocol = format!("worst case of {}", members.join(", "));
        let row = Row::new(WORST_CASE, [group[0].bound.clone(), protocol], flags, passes);
        Row { members, ..row }
    })
}

/// One record per row, with everything needed to believe it.
pub fn records(journal: &Journal, provenance: &Provenance) -> Result<Vec<Record>> {
    let header = journal.header();
    let all = rows(journal)?;
    let strength =
        |row: &Row| row.parameters.as_ref().map(|attack| (attack.norm(), attack.epsilon().value()));
    let strengths: HashMap<String, _> =
        all.iter().filter_map(|row| Some((row.attack.clone(), strength(row)?))).collect();
    all.into_iter()
        .map(|row| {
            let mut record = Record::accuracy(&row.flags).with_provenance(provenance);
            record.warnings = warnings(journal, &row.attack);
            if header.shard.count > 1 {
                record.extra.insert("shard".into(), header.shard.to_string().into());
            }
            if let Some(attack) = &row.parameters {
                let parameters = serde_json::to_value(attack).unwrap_or_default();
                let norm = attack.norm().to_string();
                record =
                    record.under_attack(attack.name(), attack.epsilon().value(), Some(&norm), parameters);
                record.extra.insert("mean_queries".into(), json!(row.mean_queries));
                record.extra.insert("mean_gradients".into(), json!(row.mean_gradients));
            } else if let Some((norm, epsilon)) = row.members.first().and_then(|first| strengths.get(first)) {
                let members = json!({"of": row.members});
                record = record.under_attack(WORST_CASE, *epsilon, Some(&norm.to_string()), members);
            }
            Ok(record)
        })
        .collect()
}

/// What a reader of a row must know: warnings about the model as such, and about the attack. The worst case does not
/// repeat those of its attacks.
pub fn warnings(journal: &Journal, row: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let header = journal.header();
    let labels = header.labels();
    let name = labels.iter().position(|label| label == row).map(|at| header.attacks[at].name());
    for noted in journal.warnings() {
        let about_row =
            noted.attack.as_deref().is_none_or(|attack| attack == row) && noted.warning.concerns(name);
        let text = noted.warning.to_string();
        if about_row && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// A paired comparison of two models under one attack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// `none`, an attack's label, or `worst-case`.
    pub attack: String,
    /// Accuracy of the first model.
    pub first: f64,
    /// Accuracy of the second model.
    pub second: f64,
    /// McNemar's test on the same images.
    pub test: PairedTest,
}

/// Compares two journals of the same images row by row; rows that only one of them has are left out.
///
/// # Errors
/// If a journal is incomplete or they judged different images.
pub fn compare(first: &Journal, second: &Journal) -> Result<Vec<Comparison>> {
    let (ours, theirs) = (first.header(), second.header());
    if ours.data_sha256 != theirs.data_sha256 || ours.images != theirs.images || ours.shard != theirs.shard {
        return Err(crate::Error::config(format!(
            "{} and {} did not judge the same images ({} of {} against {} of {})",
            first.path().display(),
            second.path().display(),
            ours.images,
            ours.data,
            theirs.images,
            theirs.data
        )));
    }
    let theirs = rows(second)?;
    rows(first)?
        .into_iter()
        .filter_map(|row| {
            // The same attack with other parameters is another attack; its seed and place in the list are not.
            let same = |other: &&Row| match (&row.parameters, &other.parameters) {
                (Some(ours), Some(theirs)) => ours.is_same(theirs),
                (None, None) => row.attack == other.attack && row.bound == other.bound,
                _ => false,
            };
            let other = theirs.iter().find(same)?;
            Some(mcnemar(&row.flags, &other.flags).map(|test| Comparison {
                attack: row.attack.clone(),
                first: row.accuracy(),
                second: other.accuracy(),
                test,
            }))
        })
        .collect()
}

/// The rows as CSV.
pub fn to_csv(rows: &[Row]) -> String {
    let columns =
        "attack,bound,protocol,accuracy,correct,total,ci95_low,ci95_high,mean_queries,mean_gradients";
    let mut csv = Csv::new(&columns.split(',').collect::<Vec<_>>());
    for row in rows {
        csv.row(&[
            &row.attack,
            &row.bound,
            &row.protocol,
            &row.accuracy(),
            &row.correct,
            &row.total,
            &row.ci95[0],
            &row.ci95[1],
            &row.mean_queries,
            &row.mean_gradients,
        ]);
    }
    csv.into_text()
}

/// A model's entry in the shape of RobustBench's `model_info` files.
///
/// `autoattack_acc` is there only if AutoAttack `standard` was run; `rand` counts as `external`
/// nowhere. Percentages are text with two decimals, as RobustBench has them.
pub fn robustbench(journal: &Journal) -> Result<Value> {
    let header = journal.header();
    let rows = rows(journal)?;
    let percent = |row: &Row| format!("{:.2}", 100.0 * row.accuracy());
    let mut info = json!({
        "name": header.model,
        "architecture": header.model,
        "dataset": dataset_name(&header.data),
        "number_forward_passes": 1,
        "additional_data": false,
        "clean_acc": percent(&rows[0]),
        "images": header.images,
        "weights_sha256": header.weights_sha256,
    });
    let attacks = journal.attacks();
    for ((_, attack), row) in attacks.iter().zip(&rows[1..]) {
        info["eps"] = json!(naming::epsilon(attack.epsilon().value()));
        info["Linf_or_L2"] = json!(attack.norm().to_string());
        let alone = attacks.iter().filter(|(_, other)| other.name() == attack.name()).count() == 1;
        let name = if alone { attack.name() } else { &row.attack };
        info[format!("{}_acc", name.replace(['-', ' '], "_"))] = json!(percent(row));
    }
    let worst: Vec<&Row> = rows.iter().filter(|row| row.attack == WORST_CASE).collect();
    for row in &worst {
        let name = if worst.len() == 1 { "worst_case_acc" } else { &format!("worst_case_acc {}", row.bound) };
        info[name] = json!(percent(row));
    }
    Ok(info)
}

/// The name by which RobustBench knows a data set: that of the specification without format, folder and options.
fn dataset_name(specification: &str) -> &str {
    let name = specification.split([':', ' ']).next().unwrap_or_default();
    ["-bin", "-parquet"].iter().find_map(|format| name.strip_suffix(format)).unwrap_or(name)
}

/// What the header of a journal says about model, data and machine.
pub fn provenance(header: &Header) -> Provenance {
    Provenance {
        model: header.model.clone(),
        subject: header.subject.clone(),
        weights_sha256: header.weights_sha256.clone(),
        data: header.data.clone(),
        data_sha256: header.data_sha256.clone(),
        split: header.split.clone(),
        seeds: vec![header.seed],
        device: header.device.clone(),
        precision: header.precision.clone(),
        algorithm: header.algorithm.clone(),
        version: header.version.clone(),
        configuration: json!({ "model": header.configuration, "limit": header.images }),
        ..Provenance::default()
    }
}

fn bound(attack: &Attack) -> String {
    format!("{} {}", attack.norm(), naming::epsilon(attack.epsilon().value()))
}

fn mean_passes(journal: &Journal, attack: &str) -> [f64; 2] {
    let entries: Vec<_> =
        journal.header().image_numbers().filter_map(|image| journal.get(attack, image)).collect();
    let mean = |value: fn(&super::journal::Entry) -> u64| {
        entries.iter().map(|entry| value(entry) as f64).sum::<f64>() / (entries.len() as f64).max(1.0)
    };
    [mean(|entry| entry.queries), mean(|entry| entry.gradients)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_sets_have_the_names_of_robustbench() {
        for (specification, name) in [
            ("cifar10:/data/cifar-10-batches-bin", "cifar10"),
            ("cifar10-bin:a:b.bin", "cifar10"),
            ("cifar100-parquet:x", "cifar100"),
            ("imagefolder:DIR", "imagefolder"),
            ("synthetic", "synthetic"),
        ] {
            assert_eq!(dataset_name(specification), name);
        }
    }
}
