//! Which files an output may replace: one of the same kind, by its content; never anything else.
//!
//! A slip in a file's name must not cost weights, data or notes.

use std::path::Path;

use crate::{Error, Result, files};

/// Bytes of a file that tell its kind.
const HEAD: u64 = 4096;
/// What every page of ours says of itself.
const GENERATOR: &str = "<meta name=\"generator\" content=\"bandwise";

/// What a file holds, as far as its beginning tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PNG image.
    Png,
    /// One NumPy array.
    Npy,
    /// Named tensors.
    Safetensors,
    /// A page of ours.
    Page,
    /// JSON, or lines of it, whose first object begins with this key.
    Json(String),
    /// Lines of columns, the first of which has this name.
    Csv(String),
}

impl Kind {
    /// The kind of a file that begins so; `None` for everything that is not written here.
    pub fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            return Some(Self::Png);
        }
        if head.starts_with(b"\x93NUMPY") {
            return Some(Self::Npy);
        }
        // The length of a header, far below 2^40, and the header itself.
        if head.len() > 8 && head[5..9] == *b"\0\0\0{" {
            return Some(Self::Safetensors);
        }
        let text = String::from_utf8_lossy(head);
        if text.trim_start().to_ascii_lowercase().starts_with("<!doctype html") {
            return text.contains(GENERATOR).then_some(Self::Page);
        }
        if let Some(inside) = text.strip_prefix('{') {
            let (key, _) = inside.trim_start().strip_prefix('"')?.split_once('"')?;
            return Some(Self::Json(key.into()));
        }
        let (column, _) = text.lines().next()?.split_once(',')?;
        Some(Self::Csv(column.into()))
    }

    fn named(&self) -> String {
        match self {
            Self::Png => "no PNG image".into(),
            Self::Npy => "no NumPy array".into(),
            Self::Safetensors => "no .safetensors file".into(),
            Self::Page => "no page of Bandwise".into(),
            Self::Json(key) => format!("does not begin with {{\"{key}\": …, as the new one does"),
            Self::Csv(column) => format!("no table that begins with the column `{column}`"),
        }
    }
}

/// Refuses to write a file of this kind over anything but an empty file, one of the same kind, a pipe or a device.
///
/// # Errors
/// [`Error::Config`] also for folders and for files that are read-only.
pub fn check(path: &Path, kind: &Kind) -> Result<()> {
    use std::io::Read;

    let refuse = |reason: &str| Err(Error::config(format!("{}: {reason}", path.display())));
    let Ok(data) = std::fs::metadata(path) else { return Ok(()) };
    if data.is_dir() {
        return refuse("this is a folder; name a file");
    }
    if files::is_stream(path) {
        return Ok(());
    }
    if data.permissions().readonly() {
        return refuse("this file is read-only, and is not replaced; name another file, or make it writable");
    }
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(HEAD).read_to_end(&mut head).map_err(|e| Error::io(path, e))?;
    if head.is_empty() || Kind::of(&head).as_ref() == Some(kind) {
        return Ok(());
    }
    let is = if matches!(kind, Kind::Json(_)) { "" } else { "is " };
    refuse(&format!(
        "this file is there already and {is}{}; it is not replaced: name another file, or remove it",
        kind.named()
    ))
}

/// Writes a file over nothing, or over one of the same kind ([`check`]).
///
/// # Errors
/// Something else is there, or the file cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(kind) = Kind::of(bytes) {
        check(path, &kind)?;
    }
    files::write_atomic(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &[u8] = b"<!DOCTYPE html>\n<meta name=\"generator\" content=\"bandwise 1\">";

    #[test]
    fn only_the_same_kind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let outputs: [&[u8]; 8] = [
            b"\x89PNG\r\n\x1a\n...",
            b"\x93NUMPY\x01\0...",
            b"\x40\0\0\0\0\0\0\0{\"a\":1}",
            PAGE,
            b"{\n  \"records\": []\n}\n",
            b"{\"kind\":\"journal\"}\n",
            b"configuration,attack\na,b\n",
            b"radius,energy\n1,2\n",
        ];
        let foreign: [&[u8]; 5] =
            [b"notes", b"<!DOCTYPE html><title>mine</title>", b"[1, 2]", b"{}", b"name,grade\nA,1\n"];
        for there in outputs.iter().chain(&foreign) {
            for new in outputs {
                std::fs::write(&path, there).unwrap();
                let replaced = replace(&path, new);
                assert_eq!(replaced.is_ok(), *there == new, "{there:?} {new:?}");
                assert_eq!(std::fs::read(&path).unwrap(), if *there == new { new } else { there });
            }
        }
        // What holds nothing, or is not there, is free.
        for new in outputs {
            std::fs::write(&path, b"").unwrap();
            replace(&path, new).unwrap();
            std::fs::remove_file(&path).unwrap();
            replace(&path, new).unwrap();
        }
        assert!(replace(folder.path(), PAGE).unwrap_err().to_string().contains("is a folder"));
    }

    #[test]
    fn a_file_that_is_read_only_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        std::fs::write(&path, PAGE).unwrap();
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&path, permissions).unwrap();
        assert!(replace(&path, PAGE).unwrap_err().to_string().contains("read-only"));
        assert!(files::write_atomic(&path, b"anything").unwrap_err().to_string().contains("read-only"));
        assert_eq!(std::fs::read(&path).unwrap(), PAGE);
    }
}
