//! `bandwise merge`: one journal out of those of shares.

use std::path::PathBuf;

use bandwise::Result;
use bandwise::evaluate::journal::{Journal, merge};
use bandwise::evaluate::tables::{Row, rows};
use clap::Args;

/// Put the journals of shares together.
///
/// They must belong to one evaluation and cover every image and attack; the result equals the journal of an
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

/// Runs `merge`.
pub fn run(arguments: &MergeArguments) -> Result<bool> {
    let journal = merge(&arguments.journals, &arguments.out)?;
    print(&rows(&journal)?);
    warn(&journal);
    say!("wrote {}", arguments.out.display());
    Ok(true)
}

/// What a reader of the table must know.
fn warn(journal: &Journal) {
    for noted in journal.warnings() {
        note!("warning: {noted}");
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
            row.protocol
        );
    }
}
