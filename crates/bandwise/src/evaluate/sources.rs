//! Records out of whatever holds them: `results.jsonl`, `evaluate --json`, journals, run folders.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::journal::Journal;
use super::record::{self, Record};
use super::tables;
use crate::wording::counted;
use crate::{Error, Result, files};

/// Files that hold nothing but results, by name; another file's content decides.
const RESULTS: [&str; 3] = ["results.jsonl", "results.json", "records.json"];

/// The records of a file, be it a list of records or the journal of an evaluation.
///
/// # Errors
/// When it cannot be read or holds neither.
pub fn records_of_file(path: &Path) -> Result<Vec<Record>> {
    let records = record::read(path)?;
    if records.is_empty() && is_journal(path)? {
        let journal = Journal::read(path)?;
        return tables::records(&journal, &tables::provenance(journal.header()));
    }
    Ok(records)
}

/// The records of all result files in a folder: those of the usual names, other `.json` files with records, and journals
/// where there is nothing else.
///
/// # Errors
/// When a file that holds results is damaged.
pub fn records_of_folder(folder: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut journals = Vec::new();
    for path in result_files(folder)? {
        if is_journal(&path)? {
            journals.push(path);
        } else {
            records.extend(record::read(&path)?);
        }
    }
    // The same evaluation often leaves its records beside its journal.
    for path in journals {
        let own = record::read(&path)?;
        match (own.is_empty(), records.is_empty()) {
            (false, _) => records.extend(own),
            (true, true) => records.extend(records_of_file(&path)?),
            (true, false) => {}
        }
    }
    Ok(records)
}

/// The records of a file or of all result files in a folder.
///
/// # Errors
/// When there are none, or a file is damaged.
pub fn records_of(path: &Path) -> Result<Vec<Record>> {
    let records = if path.is_dir() { records_of_folder(path)? } else { records_of_file(path)? };
    if records.is_empty() {
        let expected = "no results in it; name a journal, a file that `--json` wrote, or the folder of a run";
        return Err(Error::format(path, expected));
    }
    Ok(records)
}

/// The journal that a path means: the file, or the only journal in a folder.
///
/// # Errors
/// For a folder with none or several; the message says what to name instead.
pub fn journal_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let mut journals = Vec::new();
    for file in result_files(path)? {
        if is_journal(&file)? {
            journals.push(file);
        }
    }
    match &journals[..] {
        [journal] => Ok(journal.clone()),
        [] => Err(Error::format(
            path,
            "the folder holds no journal; name one that `bandwise evaluate --weights FOLDER --journal FILE` wrote",
        )),
        [first, ..] => Err(Error::format(
            path,
            format!(
                "the folder holds {}; name one, for example {}",
                counted(journals.len(), "journal"),
                first.display()
            ),
        )),
    }
}

/// What a source of records is called: the folder's or the file's own name, also for `.` and `runs/plain/`.
pub fn name_of(path: &Path) -> String {
    let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = if resolved.is_dir() { resolved.file_name() } else { resolved.file_stem() };
    name.map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// The result files of a folder, by name.
pub fn result_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_kind = |extension: &str| path.extension().is_some_and(|own| own == extension);
        let holds_results = RESULTS.contains(&name.as_str())
            || is_kind("json") && holds_records(&path)?
            || is_kind("jsonl") && is_journal(&path)?;
        if path.is_file() && holds_results {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file that could hold anything holds records.
fn holds_records(path: &Path) -> Result<bool> {
    let value: Option<Value> = serde_json::from_slice(&files::read(path)?).ok();
    Ok(value.is_some_and(|value| value.get("records").is_some_and(Value::is_array)))
}

/// Whether the first line of a file opens a journal.
fn is_journal(path: &Path) -> Result<bool> {
    use std::io::{BufRead, BufReader, Read};

    /// No header is longer.
    const LONGEST_LINE: u64 = 1 << 24;
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut line = Vec::new();
    BufReader::new(file.take(LONGEST_LINE)).read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))?;
    let first: Option<Value> = serde_json::from_slice(&line).ok();
    Ok(first.is_some_and(|value| value.get("kind").is_some_and(|kind| kind == "journal")))
}
