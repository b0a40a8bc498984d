//! `bandwise mask`.

use bandwise::analyze::masks::data_set::{self, DataSetMasksConfig};
use bandwise::analyze::masks::per_image::{self, ImageMasksConfig};
use bandwise::attack::Attack;
use bandwise::method::fourier_mask::{ImageConfig, SharedMaskConfig};
use bandwise::{Error, Interrupt, Result};
use clap::Args;

use crate::arguments::subjects::{SpaceArgument, SubjectArguments};
use crate::attack_arguments::{self, AttackArguments};

/// Learn which input frequencies a trained network needs: Fourier masks (Karantzas et al. 2022).
///
/// A mask over the spectrum of the images is learned so that the cross-entropy of every image stays
/// what it is while the mask becomes sparse. By default one mask for all images is learned; --per-class
/// learns one for each class, --per-image one for each image (many side by side). Several --weights give
/// one mask each, and their differences. With --per-image they are compared as published: on images that all
/// networks judge alike (and whose judgment --attack turns for the first one), each network's masks keep what
/// the first one predicts; the first one's masks of the attacked images stand beside them.
///
/// DIR holds mask.npy [height, width] or masks.npy [n, height, width] (float32, not shifted: the mean
/// sits at [0, 0]), images (even part, centered), results.jsonl, sections and report.html. The same
/// command goes on after a stop.
#[derive(Args)]
pub struct MaskArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    /// One mask for each image
    #[arg(long, conflicts_with = "per_class")]
    per_image: bool,
    /// One mask for each class
    #[arg(long)]
    per_class: bool,
    /// Weight of sparsity, λ·‖M₀‖₁ [default: 0.2, per image 0.07]
    #[arg(long, value_name = "WEIGHT", alias = "lambda")]
    sparsity: Option<f64>,
    /// Peak learning rate [default: 0.001, per image 0.2]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Most passes over the images
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "per_image")]
    epochs: usize,
    /// Images per step of a mask for all; larger batches average over images
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "per_image", alias = "step-batch")]
    learner_batch: usize,
    /// Cap on one image's invariance term in a mask for all: with the default (30, as published but for overflow)
    /// single images stall the mask; 1 makes it sparse quickly
    #[arg(long, value_name = "INVARIANCE", conflicts_with = "per_image", alias = "bound")]
    max_invariance: Option<f64>,
    /// Most steps per image [default: 20000, as published]
    #[arg(long, value_name = "N", requires = "per_image")]
    max_steps: Option<usize>,
    #[command(flatten)]
    space: SpaceArgument,
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

const ADVERSARIAL: &str = "Learn masks of adversarial images: those that this attack breaks, with their wrong classes; with several --weights \
     beside the masks of the clean images";

impl MaskArguments {
    fn data_set(&self) -> DataSetMasksConfig {
        let defaults = SharedMaskConfig::default();
        let learning = SharedMaskConfig {
            decay: self.sparsity.unwrap_or(defaults.decay),
            learning_rate: self.lr.unwrap_or(defaults.learning_rate),
            epochs: self.epochs,
            batch_size: self.learner_batch,
            largest_exponent: self.max_invariance.unwrap_or(defaults.largest_exponent),
            seed: self.subjects.seed,
            ..defaults
        };
        DataSetMasksConfig { per_class: self.per_class, space: self.space.value(), learning }
    }

    fn single_images(&self, attack: Option<Attack>) -> ImageMasksConfig {
        let defaults = ImageConfig::default();
        let learning = ImageConfig {
            decay: self.sparsity.unwrap_or(defaults.decay),
            learning_rate: self.lr.unwrap_or(defaults.learning_rate),
            max_steps: self.max_steps.unwrap_or(defaults.max_steps),
            ..defaults
        };
        ImageMasksConfig { learning, attack, space: self.space.value(), seed: self.subjects.seed }
    }
}

/// Runs the command.
pub fn run(arguments: &MaskArguments, interrupt: &Interrupt) -> Result<bool> {
    let attack = match &arguments.attack {
        Some(name) => Some(arguments.settings.attack(name)?),
        None if arguments.settings.are_given() => {
            return Err(Error::config(
                "--eps, --steps and the like need an attack, for example --attack pgd",
            ));
        }
        None => None,
    };
    if arguments.max_steps.is_some() && !arguments.per_image {
        return Err(Error::config("--max-steps is for masks of single images: add --per-image"));
    }
    if attack.is_some() && !arguments.per_image {
        return Err(Error::config("masks of adversarial images are learned image by image: add --per-image"));
    }
    let folder = &arguments.subjects.out;
    if arguments.per_image {
        let config = arguments.single_images(attack);
        arguments.subjects.analyze_in_folder(&per_image::SECTIONS, interrupt, |subjects, job| {
            per_image::run(subjects, job, &config, folder)
        })
    } else {
        let config = arguments.data_set();
        arguments.subjects.analyze_in_folder(&data_set::SECTIONS, interrupt, |subjects, job| {
            data_set::run(subjects, job, &config, folder)
        })
    }
}
