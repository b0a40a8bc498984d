//! `bandwise data`.

use bandwise::Result;
use bandwise::data::statistics::Statistics;
use bandwise::data::{DataSpec, Split};
use clap::{Args, Subcommand};

use crate::arguments::{SplitArgument, data_spec};

/// Look at data sets.
#[derive(Args)]
pub struct DataArguments {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Print counts, size, mean, deviation and class balance of a data set
    Info {
        /// cifar10:DIR, cifar100:DIR, cifar10-bin:FILE, idx:DIR, imagefolder:DIR, npy:DIR, synthetic[:key=value,…]
        #[arg(value_parser = data_spec)]
        spec: DataSpec,
        /// Which part; both if not given
        #[arg(long, value_enum)]
        split: Option<SplitArgument>,
        /// Only the first N pictures
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
}

/// Runs the command.
pub fn run(arguments: &DataArguments) -> Result<bool> {
    let DataCommand::Info { spec, split, limit } = &arguments.command;
    let splits = match split {
        Some(split) => vec![Split::from(*split)],
        None => vec![Split::Train, Split::Test],
    };
    let mut shown = 0;
    for split in &splits {
        match spec.open(*split) {
            Ok(dataset) => {
                print(*split, &Statistics::of(dataset.as_ref(), *limit)?);
                shown += 1;
            }
            // Sets that consist of one part only have no training or no test split.
            Err(error) if splits.len() > 1 && !(shown == 0 && *split == Split::Test) => {
                println!("{split}: not available ({error})");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn print(split: Split, statistics: &Statistics) {
    let row = |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
    let size = |[height, width]: [usize; 2]| format!("{height}×{width}");
    println!("{} ({split} split)", statistics.name);
    println!("  pictures     {}", statistics.images);
    if statistics.smallest == statistics.largest {
        println!("  size         {}", size(statistics.smallest));
    } else {
        println!("  size         {} to {}", size(statistics.smallest), size(statistics.largest));
    }
    println!("  mean         {}", row(&statistics.mean));
    println!("  deviation    {}   (over {} pictures)", row(&statistics.std), statistics.images_read);
    println!("  fingerprint  {}", statistics.fingerprint);
    println!("  classes      {}", statistics.class_names.len());
    let width = statistics.class_names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, count) in statistics.class_names.iter().zip(&statistics.class_counts) {
        println!("    {name:width$}  {count}");
    }
}
