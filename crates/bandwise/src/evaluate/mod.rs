//! evaluate

pub mod record;
pub mod statistics;
