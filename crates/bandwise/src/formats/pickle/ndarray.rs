//! NumPy arrays inside a pickle.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Object, PickleError, Value};

/// A NumPy array as it lies in the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NdArray {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// NumPy's type string: byte order (`|`, `<` or `>`), kind and bytes per element, as in `"|u1"`, `"<f4"`.
    pub dtype: String,
    /// Whether the first axis changes fastest.
    pub fortran: bool,
    /// The elements; exactly as many bytes as shape and type say.
    pub data: Arc<[u8]>,
}

impl NdArray {
    /// Bytes per element.
    pub fn item_size(&self) -> usize {
        item_size(&self.dtype).unwrap_or(1)
    }

    /// The bytes with the last axis changing fastest, whatever the order in the file.
    pub fn row_major(&self) -> Cow<'_, [u8]> {
        if !self.fortran || self.shape.len() < 2 {
            return Cow::Borrowed(&self.data);
        }
        let item = self.item_size();
        let mut out = Vec::with_capacity(self.data.len());
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..self.data.len() / item {
            let offset = index.iter().zip(&self.shape).rev().fold(0, |sum, (i, n)| sum * n + i);
            out.extend_from_slice(&self.data[offset * item..(offset + 1) * item]);
            for (i, n) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        Cow::Owned(out)
    }
}

impl Value {
    /// The NumPy array that this value rebuilds (NumPy 1 and 2, pickle protocols 0 to 5).
    ///
    /// # Errors
    /// The value is something else, an array of Python objects, or its data do not fit its shape.
    pub fn as_ndarray(&self) -> Result<NdArray, PickleError> {
        let Value::Object(call) = self else { return Err(self.unexpected("a NumPy array")) };
        let (shape, dtype, fortran, data) = match call.name().as_str() {
            "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct" => {
                reconstructed(call).ok_or_else(|| self.unexpected("a NumPy array with its state"))?
            }
            "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer" => {
                let [data, dtype, shape, order] = call.positional() else {
                    return Err(self.unexpected("a NumPy array from a buffer"));
                };
                (shape, dtype, order.as_str() == Some("F"), data)
            }
            _ => return Err(self.unexpected("a NumPy array")),
        };
        let data =
            data.as_bytes().ok_or_else(|| data.unexpected("the elements of a NumPy array as bytes"))?;
        let shape: Vec<usize> = shape
            .as_sequence()
            .and_then(|axes| axes.iter().map(Value::as_usize).collect())
            .ok_or_else(|| shape.unexpected("the shape of a NumPy array"))?;
        let dtype = dtype_string(dtype)?;
        let size = item_size(&dtype)
            .ok_or_else(|| PickleError::Unexpected(format!("NumPy arrays of type {dtype:?} are not read")))?;
        let expected = shape.iter().try_fold(size, |bytes, &n| bytes.checked_mul(n));
        if expected != Some(data.len()) {
            return Err(PickleError::Unexpected(format!(
                "a NumPy array of shape {shape:?} and type {dtype} cannot have {} bytes",
                data.len()
            )));
        }
        Ok(NdArray { shape, dtype, fortran, data })
    }
}

/// Shape, type, order and data out of the state `(version, shape, dtype, is_fortran, data)`.
fn reconstructed(call: &Object) -> Option<(&Value, &Value, bool, &Value)> {
    match call.state.as_ref()?.as_sequence()? {
        [_, shape, dtype, fortran, data] | [shape, dtype, fortran, data] => {
            Some((shape, dtype, fortran.as_int()? != 0, data))
        }
        _ => None,
    }
}

/// The type string of a pickled `numpy.dtype`: `dtype("u1")` plus a state that holds the byte order.
fn dtype_string(value: &Value) -> Result<String, PickleError> {
    let wrong = || value.unexpected("a numpy.dtype");
    let Value::Object(call) = value else { return Err(wrong()) };
    if call.name() != "numpy.dtype" {
        return Err(wrong());
    }
    let code = call.positional().first().and_then(Value::as_str).ok_or_else(wrong)?;
    let order =
        call.state.as_ref().and_then(Value::as_sequence).and_then(|s| s.get(1)).and_then(Value::as_str);
    let code = code.trim_start_matches(['|', '<', '>', '=']);
    let order = match order {
        Some(">") => ">",
        _ if item_size(&format!("|{code}")) == Some(1) => "|",
        _ => "<",
    };
    Ok(format!("{order}{code}"))
}

/// Bytes per element of a type string of plain numbers.
fn item_size(dtype: &str) -> Option<usize> {
    let code = dtype.trim_start_matches(['|', '<', '>']);
    let (kind, size) = (code.chars().next()?, code.get(1..)?);
    match (kind, size) {
        ('b', "1") => Some(1),
        ('i' | 'u', "1" | "2" | "4" | "8") | ('f', "2" | "4" | "8") => size.parse().ok(),
        _ => None,
    }
}
