//! Accuracy with confidence intervals: clean, under attack, under shifts.

pub mod accuracy;
pub mod cues;
pub mod record;
pub mod statistics;
pub mod suite;
