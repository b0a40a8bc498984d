//! `bandwise analyze bands`.

use std::path::PathBuf;

use bandwise::analyze::bands::{self, BandConfig};
use bandwise::{Interrupt, Result};
use clap::Args;

use crate::arguments::subjects::{SpaceArgument, SubjectArguments};

/// Accuracy on low-passed, high-passed and band-passed images, by radius and by direction.
///
/// With --mask, also through a learned Fourier mask (one for all models or one for each) and through what
/// it leaves out.
#[derive(Args)]
pub struct BandsArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    /// Distance of neighboring radii, in cycles per image
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    radius_step: f64,
    /// Sectors over 180 degrees
    #[arg(long, value_name = "N", default_value_t = 8)]
    sectors: usize,
    /// Leave the mean color in every window
    #[arg(long)]
    keep_mean: bool,
    #[command(flatten)]
    space: SpaceArgument,
    /// A mask.npy of `bandwise mask`, in the order of --weights
    #[arg(long, value_name = "FILE")]
    mask: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &BandsArguments, interrupt: &Interrupt) -> Result<bool> {
    let config = BandConfig {
        radius_step: arguments.radius_step,
        sectors: arguments.sectors,
        keep_mean: arguments.keep_mean,
        space: arguments.space.value(),
        masks: arguments.mask.clone(),
    };
    arguments
        .subjects
        .analyze(&bands::SECTIONS, interrupt, |subjects, job| bands::run(subjects, job, &config))
}
