//! What makes two records one measurement, one configuration, or one row of a table: defined here and used by pages,
//! tables and the store of corruptions.
//!
//! A record is compared by all of its fields, also those that this version does not know, except its outcome: the
//! number, its interval, what else was counted, time and date. Two records of equal [`Identity`] are one measurement made
//! twice, of which the later counts. Records that are equal but for their seeds ([`Identity::without_seeds`]) are
//! replicates: only their mean with its spread says something about the configuration.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::record::Record;

/// Fields that are found by measuring. All others say what was measured.
const OUTCOMES: [&str; 17] = [
    "value",
    "correct",
    "ci95",
    "per_image",
    "warnings",
    "wall_seconds",
    "created",
    "aggregate",
    "mean_queries",
    "mean_gradients",
    "by_shape",
    "by_texture",
    "relative_l1",
    "support",
    "correlation",
    "empty_complement",
    super::corruptions::CENTROID,
];

/// Of the provenance, what is only told: a machine with other instructions computes the same measurement by another
/// algorithm. That numbers may differ by it is what `device` and `precision` stand for.
const TOLD: [&str; 1] = ["algorithm"];

/// Settings of a training run that only name it.
const NAMES_OF_RUNS: [&str; 2] = ["configuration.name", "configuration.source"];

/// All fields of a record except its outcome, as dotted keys and JSON texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What was measured: metric, attack, corruption, mask, window.
    pub measurement: BTreeMap<String, String>,
    /// On what and with what: model, weights, data, seeds, device.
    pub provenance: BTreeMap<String, String>,
    /// Whether each image was judged, so that the number of images is no outcome.
    per_image: bool,
}

impl Identity {
    /// The identity of a record.
    pub fn of(record: &Record) -> Self {
        let bare = Record { per_image: None, ..record.clone() };
        // Through text and back, so that a number equals what a file gives back of it.
        let object = |text: serde_json::Result<String>| -> Map<String, Value> {
            text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
        };
        let all = object(serde_json::to_string(&bare));
        let of_provenance = object(serde_json::to_string(&record.provenance));
        let mut identity = Self {
            measurement: BTreeMap::new(),
            provenance: BTreeMap::new(),
            per_image: record.per_image.is_some(),
        };
        for (key, value) in &all {
            let fields = match of_provenance.contains_key(key) {
                _ if TOLD.contains(&key.as_str()) => continue,
                true => &mut identity.provenance,
                false if OUTCOMES.contains(&key.as_str()) => continue,
                false => &mut identity.measurement,
            };
            flatten(key, value, fields);
        }
        identity
    }

    /// The configuration: what remains when another random seed counts as a repetition.
    ///
    /// Weights are the outcome of training where the record holds the recipe that they were trained by; elsewhere other
    /// weights are another model. Random starts of an attack on one and the same network are no repetition: they tell
    /// nothing about other networks or other images. The images are known by their fingerprint, wherever they lie.
    pub fn without_seeds(&self) -> Self {
        let mut rest = self.clone();
        let trained = self.is_of_a_training_run();
        rest.provenance.retain(|key, _| {
            let follows_from_seed = match key.as_str() {
                // The line for people follows from the other fields, and from where files lie.
                "subject" => true,
                "seeds" | "weights_sha256" | "configuration.seed" => trained,
                key => trained && NAMES_OF_RUNS.contains(&key),
            };
            !follows_from_seed
        });
        if rest.provenance.get("data_sha256").is_some_and(|hash| hash != "\"\"") {
            rest.provenance.remove("data");
        }
        if !self.per_image {
            rest.measurement.remove("total");
        }
        rest
    }

    /// Whether the record holds the recipe of its weights.
    fn is_of_a_training_run(&self) -> bool {
        ["configuration.seed", "configuration.epochs"].iter().all(|key| self.provenance.contains_key(*key))
    }

    /// What is measured, whatever model it is measured on: the row of a table. Where an attack is named by its
    /// parameters, its place in a list of attacks (`pgd#2`) is none.
    pub fn row(&self) -> BTreeMap<String, String> {
        let mut row = self.measurement.clone();
        // A model's name, and how many images there were, tell columns apart; the split of the data is a row's.
        row.remove("label");
        row.remove("total");
        if row.contains_key("attack_parameters.name") {
            row.remove("attack");
        }
        row.extend(self.provenance.get("split").map(|split| ("split".to_owned(), split.clone())));
        row
    }

    /// The value of a field, of either kind.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.measurement.get(key).or_else(|| self.provenance.get(key)).map(String::as_str)
    }

    /// The fields in which the members of a list differ.
    pub fn differences(list: &[&Self]) -> Vec<String> {
        let mut keys: Vec<&String> =
            list.iter().flat_map(|i| i.measurement.keys().chain(i.provenance.keys())).collect();
        keys.sort();
        keys.dedup();
        let differs = |key: &&&String| list.iter().any(|i| i.get(key) != list[0].get(key));
        keys.iter().filter(differs).map(|key| (*key).clone()).collect()
    }
}

impl Record {
    /// Everything about the record but its outcome.
    pub fn identity(&self) -> Identity {
        Identity::of(self)
    }
}

/// The records of which each measurement is there once: of equal ones the last, in the order of first appearance.
pub fn latest(records: &[Record]) -> Vec<&Record> {
    let mut places: BTreeMap<Identity, usize> = BTreeMap::new();
    let mut kept: Vec<&Record> = Vec::new();
    for record in records {
        let place = *places.entry(record.identity()).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(earlier) => *earlier = record,
            None => kept.push(record),
        }
    }
    kept
}

fn flatten(key: &str, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            object.iter().for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, fields));
        }
        // A field that is empty is a field that is not there.
        Value::Null => {}
        other => {
            fields.insert(key.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evaluate::record::Provenance;

    fn record() -> Record {
        let provenance = Provenance {
            model: "resnet20".into(),
            weights_sha256: "a".into(),
            data: "cifar10:here".into(),
            data_sha256: "d".into(),
            seeds: vec![0],
            ..Provenance::default()
        };
        let mut record = Record::accuracy(&[true, false])
            .under_attack("pgd", 0.1, Some("linf"), json!({"name": "pgd", "steps": 10}))
            .with_provenance(&provenance);
        record.extra.insert("fourier_mask".into(), "none".into());
        record
    }

    #[test]
    fn every_field_but_the_outcome_tells_records_apart() {
        let mut same = record();
        (same.value, same.correct, same.ci95) = (0.9, Some(1), None);
        (same.created, same.wall_seconds) = ("later".into(), Some(3.0));
        same.per_image = Some("01".into());
        same.extra.insert("mean_queries".into(), json!(7.5));
        assert_eq!(same.identity(), record().identity());
        assert_eq!(latest(&[record(), same.clone()]), [&same]);

        let changes: [fn(&mut Record); 12] = [
            |r| r.metric = "loss".into(),
            |r| r.attack = "fgsm".into(),
            |r| r.epsilon = 0.2,
            |r| r.total = Some(3),
            |r| r.severity = Some(1),
            |r| r.attack_parameters = json!({"name": "pgd", "steps": 50}),
            |r| drop(r.extra.insert("fourier_mask".into(), "masked".into())),
            |r| drop(r.extra.insert("what no version knows".into(), json!([1]))),
            |r| r.provenance.weights_sha256 = "b".into(),
            |r| r.provenance.seeds = vec![1],
            |r| r.provenance.device = "cuda:0".into(),
            |r| r.provenance.configuration = json!({"limit": 5}),
        ];
        for change in changes {
            let mut other = record();
            change(&mut other);
            assert_ne!(other.identity(), record().identity(), "{other:?}");
            assert_eq!(latest(&[record(), other]).len(), 2);
        }
    }

    #[test]
    fn the_algorithm_of_a_machine_makes_no_other_measurement() {
        let mut elsewhere = record();
        elsewhere.provenance.algorithm = "amx-bf16x3, direct".into();
        assert_eq!(elsewhere.identity(), record().identity());
        assert_eq!(latest(&[record(), elsewhere.clone()]), [&elsewhere]);
    }

    #[test]
    fn a_record_equals_what_a_file_gives_back() {
        let mut odd = record();
        (odd.epsilon, odd.attack_parameters) = (8.0 / 255.0, json!({"step_size": 2.0 / 255.0 * 0.7}));
        let text = serde_json::to_string(&odd).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap().identity(), odd.identity());
    }

    #[test]
    fn other_weights_are_replicates_only_of_one_recipe() {
        let with = |weights: &str, seed: u64, configuration: Value| {
            let mut record = record();
            record.provenance.weights_sha256 = weights.into();
            record.provenance.seeds = vec![seed];
            record.provenance.configuration = configuration;
            record.identity().without_seeds()
        };
        let recipe = |seed: u64, rate: f64| json!({"seed": seed, "epochs": 3, "learning_rate": rate, "name": format!("s{seed}")});
        assert_eq!(with("a", 0, recipe(0, 0.1)), with("b", 1, recipe(1, 0.1)));
        assert_ne!(with("a", 0, recipe(0, 0.1)), with("b", 1, recipe(1, 0.2)));
        // Two foreign files may be two methods: nothing says that they are seeds of one.
        assert_ne!(with("a", 0, Value::Null), with("b", 1, Value::Null));
        // Neither are two seeds of an attack on one network.
        assert_ne!(with("a", 0, Value::Null), with("a", 1, Value::Null));
    }

    #[test]
    fn rows_do_not_depend_on_the_model() {
        let mut other = record();
        (other.provenance.model, other.attack) = ("vgg11".into(), "pgd#2".into());
        other.extra.insert("label".into(), "robust".into());
        assert_eq!(other.identity().row(), record().identity().row());
        other.extra.insert("fourier_mask".into(), "masked".into());
        assert_ne!(other.identity().row(), record().identity().row());
    }
}
