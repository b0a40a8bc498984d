//! The records of all runs as rows and columns: one row per measurement, one column per configuration or model.
//!
//! No number replaces another one: rows and columns are told apart by [`Identity`], and whatever
//! still differs within a cell becomes a row of its own, named by the difference.

use std::collections::BTreeMap;

use super::super::comparison::Sample;
use super::super::identity::{Identity, latest};
use super::super::naming;
use super::super::record::Record;
use super::Configuration;

/// A column: a configuration, or one of the models that an analysis set side by side.
#[derive(Debug, Clone)]
pub struct Column<'a> {
    /// Its heading.
    pub name: String,
    /// What it shows, run by run; each measurement once.
    pub records: Vec<Vec<&'a Record>>,
}

/// A row: one measurement.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its heading.
    pub name: String,
    /// One of its records: metric, attack, corruption.
    pub example: Record,
    /// One place per column.
    pub cells: Vec<Option<Sample>>,
    /// What is common to the measurement in all columns.
    key: BTreeMap<String, String>,
}

/// All numbers.
#[derive(Debug, Clone)]
pub struct Results<'a> {
    /// Configurations and models.
    pub columns: Vec<Column<'a>>,
    /// Measurements, in the order in which they first appear.
    pub rows: Vec<Row>,
}

impl Row {
    /// Whether it is an accuracy, of whatever images.
    pub fn is_accuracy(&self) -> bool {
        self.example.metric == "accuracy"
    }

    /// Accuracy on images as they are: not attacked, corrupted, shifted or filtered.
    pub fn is_clean(&self) -> bool {
        const OF_THE_IMAGES: [&str; 2] = ["fourier_mask", "shift"];
        let altered = |key: &str| self.example.extra.get(key).is_some_and(|value| *value != "none");
        self.is_accuracy()
            && self.example.attack == "none"
            && self.example.corruption.is_none()
            && !OF_THE_IMAGES.iter().any(|key| altered(key))
    }

    /// The split of the data.
    pub fn split(&self) -> String {
        naming::split(&self.example)
    }

    /// The attack's strength.
    pub fn epsilon(&self) -> f64 {
        self.example.epsilon
    }

    /// What rows have in common that differ in the attack's strength alone.
    pub fn family(&self) -> BTreeMap<String, String> {
        const OF_STRENGTH: [&str; 3] =
            ["epsilon", "attack_parameters.epsilon", "attack_parameters.step_size"];
        self.key.iter().filter(|(key, _)| !OF_STRENGTH.contains(&key.as_str())).map(cloned).collect()
    }
}

fn cloned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

impl<'a> Results<'a> {
    /// Puts all records in their places.
    pub fn collect(configurations: &[Configuration<'a>]) -> Self {
        let columns = columns(configurations);
        let mut groups: Vec<(BTreeMap<String, String>, Vec<Entry>)> = Vec::new();
        for (column, own) in columns.iter().enumerate() {
            for (run, records) in own.records.iter().enumerate() {
                for &record in records {
                    let entry = Entry { column, run, record, identity: record.identity() };
                    let mut key = entry.identity.row();
                    key.insert("split".into(), naming::split(record));
                    match groups.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, members)) => members.push(entry),
                        None => groups.push((key, vec![entry])),
                    }
                }
            }
        }
        let rows: Vec<Row> = groups
            .into_iter()
            .flat_map(|(key, entries)| split_where_needed(key, entries, columns.len()))
            .collect();
        let mut results = Self { columns, rows };
        let repeated: Vec<bool> = results.rows.iter().map(|row| results.is_repeated(row)).collect();
        let named = results.rows.iter_mut().zip(repeated).filter(|(_, repeated)| !repeated);
        tell_apart(&mut named.map(|(row, _)| row).collect::<Vec<_>>());
        results
    }

    /// Whether a row shows the synthetic set's images of the training distribution, which are its usual test images
    /// over again, beside these.
    pub fn is_repeated(&self, row: &Row) -> bool {
        let tested = |r: &Row| r.is_clean() && matches!(r.split().as_str(), "" | "test");
        row.is_clean() && row.split() == "iid" && self.rows.iter().any(tested)
    }

    /// Some of the rows.
    pub fn matching(&self, keep: impl Fn(&Row) -> bool) -> Vec<&Row> {
        self.rows.iter().filter(|row| keep(row)).collect()
    }
}

/// A record in its place.
struct Entry<'a> {
    column: usize,
    run: usize,
    record: &'a Record,
    identity: Identity,
}

/// The models of each configuration: by label where an analysis gave any, by weights where files of several were
/// evaluated.
fn columns<'a>(configurations: &[Configuration<'a>]) -> Vec<Column<'a>> {
    let mut columns = Vec::new();
    for configuration in configurations {
        let mut models: Vec<(String, String)> = Vec::new();
        let runs: Vec<Vec<&Record>> = configuration.runs.iter().map(|run| latest(&run.records)).collect();
        let several_runs = configuration.runs.len() > 1;
        for record in runs.iter().flatten() {
            let (model, name) = model_of(record, several_runs);
            if !models.iter().any(|(known, _)| *known == model) {
                models.push((model, name));
            }
        }
        // Records without a model's name belong to each of an analysis of one model.
        let one = models.iter().filter(|(model, _)| !model.is_empty()).count() <= 1;
        if models.is_empty() || one {
            columns.push(Column { name: configuration.name.clone(), records: runs });
            continue;
        }
        for (model, name) in &models {
            let alike = models.iter().filter(|(_, other)| other == name).count() > 1;
            let hash: String = model.chars().take(8).collect();
            let name = if alike { format!("{name} {hash}") } else { name.clone() };
            let own = |records: &Vec<&'a Record>| -> Vec<&'a Record> {
                records.iter().copied().filter(|r| model_of(r, several_runs).0 == *model).collect()
            };
            let name = match (configurations.len(), name.is_empty()) {
                (_, true) => configuration.name.clone(),
                (1, _) => name,
                _ => format!("{}: {name}", configuration.name),
            };
            columns.push(Column { name, records: runs.iter().map(own).collect() });
        }
    }
    columns
}

/// What tells the models of one configuration apart, and its name.
fn model_of(record: &Record, several_runs: bool) -> (String, String) {
    if let Some(label) = record.extra.get("label").and_then(|label| label.as_str()) {
        return (label.to_owned(), label.to_owned());
    }
    // Of the seeds of one configuration each has its own weights.
    let weights = if several_runs { "" } else { &record.provenance.weights_sha256 };
    (weights.to_owned(), record.provenance.model.clone())
}

/// One row of a measurement, or several where the records of one run differ in something else.
fn split_where_needed(key: BTreeMap<String, String>, entries: Vec<Entry>, columns: usize) -> Vec<Row> {
    let mut differing: Vec<String> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let here = |other: &&Entry| (other.column, other.run) == (entry.column, entry.run);
        for other in entries[..index].iter().filter(here) {
            let [a, b] = [&entry.identity, &other.identity].map(Identity::without_seeds);
            differing.extend(Identity::differences(&[&a, &b]));
        }
    }
    differing.sort();
    differing.dedup();
    // A fingerprint says nothing that the data's name does not say, where that differs as well.
    let mut rows: Vec<(Vec<Option<String>>, Row)> = Vec::new();
    for entry in &entries {
        let values: Vec<_> = differing.iter().map(|key| entry.identity.get(key).map(str::to_owned)).collect();
        let place = rows.iter().position(|(known, _)| *known == values).unwrap_or_else(|| {
            let mut name = naming::measurement(entry.record);
            if !differing.is_empty() {
                name = format!("{name} ({})", naming::distinction(&entry.identity, &differing));
            }
            let (example, cells) = (entry.record.clone(), vec![None; columns]);
            rows.push((values, Row { name, example, cells, key: key.clone() }));
            rows.len() - 1
        });
        rows[place].1.cells[entry.column]
            .get_or_insert_with(Sample::default)
            .records
            .push(entry.record.clone());
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Rows whose names do not tell them apart are named by what they differ in.
fn tell_apart(rows: &mut [&mut Row]) {
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let identities: Vec<Identity> = rows.iter().map(|row| row.example.identity()).collect();
    for (index, row) in rows.iter_mut().enumerate() {
        let alike: Vec<&Identity> =
            (0..names.len()).filter(|i| names[*i] == names[index]).map(|i| &identities[i]).collect();
        if alike.len() > 1 {
            let of_rows: Vec<String> = Identity::differences(&alike)
                .into_iter()
                .filter(|key| alike.iter().any(|i| i.row().contains_key(key)))
                .collect();
            row.name = format!("{} ({})", row.name, naming::distinction(&identities[index], &of_rows));
        }
    }
}
