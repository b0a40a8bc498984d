//! `bandwise analyze features`.

use bandwise::analyze::features;
use bandwise::{Interrupt, Result};
use clap::Args;

use crate::arguments::subjects::SubjectArguments;

/// Spectra of the feature maps that leave each stage.
#[derive(Args)]
pub struct FeaturesArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
}

/// Runs the command.
pub fn run(arguments: &FeaturesArguments, interrupt: &Interrupt) -> Result<bool> {
    arguments.subjects.analyze(&features::SECTIONS, interrupt, features::run)
}
