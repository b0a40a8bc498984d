//! Journals of shards into the journal of the whole.

use std::path::{Path, PathBuf};

use super::{Header, Journal};
use crate::evaluate::shard::Shard;
use crate::lock::Lock;
use crate::{Error, Result};

/// Merges the journals of shards (or of interrupted runs) into one at `out`, which is returned.
///
/// The result does not depend on how the work was divided: it equals the journal of an uninterrupted
/// run of the whole.
///
/// # Errors
/// [`Error::Config`] if they belong to different evaluations, [`Error::Format`] if judgments are
/// missing or contradict each other, or `out` is a file that is no journal.
pub fn merge(inputs: &[PathBuf], out: &Path) -> Result<Journal> {
    let mut journals = inputs.iter().map(|path| Journal::read(path)).collect::<Result<Vec<_>>>()?.into_iter();
    let Some(first) = journals.next() else {
        return Err(Error::config("there are no journals to merge"));
    };
    let lock = Lock::file(out)?;
    let before = if out.exists() { Journal::read_if_any(out)? } else { None };
    if let Some(before) = before {
        first.header.must_fit(&first.path, &before.header, out).map_err(|difference| {
            Error::config(format!(
                "{} holds another evaluation, and is not replaced: {difference}",
                out.display()
            ))
        })?;
    }
    let mut merged = Journal::in_memory(Header { shard: Shard::WHOLE, ..first.header.clone() });
    let first_path = first.path.clone();
    for journal in std::iter::once(first).chain(journals) {
        merged.header.must_fit(&first_path, &journal.header, &journal.path).map_err(|difference| {
            Error::config(format!("these journals belong to different evaluations: {difference}"))
        })?;
        merged.header = merged.header.also_by(&journal.header.algorithm);
        let mut adds = false;
        for part in journal.tasks.iter().flat_map(|task| &task.parts) {
            for (entry, line) in part.entries.values() {
                adds |= !merged.holds(entry);
                merged
                    .take(entry.clone(), line)
                    .map_err(|reason| Error::format(&journal.path, format!("a line {reason}")))?;
            }
        }
        // Of a journal that is a copy of others, warnings must not be counted twice.
        for noted in journal.warnings.into_iter().filter(|noted| adds || noted.attack.is_none()) {
            merged.take_warning(noted);
        }
    }
    for task in &merged.tasks {
        merged.must_be_complete(&task.label).map_err(|error| match error {
            Error::Format { reason, .. } => Error::config(format!("the journals are not complete: {reason}")),
            other => other,
        })?;
    }
    (merged.path, merged.lock) = (out.to_path_buf(), Some(lock));
    crate::files::write_atomic(out, merged.canonical()?.as_bytes())?;
    Ok(merged)
}

impl Journal {
    /// Whether this very judgment is there.
    fn holds(&self, entry: &super::Entry) -> bool {
        let parts = self.task(&entry.attack).map_or(&[][..], |task| &task.parts);
        parts.iter().any(|part| part.name == entry.part && part.entries.contains_key(&entry.image))
    }
}
