//! File formats that know nothing of images.
//!
//! | file | what |
//! |---|---|
//! | [`csv`] | tables that no spreadsheet takes for formulas |
//! | [`events`] | TensorBoard's event files, written |
//! | [`mat`] | MATLAB 5 files, read |
//! | [`npy`] | NumPy's arrays, read and written |
//! | [`pickle`] | Python's pickles, read without running anything |
//!
//! ```
//! use bandwise::formats::npy::{self, Data};
//!
//! # fn main() -> bandwise::Result<()> {
//! let bytes = npy::encode_floats(&[2, 2], &[0.0, 0.5, 1.0, 1.5]);
//! let array = npy::parse(&bytes, "array.npy".as_ref())?;
//! assert_eq!(array.shape, [2, 2]);
//! assert_eq!(array.data, Data::Floats(vec![0.0, 0.5, 1.0, 1.5]));
//! # Ok(())
//! # }
//! ```

pub mod csv;
pub mod events;
pub mod mat;
pub mod npy;
pub mod pickle;
