//! Training: recipes, objectives, the loop, and the folder that a run leaves behind.

pub mod averaging;
pub mod checkpoint;
pub mod objective;
pub mod optimizer;
pub mod recipe;
pub mod regularizers;
pub mod run;
pub mod schedule;
pub mod session;
pub mod step;
pub mod tally;
pub mod tensorboard;
pub mod trainer;
