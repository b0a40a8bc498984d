//! Training: recipes, objectives, the loop, and the folder that a run leaves behind.
//!
//! ```
//! use bandwise::candle_core::Device;
//! use bandwise::evaluate::record;
//! use bandwise::train::observer::Silent;
//! use bandwise::train::recipe::Recipe;
//! use bandwise::train::run::{Surroundings, start};
//!
//! # fn main() -> bandwise::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("bandwise-doc-run-{}", std::process::id()));
//! let recipe = r#"
//!     name = "example"
//!     epochs = 1
//!     batch_size = 10
//!     learning_rate = 0.05
//!     data.source = "synthetic:count=20,test_count=10,size=16"
//!     model = { architecture = "smallcnn", width = 4 }
//!     regularizers.filter_frequency = { lambda = 0.01 }
//! "#;
//! let interrupt = bandwise::Interrupt::default();
//! let surroundings = Surroundings { device: &Device::Cpu, observer: &Silent, interrupt: &interrupt };
//! let network = start(&folder, Recipe::parse(recipe, &[])?, surroundings)?;
//! assert_eq!(network.config.classes, Some(10));
//! let records = record::read(&folder.join("results.jsonl"))?;
//! assert!(records.iter().any(|record| record.metric == "accuracy"));
//! # std::fs::remove_dir_all(&folder).map_err(|e| bandwise::Error::config(e.to_string()))?;
//! # Ok(())
//! # }
//! ```

pub mod averaging;
pub mod awp;
pub mod batch_statistics;
pub mod checkpoint;
pub mod epoch_metrics;
pub mod history;
pub mod initial;
pub mod loss;
pub mod objective;
pub mod observer;
pub mod optimizer;
pub mod overfitting;
pub mod recipe;
pub mod regularizers;
pub mod run;
pub mod run_folder;
pub mod schedule;
pub mod selection;
pub mod step;
pub mod trainer;
pub mod update;
