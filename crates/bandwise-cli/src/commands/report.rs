//! `bandwise report`.

use std::path::{Path, PathBuf};

use bandwise::evaluate::overview;
use bandwise::report::{Report, report_for_runs};
use bandwise::{Error, Result};
use clap::Args;

/// Make one self-contained HTML page out of one or several runs.
///
/// Runs that differ in their seed alone are shown as one configuration: mean and 95 % interval over seeds.
#[derive(Args)]
pub struct ReportArguments {
    /// Run folders, folders that an analysis wrote, journals, or files of `--json`
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page; by default report.html in the first folder, unless another command wrote that
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &ReportArguments) -> Result<bool> {
    let runs = each_once(&arguments.runs);
    let report = report_for_runs(&runs)?;
    let path = match &arguments.out {
        Some(path) => asked_for(path)?,
        None => default_page(&arguments.runs[0])?,
    };
    report.write(&path)?;
    say!("wrote {}", path.display());
    Ok(true)
}

/// What was named, without what was named before; says so.
pub(super) fn each_once(paths: &[PathBuf]) -> Vec<PathBuf> {
    let (kept, left_out) = overview::distinct(paths);
    for path in left_out {
        note!("note: {} is named more than once; it is shown once", path.display());
    }
    kept
}

/// The page that belongs to a run, if nothing is lost by writing it.
fn default_page(run: &Path) -> Result<PathBuf> {
    let path = if run.is_dir() { run.join("report.html") } else { run.with_extension("html") };
    not_of_another_command(&path)?;
    Ok(path)
}

/// The page that was named: a slip must not replace weights or data.
fn asked_for(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        return Err(Error::config(format!("{} is a folder; --out names a file", path.display())));
    }
    if path.exists() && !Report::is_page(path)? {
        return Err(Error::config(format!(
            "{} is there already and is no HTML page; it is not replaced",
            path.display()
        )));
    }
    not_of_another_command(path)?;
    Ok(path.to_path_buf())
}

fn not_of_another_command(path: &Path) -> Result<()> {
    if path.exists() && !Report::is_made_from_records(path)? {
        return Err(Error::config(format!(
            "{} is the page of another command, and is not replaced; name the new page with --out FILE",
            path.display()
        )));
    }
    Ok(())
}
