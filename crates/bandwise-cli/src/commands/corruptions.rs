//! `bandwise evaluate --corruption`: accuracy for every corruption and severity.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bandwise::analyze::corruptions::{csv, is_official, section};
use bandwise::corruption::{Corruption, Corruptor, FrostTextures, Protocol, Severity, Shift};
use bandwise::data::{DataSpec, Dataset, Split};
use bandwise::evaluate::accuracy;
use bandwise::evaluate::corruptions::{Source, by_frequency, centroid, measure, of_corruption, summary};
use bandwise::evaluate::identity::latest;
use bandwise::evaluate::record::{self, Provenance, Record};
use bandwise::evaluate::subject::{Subject, TestSet, with_warnings};
use bandwise::job::Stage;
use bandwise::outputs::{self, Kind};
use bandwise::report::report_for_runs;
use bandwise::{Error, Interrupt, Job, Result, files};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::analyze::output::Output;
use super::evaluate::EvaluateArguments;
use crate::arguments::data_spec;
use crate::{output, progress};

/// Corrupted or shifted pictures instead of clean ones.
#[derive(Args, Clone)]
#[command(next_help_heading = "Corruptions and shifts")]
pub struct CorruptionArguments {
    /// Common corruptions, made while pictures are read, or of a published set such as cifar10c:DIR: names separated by
    /// commas, main (15), extra (4) or all (19)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    corruption: Vec<String>,
    /// Severities, as in 3, 1,5 or 1-5 [default: 1-5]
    #[arg(long, value_name = "N")]
    severity: Option<String>,
    /// Whose constants: cifar, 64 or 224 [default: the one made for the nearest size]
    #[arg(long, value_name = "NAME")]
    corruption_protocol: Option<Protocol>,
    /// Folder with frost1.png to frost5.jpg of the published set; without it, frost is procedural and marked so
    #[arg(long, value_name = "DIR")]
    frost: Option<PathBuf>,
    /// Seed of everything random in corruptions and shifts
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub corruption_seed: u64,
    /// The clean pictures of a published corrupted set, in the same order: gives clean accuracy and the order by frequency
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    clean_data: Option<DataSpec>,
    /// Records of another model under the same corruptions (--json or results.jsonl): gives the mCE against it
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Folder for records, CSV, figures and report; finished corruptions are kept there, and the same command goes on
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Change the pictures first: low_pass:RADIUS, high_pass:RADIUS, phase_scramble[:SHARE] or contrast:SHARE
    #[arg(long, value_name = "SHIFT")]
    pub shift: Option<Shift>,
}

/// Whether accuracy under corruptions is wanted: asked for, or all that the data can give.
pub fn are_asked_for(arguments: &EvaluateArguments) -> Result<bool> {
    if !arguments.corruptions.corruption.is_empty() {
        return Ok(true);
    }
    let data = arguments.data()?;
    Ok(data.option("corruption").is_none() && data.published_corruptions()?.is_some())
}

/// Refuses options that go with corruptions when there are none.
pub fn check_unused(arguments: &CorruptionArguments) -> Result<()> {
    let given = [
        ("--severity", arguments.severity.is_some()),
        ("--corruption-protocol", arguments.corruption_protocol.is_some()),
        ("--frost", arguments.frost.is_some()),
        ("--clean-data", arguments.clean_data.is_some()),
        ("--baseline", arguments.baseline.is_some()),
        ("--out", arguments.out.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            Err(Error::config(format!("{name} goes with --corruption, for example --corruption all")))
        }
        None => Ok(()),
    }
}

/// Runs `evaluate` on corrupted pictures.
pub fn run(arguments: &EvaluateArguments, interrupt: &Interrupt) -> Result<bool> {
    refuse_others(arguments)?;
    let options = &arguments.corruptions;
    let severities = Severity::parse_list(options.severity.as_deref().unwrap_or("1-5"))?;
    let baseline = options.baseline.as_deref().map(record::read).transpose()?;
    if let Some(folder) = &options.out {
        Output::check(folder)?;
        if let Some(kind) = Kind::of(csv(&[]).as_bytes()) {
            outputs::check(&folder.join("corruptions.csv"), &kind)?;
        }
    }
    let source = source(arguments)?;
    let corruptions = chosen(&source, &options.corruption)?;
    let representative = match source.clean() {
        Some(clean) => clean.clone(),
        None => source.dataset(corruptions[0], severities[0])?,
    };
    let data =
        TestSet::of(representative, arguments.data()?.to_string(), arguments.split.into(), arguments.limit)?;
    let mut subject = arguments.subject(&data)?;
    subject.provenance = provenance(arguments, &subject, &source);

    let mut store = Store::open(options.out.as_deref(), &subject)?;
    let total = corruptions.len() * severities.len() * subject.count();
    let bar = progress::bar("corruptions", total);
    let ticked = bar.clone();
    let job = Job {
        device: subject.device.clone(),
        batch_size: arguments.batch_size,
        interrupt: interrupt.clone(),
        progress: Arc::new(move |_: &Stage<'_>| ticked.tick()),
    };
    let measured = measure_all(&mut store, &subject, &source, &corruptions, &severities, &job, &bar);
    bar.finish_and_clear();
    measured.map_err(|error| explain_stop(error, options.out.is_some()))?;

    let mut records = store.records;
    let measured = records.len();
    records.extend(summary(&records, baseline.as_deref())?);
    if let Some(path) = &arguments.json {
        output::write_file(path, &record::to_json(path, &records)?)?;
    }
    if let Some(folder) = &options.out {
        write(folder, &records)?;
    }
    let (measured, summary) = records.split_at(measured);
    print(measured);
    summary.iter().filter(|record| record.corruption.is_none()).for_each(print_summary);
    arguments.json.iter().for_each(|path| output::say_written(path));
    if let Some(folder) = &options.out {
        say!("Open the report: {}", folder.join("report.html").display());
    }
    Ok(true)
}

/// What does not go together with corruptions.
fn refuse_others(arguments: &EvaluateArguments) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::config(format!(
            "{what} does not go with corruptions; attacks on corrupted pictures can be had from files: write them with \
             `bandwise corrupt` and name one, as in --data cifar10c:DIR,corruption=fog,severity=3"
        )))
    };
    if arguments.attack.iter().any(|name| name != "none") || arguments.settings.are_given() {
        return refused("--attack");
    }
    if arguments.corruptions.shift.is_some() {
        return refused("--shift");
    }
    if arguments.save_adversarial.is_some() {
        return refused("--save-adversarial");
    }
    if arguments.journal.is_some() || arguments.shard.is_some() {
        return Err(Error::config(
            "--journal and --shard are for attacks; with corruptions, --out DIR keeps what is finished, and jobs can share \
             the work by --corruption or --severity, each with a folder of its own",
        ));
    }
    Ok(())
}

/// Published pictures, or ones to be made.
fn source(arguments: &EvaluateArguments) -> Result<Source> {
    let options = &arguments.corruptions;
    let split = Split::from(arguments.split);
    if arguments.data()?.published_corruptions()?.is_some() {
        if options.frost.is_some() || options.corruption_protocol.is_some() {
            return Err(Error::config(
                "--frost and --corruption-protocol are for corruptions that are made, not read",
            ));
        }
        let clean = options.clean_data.as_ref().map(|spec| spec.open(split)).transpose()?;
        return Source::published(arguments.data()?.clone(), clean);
    }
    if options.clean_data.is_some() {
        return Err(Error::config(
            "--clean-data goes with published corruptions; here --data is the clean set",
        ));
    }
    let clean = arguments.data()?.open(split)?;
    let corruptor = corruptor(
        clean.as_ref(),
        options.corruption_protocol,
        options.corruption_seed,
        options.frost.as_deref(),
    )?;
    Ok(Source::Made { clean, corruptor })
}

/// A corruptor for the pictures of a data set.
pub fn corruptor(
    dataset: &dyn Dataset,
    protocol: Option<Protocol>,
    seed: u64,
    frost: Option<&Path>,
) -> Result<Corruptor> {
    let [height, width, _] = dataset.first_shape()?;
    let corruptor = Corruptor::new(protocol.unwrap_or(Protocol::for_size(height, width)), seed);
    match frost {
        Some(folder) => Ok(corruptor.with_frost(FrostTextures::from_folder(folder)?)),
        None => Ok(corruptor),
    }
}

/// The corruptions that are named, or all; of a published set, groups mean those of them that are there.
fn chosen(source: &Source, names: &[String]) -> Result<Vec<Corruption>> {
    let present = source.corruptions()?;
    let mut chosen = Vec::new();
    for name in names.iter().map(String::as_str).chain(names.is_empty().then_some("all")) {
        let group = Corruption::parse_list(&[name])?;
        let there: Vec<_> = group.iter().copied().filter(|corruption| present.contains(corruption)).collect();
        if there.is_empty() {
            let present: Vec<&str> = present.iter().map(|corruption| corruption.name()).collect();
            return Err(Error::config(format!("the data has no {name}; it has {}", present.join(", "))));
        }
        there
            .into_iter()
            .filter(|c| !chosen.contains(c))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|c| chosen.push(c));
    }
    Ok(chosen)
}

/// Everything that the numbers depend on.
fn provenance(arguments: &EvaluateArguments, subject: &Subject, source: &Source) -> Provenance {
    let mut provenance = subject.provenance.clone();
    let made = match source {
        Source::Made { corruptor, .. } => json!({
            "protocol": corruptor.protocol(), "seed": corruptor.seed(), "frost": corruptor.frost_fingerprint(),
        }),
        Source::Published { .. } => json!({ "published": subject.provenance.data }),
    };
    provenance.configuration["corruptions"] = made;
    provenance.configuration["clean_data"] =
        arguments.corruptions.clean_data.as_ref().map(DataSpec::to_string).into();
    provenance.configuration["clean_sha256"] = source.clean().map(|clean| clean.fingerprint()).into();
    provenance.seeds = vec![arguments.corruptions.corruption_seed];
    provenance
}

fn measure_all(
    store: &mut Store,
    subject: &Subject,
    source: &Source,
    corruptions: &[Corruption],
    severities: &[Severity],
    job: &Job,
    bar: &ProgressBar,
) -> Result<()> {
    let Subject { classifier: model, provenance, .. } = subject;
    let count = subject.count();
    if let Some(clean) = source.clean().filter(|_| !store.has_clean()) {
        let indices = subject.data.indices();
        let flags = accuracy::correct(model, clean.as_ref(), &indices, job)?;
        let provenance = Provenance { data_sha256: clean.fingerprint().into(), ..provenance.clone() };
        let record = Record::accuracy(&flags).with_provenance(&provenance);
        store.keep(with_warnings(record, &subject.warnings))?;
    }
    for &corruption in corruptions {
        bar.set_message(corruption.name());
        for &severity in severities {
            if !store.has(corruption, severity) {
                let record = measure(model, source, corruption, severity, count, provenance, job)?;
                store.keep(with_warnings(record, &subject.warnings))?;
            }
            bar.inc(count as u64);
        }
        let values = of_corruption(&store.records, corruption);
        let mean = values.iter().map(|record| record.value).sum::<f64>() / values.len() as f64;
        bar.suspend(|| note!("{corruption}: {:.2} %", 100.0 * mean));
    }
    Ok(())
}

/// The records so far, on the disk too if there is a folder.
struct Store {
    path: Option<PathBuf>,
    records: Vec<Record>,
}

impl Store {
    /// What an earlier call left in the folder, if it judged the same model on the same pictures.
    fn open(folder: Option<&Path>, subject: &Subject) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self { path: None, records: Vec::new() }) };
        let path = folder.join("results.jsonl");
        let mut records = if path.is_file() { record::read(&path)? } else { Vec::new() };
        // Sums over corruptions are made anew.
        records.retain(|record| record.metric == "accuracy");
        let same = |record: &Record| {
            record.total == Some(subject.count() as u64)
                && comparable(&record.provenance) == comparable(&subject.provenance)
        };
        if !records.iter().all(same) {
            return Err(Error::config(format!(
                "{} holds results of another model, of other pictures or settings; choose another folder",
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
fn comparable(provenance: &Provenance) -> BTreeMap<String, String> {
    let (data_sha256, subject) = (String::new(), String::new());
    let provenance = Provenance { data_sha256, subject, ..provenance.clone() };
    Record::scalar("accuracy", 0.0).with_provenance(&provenance).identity().provenance
}

fn explain_stop(error: Error, kept: bool) -> Error {
    match error {
        Error::Interrupted(_) if kept => Error::Interrupted(
            "what was finished is kept; the same command goes on with the next corruption".into(),
        ),
        Error::Interrupted(_) => {
            Error::Interrupted("nothing was kept; --out DIR keeps what is finished".into())
        }
        other => other,
    }
}

/// One line per corruption, from low to high frequency.
fn print(records: &[Record]) {
    if let Some(clean) = records.iter().find(|record| record.corruption.is_none()) {
        let [low, high] = clean.ci95.unwrap_or([f64::NAN; 2]).map(|bound| 100.0 * bound);
        say!("clean: accuracy {:.2} % (95 % interval {low:.2} to {high:.2} %)", 100.0 * clean.value);
        say!();
    }
    let severities: Vec<u8> = (1..=5).filter(|s| records.iter().any(|r| r.severity == Some(*s))).collect();
    let titles = severities.iter().map(|severity| format!("{:>11}", format!("severity {severity}")));
    say!("{:<19}{}{:>7}{:>10}", "accuracy, %", titles.collect::<String>(), "mean", "frequency");
    let mut marked = false;
    for corruption in by_frequency(records) {
        let measured = of_corruption(records, corruption);
        let official = measured.iter().all(|record| is_official(record));
        marked |= !official;
        let cells = severities.iter().map(|severity| {
            let record = measured.iter().find(|record| record.severity == Some(*severity));
            format!("{:>11}", record.map_or(String::new(), |record| cell(record)))
        });
        let mean = measured.iter().map(|record| record.value).sum::<f64>() / measured.len() as f64;
        let frequency = centroid(records, corruption).map_or(String::new(), |value| format!("{value:.3}"));
        let name = format!("{corruption}{}", if official { "" } else { " *" });
        say!("{name:<19}{}{:>7.1}{frequency:>10}", cells.collect::<String>(), 100.0 * mean);
    }
    say!("± is half of the 95 % Wilson interval.");
    if marked {
        say!("* not the published protocol: procedural frost (see --frost), or pictures of another size.");
    }
    say!();
}

fn cell(record: &Record) -> String {
    let [low, high] = record.ci95.unwrap_or([f64::NAN; 2]);
    format!("{:.1} ±{:.1}", 100.0 * record.value, 50.0 * (high - low))
}

fn print_summary(record: &Record) {
    let name = record.metric.replace('_', " ");
    let interval = record.ci95.map_or(String::new(), |bounds| {
        let [low, high] = bounds.map(|bound| 100.0 * bound);
        format!(" (95 % interval {low:.2} to {high:.2} %)")
    });
    say!("{name}: {:.2} %{interval}", 100.0 * record.value);
}

/// Records, CSV, section, report and figures.
fn write(folder: &Path, records: &[Record]) -> Result<()> {
    let path = folder.join("results.jsonl");
    let lines = records
        .iter()
        .map(|record| serde_json::to_string(record).map(|line| line + "\n"))
        .collect::<std::result::Result<String, _>>()
        .map_err(|e| Error::format(&path, format!("a record could not be written as JSON: {e}")))?;
    files::write_atomic(&path, lines.as_bytes())?;
    files::write_atomic(&folder.join("corruptions.csv"), csv(records).as_bytes())?;
    section(records).write_json(&folder.join("sections/corruptions.json"))?;
    let report = report_for_runs(&[folder.to_path_buf()])?;
    report.write(&folder.join("report.html"))?;
    report.write_figures(&folder.join("figures"))?;
    Ok(())
}
