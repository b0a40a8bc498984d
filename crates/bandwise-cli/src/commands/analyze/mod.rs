//! `bandwise analyze`.

mod bands;
mod corruptions;
mod features;
mod filters;
mod gradients;
mod heatmap;
mod perturbations;

use bandwise::{Interrupt, Result};
use clap::{Args, Subcommand};

/// Look at what trained networks do with frequencies: N models side by side, CSV, plots and a report.
#[derive(Args)]
pub struct AnalyzeArguments {
    #[command(subcommand)]
    command: AnalyzeCommand,
}

#[derive(Subcommand)]
enum AnalyzeCommand {
    /// Fourier heat map: error rate when one Fourier wave is added to every image (Yin et al. 2019)
    Heatmap(heatmap::HeatmapArguments),
    /// Accuracy on low-passed, high-passed and band-passed images, by radius and by direction
    Bands(bands::BandsArguments),
    /// Fourier maps of what corruptions change, with their low-frequency bias (JaFR)
    Corruptions(corruptions::CorruptionsArguments),
    /// Spectra of adversarial perturbations, against learned Fourier masks
    Perturbations(perturbations::PerturbationsArguments),
    /// Spectra of the feature maps that leave each stage
    Features(features::FeaturesArguments),
    /// Energy of the filters per cosine frequency, layer by layer (Lukasik et al. 2023)
    Filters(filters::FiltersArguments),
    /// Spectrum of the input gradient: which frequencies a network looks at
    Gradients(gradients::GradientsArguments),
}

/// Runs the command.
pub fn run(arguments: &AnalyzeArguments, interrupt: &Interrupt) -> Result<bool> {
    match &arguments.command {
        AnalyzeCommand::Heatmap(arguments) => heatmap::run(arguments, interrupt),
        AnalyzeCommand::Bands(arguments) => bands::run(arguments, interrupt),
        AnalyzeCommand::Corruptions(arguments) => corruptions::run(arguments, interrupt),
        AnalyzeCommand::Perturbations(arguments) => perturbations::run(arguments, interrupt),
        AnalyzeCommand::Features(arguments) => features::run(arguments, interrupt),
        AnalyzeCommand::Filters(arguments) => filters::run(arguments),
        AnalyzeCommand::Gradients(arguments) => gradients::run(arguments, interrupt),
    }
}
