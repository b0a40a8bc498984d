//! `bandwise table`: what evaluations say, side by side.

use std::path::PathBuf;

use bandwise::evaluate::journal::Journal;
use bandwise::evaluate::overview::{self, Results, Source};
use bandwise::evaluate::sources;
use bandwise::evaluate::tables::robustbench;
use bandwise::{Error, Result};
use clap::Args;

use crate::arguments::each_once;
use crate::output;

/// Accuracy of one or several models, clean, under each attack and in the worst case.
///
/// Runs of one recipe that differ in their seed are one line: mean and 95 % interval over seeds. Later models are
/// compared with the first: by McNemar's test on the same images, or by Welch's t-test between seeds.
#[derive(Args)]
pub struct TableArguments {
    /// Journals, files that `evaluate --json` wrote, or run folders
    #[arg(required = true, value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// Compare with this one, too
    #[arg(long, value_name = "RESULTS")]
    against: Option<PathBuf>,
    /// Write the table as CSV; - is standard output
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write one journal as JSON in the shape of RobustBench; - is standard output
    #[arg(long, value_name = "FILE")]
    robustbench: Option<PathBuf>,
}

/// Runs `table`.
pub fn run(arguments: &TableArguments) -> Result<bool> {
    output::reserve(arguments.csv.iter().chain(&arguments.robustbench));
    let all: Vec<PathBuf> = arguments.results.iter().chain(&arguments.against).cloned().collect();
    let paths = each_once(&all);
    let mut sources = paths.iter().map(|path| Source::read(path)).collect::<Result<Vec<_>>>()?;
    if let Some((_, path)) = sources.iter().zip(&paths).find(|(source, _)| source.records.is_empty()) {
        return Err(Error::format(path, "there are no results in it"));
    }
    overview::tell_apart(sources.iter_mut(), &paths);
    let results = Results::collect(&overview::group(&sources));
    if let Some(path) = &arguments.robustbench {
        let [journal] = paths.as_slice() else {
            return Err(Error::config("--robustbench describes one model; name one journal"));
        };
        let journal = Journal::read(&sources::journal_of(journal)?)?;
        output::write_file(path, &format!("{:#}\n", robustbench(&journal)?))?;
    }
    if let Some(path) = &arguments.csv {
        output::write_file(path, &overview::csv(&results))?;
    }
    overview::lines(&results).iter().for_each(|line| say!("{line}"));
    let comparisons = overview::comparisons(&results);
    if !comparisons.is_empty() {
        say!();
        comparisons.iter().for_each(|line| say!("{line}"));
    }
    arguments.csv.iter().chain(&arguments.robustbench).for_each(|path| output::say_written(path));
    Ok(true)
}
