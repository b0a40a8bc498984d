//! `bandwise evaluate`.

mod corruptions;

use std::path::PathBuf;

use bandwise::attack::Attack;
use bandwise::data::DataSpec;
use bandwise::evaluate::attacks::{self, AttacksConfig};
use bandwise::evaluate::journal::Journal;
use bandwise::evaluate::record::{self, Record};
use bandwise::evaluate::shard::Shard;
use bandwise::evaluate::subject::{Subject, TestSet};
use bandwise::{Error, Interrupt, Result};
use clap::Args;

use self::corruptions::CorruptionArguments;
use crate::arguments::{ComputeArguments, ModelArguments, SplitArgument, data_spec};
use crate::attack_arguments::{self, AttackArguments};
use crate::official::OfficialTest;
use crate::{output, progress};

/// Measure accuracy, clean, under attack or under corruptions, with confidence intervals.
///
/// Pixels are in [0,1] and normalization is part of the model. An image is dropped as soon as it is
/// broken, so only survivors cost time. Every number comes with its Wilson interval; --json keeps the
/// full records, with one character per image; --journal keeps a journal that continues after a stop, and with more
/// images (--limit), attacks or ε than before.
/// `bandwise test` is the same command and takes the flags of FPCM's official test.py. --corruption measures every
/// corruption at every severity instead, --shift changes the images first.
#[derive(Args, Clone)]
#[command(mut_arg("eps", |eps| eps.help(attack_arguments::SEVERAL_EPSILONS)))]
pub struct EvaluateArguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// cifar10:DIR, cifar100:DIR, cifar10-bin:FILE, idx:DIR, imagefolder:DIR, npy:DIR, synthetic[:key=value,…];
    /// cifar10c:DIR and the like for published corruptions, cueconflict:DIR for shape bias; `data list` shows all
    #[arg(long, value_name = "SPEC", value_parser = data_spec, required_unless_present_any = ["dataset", "data_root"])]
    pub(super) data: Option<DataSpec>,
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArgument::Test)]
    pub(super) split: SplitArgument,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    #[arg(
        long,
        value_name = "NAME",
        default_value = "none",
        value_delimiter = ',',
        help = attack_arguments::help("none, or attacks separated by commas"),
        long_help = attack_arguments::long_help("none, or attacks separated by commas")
    )]
    pub(super) attack: Vec<String>,
    #[command(flatten)]
    pub(super) settings: AttackArguments,
    /// Seed of random starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Images per pass
    #[arg(long, value_name = "N", default_value_t = 250, alias = "batch_size")]
    pub(super) batch_size: usize,
    /// Write the records to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Keep the journal, one line per image and attack, in this file; if it exists, resume it
    #[arg(long, value_name = "FILE", alias = "results")]
    pub(super) journal: Option<PathBuf>,
    /// Only share i of n (i/n); auto or auto/n takes i from a Slurm or Kubernetes job array
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<String>,
    /// Keep the attacked images in this folder, as .safetensors
    #[arg(long, value_name = "DIR")]
    pub(super) save_adversarial: Option<PathBuf>,
    #[command(flatten)]
    pub(super) compute: ComputeArguments,
    #[command(flatten)]
    pub(super) corruptions: CorruptionArguments,
    #[command(flatten)]
    pub(super) official: OfficialTest,
}

/// Runs the command.
pub fn run(arguments: &EvaluateArguments, interrupt: &Interrupt) -> Result<bool> {
    let arguments = &arguments.translated()?;
    output::reserve(&arguments.json);
    check_journal(arguments)?;
    output::check_records(&arguments.json)?;
    if arguments.batch_size == 0 {
        return Err(Error::config("--batch-size must be at least 1"));
    }
    if corruptions::are_asked_for(arguments)? {
        return corruptions::run(arguments, interrupt);
    }
    corruptions::check_unused(&arguments.corruptions)?;
    let attacks = named(arguments)?;
    let shard = arguments.shard.as_deref().map_or(Ok(Shard::WHOLE), str::parse)?;
    let config = AttacksConfig {
        attacks,
        seed: arguments.seed,
        shard,
        journal: arguments.journal.clone(),
        save_adversarial: arguments.save_adversarial.clone(),
    };
    let subject = arguments.subject(&open_data(arguments)?)?;
    let found = progress::shown(&subject.device, arguments.batch_size, interrupt, |job| {
        attacks::run(&subject, job, &config)
    })?;
    if let Some(path) = &arguments.json {
        output::write_file(path, &record::to_json(path, &found.records)?)?;
    }
    found.rows().for_each(|(name, record)| print(record, name));
    found.warnings.iter().for_each(|noted| note!("warning: {noted}"));
    arguments.json.iter().chain(&arguments.journal).for_each(|path| output::say_written(path));
    Ok(true)
}

/// Refuses to replace a journal by records.
fn check_journal(arguments: &EvaluateArguments) -> Result<()> {
    let Some(path) = &arguments.json else { return Ok(()) };
    if Some(path) == arguments.journal.as_ref() {
        return Err(Error::config("--json and --journal are two files; give each a name of its own"));
    }
    if Journal::is_at(path) {
        return Err(Error::config(format!(
            "{} is a journal, which the records of --json would replace; name another file",
            path.display()
        )));
    }
    Ok(())
}

/// The images, shifted if that is asked for.
fn open_data(arguments: &EvaluateArguments) -> Result<TestSet> {
    let data = TestSet::open(arguments.data()?, arguments.split.into(), arguments.limit)?;
    Ok(match arguments.corruptions.shift {
        None => data,
        Some(shift) => data.shifted(shift, arguments.corruptions.corruption_seed),
    })
}

impl EvaluateArguments {
    /// The same evaluation without official flags and names.
    fn translated(&self) -> Result<Self> {
        let mut ours = self.clone();
        let (model, steps) = (&mut ours.model.model, &mut ours.settings.steps);
        self.official.translate(&mut ours.data, model, &mut ours.attack, steps)?;
        Ok(ours)
    }

    /// The images that are named.
    pub(super) fn data(&self) -> Result<&DataSpec> {
        self.data.as_ref().ok_or_else(|| Error::config("--data SPEC names the data set"))
    }

    /// Loads the network for `data`, and says what will be evaluated.
    pub(super) fn subject(&self, data: &TestSet) -> Result<Subject> {
        data.check_batch(self.batch_size)?;
        let subject = Subject::load(&self.model.source(), data, &self.compute.compute()?)?;
        announce(&subject);
        Ok(subject)
    }
}

/// One line before any number: what is evaluated, and what is doubtful about it.
pub(super) fn announce(subject: &Subject) {
    say!("{}", subject.describe());
    for warning in &subject.warnings {
        note!("warning: {warning}");
    }
}

fn print(record: &Record, name: &str) {
    let [low, high] = record.ci95.unwrap_or([f64::NAN; 2]);
    let time = record.wall_seconds.map_or(String::new(), |seconds| format!(" in {seconds:.1} s"));
    let what = if record.metric == "accuracy" { "accuracy " } else { "" };
    say!(
        "{name}: {what}{:.2} % ({} of {}, 95 % interval {:.2} to {:.2} %){time}",
        100.0 * record.value,
        record.correct.unwrap_or(0),
        record.total.unwrap_or(0),
        100.0 * low,
        100.0 * high,
    );
}

/// The attacks that were named, with the settings that were given.
fn named(arguments: &EvaluateArguments) -> Result<Vec<Attack>> {
    let names: Vec<&str> =
        arguments.attack.iter().map(String::as_str).filter(|name| *name != "none").collect();
    if names.is_empty() && arguments.settings.are_given() {
        return Err(Error::config("--eps, --steps and the like need an attack, for example --attack pgd"));
    }
    arguments.settings.attacks(&names)
}
