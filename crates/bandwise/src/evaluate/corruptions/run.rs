//! The workflow: one network under many corruptions and severities, with what is finished kept in a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Source, measure, of_corruption, summary};
use crate::corruption::{Corruption, CorruptionConfig, Severity};
use crate::data::{DataSpec, Dataset, Split};
use crate::evaluate::accuracy;
use crate::evaluate::identity::latest;
use crate::evaluate::record::{self, Provenance, Record};
use crate::evaluate::subject::{Subject, TestSet};
use crate::lock::Lock;
use crate::{Error, Job, Result, differences};

/// The stage that progress is told of.
const STAGE: &str = "corruptions";

/// What a network is judged under.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorruptionsConfig {
    /// Which corruptions; of a published set, groups mean those of their corruptions that are there.
    pub corruption: CorruptionConfig,
    /// The clean images of a published corrupted set, in the same order: they give clean accuracy and the order by
    /// frequency.
    pub clean_data: Option<DataSpec>,
    /// Records of another model under the same corruptions: they give the mCE against it.
    pub baseline: Option<PathBuf>,
}

/// Corrupted images to be judged on, opened and chosen from.
pub struct CorruptedSet {
    /// Where the images come from.
    pub source: Source,
    /// Which corruptions.
    pub corruptions: Vec<Corruption>,
    /// Which severities.
    pub severities: Vec<Severity>,
    /// What a network must fit: the clean images or, where they are not available, the first corrupted ones.
    pub data: TestSet,
    config: CorruptionsConfig,
    baseline: Option<Vec<Record>>,
}

impl CorruptionsConfig {
    /// Opens `data`, a published corrupted set or a clean one whose images are corrupted while they are read; of it, the
    /// first `limit` images are judged.
    ///
    /// # Errors
    /// If images, textures or the baseline cannot be read, corruptions are not there, or settings do not go together.
    pub fn open(&self, data: &DataSpec, split: Split, limit: Option<usize>) -> Result<CorruptedSet> {
        let baseline = self.baseline.as_deref().map(record::read).transpose()?;
        let source = self.source(data, split)?;
        let (corruptions, severities) = (self.chosen(&source)?, self.corruption.severities.clone());
        let first = severities.first().ok_or_else(|| Error::config("no severity was asked for"))?;
        let representative = match source.clean() {
            Some(clean) => clean.clone(),
            None => source.dataset(corruptions[0], *first)?,
        };
        let data = TestSet::of(representative, data.to_string(), split, limit)?;
        Ok(CorruptedSet { source, corruptions, severities, data, config: self.clone(), baseline })
    }

    /// Images in memory, under the name that records give them, to be corrupted while they are read.
    ///
    /// # Errors
    /// As [`CorruptionsConfig::open`]; [`Error::Config`] with [`clean_data`](CorruptionsConfig::clean_data) as well.
    pub fn of(&self, clean: Arc<dyn Dataset>, name: &str) -> Result<CorruptedSet> {
        if self.clean_data.is_some() {
            return Err(Error::config(
                "clean data go with published corruptions; here the images are the clean ones",
            ));
        }
        let baseline = self.baseline.as_deref().map(record::read).transpose()?;
        let corruptor = self.corruption.corruptor(clean.as_ref())?;
        let data = TestSet::of(clean.clone(), name.to_owned(), Split::Test, None)?;
        let source = Source::Made { clean, corruptor };
        let (corruptions, severities) = (self.chosen(&source)?, self.corruption.severities.clone());
        if severities.is_empty() {
            return Err(Error::config("no severity was asked for"));
        }
        Ok(CorruptedSet { source, corruptions, severities, data, config: self.clone(), baseline })
    }

    /// Published images, or ones to be made.
    fn source(&self, data: &DataSpec, split: Split) -> Result<Source> {
        let corruption = &self.corruption;
        if data.published_corruptions()?.is_some() {
            if corruption.frost.is_some() || corruption.protocol.is_some() {
                return Err(Error::config(
                    "--frost and --corruption-protocol are for corruptions that are made, not read",
                ));
            }
            let clean = self.clean_data.as_ref().map(|spec| spec.open(split)).transpose()?;
            return Source::published(data.clone(), clean);
        }
        if self.clean_data.is_some() {
            return Err(Error::config(
                "--clean-data goes with published corruptions; here --data is the clean set",
            ));
        }
        let clean = data.open(split)?;
        let corruptor = corruption.corruptor(clean.as_ref())?;
        Ok(Source::Made { clean, corruptor })
    }

    /// The corruptions that are named and there, each once.
    fn chosen(&self, source: &Source) -> Result<Vec<Corruption>> {
        let present = source.corruptions()?;
        let mut chosen = Vec::new();
        for name in &self.corruption.corruptions {
            let group = Corruption::parse_list(&[name])?;
            let there: Vec<_> = group.into_iter().filter(|corruption| present.contains(corruption)).collect();
            if there.is_empty() {
                let present: Vec<&str> = present.iter().map(|corruption| corruption.name()).collect();
                return Err(Error::config(format!("the data has no {name}; it has {}", present.join(", "))));
            }
            for corruption in there {
                if !chosen.contains(&corruption) {
                    chosen.push(corruption);
                }
            }
        }
        match chosen.is_empty() {
            true => Err(Error::config("no corruption was asked for")),
            false => Ok(chosen),
        }
    }
}

/// Measures accuracy on the clean images, if they are available, and under every corruption at every severity, and sums
/// them up ([`summary`]). The subject was loaded for [`CorruptedSet::data`].
///
/// With a folder, each record is appended to its `results.jsonl` as soon as it is there, and measurements that an earlier
/// call left there are not made again.
///
/// # Errors
/// [`Error::Config`] if the folder holds results of something else (the first difference is named), or another process
/// writes it; [`Error::Interrupted`] after a stop; if images cannot
/// be read or do not fit the network.
pub fn run(subject: &Subject, set: &CorruptedSet, job: &Job, folder: Option<&Path>) -> Result<Vec<Record>> {
    let _lock = folder.map(Lock::folder).transpose()?;
    let provenance = set.provenance(&subject.provenance);
    let mut store = Store::open(folder, &provenance, set.data.count())?;
    measure_all(&mut store, subject, set, &provenance, job)
        .map_err(|error| explain_stop(error, folder.is_some()))?;
    let mut records = store.records;
    records.extend(summary(&records, set.baseline.as_deref())?);
    Ok(records)
}

impl CorruptedSet {
    /// Everything that the numbers depend on.
    pub(crate) fn provenance(&self, of: &Provenance) -> Provenance {
        let mut provenance = of.clone();
        let made = match &self.source {
            Source::Made { corruptor, .. } => json!({
                "protocol": corruptor.protocol(), "seed": corruptor.seed(), "frost": corruptor.frost_fingerprint(),
            }),
            Source::Published { .. } => json!({ "published": of.data }),
        };
        provenance.configuration["corruptions"] = made;
        provenance.configuration["clean_data"] =
            self.config.clean_data.as_ref().map(DataSpec::to_string).into();
        provenance.configuration["clean_sha256"] =
            self.source.clean().map(|clean| clean.fingerprint()).into();
        provenance.seeds = vec![self.config.corruption.seed];
        provenance
    }
}

fn measure_all(
    store: &mut Store,
    subject: &Subject,
    set: &CorruptedSet,
    provenance: &Provenance,
    job: &Job,
) -> Result<()> {
    let (model, source, count) = (&subject.classifier, &set.source, set.data.count());
    if let Some(clean) = source.clean().filter(|_| !store.has_clean()) {
        let flags = accuracy::correct(model, clean.as_ref(), &set.data.indices(), job)?;
        let provenance = Provenance { data_sha256: clean.fingerprint().into(), ..provenance.clone() };
        store.keep(subject.warn(Record::accuracy(&flags).with_provenance(&provenance)))?;
    }
    let total = set.corruptions.len() * set.severities.len() * count;
    let mut done = 0;
    for &corruption in &set.corruptions {
        for &severity in &set.severities {
            if !store.has(corruption, severity) {
                let part = job.part_of(STAGE, done, total, corruption.name());
                let record = measure(model, source, corruption, severity, count, provenance, &part)?;
                store.keep(subject.warn(record))?;
            }
            done += count;
            job.report(STAGE, done, total, corruption.name());
        }
        let values = of_corruption(&store.records, corruption);
        let mean = values.iter().map(|record| record.value).sum::<f64>() / values.len() as f64;
        job.note(&format!("{corruption}: {:.2} %", 100.0 * mean));
    }
    Ok(())
}

/// The records so far, on the disk too if there is a folder.
struct Store {
    path: Option<PathBuf>,
    records: Vec<Record>,
}

impl Store {
    /// What an earlier call left in the folder, if it judged the same model on the same images.
    fn open(folder: Option<&Path>, provenance: &Provenance, count: usize) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self { path: None, records: Vec::new() }) };
        let path = folder.join("results.jsonl");
        let mut records = if path.is_file() { record::read(&path)? } else { Vec::new() };
        // Sums over corruptions are made anew.
        records.retain(|record| record.metric == "accuracy");
        let asked = comparable(Some(count as u64), provenance);
        let difference = |record: &Record| {
            let there = comparable(record.total, &record.provenance);
            differences::between(("the folder", &there), ("the command", &asked))
        };
        if let Some(difference) = records.iter().find_map(difference) {
            return Err(Error::config(format!(
                "{} belongs to another evaluation: {difference}; choose another folder, or repeat its settings to go on",
                path.display()
            )));
        }
        // Of one measurement made twice the later counts, as on every page.
        let records = latest(&records).into_iter().cloned().collect();
        Ok(Self { path: Some(path), records })
    }

    fn keep(&mut self, record: Record) -> Result<()> {
        if let Some(path) = &self.path {
            record::append_jsonl(path, std::slice::from_ref(&record))?;
        }
        self.records.push(record);
        Ok(())
    }

    fn has(&self, corruption: Corruption, severity: Severity) -> bool {
        of_corruption(&self.records, corruption)
            .iter()
            .any(|record| record.severity == Some(severity.level()))
    }

    fn has_clean(&self) -> bool {
        self.records.iter().any(|record| record.corruption.is_none())
    }
}

/// What all records of a folder have in common: everything but the fingerprint of a single corruption's images and the
/// words for people.
fn comparable(total: Option<u64>, provenance: &Provenance) -> Value {
    let (data_sha256, subject) = (String::new(), String::new());
    let provenance = Provenance { data_sha256, subject, ..provenance.clone() };
    let fields = Record::scalar("accuracy", 0.0).with_provenance(&provenance).identity().provenance;
    let parsed = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let mut object: Map<String, Value> = fields.into_iter().map(|(key, text)| (key, parsed(text))).collect();
    object.insert("images".into(), total.into());
    Value::Object(object)
}

fn explain_stop(error: Error, kept: bool) -> Error {
    match error {
        Error::Interrupted(_) if kept => Error::Interrupted(
            "what was finished is kept; the same command continues with the next corruption".into(),
        ),
        Error::Interrupted(_) => {
            Error::Interrupted("nothing was kept; --out DIR keeps what is finished".into())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::subject::Compute;
    use crate::network::{ModelSource, Network, NetworkConfig};

    #[test]
    fn the_library_evaluates_keeps_and_resumes() {
        let folder = tempfile::tempdir().unwrap();
        let (weights, out) = (folder.path().join("model.safetensors"), folder.path().join("out"));
        let network = NetworkConfig { width: Some(2), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
        Network::new(network, 1, &candle_core::Device::Cpu).unwrap().save(&weights).unwrap();
        let config: CorruptionsConfig =
            serde_json::from_value(json!({"corruption": {"corruptions": ["contrast"], "severities": [2]}}))
                .unwrap();
        let data: DataSpec = "synthetic:test_count=6".parse().unwrap();
        let set = config.open(&data, Split::Test, Some(4)).unwrap();
        let subject = Subject::load(&ModelSource::new(&weights), &set.data, &Compute::default()).unwrap();

        let stopped = Job::default();
        stopped.interrupt.raise();
        let message = run(&subject, &set, &stopped, Some(&out)).unwrap_err().to_string();
        assert!(message.contains("what was finished is kept"), "{message}");

        let first = run(&subject, &set, &Job::default(), Some(&out)).unwrap();
        let kept = record::read(&out.join("results.jsonl")).unwrap();
        assert_eq!((first.len(), kept.len()), (3, 2));
        assert_eq!(first[1].severity, Some(2));
        assert_eq!(first[2].metric, "mean_corruption_accuracy");
        // Everything is there: nothing is measured, so that nothing can be stopped.
        assert_eq!(run(&subject, &set, &stopped, Some(&out)).unwrap()[..2], first[..2]);

        let seed = CorruptionConfig { seed: 1, ..config.corruption.clone() };
        let other = CorruptionsConfig { corruption: seed, ..config };
        let other = other.open(&data, Split::Test, Some(4)).unwrap();
        let message = run(&subject, &other, &Job::default(), Some(&out)).unwrap_err().to_string();
        assert!(message.contains("seed: the folder has 0, the command 1"), "{message}");
        assert!(message.contains("choose another folder"), "{message}");

        let lock = Lock::folder(&out).unwrap();
        let message = run(&subject, &set, &Job::default(), Some(&out)).unwrap_err().to_string();
        assert!(message.contains("is being written by process"), "{message}");
        drop(lock);
    }
}
