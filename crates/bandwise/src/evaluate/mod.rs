//! Measuring robustness: journals, tables and records with their proof.
//!
//! | module | what |
//! |---|---|
//! | [`subject`] | the network and the images of an evaluation, loaded and checked in one place |
//! | `fit` | whether a network and images have the same channels and classes |
//! | [`attacks`] | the workflow: clean and under attacks, checked, journaled, as records |
//! | [`preflight`] | the check before anything expensive, and what the evaluation will cost |
//! | [`engine`] | fills a journal, on what is missing and still alive |
//! | [`journal`] | one line per (image, attack): continues after a kill, merges from shards |
//! | [`shard`] | shares of the images for job arrays |
//! | [`tables`] | each attack alone, the worst case, paired comparisons, exchange formats |
//! | [`accuracy`] | clean and robust accuracy in memory, for training and the demo |
//! | [`corruptions`] | accuracy under common corruptions, means, mCE, the order by frequency |
//! | [`cues`] | shape bias on cue-conflict images, and accuracy on the cue splits of the synthetic data |
//! | [`accuracy_record`] | records of accuracies |
//! | [`identity`] | what makes two records one measurement, or seeds of one configuration |
//! | [`naming`] | what tables and pages call a measurement |
//! | [`comparison`] | means over seeds, tests between configurations, which number is the best |
//! | [`overview`] | many runs side by side: seeds of one configuration, rows and columns |
//! | [`sources`] | records out of files of any kind and run folders |
//! | [`record`] | one number with everything needed to believe it |
//! | [`statistics`] | confidence intervals and paired tests |
//!
//! ```
//! use bandwise::Job;
//! use bandwise::attack::FrozenModel;
//! use bandwise::candle_core::Device;
//! use bandwise::data::{DataSpec, Split};
//! use bandwise::evaluate::{accuracy, statistics};
//! use bandwise::network::{Network, NetworkConfig};
//!
//! # fn main() -> bandwise::Result<()> {
//! let dataset = "synthetic:test_count=10,size=16".parse::<DataSpec>()?.open(Split::Test)?;
//! let config = NetworkConfig { width: Some(2), ..NetworkConfig::new("smallcnn") };
//! let model = FrozenModel::folded(&Network::new(config, 0, &Device::Cpu)?.model)?;
//! let right = accuracy::correct(&model, dataset.as_ref(), &[0, 1, 2, 3, 4], &Job::default())?;
//! assert_eq!(right.len(), 5);
//!
//! // 8 of 10 right: the accuracy of such a network may well be one half.
//! let [low, high] = statistics::wilson_interval(8, 10);
//! assert!((low - 0.490).abs() < 5e-4 && (high - 0.943).abs() < 5e-4);
//! # Ok(())
//! # }
//! ```

pub mod accuracy;
pub mod accuracy_record;
mod adversarial;
pub mod attacks;
pub mod comparison;
pub mod corruptions;
pub mod cues;
pub mod engine;
#[cfg(test)]
mod engine_tests;
pub(crate) mod fit;
pub mod identity;
pub mod journal;
#[cfg(test)]
mod journal_tests;
#[cfg(test)]
mod journal_warning_tests;
pub mod naming;
pub mod overview;
pub mod preflight;
pub mod record;
pub mod shard;
pub mod sources;
pub mod statistics;
pub mod subject;
pub mod tables;
