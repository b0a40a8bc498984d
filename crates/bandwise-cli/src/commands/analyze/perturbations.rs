//! `bandwise analyze perturbations`.

use std::path::PathBuf;

use bandwise::analyze::perturbations::{self, PerturbationConfig};
use bandwise::{Interrupt, Result};
use clap::Args;

use crate::arguments::subjects::SubjectArguments;
use crate::attack_arguments::{self, AttackArguments};

/// Spectra of adversarial perturbations, against learned Fourier masks.
#[derive(Args)]
pub struct PerturbationsArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    #[arg(
        long,
        value_name = "NAME",
        default_value = "pgd",
        help = attack_arguments::help("The attack"),
        long_help = attack_arguments::long_help("The attack")
    )]
    attack: String,
    #[command(flatten)]
    settings: AttackArguments,
    /// A mask.npy or masks.npy of `bandwise mask`, one for all models or one for each
    #[arg(long, value_name = "FILE")]
    mask: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &PerturbationsArguments, interrupt: &Interrupt) -> Result<bool> {
    let config = PerturbationConfig {
        attack: arguments.settings.attack(&arguments.attack)?,
        seed: arguments.subjects.seed,
        masks: arguments.mask.clone(),
    };
    arguments.subjects.analyze(&perturbations::SECTIONS, interrupt, |subjects, job| {
        perturbations::run(subjects, job, &config)
    })
}
