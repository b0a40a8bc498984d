//! Archives: tar, gzipped tar, zip.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// Unpacks `archive` into `folder`: first into a folder beside it, then moved, so that an interruption
/// leaves nothing that looks complete. Entries that would leave the folder are refused.
pub(super) fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let staging = tempfile::Builder::new()
        .prefix(".unpacking-")
        .tempdir_in(folder)
        .map_err(|e| Error::io(folder, e))?;
    let bad = |reason: String| Error::format(archive, format!("the archive cannot be unpacked ({reason})"));
    let mut magic = Vec::new();
    open(archive)?.take(4).read_to_end(&mut magic).map_err(|e| Error::io(archive, e))?;
    match magic[..] {
        [0x1f, 0x8b, ..] => unpack_tar(MultiGzDecoder::new(open(archive)?), staging.path()),
        [b'P', b'K', ..] => unpack_zip(archive, staging.path()),
        _ => unpack_tar(open(archive)?, staging.path()),
    }
    .map_err(bad)?;
    for entry in std::fs::read_dir(staging.path()).map_err(|e| Error::io(staging.path(), e))? {
        let from = entry.map_err(|e| Error::io(staging.path(), e))?.path();
        merge(&from, &folder.join(from.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Moves `from` to `to`; folders that exist are filled, files replaced.
fn merge(from: &Path, to: &Path) -> Result<()> {
    if !(from.is_dir() && to.is_dir()) {
        return std::fs::rename(from, to).map_err(|e| Error::io(to, e));
    }
    for entry in std::fs::read_dir(from).map_err(|e| Error::io(from, e))? {
        let path = entry.map_err(|e| Error::io(from, e))?.path();
        merge(&path, &to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<File>> {
    File::open(path).map(BufReader::new).map_err(|e| Error::io(path, e))
}

fn unpack_tar(archive: impl Read, folder: &Path) -> Result<(), String> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(false);
    archive.set_preserve_mtime(false);
    for entry in archive.entries().map_err(|e| e.to_string())? {
        let mut entry = entry.map_err(|e| e.to_string())?;
        // Data sets need no links, and a link may point anywhere.
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            continue;
        }
        if !entry.unpack_in(folder).map_err(|e| e.to_string())? {
            return Err("an entry points outside the folder".into());
        }
    }
    Ok(())
}

fn unpack_zip(archive: &Path, folder: &Path) -> Result<(), String> {
    let file = File::open(archive).map_err(|e| e.to_string())?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| e.to_string())?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| e.to_string())?;
        let name = entry.enclosed_name().ok_or("an entry points outside the folder")?;
        let path = folder.join(name);
        if entry.is_dir() {
            std::fs::create_dir_all(&path).map_err(|e| e.to_string())?;
        } else if !entry.is_symlink() {
            path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| e.to_string())?;
            let mut target = File::create(&path).map_err(|e| e.to_string())?;
            std::io::copy(&mut entry, &mut target).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::fuzz::survive;

    #[test]
    fn damaged_archives_are_survived() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(600);
        tar.append_data(&mut header, "inner/a.bin", &[7; 600][..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(&tar).unwrap();
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("inner/a.bin", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&[7; 600]).unwrap();
        let samples = [tar, gzip.finish().unwrap(), zip.finish().unwrap().into_inner()];
        let outer = tempfile::tempdir().unwrap();
        let (archive, inside) = (outer.path().join("archive"), outer.path().join("inside"));
        survive("archives", &samples, |bytes| {
            std::fs::write(&archive, bytes).unwrap();
            std::fs::create_dir(&inside).unwrap();
            let _ = unpack(&archive, &inside);
            std::fs::remove_dir_all(&inside).unwrap();
            assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "something left the folder");
        });
    }
}
