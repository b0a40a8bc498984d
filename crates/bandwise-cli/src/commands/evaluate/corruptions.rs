//! `bandwise evaluate --corruption`: accuracy for every corruption and severity.

use std::path::PathBuf;

use bandwise::analyze::corruptions::is_official;
use bandwise::corruption::{CorruptionConfig, Protocol, Severity, Shift};
use bandwise::data::DataSpec;
use bandwise::evaluate::corruptions::{self, CorruptionsConfig, by_frequency, centroid, of_corruption};
use bandwise::evaluate::record::{self, Record};
use bandwise::report::{check_corruptions_folder, write_corruptions};
use bandwise::{Error, Interrupt, Result};
use clap::Args;

use super::EvaluateArguments;
use crate::arguments::{corruptions_help, corruptions_long_help, data_spec};
use crate::{output, progress};

/// Corrupted or shifted images instead of clean ones.
#[derive(Args, Clone)]
#[command(next_help_heading = "Corruptions and shifts")]
pub struct CorruptionArguments {
    #[arg(
        long, value_name = "NAME", value_delimiter = ',',
        help = corruptions_help(MADE), long_help = corruptions_long_help(MADE)
    )]
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
    /// The clean images of a published corrupted set, in the same order: gives clean accuracy and the order by frequency
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    clean_data: Option<DataSpec>,
    /// Records of another model under the same corruptions (--json or results.jsonl): gives the mCE against it
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Folder for records, CSV, figures and report; finished corruptions are kept there, and the same command goes on
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Change the images first: low_pass:RADIUS, high_pass:RADIUS, phase_scramble[:SHARE] or contrast:SHARE
    #[arg(long, value_name = "SHIFT")]
    pub shift: Option<Shift>,
}

const MADE: &str =
    "Common corruptions, made while images are read, or of a published set such as cifar10c:DIR";

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

impl CorruptionArguments {
    /// As the library takes it.
    fn config(&self) -> Result<CorruptionsConfig> {
        let defaults = CorruptionConfig::default();
        let named = !self.corruption.is_empty();
        let corruption = CorruptionConfig {
            corruptions: if named { self.corruption.clone() } else { defaults.corruptions },
            severities: self.severity.as_deref().map_or(Ok(defaults.severities), Severity::parse_list)?,
            protocol: self.corruption_protocol,
            seed: self.corruption_seed,
            frost: self.frost.clone(),
        };
        let (clean_data, baseline) = (self.clean_data.clone(), self.baseline.clone());
        Ok(CorruptionsConfig { corruption, clean_data, baseline })
    }
}

/// Runs `evaluate` on corrupted images.
pub fn run(arguments: &EvaluateArguments, interrupt: &Interrupt) -> Result<bool> {
    refuse_others(arguments)?;
    let options = &arguments.corruptions;
    if let Some(folder) = &options.out {
        check_corruptions_folder(folder)?;
    }
    let set = options.config()?.open(arguments.data()?, arguments.split.into(), arguments.limit)?;
    let subject = arguments.subject(&set.data)?;
    let out = options.out.as_deref();
    let records = progress::shown(&subject.device, arguments.batch_size, interrupt, |job| {
        corruptions::run(&subject, &set, job, out)
    })?;
    if let Some(path) = &arguments.json {
        output::write_file(path, &record::to_json(path, &records)?)?;
    }
    let page = out.map(|folder| write_corruptions(folder, &records)).transpose()?;
    let (measured, summary): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| record.metric == "accuracy");
    print(&measured);
    summary.iter().filter(|record| record.corruption.is_none()).for_each(print_summary);
    arguments.json.iter().for_each(|path| output::say_written(path));
    if let Some(page) = page {
        say!("Open the report: {}", page.display());
    }
    Ok(true)
}

/// What does not go together with corruptions.
fn refuse_others(arguments: &EvaluateArguments) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::config(format!(
            "{what} does not go with corruptions; attacks on corrupted images can be had from files: write them with \
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
        say!("* not the published protocol: procedural frost (see --frost), or images of another size.");
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
