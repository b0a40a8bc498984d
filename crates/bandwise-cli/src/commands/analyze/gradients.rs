//! `bandwise analyze gradients`.

use bandwise::analyze::gradients;
use bandwise::{Interrupt, Result};
use clap::Args;

use crate::arguments::subjects::SubjectArguments;

/// Spectrum of the input gradient, its radial profile and low-frequency bias, beside that of the images.
#[derive(Args)]
pub struct GradientsArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
}

/// Runs the command.
pub fn run(arguments: &GradientsArguments, interrupt: &Interrupt) -> Result<bool> {
    arguments.subjects.analyze(&gradients::SECTIONS, interrupt, gradients::run)
}
