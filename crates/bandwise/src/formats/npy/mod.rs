//! NumPy's `.npy` and `.npz` files, read and written.
//!
//! Own code rather than a crate: what is needed is a header of a few keys, and candle's reader takes
//! neither Fortran order nor big-endian numbers nor all integer types.

mod header;
#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use crate::{Error, Result, files};
use header::Header;

/// More than any set that fits into memory; keeps damaged headers from asking for it.
const MAX_BYTES: u64 = 64 << 30;

/// An array of numbers, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Data,
}

/// The elements of an array, in the nearest of three types.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// `uint8`, `bool`.
    Bytes(Vec<u8>),
    /// All other integers.
    Integers(Vec<i64>),
    /// `float16`, `float32`, `float64`.
    Floats(Vec<f32>),
}

impl Data {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Integers(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Array {
    /// The elements as labels: whole numbers from 0 on.
    pub fn labels(&self, origin: &Path) -> Result<Vec<u32>> {
        let bad = |index: usize, value: &dyn std::fmt::Display| {
            Error::format(origin, format!("label {index} is {value}, not a whole number from 0 on"))
        };
        let convert = |(index, &value): (usize, &i64)| u32::try_from(value).map_err(|_| bad(index, &value));
        match &self.data {
            Data::Bytes(values) => Ok(values.iter().map(|&v| u32::from(v)).collect()),
            Data::Integers(values) => values.iter().enumerate().map(convert).collect(),
            Data::Floats(values) => values
                .iter()
                .enumerate()
                .map(|(index, &v)| match (0.0..1e9).contains(&v) && v.fract() == 0.0 {
                    true => Ok(v as u32),
                    false => Err(bad(index, &v)),
                })
                .collect(),
        }
    }
}

/// Reads a `.npy` file.
pub fn read(path: &Path) -> Result<Array> {
    parse(&files::read(path)?, path)
}

/// Reads the content of a `.npy` file; `origin` is named in errors.
pub fn parse(bytes: &[u8], origin: &Path) -> Result<Array> {
    let (header, start) = Header::parse(bytes).map_err(|reason| Error::format(origin, reason))?;
    let data = &bytes[start..];
    let expected = header.byte_count().filter(|&n| n == data.len());
    if expected.is_none() {
        return Err(Error::format(
            origin,
            format!(
                "a NumPy array of shape {:?} and type {} does not fit {} bytes: the file is cut off or damaged",
                header.shape,
                header.dtype,
                data.len()
            ),
        ));
    }
    let data = header.decode(data).map_err(|reason| Error::format(origin, reason))?;
    Ok(Array { shape: header.shape, data })
}

/// The lengths of the axes of a `.npy` file; reads the header only.
pub fn read_shape(path: &Path) -> Result<Vec<usize>> {
    open_header(path).map(|(_, header, _)| header.shape)
}

/// Reads some rows (along the first axis) of a row-major `.npy` file, and nothing else of it.
pub fn read_rows(path: &Path, rows: Range<usize>) -> Result<Array> {
    let bad = |reason: &str| Error::format(path, reason);
    let (mut file, mut header, start) = open_header(path)?;
    let Some((&count, rest)) = header.shape.split_first().filter(|_| !header.fortran) else {
        return Err(bad("expected a row-major NumPy array with at least one axis"));
    };
    if rows.end > count || rows.start > rows.end {
        return Err(bad("the NumPy array has fewer rows than expected"));
    }
    let row = Header { shape: rest.to_vec(), ..header.clone() }.byte_count();
    let length =
        row.and_then(|row| row.checked_mul(rows.len())).map(|n| n as u64).filter(|&n| n <= MAX_BYTES);
    let (Some(row), Some(length)) = (row, length) else {
        return Err(bad("the NumPy array is larger than any that can be read"));
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start as u64 + row as u64 * rows.start as u64))
        .map_err(|e| Error::io(path, e))?;
    file.take(length).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 != length {
        return Err(bad("the NumPy array is cut off: it ends before its last row"));
    }
    header.shape[0] = rows.len();
    let data = header.decode(&bytes).map_err(|reason| Error::format(path, reason))?;
    Ok(Array { shape: header.shape, data })
}

/// The open file, its header, and where the elements begin.
fn open_header(path: &Path) -> Result<(File, Header, usize)> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.by_ref().take(header::MAX_BYTES as u64).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    let (header, start) = Header::parse(&bytes).map_err(|reason| Error::format(path, reason))?;
    Ok((file, header, start))
}

/// Reads the arrays of a `.npz` file whose name `wanted` accepts, without its `.npy`.
pub fn read_npz(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Array)>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    parse_npz(file, path, wanted)
}

/// Reads the arrays of a `.npz` archive whose name `wanted` accepts; `origin` is named in errors.
pub fn parse_npz(
    archive: impl Read + Seek,
    origin: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Array)>> {
    let bad = |reason: String| Error::format(origin, reason);
    let mut archive = zip::ZipArchive::new(archive)
        .map_err(|e| bad(format!("not an .npz file, or one that is cut off ({e})")))?;
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let entry =
            archive.by_index(index).map_err(|e| bad(format!("entry {index} cannot be read ({e})")))?;
        let name = entry.name().map_err(|e| bad(format!("entry {index} has no readable name ({e})")))?;
        let name = name.trim_end_matches(".npy").to_owned();
        if !wanted(&name) {
            continue;
        }
        let mut bytes = Vec::new();
        entry
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|e| bad(format!("`{name}` is damaged or cut off ({e})")))?;
        let array = parse(&bytes, &origin.join(&name))?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// The bytes that precede the elements of a row-major array in a `.npy` file, for files written piece by piece;
/// `dtype` is NumPy's name, such as `|u1` or `<f4`.
pub fn header_of(dtype: &str, shape: &[usize]) -> Vec<u8> {
    header::encode(dtype, shape)
}

/// The content of a `.npy` file of bytes (`uint8`).
///
/// # Panics
/// If the number of elements is not the product of `shape`.
pub fn encode_bytes(shape: &[usize], data: &[u8]) -> Vec<u8> {
    assert_eq!(data.len(), shape.iter().product::<usize>());
    let mut bytes = header::encode("|u1", shape);
    bytes.extend_from_slice(data);
    bytes
}

/// The content of a `.npy` file of `float32`.
///
/// # Panics
/// If the number of elements is not the product of `shape`.
pub fn encode_floats(shape: &[usize], data: &[f32]) -> Vec<u8> {
    assert_eq!(data.len(), shape.iter().product::<usize>());
    let mut bytes = header::encode("<f4", shape);
    data.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}

/// The content of a `.npy` file of `int64`.
///
/// # Panics
/// If the number of elements is not the product of `shape`.
pub fn encode_integers(shape: &[usize], data: &[i64]) -> Vec<u8> {
    assert_eq!(data.len(), shape.iter().product::<usize>());
    let mut bytes = header::encode("<i8", shape);
    data.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    bytes
}
