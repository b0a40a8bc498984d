//! `bandwise merge` and `bandwise table`: what journals of evaluations say.

use std::path::PathBuf;

use bandwise::Result;
use bandwise::evaluate::journal::{Journal, merge};
use bandwise::evaluate::tables::{Row, compare, robustbench, rows, to_csv};
use bandwise::files;
use clap::Args;

/// Put the journals of shares together.
///
/// They must belong to one evaluation and cover every picture and attack; the result equals the journal of an
/// uninterrupted run.
#[derive(Args)]
pub struct MergeArguments {
    /// Journals that `bandwise evaluate --results` wrote
    #[arg(required = true, value_name = "JOURNAL")]
    journals: Vec<PathBuf>,
    /// The whole journal
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Accuracy alone and in the worst case, from a journal; or two models on the same pictures.
#[derive(Args)]
pub struct TableArguments {
    /// A journal that `bandwise evaluate --results` or `bandwise merge` wrote
    #[arg(value_name = "JOURNAL")]
    journal: PathBuf,
    /// Compare with this one, by McNemar's paired test
    #[arg(long, value_name = "JOURNAL")]
    against: Option<PathBuf>,
    /// Write the table as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write it as JSON in the shape of RobustBench
    #[arg(long, value_name = "FILE")]
    robustbench: Option<PathBuf>,
}

/// Runs `merge`.
pub fn run(arguments: &MergeArguments) -> Result<bool> {
    let journal = merge(&arguments.journals, &arguments.out)?;
    print(&rows(&journal)?);
    println!("wrote {}", arguments.out.display());
    Ok(true)
}

/// Runs `table`.
pub fn table(arguments: &TableArguments) -> Result<bool> {
    let journal = Journal::read(&arguments.journal)?;
    let rows = rows(&journal)?;
    print(&rows);
    if let Some(other) = &arguments.against {
        println!();
        for line in compare(&journal, &Journal::read(other)?)? {
            let [low, high] = line.test.difference_ci95;
            println!(
                "{:<16} {:6.2} % against {:6.2} %: difference {:+.2} (95 % interval {:+.2} to {:+.2}), p = {:.3}",
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
    if let Some(path) = &arguments.csv {
        files::write_atomic(path, to_csv(&rows).as_bytes())?;
        println!("wrote {}", path.display());
    }
    if let Some(path) = &arguments.robustbench {
        let text = format!("{:#}\n", robustbench(&journal)?);
        files::write_atomic(path, text.as_bytes())?;
        println!("wrote {}", path.display());
    }
    Ok(true)
}

fn print(rows: &[Row]) {
    for row in rows {
        println!(
            "{:<16} {:6.2} % ({} of {}, 95 % interval {:.2} to {:.2} %)  {}",
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
