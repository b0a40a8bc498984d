//! `bandwise analyze heatmap`.

use bandwise::analyze::heatmap::{self, HeatMapConfig};
use bandwise::{Interrupt, Result};
use clap::Args;

use crate::arguments::subjects::SubjectArguments;

/// Fourier heat map: error rate when one Fourier wave is added to every image (Yin et al. 2019).
///
/// The wave has the given L2 norm in every channel (pixels in [0,1]) and a random sign per image and
/// channel. Yin et al. use norm 4 on CIFAR-10 and 15.7 on ImageNet.
#[derive(Args)]
pub struct HeatmapArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    /// L2 norm of the wave per channel, pixels in [0,1]
    #[arg(long, value_name = "NORM", default_value_t = 4.0)]
    eps: f64,
    /// Do not clamp perturbed pixels to [0,1]
    #[arg(long)]
    no_clip: bool,
    /// Only frequencies from −N to N
    #[arg(long, value_name = "N")]
    largest_frequency: Option<usize>,
}

/// Runs the command.
pub fn run(arguments: &HeatmapArguments, interrupt: &Interrupt) -> Result<bool> {
    let config = HeatMapConfig {
        norm: arguments.eps,
        clip: !arguments.no_clip,
        largest_frequency: arguments.largest_frequency,
        seed: arguments.subjects.seed,
    };
    arguments
        .subjects
        .analyze(&heatmap::SECTIONS, interrupt, |subjects, job| heatmap::run(subjects, job, &config))
}
