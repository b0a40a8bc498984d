//! The header of a `.npy` file: magic, version, length, and a Python dictionary of three keys.

use half::f16;

use super::Data;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself refuses longer ones.
const MAX_HEADER: usize = 10_000;
/// As much of a file as may precede the elements.
pub(super) const MAX_BYTES: usize = 12 + MAX_HEADER;

/// What precedes the elements.
#[derive(Clone)]
pub(super) struct Header {
    pub(super) dtype: String,
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
}

impl Header {
    /// The header, and where the elements begin.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), String> {
        if !bytes.starts_with(MAGIC) || bytes.len() < 10 {
            return Err("not a NumPy array file (.npy): its first bytes are wrong".into());
        }
        let (length, start): (usize, usize) = match bytes[6] {
            1 => (usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), 10),
            2 | 3 if bytes.len() >= 12 => {
                (u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize, 12)
            }
            version => return Err(format!("version {version} of NumPy's file format is not known")),
        };
        let text = bytes
            .get(start..start.saturating_add(length))
            .filter(|_| length <= MAX_HEADER)
            .and_then(|text| std::str::from_utf8(text).ok())
            .ok_or("the header of the NumPy array is cut off or damaged")?;
        let header = Self::from_dictionary(text)
            .ok_or_else(|| format!("the header of the NumPy array is not understood: {}", text.trim()))?;
        Ok((header, start + length))
    }

    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
    fn from_dictionary(text: &str) -> Option<Self> {
        let after = |key: &str| {
            let at = text.find(&format!("'{key}'"))? + key.len() + 2;
            text[at..].trim_start().strip_prefix(':').map(str::trim_start)
        };
        let dtype = after("descr")?.strip_prefix('\'')?.split('\'').next()?.to_owned();
        let fortran = match after("fortran_order")? {
            value if value.starts_with("True") => true,
            value if value.starts_with("False") => false,
            _ => return None,
        };
        let shape = after("shape")?.strip_prefix('(')?.split(')').next()?;
        let axes = shape.split(',').map(str::trim).filter(|axis| !axis.is_empty());
        // Python 2 writes lengths as `3L`.
        let shape = axes.map(|axis| axis.trim_end_matches('L').parse().ok()).collect::<Option<_>>()?;
        Some(Self { dtype, fortran, shape })
    }

    /// Byte order, kind and bytes per element.
    fn element(&self) -> Option<(bool, char, usize)> {
        let (order, rest) = self.dtype.split_at_checked(1)?;
        let big_endian = match order {
            "<" | "|" | "=" => false,
            ">" => true,
            _ => return None,
        };
        let (kind, size) = rest.split_at_checked(1)?;
        let (kind, size) = (kind.chars().next()?, size.parse().ok()?);
        let known = matches!((kind, size), ('b', 1) | ('u' | 'i', 1 | 2 | 4 | 8) | ('f', 2 | 4 | 8));
        known.then_some((big_endian, kind, size))
    }

    /// How many bytes the elements take; `None` for unknown types and sizes that overflow.
    pub(super) fn byte_count(&self) -> Option<usize> {
        let size = self.element().map_or(1, |(_, _, size)| size);
        self.shape.iter().try_fold(size, |product, &length| product.checked_mul(length))
    }

    /// The elements, row-major; `bytes` has the right length.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Data, String> {
        let (big_endian, kind, size) = self.element().ok_or_else(|| {
            format!("NumPy arrays of type `{}` are not read, only numbers and bool", self.dtype)
        })?;
        let order = self.fortran.then(|| row_major_order(&self.shape));
        let elements = bytes.len() / size;
        // Each element, least significant byte first, in the low bytes of a word.
        let word = |position: usize| {
            let position = order.as_ref().map_or(position, |order| order[position]);
            let element = &bytes[position * size..(position + 1) * size];
            let join = |word: u64, byte: &u8| (word << 8) | u64::from(*byte);
            match big_endian {
                true => element.iter().fold(0, join),
                false => element.iter().rev().fold(0, join),
            }
        };
        let words = (0..elements).map(word);
        Ok(match (kind, size) {
            ('b', _) | ('u', 1) if order.is_none() => Data::Bytes(bytes.to_vec()),
            ('b', _) | ('u', 1) => Data::Bytes(words.map(|w| w as u8).collect()),
            ('f', 2) => Data::Floats(words.map(|w| f16::from_bits(w as u16).to_f32()).collect()),
            ('f', 4) => Data::Floats(words.map(|w| f32::from_bits(w as u32)).collect()),
            ('f', _) => Data::Floats(words.map(|w| f64::from_bits(w) as f32).collect()),
            ('i', 1) => Data::Integers(words.map(|w| i64::from(w as i8)).collect()),
            ('i', 2) => Data::Integers(words.map(|w| i64::from(w as i16)).collect()),
            ('i', 4) => Data::Integers(words.map(|w| i64::from(w as i32)).collect()),
            ('u', 8) => Data::Integers(
                words
                    .enumerate()
                    .map(|(index, word)| {
                        i64::try_from(word).map_err(|_| {
                            format!("element {index} is {word}, more than the largest number that is read, 2⁶³ − 1")
                        })
                    })
                    .collect::<Result<_, _>>()?,
            ),
            _ => Data::Integers(words.map(|w| w as i64).collect()),
        })
    }
}

/// For each element in row-major order, its position in Fortran order.
fn row_major_order(shape: &[usize]) -> Vec<usize> {
    let mut positions = vec![0];
    let mut stride = 1;
    for &length in shape {
        let step = stride;
        positions = positions
            .iter()
            .flat_map(|&position| (0..length).map(move |index| position + index * step))
            .collect();
        stride *= length;
    }
    positions
}

/// The bytes before the elements of a row-major array.
pub(super) fn encode(dtype: &str, shape: &[usize]) -> Vec<u8> {
    let axes: String = shape.iter().map(|length| format!("{length}, ")).collect();
    let axes = if shape.len() == 1 { axes.trim_end() } else { axes.trim_end_matches(", ") };
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({axes}), }}");
    // The elements begin at a multiple of 64 bytes, after a line feed.
    let padding = (64 - (10 + text.len() + 1) % 64) % 64;
    text.push_str(&" ".repeat(padding));
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}
