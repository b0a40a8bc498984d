//! data

pub mod pickle;
