//! Many runs side by side: which are seeds of one configuration, and every number in its row and column.
//!
//! Pages (`bandwise report`) and tables (`bandwise table`) are both made of this, so that they say the same.

mod configurations;
mod results;
mod text;

use std::path::{Path, PathBuf};

pub use configurations::{Configuration, group};
pub use results::{Column, Results, Row};
pub use text::{comparisons, csv, lines, subjects};

use super::record::Record;
use super::sources;
use crate::{Error, Result, files};

/// A run, or anything else with records.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Its name on pages.
    pub name: String,
    /// `run.toml` as dotted keys and values, in the file's order; empty where nothing was trained.
    pub settings: Vec<(String, String)>,
    /// Its records.
    pub records: Vec<Record>,
}

impl Source {
    /// Reads a file of results or a folder that has some, or a `run.toml`.
    ///
    /// # Errors
    /// When there is no such file or folder, or one in it is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let name = sources::name_of(path);
        if !path.is_dir() {
            return Ok(Self { name, settings: Vec::new(), records: sources::records_of(path)? });
        }
        let run_toml = path.join("run.toml");
        let table = if run_toml.is_file() { read_toml(&run_toml)? } else { toml::Table::new() };
        let mut settings = Vec::new();
        flatten("", &toml::Value::Table(table), &mut settings);
        Ok(Self { name, settings, records: sources::records_of_folder(path)? })
    }

    /// The value of a dotted key of the configuration.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// The paths without those that stand for a file or folder named before, and these: compared with itself, nothing
/// tells anything.
pub fn distinct(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut kept, mut known, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        // A run is its records, however it is named.
        let records = path.join("results.jsonl");
        let named = if records.is_file() { &records } else { path };
        let place = std::fs::canonicalize(named).unwrap_or_else(|_| path.clone());
        if known.contains(&place) {
            left_out.push(path.clone());
        } else {
            known.push(place);
            kept.push(path.clone());
        }
    }
    (kept, left_out)
}

/// Sources of equal names get their paths instead.
pub fn tell_apart<'a>(sources: impl Iterator<Item = &'a mut Source>, paths: &[impl AsRef<Path>]) {
    let mut sources: Vec<&mut Source> = sources.collect();
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    for (source, path) in sources.iter_mut().zip(paths) {
        if names.iter().filter(|name| **name == source.name).count() > 1 {
            source.name = path.as_ref().display().to_string();
        }
    }
}

fn read_toml(path: &Path) -> Result<toml::Table> {
    let text = String::from_utf8(files::read(path)?)
        .map_err(|_| Error::format(path, "expected TOML text, but the file is not UTF-8"))?;
    text.parse::<toml::Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Error::format(path, format!("line {line}: not valid TOML: {}", e.message()))
    })
}

/// Writes nested tables as dotted keys.
fn flatten(prefix: &str, value: &toml::Value, flat: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, flat);
            }
        }
        toml::Value::String(text) => flat.push((prefix.to_owned(), text.clone())),
        other => flat.push((prefix.to_owned(), other.to_string())),
    }
}
