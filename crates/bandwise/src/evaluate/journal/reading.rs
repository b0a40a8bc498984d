//! From a file to a journal, or to what is wrong with it.

use std::path::Path;

use serde_json::Value;

use super::header::{FORMAT, Header};
use super::line::{Line, MARK, plain};
use super::{Journal, record};
use crate::{Error, Result, files};

impl Journal {
    /// Whether the file there begins like a journal.
    pub fn is_at(path: &Path) -> bool {
        path.is_file() && matches!(Self::read_if_any(path), Ok(Some(_)))
    }

    /// Reads a journal.
    ///
    /// # Errors
    /// [`Error::Format`] for files that are none, or that hold lines which do not belong to it.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_if_any(path)?.ok_or_else(|| {
            Error::format(
                path,
                "expected the journal of an evaluation, but not even its first line is complete",
            )
        })
    }

    /// `None` for an empty file, or one whose first line was never finished.
    pub(super) fn read_if_any(path: &Path) -> Result<Option<Self>> {
        let bytes = files::read(path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let begins = |part: &[u8]| part.starts_with(MARK.as_bytes()) || MARK.as_bytes().starts_with(part);
        if whole == 0 && begins(&bytes) {
            return Ok(None);
        }
        if !begins(&bytes[..whole.min(MARK.len())]) || whole == 0 {
            return Err(Error::format(
                path,
                format!(
                    "expected the journal of an evaluation, but the file holds {}; it was left as it is: choose another file",
                    content(path, &bytes)
                ),
            ));
        }
        // What follows the last line end is a killed writer's; whoever appends removes it.
        let text = std::str::from_utf8(&bytes[..whole])
            .map_err(|_| Error::format(path, "expected lines of JSON, but the file is not UTF-8"))?;
        let mut lines = text.lines().enumerate();
        let first = lines.next().map(|(_, line)| line).unwrap_or_default();
        let mut journal = Self::in_memory(read_header(path, first)?);
        journal.path = path.to_path_buf();
        for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            journal
                .take_line(line)
                .map_err(|reason| Error::format(path, format!("line {} {reason}", index + 1)))?;
        }
        Ok(Some(journal))
    }

    pub(super) fn take_line(&mut self, line: &str) -> Result<(), String> {
        match Line::open(line)? {
            Line::Header(_) => return Err("begins a second journal".into()),
            Line::Extension { images, attacks, algorithm } => {
                let grown = Header { images, attacks, ..self.header.also_by(&algorithm) };
                let is_more = images >= self.header.images && grown.attacks.starts_with(&self.header.attacks);
                if !is_more {
                    return Err("takes images or attacks away from the journal".into());
                }
                self.set_header(grown);
            }
            Line::Begun(begun) => self.unfinished = Some(begun),
            Line::Warning(noted) => self.take_warning(noted),
            Line::Entry(entry) => {
                self.take(entry, line)?;
                self.unfinished = None;
            }
        }
        Ok(())
    }
}

/// The first line, which tells what made the journal.
fn read_header(path: &Path, line: &str) -> Result<Header> {
    let invalid = |reason: &str| Error::format(path, format!("line 1 {reason}"));
    let value: Value = serde_json::from_str(line).map_err(|e| {
        invalid(&format!("should be the journal's header, but is not valid JSON ({})", plain(&e)))
    })?;
    match value.get("format").map(Value::as_u64) {
        Some(Some(format)) if format == u64::from(FORMAT) => {}
        None => {
            return Err(Error::format(
                path,
                "this journal was begun by an earlier version, which did not write down the whole configuration of \
                 the model; begin a new one in another file",
            ));
        }
        Some(_) => return Err(Error::format(path, "this journal was begun by a later version of Bandwise")),
    }
    match Line::open(line).map_err(|reason| invalid(&reason))? {
        Line::Header(header) => Ok(*header),
        Line::Extension { .. } | Line::Begun(_) | Line::Warning(_) | Line::Entry(_) => {
            Err(invalid("should be the journal's header"))
        }
    }
}

/// What a file that is no journal holds, in a few words.
fn content(path: &Path, bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "binary data".into() };
    if text.starts_with("{\"kind\":") && text.contains("\"kind\":\"image\"") {
        return "judgments without the first line of a journal".into();
    }
    if let Ok(records) = record::parse(path, text)
        && !records.is_empty()
    {
        return format!("{} result records", records.len());
    }
    if serde_json::from_str::<Value>(text).is_ok() {
        return "other JSON".into();
    }
    let beginning: String = text.chars().take(20).flat_map(char::escape_debug).collect();
    format!("other text, beginning with `{beginning}`")
}
