//! `bandwise data`.

use std::path::PathBuf;

use bandwise::data::fetch::{self, FetchOptions, Progress, SOURCES};
use bandwise::data::spec::FORMATS;
use bandwise::data::statistics::Statistics;
use bandwise::data::{DataSpec, Split};
use bandwise::wording::{counted, visible};
use bandwise::{Error, Interrupt, Result};
use clap::{Args, Subcommand};

use crate::arguments::{SplitArgument, data_spec};
use crate::progress;

/// Look at data sets, fetch them.
#[derive(Args)]
pub struct DataArguments {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Print counts, size, mean, deviation, mean spectrum and class balance of a data set
    Info {
        /// cifar10:DIR, imagefolder:DIR, synthetic[:key=value,…], …; `data list` shows all
        #[arg(value_parser = data_spec)]
        spec: DataSpec,
        /// Which part; both if not given
        #[arg(long, value_enum)]
        split: Option<SplitArgument>,
        /// Only the first N images
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Download a published data set: checked, resumed where it stopped, unpacked
    Fetch {
        /// Which one, as `data list` names it
        name: String,
        /// Folder in which its folder is made
        #[arg(long, value_name = "DIR", default_value = "data")]
        out: PathBuf,
        /// Take the files from URL/FILE instead of their publishers
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Keep archives after unpacking
        #[arg(long)]
        keep_archives: bool,
    },
    /// List the formats that --data reads and the data sets that `data fetch` knows
    List,
}

/// Runs the command.
pub fn run(arguments: &DataArguments, interrupt: &Interrupt) -> Result<bool> {
    match &arguments.command {
        DataCommand::Info { spec, split, limit } => info(spec, *split, *limit),
        DataCommand::Fetch { name, out, mirror, keep_archives } => {
            let options = FetchOptions { mirror: mirror.clone(), keep_archives: *keep_archives };
            fetch(name, out, &options, interrupt)
        }
        DataCommand::List => list(),
    }
}

fn list() -> Result<bool> {
    say!("Formats, named as in --data NAME:{{DIR,FILE}}[,key=value…]:");
    say!("  {:15} built in; textures and shapes, no download", "synthetic");
    for format in FORMATS {
        say!("  {:15} {}", format.name, format.help);
        for (key, meaning) in format.options {
            say!("  {:15}   {key}=…  {meaning}", "");
        }
    }
    say!();
    say!("Data sets that `data fetch NAME` downloads:");
    for source in SOURCES {
        say!("  {:15} {}; {}", source.name, source.description, source.homepage);
    }
    Ok(true)
}

fn fetch(name: &str, out: &std::path::Path, options: &FetchOptions, interrupt: &Interrupt) -> Result<bool> {
    let source = fetch::find(name)?;
    say!("{}: {}; terms of use at {}", source.name, source.description, source.homepage);
    let bar = progress::bar(name, 0);
    let spec = fetch::fetch(source, out, options, &mut |step| {
        match step {
            Progress::Downloading { file, done, total } => {
                // Whole megabytes: what a reader can follow.
                bar.set_length(total.unwrap_or(done) / 1_000_000);
                bar.set_position(done / 1_000_000);
                bar.set_message(format!("MB of {file}"));
            }
            Progress::Checking { file } => bar.suspend(|| note!("{file}: checking")),
            Progress::Unpacking { file } => bar.suspend(|| note!("{file}: unpacking")),
            Progress::Present { file } => bar.suspend(|| note!("{file}: already there")),
            Progress::Unverified { file, sha256 } => {
                bar.suspend(|| note!("{file}: its publisher gives no checksum; SHA-256 {sha256}"));
            }
        }
        interrupt.check("the same command goes on where it stopped")
    })?;
    bar.finish_and_clear();
    say!("use it as --data {spec}");
    Ok(true)
}

fn info(spec: &DataSpec, split: Option<SplitArgument>, limit: Option<usize>) -> Result<bool> {
    let splits = match split {
        Some(split) => vec![Split::from(split)],
        None => vec![Split::Train, Split::Test],
    };
    let mut missing: Option<(Split, Error)> = None;
    for split in &splits {
        match spec.open(*split) {
            Ok(dataset) => print(*split, &Statistics::of(dataset.as_ref(), limit)?),
            // Sets that consist of one part only have no training or no test split.
            Err(error) if splits.len() > 1 && missing.is_none() => missing = Some((*split, error)),
            Err(error) => return Err(error),
        }
    }
    if let Some((split, error)) = missing {
        say!("{split}: not available ({error})");
    }
    Ok(true)
}

/// The set's name with its split, which most names say already.
fn titled(name: &str, split: Split) -> String {
    if name.ends_with(')') { name.to_owned() } else { format!("{name} ({split})") }
}

fn print(split: Split, statistics: &Statistics) {
    let row = |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
    let size = |[height, width]: [usize; 2]| format!("{height}×{width}");
    say!("{}", titled(&statistics.name, split));
    say!("  images       {}", statistics.images);
    if statistics.smallest == statistics.largest {
        say!("  size         {}", size(statistics.smallest));
    } else {
        say!("  size         {} to {}", size(statistics.smallest), size(statistics.largest));
    }
    say!("  mean         {}", row(&statistics.mean));
    say!("  deviation    {}   (over {})", row(&statistics.std), counted(statistics.images_read, "image"));
    if let Some(rings) = &statistics.radial_amplitude {
        say!("  spectrum     mean amplitude at 0, 1, 2, 4, 8, … cycles per image:");
        let shown = |ring: usize| rings.get(ring).map(|value| format!("{value:.2}"));
        let powers = (0..16).map_while(|power| shown(1 << power));
        say!("               {}", shown(0).into_iter().chain(powers).collect::<Vec<_>>().join(", "));
    }
    say!("  fingerprint  {}", statistics.fingerprint);
    say!("  classes      {}", statistics.class_names.len());
    // As they are printed: what would act on the terminal is longer as an escape.
    let names: Vec<_> = statistics.class_names.iter().map(|name| visible(name)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let digits = statistics.class_counts.iter().map(|count| count.to_string().len()).max().unwrap_or(0);
    for (name, count) in names.iter().zip(&statistics.class_counts) {
        say!("    {name:width$}  {count:>digits$}");
    }
}
