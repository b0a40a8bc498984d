//! IDX files, plain or gzipped: MNIST, Fashion-MNIST, KMNIST, EMNIST.
//!
//! A magic number (two zero bytes, the element type, the number of axes), the big-endian lengths of
//! the axes, then the elements. Images and labels are bytes (type 8).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::array::{ArrayDataset, Pixels, numbered_classes};
use super::spec::Request;
use super::{Dataset, Split};
use crate::{Error, Result, files};

const UNSIGNED_BYTE: u8 = 8;
/// More than any known set; keeps a damaged gzip file from filling the memory.
const MAX_BYTES: u64 = 4 << 30;

/// An array of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxArray {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub data: Vec<u8>,
}

/// Reads an IDX file of bytes; gzip is recognized by its content.
pub fn read(path: &Path) -> Result<IdxArray> {
    let mut bytes = files::read(path)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        MultiGzDecoder::new(&bytes[..])
            .take(MAX_BYTES)
            .read_to_end(&mut plain)
            .map_err(|e| Error::format(path, format!("the gzip data is damaged or cut off ({e})")))?;
        bytes = plain;
    }
    parse(bytes, path)
}

/// Reads an IDX array of bytes; `origin` is named in errors.
pub fn parse(mut bytes: Vec<u8>, origin: &Path) -> Result<IdxArray> {
    let bad = |reason: String| Error::format(origin, reason);
    let &[0, 0, kind, axes, ..] = &bytes[..] else {
        return Err(bad("not an IDX file: the first two bytes must be zero".into()));
    };
    if kind != UNSIGNED_BYTE {
        return Err(bad(format!("IDX elements of type {kind:#04x} are not read, only bytes (0x08)")));
    }
    let header = 4 + 4 * usize::from(axes);
    let lengths = bytes.get(4..header).filter(|_| (1..=4).contains(&axes));
    let lengths =
        lengths.ok_or_else(|| bad(format!("an IDX header of {axes} axes is damaged or cut off")))?;
    let shape: Vec<usize> = lengths
        .chunks_exact(4)
        .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as usize)
        .collect();
    let expected = shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
    let found = bytes.len() - header;
    if expected != Some(found) {
        return Err(bad(format!(
            "an IDX array of {shape:?} does not fit {found} bytes: the file is cut off or damaged"
        )));
    }
    bytes.drain(..header);
    Ok(IdxArray { shape, data: bytes })
}

/// `idx:DIR`
pub(super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let (folder, split) = (request.path, request.split);
    let image_path = find(folder, split, "images")?;
    let label_path = find(folder, split, "labels")?;
    let images = read(&image_path)?;
    let labels = read(&label_path)?;
    let (&[count, height, width], &[label_count]) = (&images.shape[..], &labels.shape[..]) else {
        return Err(Error::format(
            &image_path,
            format!(
                "images must have three axes and labels one, found {:?} and {:?}",
                images.shape, labels.shape
            ),
        ));
    };
    if count != label_count {
        return Err(Error::format(&label_path, format!("{label_count} labels do not fit {count} images")));
    }
    let labels: Vec<u32> = labels.data.iter().map(|&label| u32::from(label)).collect();
    let classes = labels.iter().max().map_or(10, |&max| (max as usize + 1).max(10));
    let name = format!("idx ({split})");
    let pixels = Pixels::Bytes(images.data);
    let shape = [height, width, 1];
    Ok(Arc::new(ArrayDataset::new(name, &image_path, pixels, shape, labels, numbered_classes(classes))?))
}

/// The file of `part` (images, labels): its name ends as in the original, perhaps after a prefix
/// (`emnist-letters-`), with `-` or `.` before `idx`, perhaps with `.gz`.
fn find(folder: &Path, split: Split, part: &str) -> Result<PathBuf> {
    let stems: &[&str] = match split {
        Split::Train => &["train"],
        Split::Test => &["t10k", "test"],
    };
    let axes = if part == "images" { 3 } else { 1 };
    let wanted = |name: &str| {
        let name = name.strip_suffix(".gz").unwrap_or(name);
        stems.iter().any(|stem| {
            ['-', '.'].iter().any(|joint| name.ends_with(&format!("{stem}-{part}{joint}idx{axes}-ubyte")))
        })
    };
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .collect();
    // A plain file and its gzipped copy are one set; two prefixes are two.
    let plain = names.iter().min_by_key(|name| name.len());
    match plain {
        None => Err(Error::format(
            folder,
            format!("there is no `{}-{part}-idx{axes}-ubyte` here, plain or .gz", stems[0]),
        )),
        Some(plain) => {
            let stem = plain.strip_suffix(".gz").unwrap_or(plain);
            match names.iter().find(|name| name.strip_suffix(".gz").unwrap_or(name) != stem) {
                Some(other) => Err(Error::format(
                    folder,
                    format!("`{plain}` and `{other}` are here; put each set in a folder of its own"),
                )),
                None => Ok(folder.join(plain)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSpec;
    use std::io::Write;

    fn idx(shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, UNSIGNED_BYTE, shape.len() as u8];
        shape.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn open_folder(folder: &Path) -> Result<Arc<dyn Dataset>> {
        format!("idx:{}", folder.display()).parse::<DataSpec>()?.open(Split::Test)
    }

    #[test]
    fn plain_and_gzipped_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let images = gzip(&idx(&[2, 1, 2], &[0, 51, 102, 255]));
        std::fs::write(folder.path().join("t10k-images-idx3-ubyte.gz"), images).unwrap();
        std::fs::write(folder.path().join("t10k-labels.idx1-ubyte"), idx(&[2], &[3, 1])).unwrap();
        let set = open_folder(folder.path()).unwrap();
        let (image, label) = set.get(0).unwrap();
        assert_eq!((image.shape(), image.to_bytes(), label), ([1, 2, 1], vec![0, 51], 3));
        std::fs::write(folder.path().join("emnist-t10k-labels-idx1-ubyte"), idx(&[2], &[3, 1])).unwrap();
        assert!(open_folder(folder.path()).unwrap_err().to_string().contains("folder of its own"));
    }

    #[test]
    fn damaged_files_are_explained() {
        let message = |bytes: Vec<u8>| parse(bytes, Path::new("x")).unwrap_err().to_string();
        assert!(message(b"<html>".to_vec()).contains("not an IDX file"));
        assert!(message(vec![0, 0, 13, 1, 0, 0, 0, 0]).contains("0x0d"));
        assert!(message(idx(&[2, 2], &[1, 2, 3])).contains("cut off"));
        assert!(message(idx(&[u32::MAX; 4], &[])).contains("cut off"));
        assert!(message(vec![0, 0, 8, 200]).contains("200 axes"));
        let folder = tempfile::tempdir().unwrap();
        assert!(open_folder(folder.path()).unwrap_err().to_string().contains("t10k-images-idx3-ubyte"));
        let cut = &gzip(&idx(&[2, 1, 2], &[0, 51, 102, 255]))[..20];
        std::fs::write(folder.path().join("t10k-images-idx3-ubyte.gz"), cut).unwrap();
        std::fs::write(folder.path().join("t10k-labels-idx1-ubyte"), idx(&[2], &[3, 1])).unwrap();
        assert!(open_folder(folder.path()).unwrap_err().to_string().contains("gzip"));
    }
}
