//! Files that are either whole or absent: written to a temporary name beside the target, flushed,
//! then renamed.
//!
//! A process that is killed leaves its temporary file behind. These files have names of their own and are locked while
//! they are written, so that [`remove_leftovers`] knows which ones nobody needs.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::{Error, Result};

/// How the names of temporary files begin and end.
const TEMPORARY: (&str, &str) = (".bandwise-", ".tmp");

/// A file on its way: it appears under its name when it is whole, and not at all if it is dropped before.
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins the file `path`; parent folders are created.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        // A link stays a link: what it leads to is replaced.
        let path = &if path.is_symlink() {
            std::fs::canonicalize(path).map_err(|e| Error::io(path, e))?
        } else {
            path.to_path_buf()
        };
        // Renaming would replace it all the same: that takes leave to write the folder only.
        if std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().readonly()) {
            return Err(Error::config(format!(
                "{}: this file is read-only, and is not replaced",
                path.display()
            )));
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        loop {
            let file = tempfile::Builder::new()
                .prefix(TEMPORARY.0)
                .suffix(TEMPORARY.1)
                .tempfile_in(parent)
                .map_err(|e| Error::io(path, e))?;
            // A file system without locks only loses the cleaning up.
            let _ = file.as_file().lock();
            // Somebody may have cleaned up before the lock was there.
            if file.path().exists() {
                return Ok(Self { file, path: path.to_path_buf() });
            }
        }
    }

    /// Flushes the file and gives it its name, replacing what was there.
    ///
    /// # Errors
    /// The disk is full, or the name cannot be given.
    pub fn commit(self) -> Result<()> {
        let Self { file, path } = self;
        file.as_file().sync_all().map_err(|e| Error::io(&path, e))?;
        // Temporary files are private by default; results are meant to be shared like any other file.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let shared = std::fs::Permissions::from_mode(0o644);
            file.as_file().set_permissions(shared).map_err(|e| Error::io(&path, e))?;
        }
        file.persist(&path).map_err(|e| Error::io(&path, e.error))?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Writes `bytes` to `path` atomically; parent folders are created.
///
/// Pipes and devices, such as `/dev/stdout`, are written into instead.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    if is_stream(path) {
        let mut stream = OpenOptions::new().append(true).open(path).map_err(|e| Error::io(path, e))?;
        return stream.write_all(bytes).map_err(|e| Error::io(path, e));
    }
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|e| Error::io(path, e))?;
    file.commit()
}

/// Whether a file is written into, never replaced: a pipe, a device, or what this process has open by its number
/// (`/dev/stdout`, `/dev/fd/63` of a shell's `>(command)`), even if that is an ordinary file.
pub fn is_stream(path: &Path) -> bool {
    let open = ["/dev/stdout", "/dev/stderr"].iter().any(|name| path == Path::new(name));
    let numbered = ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder));
    open || numbered || std::fs::metadata(path).is_ok_and(|data| !data.is_file() && !data.is_dir())
}

/// Removes the temporary files that killed processes have left in `folder` (not below it), and says how many. Files
/// that a living process is writing stay, and so does whatever else is there.
///
/// # Errors
/// The folder exists but cannot be read, or a file cannot be removed.
pub fn remove_leftovers(folder: &Path) -> Result<usize> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(Error::io(folder, e)),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|n| n.starts_with(TEMPORARY.0) && n.ends_with(TEMPORARY.1));
        if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) && is_abandoned(&entry.path()) {
            std::fs::remove_file(entry.path()).map_err(|e| Error::io(entry.path(), e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether nobody holds the lock of a temporary file.
fn is_abandoned(path: &Path) -> bool {
    // A file that is gone by now needs no removing.
    let file: std::io::Result<File> = OpenOptions::new().write(true).open(path);
    file.is_ok_and(|file| file.try_lock().is_ok())
}

/// Reads a whole file, naming it in the error.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, e))
}

/// SHA-256 of `bytes` as lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let [target, link] = ["target", "link"].map(|name| folder.path().join(name));
        std::fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn leftovers_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let mut living = AtomicFile::create(&place("result")).unwrap();
        living.write_all(b"half").unwrap();
        std::fs::write(place(".bandwise-AbCdEf.tmp"), b"of a killed process").unwrap();
        for other in [".tmpAbCdEf", "notes.tmp", ".bandwise-notes", "result.npy"] {
            std::fs::write(place(other), b"somebody's").unwrap();
        }
        assert_eq!(remove_leftovers(folder.path()).unwrap(), 1);
        assert!(!place(".bandwise-AbCdEf.tmp").exists());
        living.write_all(b" and half").unwrap();
        living.commit().unwrap();
        assert_eq!(std::fs::read(place("result")).unwrap(), b"half and half");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
        // What is dropped leaves nothing, and a folder that is not there needs nothing.
        drop(AtomicFile::create(&place("other")).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
        assert_eq!(remove_leftovers(&place("nowhere")).unwrap(), 0);
    }
}
