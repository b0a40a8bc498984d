//! `bandwise report`.

use std::path::PathBuf;

use bandwise::Result;
use bandwise::report::write_report;
use clap::Args;

use crate::arguments::each_once;

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
    let path = write_report(&each_once(&arguments.runs), arguments.out.as_deref())?;
    say!("wrote {}", path.display());
    Ok(true)
}
