//! One writer at a time: an advisory lock on a file or folder that is being written.
//!
//! The lock is a file beside the target (`.NAME.lock`; in a folder, `.lock`) that the operating system
//! locks for this process, and that names it. However the process ends, `kill -9` included, the lock
//! ends with it; a lock file left behind locks nobody out.
//!
//! A file is one target under all its names: the lock file lies beside what symbolic links lead to, and a file with
//! several hard links is locked itself ([`Lock::hold`]).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The right to write a file or folder, given back when dropped.
#[derive(Debug)]
pub struct Lock {
    /// `None` on file systems that cannot lock.
    file: Option<File>,
    path: PathBuf,
    /// The target itself, locked for those who know it by another name.
    _target: Option<File>,
}

/// What a lock file says about its holder.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
}

impl Lock {
    /// The right to write the file `target`, which need not exist yet; its folder is created. If it does exist, it is
    /// [held](Self::hold).
    ///
    /// # Errors
    /// [`Error::Config`] naming the process that holds it already.
    pub fn file(target: &Path) -> Result<Self> {
        let file = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let mut name = std::ffi::OsString::from(".");
        name.push(file.file_name().unwrap_or_default());
        name.push(".lock");
        let mut lock = Self::take(target, parent, parent.join(name))?;
        if target.is_file() {
            lock.hold(target)?;
        }
        Ok(lock)
    }

    /// Locks the file `target` itself, whatever other names lead to it. To be called again for a file that was made, or
    /// replaced by one that is written on, under the lock.
    ///
    /// # Errors
    /// [`Error::Config`] if a process holds it under another name.
    pub fn hold(&mut self, target: &Path) -> Result<()> {
        // Where locks keep others from reading and writing, they would keep out the holder's own handles, too.
        if !cfg!(unix) {
            return Ok(());
        }
        // Some file systems lock only what may be written; what may not be opened at all is found out by its reader.
        let opened = OpenOptions::new().read(true).write(true).open(target).or_else(|_| File::open(target));
        let Ok(file) = opened else { return Ok(()) };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Error::config(format!(
                "{} is being written by another process, which knows it by another name (a hard link); wait for it to \
                 end, or stop it",
                target.display()
            ))),
            Ok(()) => {
                self._target = Some(file);
                Ok(())
            }
            // The lock file keeps out all others.
            Err(TryLockError::Error(_)) => Ok(()),
        }
    }

    /// The right to write in the folder `target`, which is created if need be.
    ///
    /// # Errors
    /// [`Error::Config`] naming the process that holds it already.
    pub fn folder(target: &Path) -> Result<Self> {
        Self::take(target, target, target.join(".lock"))
    }

    fn take(target: &Path, folder: &Path, path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        loop {
            refuse_foreign(&path)?;
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|e| Error::io(&path, e))?;
            match file.try_lock() {
                // The holder before us may have removed the file between our opening and locking it.
                Ok(()) if !is_at(&file, &path) => continue,
                Ok(()) => {
                    name_holder(&mut file).map_err(|e| Error::io(&path, e))?;
                    return Ok(Self { file: Some(file), path, _target: None });
                }
                Err(TryLockError::WouldBlock) => return Err(held(target, &mut file)),
                Err(TryLockError::Error(error)) if cannot_lock(&error) => {
                    tracing::warn!("{}: this file system cannot lock files ({error})", path.display());
                    return Ok(Self { file: None, path, _target: None });
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(&path, error)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still locked: whoever opened it meanwhile sees that it is gone, and tries again.
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Refuses what is no lock file under the name of one: it would be overwritten.
fn refuse_foreign(path: &Path) -> Result<()> {
    let Ok(data) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let begins = |file: &mut File| {
        let mut first = [0; 1];
        file.read(&mut first).map(|count| count == 0 || first == *b"{")
    };
    let is_ours = data.is_file() && File::open(path).and_then(|mut file| begins(&mut file)).unwrap_or(true);
    match is_ours {
        true => Ok(()),
        false => Err(Error::config(format!(
            "{}: something else is where the lock is to be; move it away",
            path.display()
        ))),
    }
}

/// Whether `path` still leads to `file`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => identity(ours) == identity(there),
        _ => false,
    }
}

/// Elsewhere an open file cannot be removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// Some network file systems have no locks (`ENOLCK` is 37 on Linux); work must go on there.
fn cannot_lock(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::Unsupported
        || (cfg!(target_os = "linux") && error.raw_os_error() == Some(37))
}

fn name_holder(file: &mut File) -> std::io::Result<()> {
    let holder = Holder { pid: std::process::id(), host: host() };
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(serde_json::to_string(&holder)?.as_bytes())
}

fn held(target: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    let who = match serde_json::from_str::<Holder>(&text) {
        Ok(Holder { pid, host: other }) if other == host() => format!("process {pid}"),
        Ok(Holder { pid, host }) => format!("process {pid} on {host}"),
        Err(_) => "another process".into(),
    };
    Error::config(format!("{} is being written by {who}; wait for it to end, or stop it", target.display()))
}

/// The machine's name, where the system tells.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new/journal.jsonl");
        let lock = Lock::file(&target).unwrap();
        let message = Lock::file(&target).unwrap_err().to_string();
        let expected = format!("journal.jsonl is being written by process {}", std::process::id());
        assert!(message.contains(&expected), "{message}");
        // Another file in the same folder, and the folder itself, are other things.
        let beside = Lock::file(&folder.path().join("new/other.jsonl")).unwrap();
        let around = Lock::folder(&folder.path().join("new")).unwrap();
        assert!(Lock::folder(&folder.path().join("new")).is_err());
        drop((lock, beside, around));
        drop(Lock::file(&target).unwrap());
        assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 0, "lock files are left");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_one_target_under_all_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let target = path("journal.jsonl");
        std::fs::write(&target, "").unwrap();
        std::fs::create_dir(path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(&target, path("elsewhere/symbolic.jsonl")).unwrap();
        std::fs::hard_link(&target, path("elsewhere/hard.jsonl")).unwrap();
        let names = ["journal.jsonl", "elsewhere/symbolic.jsonl", "elsewhere/hard.jsonl"];
        for one in names {
            let lock = Lock::file(&path(one)).unwrap();
            for other in names {
                let message = Lock::file(&path(other)).unwrap_err().to_string();
                assert!(message.contains("is being written by"), "{one}, {other}: {message}");
            }
            drop(lock);
        }
        // A file that was made under the lock is held from then on.
        let mut lock = Lock::file(&path("new.jsonl")).unwrap();
        std::fs::write(path("new.jsonl"), "").unwrap();
        lock.hold(&path("new.jsonl")).unwrap();
        std::fs::hard_link(path("new.jsonl"), path("other.jsonl")).unwrap();
        assert!(Lock::file(&path("other.jsonl")).is_err());
    }

    #[test]
    fn what_a_killed_process_leaves_locks_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(".journal.jsonl.lock");
        std::fs::write(&left, r#"{"pid":1,"host":"gone, and much longer than the name of any host"}"#)
            .unwrap();
        let target = folder.path().join("journal.jsonl");
        let lock = Lock::file(&target).unwrap();
        assert!(Lock::file(&target).unwrap_err().to_string().contains(&std::process::id().to_string()));
        drop(lock);
        assert!(!left.exists());
    }

    #[test]
    fn foreign_files_under_the_name_of_a_lock_are_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let precious = folder.path().join(".journal.jsonl.lock");
        std::fs::write(&precious, "precious").unwrap();
        let message = Lock::file(&folder.path().join("journal.jsonl")).unwrap_err().to_string();
        assert!(message.contains("something else is where the lock is to be"), "{message}");
        assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&precious, folder.path().join(".other.jsonl.lock")).unwrap();
            assert!(Lock::file(&folder.path().join("other.jsonl")).is_err());
        }
    }

    #[test]
    fn of_many_at_once_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("journal.jsonl");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        if let Ok(_lock) = Lock::file(&target) {
                            assert_eq!(inside.fetch_add(1, order), 0, "two writers");
                            taken.fetch_add(1, order);
                            inside.fetch_sub(1, order);
                        }
                    }
                });
            }
        });
        assert!(taken.load(order) >= 4);
    }
}
