//! The folders that evaluations and analyses leave: records, CSV, sections, figures and the page made of them.

use std::path::{Path, PathBuf};

use super::{Report, report_for_runs};
use crate::analyze::{Findings, corruptions};
use crate::evaluate::record::{self, Record};
use crate::lock::Lock;
use crate::outputs::{self, Kind};
use crate::wording::counted;
use crate::{Error, Result, files};

/// Refuses a folder with files of others under the names that every analysis writes, or with the results of another
/// analysis; to be asked before anything is computed. `sections` are those that the analysis may write, the first of which
/// is always there: `analyze::heatmap::SECTIONS` and the like.
///
/// # Errors
/// See [`outputs::check`]; [`Error::Config`] naming what is there.
pub fn check_folder(folder: &Path, sections: &[&str]) -> Result<()> {
    check_names(folder)?;
    let there = sections_in(folder);
    let foreign: Vec<&str> =
        there.iter().map(String::as_str).filter(|name| !sections.contains(name)).collect();
    match sections.first() {
        Some(first) if foreign.is_empty() && there.iter().any(|name| name == first) => Ok(()),
        _ => refuse_results(folder, &foreign),
    }
}

/// Files of others under the names that every analysis writes.
fn check_names(folder: &Path) -> Result<()> {
    outputs::check(&folder.join("report.html"), &Kind::Page)?;
    outputs::check(&folder.join("results.jsonl"), &Kind::Json("metric".into()))
}

/// Refuses the sections of another analysis or, without sections, records of something else.
fn refuse_results(folder: &Path, sections: &[&str]) -> Result<()> {
    let results = folder.join("results.jsonl");
    let is_empty = std::fs::metadata(&results).map_or(true, |data| data.len() == 0);
    let what = match sections {
        [] if is_empty => return Ok(()),
        [] => {
            let records = record::read(&results)?;
            let Some(record) = records.first() else { return Ok(()) };
            format!(
                "other results ({}: {})",
                counted(records.len(), "record"),
                record.metric.replace('_', " ")
            )
        }
        names => format!("the results of another analysis ({})", names.join(", ")),
    };
    Err(Error::config(format!(
        "{} holds {what}, which this one would replace; name another folder, for example --out {}-2",
        folder.display(),
        folder.display()
    )))
}

/// Names of the sections that analyses have left in a folder.
fn sections_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("sections")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// The same for [`write_corruptions`]; records without a section are those of an evaluation that was stopped, which the
/// evaluation itself compares with its own.
///
/// # Errors
/// See [`check_folder`].
pub fn check_corruptions_folder(folder: &Path) -> Result<()> {
    check_names(folder)?;
    let there = sections_in(folder);
    let foreign: Vec<&str> = there.iter().map(String::as_str).filter(|name| *name != "corruptions").collect();
    if !foreign.is_empty() {
        refuse_results(folder, &foreign)?;
    }
    match Kind::of(corruptions::csv(&[]).as_bytes()) {
        Some(kind) => outputs::check(&folder.join("corruptions.csv"), &kind),
        None => Ok(()),
    }
}

/// Writes what an analysis found: `NAME.csv`, `results.jsonl` (replacing an earlier one), `sections/NAME.json`, which
/// [`report_for_runs`] collects, `figures/` and `report.html`, whose path is returned.
///
/// # Errors
/// If a file cannot be written, another process writes the folder, or it holds results of another analysis.
pub fn write_analysis(folder: &Path, findings: &Findings) -> Result<PathBuf> {
    let names: Vec<&str> = findings.sections.iter().map(|(name, _)| name.as_str()).collect();
    let there = sections_in(folder);
    if !there.iter().any(|name| names.contains(&name.as_str())) {
        refuse_results(folder, &there.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    AnalysisFolder { path: folder.to_path_buf(), _lock: Lock::folder(folder)? }.write(findings)
}

/// A folder that is kept for one analysis, from before it computes until its files are written.
#[derive(Debug)]
pub struct AnalysisFolder {
    path: PathBuf,
    _lock: Lock,
}

impl AnalysisFolder {
    /// Keeps the folder for the analysis with these sections ([`check_folder`]).
    ///
    /// # Errors
    /// [`check_folder`]; [`Error::Config`] if another process writes the folder.
    pub fn reserve(folder: &Path, sections: &[&str]) -> Result<Self> {
        let lock = Lock::folder(folder)?;
        check_folder(folder, sections)?;
        Ok(Self { path: folder.to_path_buf(), _lock: lock })
    }

    /// What [`write_analysis`] writes.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, findings: &Findings) -> Result<PathBuf> {
        write_files(&self.path, findings)
    }
}

fn write_files(folder: &Path, findings: &Findings) -> Result<PathBuf> {
    for (name, csv) in &findings.tables {
        outputs::replace(&folder.join(format!("{name}.csv")), csv.as_bytes())?;
    }
    let mut report = Report::new(&*findings.title);
    for (name, section) in &findings.sections {
        section.write_json(&folder.join("sections").join(format!("{name}.json")))?;
        report.push(section.clone());
    }
    // Sections first: they tell whose records these are.
    write_records(folder, &findings.records)?;
    write_page(folder, &report)
}

/// Writes what an evaluation under corruptions found into the folder that kept its records: `results.jsonl`,
/// `corruptions.csv`, `sections/corruptions.json`, `figures/` and `report.html`, whose path is returned.
///
/// # Errors
/// If a file cannot be written.
pub fn write_corruptions(folder: &Path, records: &[Record]) -> Result<PathBuf> {
    let _lock = Lock::folder(folder)?;
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
        // Another analysis replaces nothing of it, before it computes or after.
        let other = Findings { title: "Other".into(), ..found(3.0) };
        let other = Findings { sections: vec![("other".into(), Section::new("Other"))], ..other };
        for message in [
            check_folder(folder.path(), &["other"]).unwrap_err().to_string(),
            check_corruptions_folder(folder.path()).unwrap_err().to_string(),
            write_analysis(folder.path(), &other).unwrap_err().to_string(),
        ] {
            assert!(
                message.contains("another analysis (gradients)") && message.contains("--out"),
                "{message}"
            );
        }
        check_folder(folder.path(), &["gradients"]).unwrap();
        // Nor of a training run, which has records but no section.
        let run = folder.path().join("run");
        write_records(&run, &[Record::accuracy(&[true])]).unwrap();
        let message = check_folder(&run, &["gradients"]).unwrap_err().to_string();
        assert!(message.contains("1 record: accuracy"), "{message}");
        check_folder(&folder.path().join("new"), &["gradients"]).unwrap();
        // One writer at a time.
        let reserved = AnalysisFolder::reserve(folder.path(), &["gradients"]).unwrap();
        for message in [
            AnalysisFolder::reserve(folder.path(), &["gradients"]).unwrap_err().to_string(),
            write_analysis(folder.path(), &found(3.0)).unwrap_err().to_string(),
            write_corruptions(folder.path(), &[]).unwrap_err().to_string(),
        ] {
            assert!(message.contains("is being written by process"), "{message}");
        }
        reserved.write(&found(2.0)).unwrap();
        // The folder is a run of `report`.
        assert!(!report_for_runs(&[folder.path().to_path_buf()]).unwrap().sections().is_empty());
    }
}
