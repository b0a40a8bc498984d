//! One file per command.

pub mod convert;
pub mod data;
pub mod demo;
pub mod evaluate;
pub mod merge;
pub mod models;
pub mod report;
pub mod train;
