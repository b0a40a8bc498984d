//! nn

pub mod loss;
