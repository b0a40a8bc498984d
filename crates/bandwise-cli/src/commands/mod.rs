//! One file per command.

pub mod analyze;
pub mod convert;
pub mod corrupt;
pub mod data;
pub mod demo;
pub mod evaluate;
pub mod mask;
pub mod merge;
pub mod models;
pub mod report;
pub mod table;
pub mod train;
