//! `bandwise corrupt`: corrupted sets as files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bandwise::corruption::export::{Progress, export};
use bandwise::corruption::verify::{Difference, verify};
use bandwise::corruption::{Corruption, Corruptor, Protocol, Severity};
use bandwise::data::{DataSpec, Dataset, Split};
use bandwise::wording::counted;
use bandwise::{Error, Result};
use clap::Args;

use super::corruptions::corruptor;
use crate::arguments::{SplitArgument, data_spec};
use crate::progress;

/// Write corrupted versions of a data set as files in the layout of CIFAR-10-C, or compare with published ones.
///
/// Writes NAME.npy (uint8, all pictures of the first severity first), labels.npy and corruptions.json, which says how they
/// were made. A call that was stopped goes on with the next file. The files are read back as --data cifar10c:DIR.
#[derive(Args)]
pub struct CorruptArguments {
    /// The clean set: cifar10:DIR, imagefolder:DIR,size=64, synthetic, …; `data list` shows all
    #[arg(value_name = "DATA", value_parser = data_spec)]
    data: DataSpec,
    /// Folder for the files
    #[arg(long, value_name = "DIR", required_unless_present = "verify")]
    out: Option<PathBuf>,
    /// Names, main (15), extra (4) or all (19); several with commas or by repeating
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "all")]
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
    /// Only the first N pictures
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// A published NAME.npy, or a folder of them, made of the same clean set: report how far ours are from it
    #[arg(long, value_name = "PUBLISHED")]
    verify: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &CorruptArguments, interrupt: &AtomicBool) -> Result<bool> {
    let corruptions = Corruption::parse_list(&arguments.corruption)?;
    let severities = Severity::parse_list(&arguments.severity.join(","))?;
    let data = arguments.data.open(Split::from(arguments.split))?;
    let corruptor = corruptor(data.as_ref(), arguments.protocol, arguments.seed, arguments.frost.as_deref())?;
    let [height, width, _] = data.first_shape()?;
    let side = corruptor.protocol().side();
    if (height, width) != (side, side) {
        note!(
            "note: the {} protocol was made for {side}×{side} pixels, the pictures are {height}×{width}",
            corruptor.protocol()
        );
    }
    if let Some(folder) = &arguments.out {
        write(arguments, data.as_ref(), &corruptor, &corruptions, &severities, folder, interrupt)?;
    }
    match &arguments.verify {
        Some(published) => compare(arguments, data.as_ref(), &corruptor, &corruptions, published, interrupt),
        None => Ok(true),
    }
}

fn write(
    arguments: &CorruptArguments,
    data: &dyn Dataset,
    corruptor: &Corruptor,
    corruptions: &[Corruption],
    severities: &[Severity],
    folder: &Path,
    interrupt: &AtomicBool,
) -> Result<()> {
    let images = arguments.limit.unwrap_or(usize::MAX).min(data.len());
    let bar = progress::bar("corrupting", corruptions.len() * severities.len() * images);
    let per_file = severities.len() * images;
    let mut current = None;
    let manifest = export(data, arguments.limit, corruptor, corruptions, severities, folder, &mut |step| {
        match step {
            Progress::Made(corruption, severity, count) => {
                if current.replace(corruption) != Some(corruption) {
                    bar.suspend(|| note!("{corruption}.npy"));
                }
                bar.inc(count as u64);
                bar.set_message(format!("{corruption} {severity}"));
            }
            Progress::Present(corruption) => {
                bar.inc(per_file as u64);
                bar.suspend(|| note!("{corruption}.npy: already there"));
            }
        }
        match interrupt.load(Ordering::Relaxed) {
            true => {
                Err(Error::Interrupted("whole files are kept; the same command goes on with the next".into()))
            }
            false => Ok(()),
        }
    });
    bar.finish_and_clear();
    let manifest = manifest?;
    say!(
        "wrote {} of {} ({} of {images}), protocol {}, seed {}, to {}",
        counted(corruptions.len(), "file"),
        counted(per_file, "image"),
        counted(severities.len(), "severity"),
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
    Ok(())
}

/// The published file of a corruption.
fn file_of(published: &Path, corruption: Corruption) -> PathBuf {
    if published.is_dir() { published.join(format!("{corruption}.npy")) } else { published.to_path_buf() }
}

/// What to compare: all that is asked for and there; a single file has one corruption in its name.
fn comparable(
    arguments: &CorruptArguments,
    corruptions: &[Corruption],
    published: &Path,
) -> Result<Vec<Corruption>> {
    if published.is_dir() {
        let there: Vec<_> =
            corruptions.iter().copied().filter(|&c| file_of(published, c).is_file()).collect();
        return match there.is_empty() {
            true => Err(Error::format(
                published,
                "none of the corruptions is there as NAME.npy; sets of picture files (TinyImageNet-C, ImageNet-C) were \
                 saved as JPEG and cannot be compared by pixels",
            )),
            false => Ok(there),
        };
    }
    match corruptions {
        [one] => Ok(vec![*one]),
        _ if arguments.corruption == ["all"] => {
            let stem =
                published.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let named = stem.parse().map_err(|_| {
                Error::format(
                    published,
                    "its name is no corruption's; say which one it is with --corruption NAME",
                )
            })?;
            Ok(vec![named])
        }
        _ => Err(Error::format(published, "one file has one corruption; name one, or a folder")),
    }
}

fn compare(
    arguments: &CorruptArguments,
    data: &dyn Dataset,
    corruptor: &Corruptor,
    corruptions: &[Corruption],
    published: &Path,
    interrupt: &AtomicBool,
) -> Result<bool> {
    let corruptions = comparable(arguments, corruptions, published)?;
    say!("grey levels from 0 to 255; `change` is the mean distance from the clean pictures, ours and theirs");
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
    for corruption in corruptions {
        if interrupt.load(Ordering::Relaxed) {
            return Err(Error::Interrupted("the comparison was not finished".into()));
        }
        let file = file_of(published, corruption);
        for difference in verify(&file, data, arguments.limit, corruptor, corruption)? {
            print(&difference);
            agree &= difference.agrees();
        }
    }
    say!();
    say!(
        "Without randomness, `agrees` means at most 1 % of the values beyond one grey level; with it, the draws differ, and \
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
