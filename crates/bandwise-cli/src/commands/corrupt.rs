//! `bandwise corrupt`: corrupted sets as files.

use std::path::{Path, PathBuf};

use bandwise::corruption::export::{Manifest, export};
use bandwise::corruption::verify::{Difference, published_files, verify};
use bandwise::corruption::{Corruption, CorruptionConfig, Corruptor, Protocol, Severity};
use bandwise::data::{DataSpec, Dataset, Split};
use bandwise::job::BATCH_SIZE;
use bandwise::wording::counted;
use bandwise::{Interrupt, Result};
use candle_core::Device;
use clap::Args;

use crate::arguments::{SplitArgument, corruptions_help, corruptions_long_help, data_spec};
use crate::progress;

/// Write corrupted versions of a data set as files in the layout of CIFAR-10-C, or compare with published ones.
///
/// Writes NAME.npy (uint8, all images of the first severity first), labels.npy and corruptions.json, which says how they
/// were made. A call that was stopped continues with the next file. The files are read back as --data cifar10c:DIR.
#[derive(Args)]
pub struct CorruptArguments {
    /// The clean set: cifar10:DIR, imagefolder:DIR,size=64, synthetic, …; `data list` shows all
    #[arg(value_name = "DATA", value_parser = data_spec)]
    data: DataSpec,
    /// Folder for the files
    #[arg(long, value_name = "DIR", required_unless_present = "verify")]
    out: Option<PathBuf>,
    #[arg(
        long, value_name = "NAME", value_delimiter = ',', default_value = "all",
        help = corruptions_help("Corruptions"), long_help = corruptions_long_help("Corruptions")
    )]
    corruption: Vec<String>,
    /// Severities, as in 3, 1,5 or 1-5
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1-5")]
    severity: Vec<String>,
    /// Whose constants: cifar, 64 or 224 [default: the one made for the nearest size]
    #[arg(long, value_name = "NAME")]
    protocol: Option<Protocol>,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder with frost1.png to frost5.jpg of the published set; without it, frost is procedural and marked so
    #[arg(long, value_name = "DIR")]
    frost: Option<PathBuf>,
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArgument::Test)]
    split: SplitArgument,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// A published NAME.npy, or a folder of them, made of the same clean set: report how far ours are from it
    #[arg(long, value_name = "PUBLISHED")]
    verify: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &CorruptArguments, interrupt: &Interrupt) -> Result<bool> {
    let config = CorruptionConfig {
        corruptions: arguments.corruption.clone(),
        severities: Severity::parse_list(&arguments.severity.join(","))?,
        protocol: arguments.protocol,
        seed: arguments.seed,
        frost: arguments.frost.clone(),
    };
    config.list()?;
    let data = arguments.data.open(Split::from(arguments.split))?;
    let corruptor = config.corruptor(data.as_ref())?;
    let [height, width, _] = data.first_shape()?;
    corruptor.doubt(height, width).iter().for_each(|doubt| note!("note: {doubt}"));
    if let Some(folder) = &arguments.out {
        let manifest = progress::shown(&Device::Cpu, BATCH_SIZE, interrupt, |job| {
            export(data.as_ref(), &config, arguments.limit, folder, job)
        })?;
        print_manifest(&manifest, config.list()?.len(), folder);
    }
    match &arguments.verify {
        Some(published) => compare(
            data.as_ref(),
            arguments.limit,
            &corruptor,
            &published_files(published, &config)?,
            interrupt,
        ),
        None => Ok(true),
    }
}

fn print_manifest(manifest: &Manifest, files: usize, folder: &Path) {
    let (severities, images) = (manifest.severities.len(), manifest.images);
    say!(
        "wrote {} of {} ({} of {images}), protocol {}, seed {}, to {}",
        counted(files, "file"),
        counted(severities * images, "image"),
        counted(severities, "severity"),
        manifest.protocol,
        manifest.seed,
        folder.display()
    );
    let other: Vec<&str> = manifest
        .files
        .iter()
        .filter(|file| !file.official_protocol)
        .map(|file| file.corruption.name())
        .collect();
    if !other.is_empty() {
        say!("not the published protocol, and marked so: {}", other.join(", "));
    }
    say!("use it as --data cifar10c:{} (cifar100c for 100 classes)", folder.display());
}

fn compare(
    data: &dyn Dataset,
    limit: Option<usize>,
    corruptor: &Corruptor,
    files: &[(Corruption, PathBuf)],
    interrupt: &Interrupt,
) -> Result<bool> {
    say!("gray levels from 0 to 255; `change` is the mean distance from the clean images, ours and theirs");
    say!(
        "{:<18} {:>8} {:>9} {:>8} {:>9} {:>10} {:>16}  ",
        "corruption",
        "severity",
        "mean",
        "largest",
        "differing",
        "beyond one",
        "change"
    );
    let mut agree = true;
    for (corruption, file) in files {
        interrupt.check("the comparison was not finished")?;
        for difference in verify(file, data, limit, corruptor, *corruption)? {
            print(&difference);
            agree &= difference.agrees();
        }
    }
    say!();
    say!(
        "Without randomness, `agrees` means at most 1 % of the values beyond one gray level; with it, the draws differ, and \
         `agrees` means a change within 5 % of the published one (snow, frost, spatter: 15 %)."
    );
    Ok(agree)
}

fn print(difference: &Difference) {
    let change = format!("{:.2} / {:.2}", difference.change, difference.published_change);
    say!(
        "{:<18} {:>8} {:>9.4} {:>8} {:>7.2} % {:>8.2} % {change:>16}  {}",
        difference.corruption,
        difference.severity,
        difference.mean,
        difference.largest,
        100.0 * difference.differing,
        100.0 * difference.beyond_one,
        if difference.agrees() { "agrees" } else { "DIFFERS" },
    );
}
