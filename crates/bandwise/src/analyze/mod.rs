//! Analyses: what a network sees, band by band.

pub mod examples;
pub mod filters;
pub mod gradients;
