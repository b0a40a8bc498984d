//! Archives: tar, gzipped tar, zip.
//!
//! Only plain files and folders come out, readable by all and writable by their owner, whatever the archive says of
//! links, devices and permissions; and no more of them than an archive of this size can reasonably hold.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::{Error, Result};

/// A data set may be this many times as large as its archive, and a little more: images hardly shrink, text to a
/// tenth. A bomb grows a thousandfold.
const MOST_GROWTH: u64 = 20;
const ALWAYS_ALLOWED: u64 = 64 << 20;
/// What an entry costs on a disk, however small it is.
const COST_OF_ENTRY: u64 = 4096;
/// How the names of folders begin in which archives are unpacked.
const STAGING: &str = ".unpacking-";

/// What may still be unpacked.
struct Budget {
    left: u64,
    whole: u64,
}

impl Budget {
    fn of(archive: &Path) -> Result<Self> {
        let size = std::fs::metadata(archive).map_err(|e| Error::io(archive, e))?.len();
        let whole = ALWAYS_ALLOWED + MOST_GROWTH.saturating_mul(size);
        Ok(Self { left: whole, whole })
    }

    /// Takes an entry of so many bytes.
    fn take(&mut self, bytes: u64) -> Result<(), String> {
        let cost = bytes.saturating_add(COST_OF_ENTRY);
        self.left = self.left.checked_sub(cost).ok_or_else(|| {
            format!(
                "it unpacks to more than {} MB, {MOST_GROWTH} times its size; unpack it by hand if you trust it",
                self.whole >> 20
            )
        })?;
        Ok(())
    }
}

/// Removes what stopped processes left half unpacked in `folder`; nobody else may be unpacking there.
pub(super) fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(STAGING) && path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}

/// Unpacks `archive` into `folder`: first into a folder beside it, then moved, so that an interruption
/// leaves nothing that looks complete. Entries that would leave the folder are refused.
pub(super) fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let staging =
        tempfile::Builder::new().prefix(STAGING).tempdir_in(folder).map_err(|e| Error::io(folder, e))?;
    let bad = |reason: String| Error::format(archive, format!("the archive cannot be unpacked ({reason})"));
    let mut magic = Vec::new();
    open(archive)?.take(4).read_to_end(&mut magic).map_err(|e| Error::io(archive, e))?;
    let mut budget = Budget::of(archive)?;
    match magic[..] {
        [0x1f, 0x8b, ..] => unpack_tar(MultiGzDecoder::new(open(archive)?), staging.path(), &mut budget),
        [b'P', b'K', ..] => unpack_zip(archive, staging.path(), &mut budget),
        _ => unpack_tar(open(archive)?, staging.path(), &mut budget),
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

fn unpack_tar(archive: impl Read, folder: &Path, budget: &mut Budget) -> Result<(), String> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(false);
    // No setuid, nothing that others may write.
    archive.set_mask(0o7022);
    archive.set_preserve_mtime(false);
    for entry in archive.entries().map_err(|e| e.to_string())? {
        let mut entry = entry.map_err(|e| e.to_string())?;
        // Data sets need no devices and no links, and a link may point anywhere.
        let kind = entry.header().entry_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_gnu_sparse() || kind.is_contiguous()) {
            continue;
        }
        budget.take(entry.size())?;
        if !entry.unpack_in(folder).map_err(|e| e.to_string())? {
            return Err("an entry points outside the folder".into());
        }
    }
    Ok(())
}

fn unpack_zip(archive: &Path, folder: &Path, budget: &mut Budget) -> Result<(), String> {
    let file = File::open(archive).map_err(|e| e.to_string())?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|e| e.to_string())?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| e.to_string())?;
        let name = entry.enclosed_name().ok_or("an entry points outside the folder")?;
        let path = folder.join(name);
        budget.take(entry.size())?;
        if entry.is_dir() {
            std::fs::create_dir_all(&path).map_err(|e| e.to_string())?;
        } else if !entry.is_symlink() {
            path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| e.to_string())?;
            let mut target = File::create(&path).map_err(|e| e.to_string())?;
            // The announced size may be a lie.
            let announced = entry.size();
            let written = std::io::copy(&mut entry.by_ref().take(announced + 1), &mut target);
            if written.map_err(|e| e.to_string())? > announced {
                return Err("an entry is larger than it says".into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::fuzz::survive;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn bombs_do_not_go_off() {
        let zeros = vec![0; 1 << 20];
        let mut tar = tar::Builder::new(Vec::new());
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for number in 0..100 {
            let mut header = tar::Header::new_gnu();
            header.set_size(1 << 20);
            tar.append_data(&mut header, format!("{number}.bin"), &zeros[..]).unwrap();
            zip.start_file(format!("{number}.bin"), zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(&zeros).unwrap();
        }
        let mut many = tar::Builder::new(Vec::new());
        for number in 0..40_000 {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            many.append_data(&mut header, format!("{number}"), &[][..]).unwrap();
        }
        let outer = tempfile::tempdir().unwrap();
        let archive = outer.path().join("archive");
        let tar = gzipped(&tar.into_inner().unwrap());
        let zip = zip.finish().unwrap().into_inner();
        for bytes in [tar, zip, gzipped(&many.into_inner().unwrap())] {
            std::fs::write(&archive, bytes).unwrap();
            let message = unpack(&archive, outer.path()).unwrap_err().to_string();
            assert!(message.contains("20 times its size; unpack it by hand"), "{message}");
            assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "something was left");
        }
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_plain_files() {
        use std::os::unix::fs::PermissionsExt;
        let mut tar = tar::Builder::new(Vec::new());
        for (name, mode, kind) in [
            ("setuid", 0o4777, tar::EntryType::Regular),
            ("folder", 0o2777, tar::EntryType::Directory),
            ("folder/inside", 0o666, tar::EntryType::Regular),
            ("fifo", 0o644, tar::EntryType::Fifo),
            ("device", 0o644, tar::EntryType::Char),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(mode);
            header.set_entry_type(kind);
            tar.append_data(&mut header, name, &[][..]).unwrap();
        }
        let outer = tempfile::tempdir().unwrap();
        let (archive, inside) = (outer.path().join("archive"), outer.path().join("inside"));
        std::fs::write(&archive, tar.into_inner().unwrap()).unwrap();
        std::fs::create_dir(&inside).unwrap();
        unpack(&archive, &inside).unwrap();
        let mode = |name: &str| std::fs::metadata(inside.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode("setuid"), mode("folder"), mode("folder/inside")], [0o755, 0o755, 0o644]);
        assert!(!inside.join("fifo").exists() && !inside.join("device").exists());
    }

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
