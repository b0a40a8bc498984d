//! Training: recipes, objectives, the loop, and the folder that a run leaves behind.

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
pub mod step;
pub mod trainer;
pub mod update;
