//! The folders that evaluations and analyses leave: records, CSV, sections, figures and the page made of them.

use std::path::{Path, PathBuf};

use super::{Report, report_for_runs};
use crate::analyze::{Findings, corruptions};
use crate::evaluate::record::{self, Record};
use crate::outputs::{self, Kind};
use crate::{Result, files};

/// Refuses a folder with files of others under the names that every analysis writes; to be asked before anything is
/// computed.
///
/// # Errors
/// See [`outputs::check`].
pub fn check_folder(folder: &Path) -> Result<()> {
    outputs::check(&folder.join("report.html"), &Kind::Page)?;
    outputs::check(&folder.join("results.jsonl"), &Kind::Json("metric".into()))
}

/// [`check_folder`], and the table that [`write_corruptions`] adds.
///
/// # Errors
/// See [`outputs::check`].
pub fn check_corruptions_folder(folder: &Path) -> Result<()> {
    check_folder(folder)?;
    match Kind::of(corruptions::csv(&[]).as_bytes()) {
        Some(kind) => outputs::check(&folder.join("corruptions.csv"), &kind),
        None => Ok(()),
    }
}

/// Writes what an analysis found: `NAME.csv`, `results.jsonl` (replacing an earlier one), `sections/NAME.json`, which
/// [`report_for_runs`] collects, `figures/` and `report.html`, whose path is returned.
///
/// # Errors
/// If a file cannot be written.
pub fn write_analysis(folder: &Path, findings: &Findings) -> Result<PathBuf> {
    for (name, csv) in &findings.tables {
        outputs::replace(&folder.join(format!("{name}.csv")), csv.as_bytes())?;
    }
    write_records(folder, &findings.records)?;
    let mut report = Report::new(&*findings.title);
    for (name, section) in &findings.sections {
        section.write_json(&folder.join("sections").join(format!("{name}.json")))?;
        report.push(section.clone());
    }
    write_page(folder, &report)
}

/// Writes what an evaluation under corruptions found into the folder that kept its records: `results.jsonl`,
/// `corruptions.csv`, `sections/corruptions.json`, `figures/` and `report.html`, whose path is returned.
///
/// # Errors
/// If a file cannot be written.
pub fn write_corruptions(folder: &Path, records: &[Record]) -> Result<PathBuf> {
    write_records(folder, records)?;
    outputs::replace(&folder.join("corruptions.csv"), corruptions::csv(records).as_bytes())?;
    corruptions::section(records).write_json(&folder.join("sections/corruptions.json"))?;
    write_page(folder, &report_for_runs(&[folder.to_path_buf()])?)
}

/// `results.jsonl`, replacing an earlier one.
fn write_records(folder: &Path, records: &[Record]) -> Result<()> {
    let path = folder.join("results.jsonl");
    files::write_atomic(&path, record::to_jsonl(&path, records)?.as_bytes())
}

fn write_page(folder: &Path, report: &Report) -> Result<PathBuf> {
    let page = folder.join("report.html");
    report.write(&page)?;
    report.write_figures(&folder.join("figures"))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::Section;

    #[test]
    fn a_folder_holds_what_was_found_and_replaces_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let found = |value| Findings {
            records: vec![Record::scalar("gradient_norm", value)],
            ..Findings::new("Gradients")
                .table("gradients", "a,b\n".into())
                .section("gradients", Section::new("Spectra").text("two"))
        };
        write_analysis(folder.path(), &found(1.0)).unwrap();
        let page = write_analysis(folder.path(), &found(2.0)).unwrap();
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("<title>Gradients") && page.contains("Spectra"), "{page}");
        let records = record::read(&folder.path().join("results.jsonl")).unwrap();
        assert_eq!(records.iter().map(|record| record.value).collect::<Vec<_>>(), [2.0]);
        for file in ["gradients.csv", "sections/gradients.json"] {
            assert!(folder.path().join(file).is_file(), "{file}");
        }
        // The folder is a run of `report`.
        assert!(!report_for_runs(&[folder.path().to_path_buf()]).unwrap().sections().is_empty());
    }
}
