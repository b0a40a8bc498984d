//! What a journal's judgments depend on, and whether two headers describe the same evaluation.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attack::Attack;
use crate::differences::{Difference, plain, sentence, walk};
use crate::evaluate::record::Provenance;
use crate::evaluate::shard::Shard;
use crate::wording::counted;
use crate::{Error, Result};

/// The format of the journals that this version writes and reads.
pub const FORMAT: u32 = 2;

/// Everything that the judgments depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Architecture name.
    pub model: String,
    /// The line that says what is evaluated (not compared: the same model may be named in another way).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// SHA-256 of the weights file.
    pub weights_sha256: String,
    /// The whole configuration of the model: normalization, width, classes, channels, blocks.
    pub configuration: Value,
    /// The data set as named by the user (not compared: files may move).
    pub data: String,
    /// Fingerprint of the data set.
    pub data_sha256: String,
    /// Its split.
    pub split: String,
    /// The first so many images are judged. May grow.
    pub images: usize,
    /// Seed of all random streams.
    pub seed: u64,
    /// The attacks with all parameters, in order. More may be added at the end.
    pub attacks: Vec<Attack>,
    /// Number format of the computation.
    pub precision: String,
    /// What convolutions ran as (not compared: it follows from the machine, and a journal may be continued on another
    /// one; then the names of both stand here).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub algorithm: String,
    /// Kind of device: `cpu`, `cuda`, `metal`.
    pub device: String,
    /// Which share of the images this journal holds.
    pub shard: Shard,
    /// Version of Bandwise.
    pub version: String,
}

impl Header {
    /// The header of an evaluation of the first `images` images under `attacks`, each of them once, and with no more
    /// targets than the model has wrong classes.
    pub fn new(
        provenance: &Provenance,
        attacks: Vec<Attack>,
        images: usize,
        seed: u64,
        shard: Shard,
    ) -> Self {
        let configuration = provenance.configuration.get("model").cloned().unwrap_or_default();
        let attacks = attacks.into_iter().map(|attack| fitting(attack, &configuration)).collect();
        let (attacks, _) = Attack::distinct(attacks);
        Self {
            format: FORMAT,
            model: provenance.model.clone(),
            subject: provenance.subject.clone(),
            weights_sha256: provenance.weights_sha256.clone(),
            configuration,
            data: provenance.data.clone(),
            data_sha256: provenance.data_sha256.clone(),
            split: provenance.split.clone(),
            images,
            seed,
            attacks,
            precision: provenance.precision.clone(),
            algorithm: provenance.algorithm.clone(),
            device: provenance.device.split(':').next().unwrap_or_default().to_string(),
            shard,
            version: provenance.version.clone(),
        }
    }

    /// This header with the algorithms of another machine that judges some of the images.
    pub(super) fn also_by(&self, algorithm: &str) -> Self {
        let names = self.algorithm.split(", ").chain(algorithm.split(", ")).filter(|name| !name.is_empty());
        let mut distinct: Vec<&str> = Vec::new();
        for name in names {
            if !distinct.contains(&name) {
                distinct.push(name);
            }
        }
        Self { algorithm: distinct.join(", "), ..self.clone() }
    }

    /// Everything that the outcomes of one attack depend on.
    pub(in crate::evaluate) fn of_attack(&self, attack: &Attack) -> Result<Value> {
        let (subject, data) = (String::new(), String::new());
        let (attacks, shard) = (vec![attack.clone()], Shard::WHOLE);
        let own = Self { images: 0, attacks, subject, data, shard, ..self.clone() };
        serde_json::to_value(own)
            .map_err(|e| Error::config(format!("the evaluation could not be written as JSON: {e}")))
    }

    /// Everything that the model's answers to an attack (or a part of it) on one image depend on.
    pub(in crate::evaluate) fn key_of(
        &self,
        attack: &Attack,
        part: Option<&str>,
        image: usize,
    ) -> Result<String> {
        Ok(format!("{}, {}, image {image}", self.of_attack(attack)?, part.unwrap_or_default()))
    }

    /// The name of each attack in the journal: its own with ε, and `#2`, `#3` … where that is not enough.
    /// It stays the same when attacks are added at the end.
    pub fn labels(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let label = |attack: &Attack| {
            let label = format!("{} {}", attack.name(), attack.epsilon().short());
            let times = seen.entry(label.clone()).and_modify(|n| *n += 1).or_insert(1);
            if *times == 1 { label } else { format!("{label}#{times}") }
        };
        self.attacks.iter().map(label).collect()
    }

    /// Images of this share, in order.
    pub fn image_numbers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.images).filter(|&image| self.shard.contains(image))
    }

    /// # Errors
    /// [`Error::Config`] for an evaluation without any image.
    pub fn validate(&self) -> Result<()> {
        if self.image_numbers().next().is_some() {
            return Ok(());
        }
        Err(Error::config(match self.images {
            0 => "there are no images to evaluate".to_string(),
            images => {
                let images = counted(images, "image");
                format!("share {} of {images} has no image: make fewer shares", self.shard)
            }
        }))
    }

    /// This header with what `asked` has more of: images, and attacks at the end. It may also name fewer attacks.
    ///
    /// # Errors
    /// One sentence that names what differs otherwise.
    pub(super) fn grown_to(&self, asked: &Self) -> Result<Self, String> {
        let mut differences = self.differences(asked, &["data", "subject", "algorithm", "images", "attacks"]);
        if asked.images < self.images {
            let [here, there] = [self.images, asked.images].map(Value::from);
            differences.push(Difference::new("images", Some(&here), Some(&there)));
        }
        let (chosen, added) = self.choice(&asked.attacks);
        let left_out: Vec<(usize, &Attack)> =
            self.attacks.iter().enumerate().filter(|(index, _)| !chosen.contains(index)).collect();
        // Fewer attacks are a part of this evaluation; others instead of them are another one.
        for (index, attack) in left_out.iter().filter(|_| !added.is_empty()) {
            let path = format!("attacks[{index}]");
            match added.iter().find(|other| other.name() == attack.name()) {
                Some(other) => walk_attack(&path, attack, other, &mut differences),
                None => {
                    let [here, there] = [attack, &&added[0]].map(|attack| Value::from(attack.protocol()));
                    differences.push(Difference::new("attacks", Some(&here), Some(&there)));
                }
            }
        }
        if let ([], [(_, attack), ..], true) = (&added[..], &left_out[..], asked.images > self.images) {
            return Err(format!(
                "attacks: the command leaves out {}, under which its {} more would be missing; name all its attacks",
                attack.protocol(),
                counted(asked.images - self.images, "image")
            ));
        }
        if !differences.is_empty() {
            return Err(sentence(&differences, "the journal", "the command"));
        }
        let attacks = self.attacks.iter().cloned().chain(added).collect();
        // The line that says what is evaluated counts the images, too.
        let subject = if asked.images == self.images { &self.subject } else { &asked.subject };
        Ok(Self { images: asked.images, attacks, subject: subject.clone(), ..self.clone() })
    }

    /// The places of those attacks in this header that `asked` names, and the attacks that it has more, in order.
    pub(super) fn choice(&self, asked: &[Attack]) -> (Vec<usize>, Vec<Attack>) {
        let (mut chosen, mut added) = (Vec::new(), Vec::new());
        for attack in asked {
            let is_it = |&index: &usize| {
                // Before targets were counted for the classes that there are, a header had as many as were asked for.
                let own = fitting(self.attacks[index].clone(), &self.configuration);
                !chosen.contains(&index) && own.is_same(&fitting(attack.clone(), &self.configuration))
            };
            match (0..self.attacks.len()).find(is_it) {
                Some(index) => chosen.push(index),
                None => added.push(attack.clone()),
            }
        }
        chosen.sort_unstable();
        (chosen, added)
    }

    /// # Errors
    /// One sentence that names what differs between the evaluations of two shares.
    pub(super) fn must_fit(&self, ours: &Path, other: &Self, theirs: &Path) -> Result<(), String> {
        let mut differences = self.differences(other, &["data", "subject", "algorithm", "shard", "attacks"]);
        for index in 0..self.attacks.len().max(other.attacks.len()) {
            let path = format!("attacks[{index}]");
            match (self.attacks.get(index), other.attacks.get(index)) {
                (Some(one), Some(two)) if one.name() == two.name() => {
                    walk_attack(&path, one, two, &mut differences)
                }
                (one, two) => {
                    let [one, two] = [one, two].map(|attack| attack.map(|a| Value::from(a.protocol())));
                    differences.push(Difference::new(&path, one.as_ref(), two.as_ref()));
                }
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(sentence(&differences, &ours.display().to_string(), &theirs.display().to_string()))
    }

    fn differences(&self, other: &Self, ignored: &[&str]) -> Vec<Difference> {
        let (ours, theirs) = (plain(self), plain(other));
        let mut differences = Vec::new();
        for (name, value) in ours.as_object().into_iter().flatten() {
            if !ignored.contains(&name.as_str()) {
                walk(name, Some(value), theirs.get(name), &mut differences);
            }
        }
        differences
    }
}

/// What differs between two variants of an attack. A step length that only one of them gives is compared with what the
/// other one uses.
fn walk_attack(path: &str, one: &Attack, two: &Attack, differences: &mut Vec<Difference>) {
    let [mut ours, mut theirs] = [one, two].map(plain);
    if ours.get("step_size").is_none_or(Value::is_null) != theirs.get("step_size").is_none_or(Value::is_null)
    {
        [ours, theirs] = [one, two].map(|attack| plain(&attack.written_out()));
    }
    walk(path, Some(&ours), Some(&theirs), differences);
}

/// The attack as it runs on a model of that configuration.
fn fitting(attack: Attack, configuration: &Value) -> Attack {
    match configuration.get("classes").and_then(Value::as_u64) {
        Some(classes) => attack.for_classes(classes as usize),
        None => attack,
    }
}
