//! Bandwise trains, attacks and explains image classifiers through the frequency domain.
//!
//! The modules form layers, and imports run downwards only:
//!
//! | layer | modules |
//! |---|---|
//! | reports | [`report`] |
//! | procedures | [`evaluate`], [`analyze`], [`train`] |
//! | ingredients | [`attack`], [`method`], [`corruption`] |
//! | networks | [`nn`] |
//! | foundations | [`formats`], [`spectral`], [`plot`], [`data`], [`random`], [`job`], [`lock`], [`files`], [`error`] |
//!
//! Conventions that hold everywhere:
//! * images and activations are `[batch, height, width, channels]`, pixels lie in `[0, 1]`,
//!   and a model normalizes its input itself;
//! * weights keep PyTorch's `[out, in/groups, kh, kw]` layout and its parameter names;
//! * randomness comes from explicit streams ([`random::stream`]), never from a global state.

pub mod analyze;
pub mod attack;
mod calendar;
pub mod corruption;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod files;
pub mod formats;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
#[allow(dead_code)]
mod golden;
pub mod job;
pub mod lock;
pub mod method;
pub mod nn;
pub mod plot;
pub mod random;
#[cfg(feature = "report")]
pub mod report;
pub mod spectral;
pub mod suggest;
pub mod train;
pub mod wording;

pub use error::{Error, Result};
pub use job::{Interrupt, Job};
