//! `bandwise analyze corruptions`.

use std::path::PathBuf;

use bandwise::analyze::corruption_spectra;
use bandwise::corruption::{CorruptionConfig, Protocol, Severity};
use bandwise::data::DataSpec;
use bandwise::evaluate::corruptions::CorruptionsConfig;
use bandwise::report::{AnalysisFolder, check_folder};
use bandwise::{Interrupt, Result};
use candle_core::Device;
use clap::Args;

use crate::arguments::{SplitArgument, corruptions_help, corruptions_long_help, data_spec};
use crate::{output, progress};

/// Fourier maps of corrupted − clean images per corruption and severity, with their low-frequency bias (JaFR).
///
/// No network takes part. Corruptions are made of clean images, or read from a published set, whose clean images
/// --clean-data names. Accuracy under corruptions is `bandwise evaluate --corruption`.
#[derive(Args)]
pub struct CorruptionsArguments {
    /// The clean set, such as cifar10:DIR, or a published corrupted one, such as cifar10c:DIR
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    data: DataSpec,
    /// The clean images of a published corrupted set, in the same order
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    clean_data: Option<DataSpec>,
    #[arg(
        long, value_name = "NAME", value_delimiter = ',', default_value = "all",
        help = corruptions_help("Corruptions"), long_help = corruptions_long_help("Corruptions")
    )]
    corruption: Vec<String>,
    /// Severities, as in 3, 1,5 or 1-5
    #[arg(long, value_name = "N", default_value = "1-5")]
    severity: String,
    /// Whose constants: cifar, 64 or 224 [default: the one made for the nearest size]
    #[arg(long, value_name = "NAME")]
    corruption_protocol: Option<Protocol>,
    /// Folder with frost1.png to frost5.jpg of the published set; without it, frost is procedural and marked so
    #[arg(long, value_name = "DIR")]
    frost: Option<PathBuf>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArgument::Test)]
    split: SplitArgument,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Images held in memory at a time
    #[arg(long, value_name = "N", default_value_t = 250)]
    batch_size: usize,
    /// Folder for CSV, figures, records and report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &CorruptionsArguments, interrupt: &Interrupt) -> Result<bool> {
    let sections = &corruption_spectra::SECTIONS;
    check_folder(&arguments.out, sections)?;
    let corruption = CorruptionConfig {
        corruptions: arguments.corruption.clone(),
        severities: Severity::parse_list(&arguments.severity)?,
        protocol: arguments.corruption_protocol,
        seed: arguments.seed,
        frost: arguments.frost.clone(),
    };
    let config = CorruptionsConfig { corruption, clean_data: arguments.clean_data.clone(), baseline: None };
    let set = config.open(&arguments.data, arguments.split.into(), arguments.limit)?;
    set.data.check_batch(arguments.batch_size)?;
    let folder = AnalysisFolder::reserve(&arguments.out, sections)?;
    let found = progress::shown(&Device::Cpu, arguments.batch_size, interrupt, |job| {
        corruption_spectra::run(&set, job)
    })?;
    output::say_findings(&found.findings, &folder.write(&found.findings)?);
    Ok(true)
}
