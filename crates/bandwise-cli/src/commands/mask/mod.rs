//! `bandwise mask`.

mod data_set;
mod images_file;
mod per_image;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use bandwise::analyze::masks::picture;
use bandwise::method::fourier_mask::Mask;
use bandwise::outputs::{self, Kind};
use bandwise::{Error, Result, files};
use clap::{Args, ValueEnum};

use super::analyze::subjects::SubjectArguments;
use crate::attack_arguments::{self, AttackArguments};

/// Learn which input frequencies a trained network needs: Fourier masks (Karantzas et al. 2022).
///
/// A mask over the spectrum of the pictures is learned so that the cross-entropy of every picture stays
/// what it is while the mask becomes sparse. By default one mask for all pictures is learned; --per-class
/// learns one for each class, --per-image one for each picture (many side by side). Several --weights give
/// one mask each, and their differences.
///
/// DIR holds mask.npy [height, width] or masks.npy [n, height, width] (float32, not shifted: the mean
/// sits at [0, 0]), pictures (even part, centred), results.jsonl, sections and report.html. The same
/// command goes on after a stop.
#[derive(Args)]
pub struct MaskArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    /// One mask for each picture
    #[arg(long, conflicts_with = "per_class")]
    per_image: bool,
    /// One mask for each class
    #[arg(long)]
    per_class: bool,
    /// Weight of sparsity, λ·‖M₀‖₁ [default: 0.2, per picture 0.07]
    #[arg(long, value_name = "DECAY")]
    lambda: Option<f64>,
    /// Peak learning rate [default: 0.001, per picture 0.2]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Most passes over the pictures
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "per_image")]
    epochs: usize,
    /// Pictures per step of a mask for all; larger batches average over pictures
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "per_image")]
    step_batch: usize,
    /// Invariance above which a picture's pull on a mask for all grows no more: with the default (30, as published
    /// but for overflow) single pictures stall the mask; 1 makes it sparse quickly
    #[arg(long, value_name = "INVARIANCE", conflicts_with = "per_image")]
    bound: Option<f64>,
    /// Most steps per picture [default: 20000 as published, 1000 corrected]
    #[arg(long, value_name = "N", requires = "per_image")]
    max_steps: Option<usize>,
    /// The learning rate of single pictures: as in the published code, where it never leaves warm-up, or
    /// one cycle over the steps [default: published]
    #[arg(long, value_enum, requires = "per_image")]
    schedule: Option<ScheduleArgument>,
    #[arg(
        long,
        value_name = "NAME",
        requires = "per_image",
        help = attack_arguments::help(ADVERSARIAL),
        long_help = attack_arguments::long_help(ADVERSARIAL)
    )]
    attack: Option<String>,
    #[command(flatten)]
    settings: AttackArguments,
}

const ADVERSARIAL: &str =
    "Learn masks of adversarial images: those that this attack breaks, with their wrong classes";

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ScheduleArgument {
    /// The published code's, which stays at its first rate
    Published,
    /// A whole cycle up to --lr; loses more predictions and leaves larger masks
    Corrected,
}

/// Runs the command.
pub fn run(arguments: &MaskArguments, interrupt: &AtomicBool) -> Result<bool> {
    let attack = match &arguments.attack {
        Some(name) => Some(arguments.settings.attack(name)?),
        None if arguments.settings.are_given() => {
            return Err(Error::config(
                "--eps, --steps and the like need an attack, for example --attack pgd",
            ));
        }
        None => None,
    };
    if attack.is_some() && !arguments.per_image {
        return Err(Error::config("masks of adversarial images are learned image by image: add --per-image"));
    }
    let out = &arguments.subjects.out;
    for (name, kind) in [
        ("mask.npy", Kind::Npy),
        ("masks.npy", Kind::Npy),
        ("mask.png", Kind::Png),
        ("state.safetensors", Kind::Safetensors),
    ] {
        outputs::check(&out.join(name), &kind)?;
    }
    let (subjects, pictures) = arguments.subjects.load()?;
    for part in ["", "pictures", "sections", "figures"] {
        files::remove_leftovers(&out.join(part))?;
    }
    if subjects.len() > 1 && (arguments.per_image || arguments.per_class) {
        return Err(Error::config(
            "masks per picture or per class are learned for one model at a time; name one --weights",
        ));
    }
    if arguments.per_image {
        per_image::run(arguments, &subjects[0], pictures, attack.as_ref(), interrupt)?;
    } else {
        data_set::run(arguments, &subjects, &pictures, interrupt)?;
    }
    Ok(true)
}

/// Writes a mask as a picture: even part, centred.
fn write_picture(path: &Path, mask: &Mask) -> Result<()> {
    let png = picture(&mask.centred(), mask.height, mask.width).bytes().unwrap_or_default();
    outputs::replace(path, &png)
}
