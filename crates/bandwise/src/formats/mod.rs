//! File formats that know nothing of images.

pub mod csv;
