//! Bandwise trains, attacks and explains image classifiers through the frequency domain.
//!
//! The modules are rooms, one above the other; each imports only rooms that are listed before it:
//!
//! | room | what is in it |
//! |---|---|
//! | [`error`], [`files`], [`outputs`], [`differences`], [`lock`], [`job`], [`random`], [`suggest`], [`wording`] | foundations of all |
//! | [`formats`] | file formats that know nothing of images |
//! | [`spectral`] | bases, Fourier transforms, bands, spectra |
//! | [`plot`] | figures from plain numbers |
//! | [`data`] | data sets, augmentation, loader |
//! | [`corruption`] | common corruptions and other shifts |
//! | [`nn`] | layers, architectures, weights in and out |
//! | [`attack`] | one file per attack |
//! | [`method`] | the published methods, one file each |
//! | [`network`] | networks with their configuration, out of files and into them |
//! | [`evaluate`] | accuracies with intervals, under attacks and corruptions; records |
//! | [`analyze`] | what networks do with frequencies: masks, bands, spectra |
//! | [`report`] | pages from records and figures, folders of analyses |
//! | [`train`] | objectives, loss, schedules, trainer, checkpoints |
//!
//! Whatever a command of `bandwise` does is a function of a [`Subject`](evaluate::subject::Subject) (network and images),
//! a [`Job`] (device, batch size, interrupt, progress) and a plain configuration with the paper's values as defaults:
//! [`evaluate::corruptions::run`], [`analyze::heatmap::run`], [`analyze::masks::per_image::run`] and so on.
//!
//! ```no_run
//! use bandwise::Job;
//! use bandwise::analyze::heatmap::{self, HeatMapConfig};
//! use bandwise::data::Split;
//! use bandwise::evaluate::subject::{Compute, Subject, TestSet};
//! use bandwise::network::ModelSource;
//!
//! # fn main() -> bandwise::Result<()> {
//! let images = TestSet::open(&"cifar10:data/cifar10".parse()?, Split::Test, Some(1000))?;
//! let subject = Subject::load(&ModelSource::new("model.safetensors"), &images, &Compute::default())?;
//! let found = heatmap::run(&[subject], &Job::default(), &HeatMapConfig::default())?;
//! println!("wrong under a wave: {:.1} %", 100.0 * found.results[0].mean_error());
//! # Ok(())
//! # }
//! ```
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
pub mod differences;
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
pub mod network;
pub mod nn;
pub mod outputs;
// Only pages draw what analyses describe.
#[cfg_attr(not(feature = "report"), allow(dead_code, unused_imports))]
pub mod plot;
pub mod random;
#[cfg(feature = "report")]
pub mod report;
#[cfg(test)]
mod rooms;
pub mod spectral;
pub mod suggest;
pub mod train;
pub mod wording;

/// The tensor library: tensors in signatures are its own.
pub use candle_core;
pub use error::{Error, Result};
pub use job::{Interrupt, Job};
