//! The workflow: one network clean and under attacks, checked first, kept in a journal.
//!
//! ```no_run
//! use bandwise::evaluate::attacks::{self, AttacksConfig};
//! use bandwise::evaluate::subject::{Compute, Subject, TestSet};
//! use bandwise::{Job, data::Split, network::ModelSource};
//!
//! # fn main() -> bandwise::Result<()> {
//! let data = TestSet::open(&"cifar10:data/cifar10".parse()?, Split::Test, Some(1000))?;
//! let subject = Subject::load(&ModelSource::new("resnet18.pt"), &data, &Compute::default())?;
//! let config = AttacksConfig { attacks: vec!["autoattack".parse()?], ..AttacksConfig::default() };
//! for (name, record) in attacks::run(&subject, &Job::default(), &config)?.rows() {
//!     println!("{name}: {:.2} %", 100.0 * record.value);
//! }
//! # Ok(())
//! # }
//! ```

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::journal::{Header, Journal, Noted};
use super::record::{Provenance, Record};
use super::shard::Shard;
use super::subject::Subject;
use super::{accuracy, cues, engine, naming, preflight, tables};
use crate::attack::{Attack, Classifier, Epsilon, Warning};
use crate::data::load_all;
use crate::{Error, Job, Result};

/// What a network is judged under.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttacksConfig {
    /// The attacks, each on all images that the network classifies correctly; none measures clean accuracy alone.
    pub attacks: Vec<Attack>,
    /// Seed of random starts.
    pub seed: u64,
    /// Which share of the images is judged.
    pub shard: Shard,
    /// The journal, one line per image and attack: made, or gone on with. Without it, nothing is kept of a run that is
    /// stopped.
    pub journal: Option<PathBuf>,
    /// Folder for the attacked images: `ATTACK/FIRST-LAST.safetensors` with `images` `[n, height, width, channels]`,
    /// `labels` and `indices`.
    pub save_adversarial: Option<PathBuf>,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Clean accuracy, accuracy under each attack, the worst case of several; shape bias where images tell it.
    pub records: Vec<Record>,
    /// What each record is called in a list.
    pub names: Vec<String>,
    /// What a reader must know and has not been told by [`Job::note`]; records carry it as well.
    pub warnings: Vec<Noted>,
}

impl Evaluation {
    /// Each record with its name.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.names.iter().map(String::as_str).zip(&self.records)
    }
}

/// Measures accuracy clean and under attacks. The model is checked first: what the check finds, what each attack is in
/// all its parameters, and what the evaluation may cost is said by [`Job::note`].
///
/// # Errors
/// [`Error::Config`] for attacks that make no sense on these images, and for a journal of another evaluation;
/// [`Error::Model`] if pixels or logits are not as they must be; [`Error::Interrupted`] after a stop.
pub fn run(subject: &Subject, job: &Job, config: &AttacksConfig) -> Result<Evaluation> {
    let (attacks, twice) = Attack::distinct(config.attacks.clone());
    for attack in &twice {
        job.note(&format!("note: {attack} is named more than once; it runs once"));
    }
    let mut provenance = subject.provenance.clone();
    provenance.seeds = vec![config.seed];
    let header = Header::new(&provenance, attacks, subject.count(), config.seed, config.shard);
    header.validate()?;
    let mut journal = match &config.journal {
        Some(path) => Journal::open(path, header)?,
        None => Journal::in_memory(header),
    };
    let doubts: Vec<Warning> =
        subject.warnings.iter().map(|text| Warning::Subject { text: text.clone() }).collect();
    journal.note(None, &doubts)?;
    let mut told = check(subject, &mut journal, job)?;
    told.extend(subject.warnings.iter().cloned());

    let data = subject.data.dataset.as_ref();
    let finished =
        engine::run(&subject.classifier, data, &mut journal, job, config.save_adversarial.as_deref())
            .map_err(|error| explain_stop(error, config.journal.is_some()))?;
    // Some of the images may have been judged on another machine.
    let judged = Provenance { algorithm: journal.header().algorithm.clone(), ..provenance.clone() };
    let mut records = tables::records(&journal, &judged)?;
    let mut names = names(&journal, &records);
    for (record, seconds) in records.iter_mut().zip(&finished.seconds) {
        record.wall_seconds = Some(*seconds);
    }
    if let Some(bias) = shape_bias(subject, config, job)? {
        records.push(bias.with_provenance(&provenance));
        names.push("shape bias".into());
    }
    if let Some(shift) = subject.data.shift {
        names[0] = shift.to_string();
        for record in &mut records {
            record.extra.insert("shift".into(), shift.to_string().into());
        }
    }
    let mut warnings = finished.warnings;
    warnings.retain(|noted| !told.contains(&noted.warning.to_string()));
    Ok(Evaluation { records, names, warnings })
}

/// Checks the model on a few images and says what the rest may cost. Returns the warnings that it told.
fn check(subject: &Subject, journal: &mut Journal, job: &Job) -> Result<Vec<String>> {
    let header = journal.header().clone();
    if journal.attacks().is_empty() {
        return Ok(Vec::new());
    }
    let few = load_all(subject.data.dataset.as_ref(), Some(preflight::CHECKED_IMAGES.min(header.images)))?;
    let (images, labels) = (few.images.to_device(&job.device)?, few.labels.to_device(&job.device)?);
    let preflight = preflight::check(&subject.classifier, &images, &labels, &header.attacks)?;
    let asked = journal.attacks();
    for (_, attack) in &asked {
        job.note(&format!("attack: {}, seed {}", attack.protocol_with_defaults(), header.seed));
    }
    let missing = asked.iter().map(|(label, _)| journal.missing(label).len()).max().unwrap_or(0);
    let asked: Vec<Attack> = asked.into_iter().map(|(_, attack)| attack.clone()).collect();
    journal.note(None, &preflight.warnings)?;
    let told: Vec<String> = preflight.warnings.iter().map(ToString::to_string).collect();
    for warning in &told {
        job.note(&format!("warning: {warning}"));
    }
    let longest = preflight.longest(&asked, missing, subject.classifier.num_classes());
    job.note(&format!("{preflight}; at most {} if no image breaks", duration(longest.as_secs_f64())));
    Ok(told)
}

/// Shape bias, where images have the shape of one class and the texture of another.
fn shape_bias(subject: &Subject, config: &AttacksConfig, job: &Job) -> Result<Option<Record>> {
    let dataset = subject.data.dataset.as_ref();
    if dataset.texture_label(0).is_none() || config.shard != Shard::WHOLE {
        return Ok(None);
    }
    let indices = subject.data.indices();
    let predicted = accuracy::predictions(&subject.classifier, dataset, &indices, job)?;
    cues::shape_bias(dataset, &indices, &predicted).map(|record| Some(subject.warn(record)))
}

/// What each record is called.
fn names(journal: &Journal, records: &[Record]) -> Vec<String> {
    let mut names = vec!["clean".to_string()];
    let seed = journal.header().seed;
    names.extend(journal.attacks().iter().map(|(_, attack)| format!("{attack}, seed {seed}")));
    let of_all = names.len();
    for record in &records[of_all..] {
        let members = record.attack_parameters["of"].as_array().map_or(0, Vec::len);
        names.push(match members + 1 == of_all {
            true => "worst case of all".to_string(),
            false => {
                // As the command wrote it.
                let same = |epsilon: &Epsilon| epsilon.value() == record.epsilon;
                let written = journal.header().attacks.iter().map(Attack::epsilon).find(same);
                let epsilon = written.map_or_else(|| naming::epsilon(record.epsilon), |e| e.short());
                format!("worst case at ε = {epsilon}")
            }
        });
    }
    names
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn explain_stop(error: Error, journalled: bool) -> Error {
    match error {
        Error::Interrupted(_) if journalled => {
            Error::Interrupted("the journal holds what was judged; the same command resumes it".into())
        }
        Error::Interrupted(_) => {
            Error::Interrupted("nothing was kept; --journal FILE keeps a journal to resume".into())
        }
        other => other,
    }
}
