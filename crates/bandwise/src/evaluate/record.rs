//! The result record: one number together with everything that is needed to believe it.
//!
//! Tables, plots and reports are built from records alone. On disk a record is one flat JSON object,
//! either in a file `{"records": [...]}` ([`write_json`]) or one per line in an append-only
//! `results.jsonl` ([`append_jsonl`]). Reading is tolerant: unknown keys are kept in
//! [`Record::extra`], missing ones take their defaults, and journal lines of another kind are passed
//! over.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::statistics::{mean_interval, wilson_interval};
use crate::calendar::utc_timestamp;
use crate::formats::csv::{Csv, optional};
use crate::outputs::Kind;
use crate::{Error, Result, files, outputs};

/// Key of a heat map's record under which the L2 norm of its wave stands.
pub const WAVE_NORM: &str = "wave_norm";

/// One measured number with its proof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was measured, for example `accuracy`.
    pub metric: String,
    /// The attack under which it was measured; `none` for clean images.
    #[serde(default = "no_attack", deserialize_with = "attack_name")]
    pub attack: String,
    /// The attack's bound in pixel units (`8/255` is 0.03137…); 0 without an attack.
    #[serde(default, deserialize_with = "epsilon_value")]
    pub epsilon: f64,
    /// The number itself; an accuracy lies in `[0, 1]`.
    #[serde(deserialize_with = "number_or_nan")]
    pub value: f64,
    /// How many images were right, where the number is a proportion.
    #[serde(default)]
    pub correct: Option<u64>,
    /// How many images (or seeds, for a mean) were judged.
    #[serde(default)]
    pub total: Option<u64>,
    /// 95 % confidence interval: Wilson for proportions, Student for means over seeds.
    #[serde(default)]
    pub ci95: Option<[f64; 2]>,
    /// One character per image in data order, `1` right and `0` wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_image: Option<String>,
    /// The norm of the attack's bound: `linf`, `l2` or `l1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<String>,
    /// The corruption applied to the images, for example `gaussian_noise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corruption: Option<String>,
    /// The corruption's severity, 1 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<u8>,
    /// Every parameter of the attack.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub attack_parameters: Value,
    /// What a reader of the number must know, for example signs of gradient masking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How long the measurement took, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<f64>,
    /// When it was made: UTC, RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// What it was measured on and with.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Keys that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Record {
    /// Whether the number is a share of images, between 0 and 1.
    pub fn is_share(&self) -> bool {
        self.correct.is_some() || self.metric.contains("accuracy")
    }
}

/// What a number was measured on and with; shared by all records of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// One line for people: the network, its normalization and where that comes from, and the images.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Architecture name.
    #[serde(default)]
    pub model: String,
    /// SHA-256 of the weights file.
    #[serde(default)]
    pub weights_sha256: String,
    /// The data set as named on the command line, for example `cifar10:DIR`.
    #[serde(default)]
    pub data: String,
    /// Fingerprint of the images and labels that were judged.
    #[serde(default)]
    pub data_sha256: String,
    /// The split of the data set, for example `test` or `cue-conflict`.
    #[serde(default)]
    pub split: String,
    /// Random seeds that the number depends on.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// `cpu`, `cuda:0`, `metal`.
    #[serde(default)]
    pub device: String,
    /// Number format of the computation, for example `f32`.
    #[serde(default)]
    pub precision: String,
    /// What the network's convolutions ran as, for example `winograd-f4x3`: the names of
    /// [`Algorithm`](bandwise_kernels::Algorithm), those of most convolutions first, joined by `, `. It follows from
    /// network, precision and machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub algorithm: String,
    /// The complete configuration of the run or command.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub configuration: Value,
    /// What a training run has to say beside its recipe: the weights it started from, settings changed on the way.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub training: Value,
    /// Bandwise's version.
    #[serde(default)]
    pub version: String,
}

impl Default for Provenance {
    /// Empty, but for this version of Bandwise, the CPU and `f32`.
    fn default() -> Self {
        Self {
            subject: String::new(),
            model: String::new(),
            weights_sha256: String::new(),
            data: String::new(),
            data_sha256: String::new(),
            split: String::new(),
            seeds: Vec::new(),
            device: "cpu".into(),
            precision: "f32".into(),
            algorithm: String::new(),
            configuration: Value::Null,
            training: Value::Null,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

impl Record {
    /// A number without an interval, made now.
    pub fn scalar(metric: &str, value: f64) -> Self {
        Self {
            metric: metric.into(),
            attack: no_attack(),
            epsilon: 0.0,
            value,
            correct: None,
            total: None,
            ci95: None,
            per_image: None,
            norm: None,
            corruption: None,
            severity: None,
            attack_parameters: Value::Null,
            warnings: Vec::new(),
            wall_seconds: None,
            created: utc_timestamp(SystemTime::now()),
            provenance: Provenance::default(),
            extra: Map::new(),
        }
    }

    /// `correct` of `total` as a proportion with its Wilson interval.
    pub fn proportion(metric: &str, correct: u64, total: u64) -> Self {
        let value = if total == 0 { f64::NAN } else { correct as f64 / total as f64 };
        let ci95 = Some(wilson_interval(correct, total));
        Self { correct: Some(correct), total: Some(total), ci95, ..Self::scalar(metric, value) }
    }

    /// An accuracy from the correctness of each image in data order.
    pub fn accuracy(per_image: &[bool]) -> Self {
        let correct = per_image.iter().filter(|c| **c).count() as u64;
        let flags = per_image.iter().map(|c| if *c { '1' } else { '0' }).collect();
        Self { per_image: Some(flags), ..Self::proportion("accuracy", correct, per_image.len() as u64) }
    }

    /// The mean of one measurement over repetitions, with Student's interval; everything else is taken
    /// from the first record, the seeds from all. `None` without records.
    pub fn mean_of(records: &[Record]) -> Option<Self> {
        let values: Vec<f64> = records.iter().map(|r| r.value).collect();
        let mean = mean_interval(&values)?;
        let mut record = records[0].clone();
        record.value = mean.mean;
        record.ci95 = (mean.count > 1).then_some([mean.low, mean.high]);
        (record.correct, record.total, record.per_image) = (None, Some(mean.count as u64), None);
        record.provenance.seeds = records.iter().flat_map(|r| r.provenance.seeds.iter().copied()).collect();
        record.wall_seconds = records.iter().map(|r| r.wall_seconds).sum();
        record.created = utc_timestamp(SystemTime::now());
        record.extra.insert("aggregate".into(), "mean over seeds".into());
        Some(record)
    }

    /// Names the attack, its bound and norm, and all its parameters.
    pub fn under_attack(mut self, name: &str, epsilon: f64, norm: Option<&str>, parameters: Value) -> Self {
        self.attack = name.into();
        self.epsilon = epsilon;
        self.norm = norm.map(Into::into);
        self.attack_parameters = parameters;
        self
    }

    /// Names the corruption and its severity.
    pub fn under_corruption(mut self, name: &str, severity: u8) -> Self {
        self.corruption = Some(name.into());
        self.severity = Some(severity);
        self
    }

    /// Says what the number was measured on and with.
    pub fn with_provenance(mut self, provenance: &Provenance) -> Self {
        self.provenance = provenance.clone();
        self
    }

    /// The correctness of each image, when the record holds it.
    pub fn flags(&self) -> Option<Vec<bool>> {
        self.per_image.as_ref().map(|flags| flags.bytes().map(|c| c == b'1').collect())
    }
}

#[derive(Serialize, Deserialize)]
struct RecordFile<R> {
    records: R,
}

/// A record as any version wrote it.
struct Stored(Record);

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        // Version 0.1 kept the size of a heat map's wave where the name of an attack's norm belongs.
        if let Some(object) = value.as_object_mut().filter(|o| o.get("norm").is_some_and(Value::is_number))
            && let Some(size) = object.remove("norm")
        {
            object.insert(WAVE_NORM.into(), size);
        }
        serde_json::from_value(value).map(Self).map_err(serde::de::Error::custom)
    }
}

fn unwrapped(stored: Vec<Stored>) -> Vec<Record> {
    stored.into_iter().map(|Stored(record)| record).collect()
}

/// Refuses to write records over anything but nothing, an empty file, or records.
///
/// # Errors
/// [`outputs::check`]; also where the file begins like ours but holds no records.
pub fn check_replaceable(path: &Path) -> Result<()> {
    outputs::check(path, &Kind::Json("records".into()))?;
    let is_file = std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() > 0);
    if is_file && !files::is_stream(path) && read(path).is_err() {
        return Err(Error::config(format!(
            "{}: this file is there already and holds no records; it is not replaced: name another file, or remove it",
            path.display()
        )));
    }
    Ok(())
}

/// Writes `{"records": [...]}`, atomically.
pub fn write_json(path: &Path, records: &[Record]) -> Result<()> {
    check_replaceable(path)?;
    outputs::replace(path, to_json(path, records)?.as_bytes())
}

/// The text of [`write_json`]; `path` is named in errors.
pub fn to_json(path: &Path, records: &[Record]) -> Result<String> {
    let text = serde_json::to_string_pretty(&RecordFile { records }).map_err(|e| unwritable(path, &e))?;
    Ok(text + "\n")
}

/// The numbers and their provenance as CSV, without per-image flags and configuration.
pub fn to_csv(records: &[Record]) -> String {
    let columns = "metric,attack,norm,epsilon,corruption,severity,value,correct,total,ci95_low,ci95_high,model,\
         weights_sha256,data,data_sha256,split,seeds,device,precision,algorithm,version,wall_seconds,created";
    let mut csv = Csv::new(&columns.split(',').collect::<Vec<_>>());
    for r in records {
        let p = &r.provenance;
        let seeds = p.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
        csv.row(&[
            &r.metric,
            &r.attack,
            &optional(r.norm.as_ref()),
            &r.epsilon,
            &optional(r.corruption.as_ref()),
            &optional(r.severity),
            &r.value,
            &optional(r.correct),
            &optional(r.total),
            &optional(r.ci95.map(|c| c[0])),
            &optional(r.ci95.map(|c| c[1])),
            &p.model,
            &p.weights_sha256,
            &p.data,
            &p.data_sha256,
            &p.split,
            &seeds,
            &p.device,
            &p.precision,
            &p.algorithm,
            &p.version,
            &optional(r.wall_seconds),
            &r.created,
        ]);
    }
    csv.into_text()
}

/// Appends one line per record to a `results.jsonl`, and flushes it to the disk. What a killed process
/// left of an unfinished last line is removed first.
pub fn append_jsonl(path: &Path, records: &[Record]) -> Result<()> {
    append_lines(path, &to_jsonl(path, records)?)
}

/// One line per record; `path` is named in errors.
pub fn to_jsonl(path: &Path, records: &[Record]) -> Result<String> {
    let mut text = String::new();
    for record in records {
        text.push_str(&serde_json::to_string(record).map_err(|e| unwritable(path, &e))?);
        text.push('\n');
    }
    Ok(text)
}

/// Appends whole lines to a text file (created with its folder if need be), and flushes them to the
/// disk; an unfinished last line is removed first.
pub fn append_lines(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
    }
    let io = |e| Error::io(path, e);
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(path)
        .map_err(io)?;
    let whole = end_of_last_line(&mut file).map_err(io)?;
    file.set_len(whole).map_err(io)?;
    file.seek(SeekFrom::End(0)).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(io)
}

/// The length of the file up to and including its last newline.
fn end_of_last_line(file: &mut std::fs::File) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(newline) = part.iter().rposition(|b| *b == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Reads records from either form: `{"records": [...]}` (or a bare list), or one object per line.
///
/// # Errors
/// [`Error::Format`] naming file and line for anything that is not a record.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = files::read(path)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::format(path, "expected JSON text, but the file is not UTF-8"))?;
    parse(path, &text)
}

/// [`read`] from text; `path` is named in errors.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Record>> {
    // Only a file as a whole may span several lines; a journal has one object on its first line.
    let first_line = text.lines().next().unwrap_or_default();
    let is_journal =
        serde_json::from_str::<Value>(first_line).is_ok_and(|v| v.is_object() && v.get("records").is_none());
    if is_journal || text.trim().is_empty() {
        return parse_lines(path, text);
    }
    let invalid = |e: serde_json::Error| {
        Error::format(path, format!("line {}: expected a JSON object {{\"records\": [...]}}: {e}", e.line()))
    };
    if text.trim_start().starts_with('[') {
        let records = serde_json::from_str(text).map(unwrapped).map_err(invalid)?;
        return consistent(path, records);
    }
    let file = serde_json::from_str::<RecordFile<Vec<Stored>>>(text).map_err(invalid)?;
    consistent(path, unwrapped(file.records))
}

/// Refuses records whose number is not what they counted.
fn consistent(path: &Path, records: Vec<Record>) -> Result<Vec<Record>> {
    for record in &records {
        if let (Some(correct), Some(total @ 1..)) = (record.correct, record.total)
            && (record.value - correct as f64 / total as f64).abs() > 1e-6
        {
            let (metric, value) = (&record.metric, record.value);
            return Err(Error::format(
                path,
                format!("a record contradicts itself: {metric} {value} with {correct} of {total}"),
            ));
        }
    }
    Ok(records)
}

fn parse_lines(path: &Path, text: &str) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            // A writer was stopped in the middle of its last line: that record was never finished.
            Err(_) if !line.ends_with('\n') => break,
            Err(e) => return Err(Error::format(path, format!("line {}: not valid JSON: {e}", index + 1))),
        };
        if value.get("kind").is_some_and(|kind| kind != "record") {
            continue;
        }
        let Stored(record) = serde_json::from_value(value)
            .map_err(|e| Error::format(path, format!("line {}: not a result record: {e}", index + 1)))?;
        records.push(record);
    }
    consistent(path, records)
}

fn unwritable(path: &Path, error: &serde_json::Error) -> Error {
    Error::format(path, format!("a record could not be written as JSON: {error}"))
}

fn no_attack() -> String {
    "none".into()
}

fn attack_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_else(no_attack))
}

/// JSON has no NaN: it is written, and read back, as null.
fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// ε as a number or as the text `8/255`.
fn epsilon_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(0.0),
        Value::Number(number) => Ok(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => {
            let number = match text.split_once('/') {
                Some((a, b)) => a.trim().parse::<f64>().and_then(|a| Ok(a / b.trim().parse::<f64>()?)),
                None => text.trim().parse(),
            };
            number.map_err(|_| serde::de::Error::custom(format!("epsilon {text:?} is not a number")))
        }
        other => Err(serde::de::Error::custom(format!("epsilon {other} is not a number"))),
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
