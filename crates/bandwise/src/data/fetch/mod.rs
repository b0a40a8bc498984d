//! `bandwise data fetch NAME`: downloads a data set, checked, resumed, unpacked.
//!
//! A file is first written as `NAME.part`; an interrupted download goes on where it stopped. It gets
//! its name once its MD5 sum (the sum that its publishers give) is right. Archives are unpacked beside
//! and then moved into place, so that a half-unpacked folder never looks like a data set. A server's
//! HTML page in place of a file is recognized and refused. Files that the user has put into the
//! folder by hand are checked and unpacked like downloaded ones, which is the way without a network.

mod download;
mod sources;
#[cfg(test)]
mod tests;
mod unpack;

pub use sources::{Remote, SOURCES, Source, find};

use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use crate::lock::Lock;
use crate::{Error, Result, files};

/// What a progress callback is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of a file are there.
    Downloading {
        /// The file.
        file: String,
        /// How many, with those of an earlier attempt.
        done: u64,
        /// Of how many, where the server says so.
        total: Option<u64>,
    },
    /// The checksum of a file is computed.
    Checking {
        /// The file.
        file: String,
    },
    /// An archive is unpacked.
    Unpacking {
        /// The file.
        file: String,
    },
    /// A file has no published checksum; this is what arrived.
    Unverified {
        /// The file.
        file: String,
        /// Its SHA-256 sum, to compare with somebody else's.
        sha256: String,
    },
    /// A file is in place from an earlier time.
    Present {
        /// The file.
        file: String,
    },
}

/// How to fetch.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// Take the files from here (`MIRROR/FILE`) instead of their publishers.
    pub mirror: Option<String>,
    /// Keep archives after unpacking.
    pub keep_archives: bool,
}

/// Fetches a data set into `root/NAME` and returns how to name it on the command line, as in
/// `cifar10:data/cifar10`. `progress` may stop it by returning an error; a later call goes on.
pub fn fetch(
    source: &Source,
    root: &Path,
    options: &FetchOptions,
    progress: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<String> {
    let folder = root.join(source.name);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    let _lock = Lock::folder(&folder)?;
    files::remove_leftovers(&folder)?;
    unpack::remove_leftovers(&folder)?;
    for remote in source.files {
        fetch_file(remote, &folder, options, progress)?;
    }
    Ok(format!("{}:{}", source.format, folder.display()))
}

fn fetch_file(
    remote: &Remote,
    folder: &Path,
    options: &FetchOptions,
    progress: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<()> {
    let file = remote.file.to_owned();
    let path = folder.join(remote.file);
    // Written when an archive has been unpacked (and perhaps deleted), or a file checked.
    let marker = folder.join(format!(".{}.fetched", remote.file));
    if marker.is_file() && (remote.unpack || path.is_file()) {
        return progress(Progress::Present { file });
    }
    if !path.is_file() {
        let part = folder.join(format!("{}.part", remote.file));
        download::download(&remote.url(options.mirror.as_deref()), &part, &path, &mut |done, total| {
            progress(Progress::Downloading { file: file.clone(), done, total })
        })?;
        progress(Progress::Checking { file: file.clone() })?;
        check(remote, &part)?;
        std::fs::rename(&part, &path).map_err(|e| Error::io(&path, e))?;
    } else {
        progress(Progress::Checking { file: file.clone() })?;
        check(remote, &path)?;
    }
    let sha256 = hash::<sha2::Sha256>(&path)?;
    if remote.md5.is_none() {
        progress(Progress::Unverified { file: file.clone(), sha256: sha256.clone() })?;
    }
    if remote.unpack {
        progress(Progress::Unpacking { file: file.clone() })?;
        unpack::unpack(&path, folder)?;
        if !options.keep_archives {
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    files::write_atomic(&marker, format!("sha256 {sha256}\n").as_bytes())
}

/// Compares the file with its published checksum; a wrong one is set aside, so that the next attempt
/// starts anew.
fn check(remote: &Remote, path: &Path) -> Result<()> {
    let Some(expected) = remote.md5 else { return Ok(()) };
    let found = hash::<Md5>(path)?;
    if found == expected {
        return Ok(());
    }
    let aside = PathBuf::from(format!("{}.wrong", path.display()));
    std::fs::rename(path, &aside).map_err(|e| Error::io(path, e))?;
    Err(Error::format(
        &aside,
        format!(
            "MD5 sum {found}, expected {expected}: the download is damaged, or the publisher has changed the \
             file. It has been set aside; fetch again to download it anew"
        ),
    ))
}

/// A file's hash, read in pieces, as hexadecimal digits.
fn hash<D: Digest>(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut hash = D::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => return Ok(files::hex(&hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}
