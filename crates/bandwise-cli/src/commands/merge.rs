//! `bandwise merge` and `bandwise table`: what journals of evaluations say.

use std::path::PathBuf;

use bandwise::Result;
use bandwise::evaluate::journal::{Journal, merge};
use bandwise::evaluate::tables::{Row, WORST_CASE, compare, robustbench, rows, to_csv, warnings};
use clap::Args;

use crate::output;

/// Put the journals of shares together.
///
/// They must belong to one evaluation and cover every picture and attack; the result equals the journal of an
/// uninterrupted run.
#[derive(Args)]
pub struct MergeArguments {
    /// Journals that `bandwise evaluate --journal` wrote
    #[arg(required = true, value_name = "JOURNAL")]
    journals: Vec<PathBuf>,
    /// The whole journal
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Accuracy alone and in the worst case, from a journal; or two models on the same pictures.
#[derive(Args)]
pub struct TableArguments {
    /// A journal that `bandwise evaluate --journal` or `bandwise merge` wrote
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
    /// Compare with this one, by McNemar's paired test
    #[arg(long, value_name = "JOURNAL")]
    against: Option<PathBuf>,
    /// Write the table as CSV; - is standard output
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write it as JSON in the shape of RobustBench; - is standard output
    #[arg(long, value_name = "FILE")]
    robustbench: Option<PathBuf>,
}

/// Runs `merge`.
pub fn run(arguments: &MergeArguments) -> Result<bool> {
    let journal = merge(&arguments.journals, &arguments.out)?;
    print(&rows(&journal)?);
    warn(&journal);
    say!("wrote {}", arguments.out.display());
    Ok(true)
}

/// Runs `table`.
pub fn table(arguments: &TableArguments) -> Result<bool> {
    output::reserve(arguments.csv.iter().chain(&arguments.robustbench));
    let journal = Journal::read(&arguments.journal)?;
    let rows = rows(&journal)?;
    if let Some(path) = &arguments.csv {
        output::write_file(path, &to_csv(&rows))?;
    }
    if let Some(path) = &arguments.robustbench {
        output::write_file(path, &format!("{:#}\n", robustbench(&journal)?))?;
    }
    let other = arguments.against.as_deref().map(Journal::read).transpose()?;
    let comparison = other.map(|other| compare(&journal, &other)).transpose()?;
    print(&rows);
    warn(&journal);
    if let Some(comparison) = comparison {
        say!();
        for line in comparison {
            let [low, high] = line.test.difference_ci95;
            say!(
                "{:<20} {:6.2} % against {:6.2} %: difference {:+.2} (95 % interval {:+.2} to {:+.2}), p = {:.3}",
                line.attack,
                100.0 * line.first,
                100.0 * line.second,
                100.0 * line.test.difference,
                100.0 * low,
                100.0 * high,
                line.test.p_mid,
            );
        }
    }
    arguments.csv.iter().chain(&arguments.robustbench).for_each(|path| output::say_written(path));
    Ok(true)
}

/// What a reader of the table must know.
fn warn(journal: &Journal) {
    for warning in warnings(journal, WORST_CASE) {
        note!("warning: {warning}");
    }
}

fn print(rows: &[Row]) {
    for row in rows {
        say!(
            "{:<20} {:6.2} % ({} of {}, 95 % interval {:.2} to {:.2} %)  {}",
            row.attack,
            100.0 * row.accuracy(),
            row.correct,
            row.total,
            100.0 * row.ci95[0],
            100.0 * row.ci95[1],
            row.bound
        );
    }
}
