//! Training: recipes, objectives, the loop, and the folder that a run leaves behind.

pub mod averaging;
pub mod awp;
pub mod batch_statistics;
pub mod checkpoint;
pub mod history;
pub mod initial;
pub mod objective;
pub mod observer;
pub mod optimizer;
pub mod overfitting;
pub mod recipe;
pub mod regularizers;
pub mod run;
pub mod schedule;
pub mod session;
pub mod step;
pub mod tally;
pub mod tensorboard;
pub mod trainer;
pub mod update;
