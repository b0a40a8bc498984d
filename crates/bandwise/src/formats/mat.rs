//! MATLAB level 5 files (`.mat`), as far as data sets use them: numeric arrays, plain or compressed.
//!
//! A header of 128 bytes, then elements: a tag (type, length), the content, padding to 8 bytes. A
//! compressed element holds another element in zlib form; a matrix holds flags, lengths of the axes,
//! a name and its numbers. Cells, structures, text and sparse matrices are passed over. Files of
//! version 7.3 are HDF5 and are refused with a message.

use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::{Error, Result, files};

const HEADER: usize = 128;
const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;
/// More than any known set (SVHN's extra images take 1.6 GB).
const MAX_BYTES: u64 = 8 << 30;

/// A numeric array; its first axis changes fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// The variable's name.
    pub name: String,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// The elements, first axis fastest.
    pub values: Values,
}

/// The elements of a [`Matrix`].
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Stored as bytes.
    Bytes(Vec<u8>),
    /// Stored as anything else.
    Numbers(Vec<f64>),
}

impl Values {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Numbers(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as whole numbers from 0 on, `None` if one is not.
    pub fn to_indices(&self) -> Option<Vec<usize>> {
        match self {
            Self::Bytes(values) => Some(values.iter().map(|&v| usize::from(v)).collect()),
            Self::Numbers(values) => {
                let index = |&v: &f64| ((0.0..1e15).contains(&v) && v.fract() == 0.0).then_some(v as usize);
                values.iter().map(index).collect()
            }
        }
    }
}

/// Reads all numeric arrays of a file.
pub fn read(path: &Path) -> Result<Vec<Matrix>> {
    parse(&files::read(path)?, path)
}

/// Reads all numeric arrays of a file's content; `origin` is named in errors.
pub fn parse(bytes: &[u8], origin: &Path) -> Result<Vec<Matrix>> {
    matrices(bytes).map_err(|reason| Error::format(origin, reason))
}

/// The variable `name` of a file.
pub fn find(matrices: &[Matrix], name: &str, origin: &Path) -> Result<Matrix> {
    let found = matrices.iter().find(|matrix| matrix.name == name);
    found.cloned().ok_or_else(|| {
        let names: Vec<&str> = matrices.iter().map(|matrix| matrix.name.as_str()).collect();
        Error::format(origin, format!("there is no variable `{name}` in it, only: {}", names.join(", ")))
    })
}

fn matrices(bytes: &[u8]) -> Result<Vec<Matrix>, String> {
    let header = bytes.get(..HEADER).ok_or("not a MATLAB file: it is shorter than the header")?;
    if header.starts_with(b"MATLAB 7.3") || header.starts_with(b"\x89HDF") {
        return Err("a MATLAB 7.3 (HDF5) file; save it with `save -v7` or `-v6` and try again".into());
    }
    let big_endian = match &header[126..128] {
        b"IM" => false,
        b"MI" => true,
        _ => return Err("not a MATLAB level 5 file: the endian mark is wrong".into()),
    };
    let mut cursor = Cursor { bytes: &bytes[HEADER..], big_endian };
    let mut found = Vec::new();
    while !cursor.bytes.is_empty() {
        let element = cursor.element()?;
        found.extend(match element.kind {
            COMPRESSED => {
                let mut plain = Vec::new();
                ZlibDecoder::new(element.data)
                    .take(MAX_BYTES)
                    .read_to_end(&mut plain)
                    .map_err(|e| format!("a compressed variable is damaged or cut off ({e})"))?;
                let inner = Cursor { bytes: &plain, big_endian }.element()?;
                matrix(&inner, big_endian)?
            }
            _ => matrix(&element, big_endian)?,
        });
    }
    Ok(found)
}

/// One tagged piece of a file.
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

struct Cursor<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Cursor<'a> {
    fn word(&self, offset: usize) -> Option<u32> {
        let word: [u8; 4] = self.bytes.get(offset..offset + 4)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    }

    fn element(&mut self) -> Result<Element<'a>, String> {
        let cut = || "the file is cut off or damaged".to_owned();
        let tag = self.word(0).ok_or_else(cut)?;
        // Up to four bytes may share the tag's eight: length and type in one word.
        let (kind, length, start, end): (u32, usize, usize, usize) = if tag >> 16 != 0 {
            let length = (tag >> 16) as usize;
            (tag & 0xffff, length, 4, 8)
        } else {
            let length = self.word(4).ok_or_else(cut)? as usize;
            // Compressed elements are not padded.
            let padded = if tag == COMPRESSED { length } else { length.next_multiple_of(8) };
            (tag, length, 8, 8usize.saturating_add(padded))
        };
        if start == 4 && length > 4 {
            return Err(cut());
        }
        let data = self.bytes.get(start..start.saturating_add(length)).ok_or_else(cut)?;
        self.bytes = self.bytes.get(end..).unwrap_or_default();
        Ok(Element { kind, data })
    }
}

/// The numeric array in an element; `None` for everything else.
fn matrix(element: &Element, big_endian: bool) -> Result<Option<Matrix>, String> {
    if element.kind != MATRIX {
        return Ok(None);
    }
    let mut cursor = Cursor { bytes: element.data, big_endian };
    let flags = cursor.element()?;
    let class = Cursor { bytes: flags.data, big_endian }.word(0).unwrap_or(0) & 0xff;
    // 6 double … 15 uint64: the dense numeric classes.
    if !(6..=15).contains(&class) {
        return Ok(None);
    }
    let lengths = cursor.element()?;
    let lengths = Cursor { bytes: lengths.data, big_endian };
    let shape: Vec<usize> =
        (0..lengths.bytes.len() / 4).filter_map(|axis| lengths.word(4 * axis)).map(|n| n as usize).collect();
    let name = String::from_utf8_lossy(cursor.element()?.data).into_owned();
    let values = values(&cursor.element()?, big_endian)
        .ok_or_else(|| format!("the numbers of variable `{name}` are of an unknown type"))?;
    let expected = shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
    if expected != Some(values.len()) {
        return Err(format!("variable `{name}` of shape {shape:?} does not fit {} numbers", values.len()));
    }
    Ok(Some(Matrix { name, shape, values }))
}

/// The numbers, stored in any type: MATLAB writes the smallest that holds them.
fn values(element: &Element, big_endian: bool) -> Option<Values> {
    fn numbers<const N: usize>(data: &[u8], big_endian: bool, convert: fn([u8; N]) -> f64) -> Values {
        let word = |chunk: &[u8]| {
            let mut word = [0; N];
            word.copy_from_slice(chunk);
            if big_endian {
                word.reverse();
            }
            convert(word)
        };
        Values::Numbers(data.chunks_exact(N).map(word).collect())
    }
    let data = element.data;
    Some(match element.kind {
        1 => numbers(data, big_endian, |w| f64::from(i8::from_le_bytes(w))),
        2 => Values::Bytes(data.to_vec()),
        3 => numbers(data, big_endian, |w| f64::from(i16::from_le_bytes(w))),
        4 => numbers(data, big_endian, |w| f64::from(u16::from_le_bytes(w))),
        5 => numbers(data, big_endian, |w| f64::from(i32::from_le_bytes(w))),
        6 => numbers(data, big_endian, |w| f64::from(u32::from_le_bytes(w))),
        7 => numbers(data, big_endian, |w| f64::from(f32::from_le_bytes(w))),
        9 => numbers(data, big_endian, f64::from_le_bytes),
        12 => numbers(data, big_endian, |w| i64::from_le_bytes(w) as f64),
        13 => numbers(data, big_endian, |w| u64::from_le_bytes(w) as f64),
        _ => return None,
    })
}

/// Writes level 5 files for tests.
#[cfg(test)]
pub(crate) mod writer {
    use std::io::Write;

    pub(crate) fn header() -> Vec<u8> {
        let mut bytes = b"MATLAB 5.0 MAT-file".to_vec();
        bytes.resize(124, b' ');
        bytes.extend([0, 1, b'I', b'M']);
        bytes
    }

    fn element(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A matrix element; `kind` is the type of `data`.
    pub(crate) fn matrix(name: &str, shape: &[u32], class: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let parts = [
            element(6, &words(&[class, 0])),
            element(5, &words(shape)),
            element(1, name.as_bytes()),
            element(kind, data),
        ];
        element(14, &parts.concat())
    }

    pub(crate) fn compressed(element: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(element).unwrap();
        let data = encoder.finish().unwrap();
        [&15u32.to_le_bytes(), &(data.len() as u32).to_le_bytes(), &data[..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_compressed_arrays_are_read() {
        let doubles: Vec<u8> = [1.0f64, 10.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let file = [
            writer::header(),
            writer::matrix("X", &[2, 3], 9, 2, &[1, 2, 3, 4, 5, 6]),
            writer::compressed(&writer::matrix("y", &[2, 1], 6, 9, &doubles)),
            writer::matrix("text", &[1, 1], 4, 4, &[65, 0]),
        ]
        .concat();
        let found = parse(&file, Path::new("x.mat")).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].shape.as_slice(), found[0].values.len()), (&[2, 3][..], 6));
        assert_eq!(found[1].values.to_indices(), Some(vec![1, 10]));
        let message = find(&found, "z", Path::new("x.mat")).unwrap_err().to_string();
        assert!(message.contains("only: X, y"), "{message}");
    }

    #[test]
    fn damaged_files_are_explained() {
        let message = |bytes: &[u8]| parse(bytes, Path::new("x.mat")).unwrap_err().to_string();
        assert!(message(b"<html>").contains("shorter than the header"));
        assert!(message(&[b'x'; 200]).contains("endian mark"));
        let file = [writer::header(), writer::matrix("X", &[2, 3], 9, 2, &[1; 6])].concat();
        assert!(message(&file[..file.len() - 9]).contains("cut off"));
        let absurd = [writer::header(), writer::matrix("X", &[u32::MAX, 4], 9, 2, &[1; 6])].concat();
        assert!(message(&absurd).contains("does not fit 6"));
        let compressed = writer::compressed(&writer::matrix("y", &[2, 1], 9, 2, &[1, 2]));
        let file = [writer::header(), compressed[..compressed.len() - 6].to_vec()].concat();
        assert!(message(&file).contains("cut off"));
        let mut hdf = b"MATLAB 7.3 MAT-file".to_vec();
        hdf.resize(600, 0);
        assert!(message(&hdf).contains("7.3"));
    }
}
