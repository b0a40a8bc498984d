//! `bandwise report`.

use std::path::PathBuf;

use bandwise::Result;
use bandwise::report::report_for_runs;
use clap::Args;

/// Make one self-contained HTML page out of one or several runs.
#[derive(Args)]
pub struct ReportArguments {
    /// Run folders, or folders that an analysis wrote
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page; by default report.html in the first folder
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &ReportArguments) -> Result<bool> {
    let path = arguments.out.clone().unwrap_or_else(|| arguments.runs[0].join("report.html"));
    report_for_runs(&arguments.runs)?.write(&path)?;
    say!("wrote {}", path.display());
    Ok(true)
}
