//! File formats that know nothing of images.
//!
//! | file | what |
//! |---|---|
//! | [`csv`] | tables that no spreadsheet takes for formulas |
//! | [`events`] | TensorBoard's event files, written |
//! | [`mat`] | MATLAB 5 files, read |
//! | [`npy`] | NumPy's arrays, read and written |
//! | [`pickle`] | Python's pickles, read without running anything |

pub mod csv;
pub mod events;
pub mod mat;
pub mod npy;
pub mod pickle;
