//! Where the page of runs goes, so that no other file is lost.

use std::path::{Path, PathBuf};

use super::{Report, report_for_runs};
use crate::{Error, Result};

/// Makes one page out of runs and writes it to `out` or, without that, beside the first of them; returns its path.
///
/// # Errors
/// If a run cannot be read, or the page would replace a file that cannot be made again from records: see
/// [`Report::is_made_from_records`].
pub fn write_report(runs: &[PathBuf], out: Option<&Path>) -> Result<PathBuf> {
    let report = report_for_runs(runs)?;
    let path = match out {
        Some(path) => asked_for(path)?,
        None => default_page(&runs[0])?,
    };
    report.write(&path)?;
    Ok(path)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::record::{self, Record};

    #[test]
    fn pages_replace_nothing_but_pages_of_records() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [folder.path().to_path_buf()];
        record::append_jsonl(&folder.path().join("results.jsonl"), &[Record::accuracy(&[true])]).unwrap();
        let page = write_report(&runs, None).unwrap();
        assert_eq!(page, folder.path().join("report.html"));
        assert_eq!(write_report(&runs, None).unwrap(), page);

        let weights = folder.path().join("model.safetensors");
        std::fs::write(&weights, b"weights").unwrap();
        let message = write_report(&runs, Some(&weights)).unwrap_err().to_string();
        assert!(message.contains("no HTML page"), "{message}");
        Report::new("an analysis").write(&page).unwrap();
        let message = write_report(&runs, None).unwrap_err().to_string();
        assert!(message.contains("page of another command"), "{message}");
    }
}
