//! `bandwise train`.

use std::path::PathBuf;

use bandwise::data::DataSpec;
use bandwise::outputs::{self, Kind};
use bandwise::report::report_for_runs;
use bandwise::train::recipe::Recipe;
use bandwise::train::run::{self, Surroundings};
use bandwise::train::run_folder::RunFolder;
use bandwise::{Error, Interrupt, Result};
use clap::Args;

use crate::arguments::data_spec;
use crate::device;
use crate::official::OfficialTraining;
use crate::progress::TrainingProgress;

/// Train the network that a recipe describes.
///
/// Instead of a recipe, the flags of an official train.py may be given, FPCM's or filter frequency regularization's; they
/// choose and change one of recipes/fpcm or recipes/filter-frequency.
///
/// The run folder holds everything: run.toml (the complete configuration), metrics.jsonl, TensorBoard
/// events, checkpoints, model.safetensors (last weights), best.safetensors, results.jsonl and
/// report.html. A run that was stopped at any moment continues with --resume. To train a finished run
/// longer: --resume --out DIR --set epochs=N --accept-changes.
#[derive(Args)]
pub struct TrainArguments {
    /// A recipe (see the folder recipes/); with --resume, the run folder's own is used if none is named
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,
    /// Data set, instead of the recipe's: cifar10:DIR, imagefolder:DIR, synthetic, …
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    data: Option<DataSpec>,
    /// Run folder; by default runs/NAME of the recipe
    #[arg(long, value_name = "DIR", alias = "save_path")]
    out: Option<PathBuf>,
    /// Change one setting of the recipe, e.g. --set epochs=10 --set optimizer.momentum=0.8
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Start from the weights in this file instead of random ones (.safetensors, .pt, .pth; a run's or anybody's)
    #[arg(long, value_name = "FILE", aliases = ["pretrained", "load_checkpoint"], conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// Resume the run in the run folder from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// Resume even though settings have changed since the checkpoint; every record then names both values
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// cpu, cuda[:N] or metal
    #[arg(long, default_value = "cpu")]
    device: String,
    #[command(flatten)]
    official: OfficialTraining,
}

/// Runs the command.
pub fn run(arguments: &TrainArguments, interrupt: &Interrupt) -> Result<bool> {
    let device = device::open(&arguments.device)?;
    let named = recipe(arguments)?;
    let folder = match (&arguments.out, &named) {
        (Some(folder), _) => folder.clone(),
        (None, Some(recipe)) => {
            arguments.official.folder().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name))
        }
        (None, None) if arguments.resume => {
            return Err(Error::config("--resume needs the run folder: --out DIR (or the recipe)"));
        }
        (None, None) => {
            return Err(Error::config(
                "name a recipe, for example recipes/cifar10/resnet9-quick.toml, or give official flags: FPCM's \
                 --data_root DIR --dataset CIFAR10 --model resnet18, filter frequency regularization's --data_dir DIR \
                 --model lowres_resnet9 --basis_filter WD, …",
            ));
        }
    };
    let recipe = match named {
        Some(recipe) => recipe,
        None if arguments.resume => changed(RunFolder::recipe(&folder, &arguments.set)?, arguments),
        None => {
            return Err(Error::config(
                "name the recipe that is to be trained; --resume continues a run folder",
            ));
        }
    };
    let page = folder.join("report.html");
    outputs::check(&page, &Kind::Page)?;
    device::announce(&device, recipe.precision);
    let observer = TrainingProgress::new(&recipe.name);
    let surroundings = Surroundings { device: &device, observer: &observer, interrupt };
    if arguments.resume {
        run::resume(&folder, recipe, arguments.accept_changes, surroundings)?;
    } else {
        run::start(&folder, recipe, surroundings)?;
    }
    report_for_runs(std::slice::from_ref(&folder))?.write(&page)?;
    say!("{}: weights in model.safetensors, report in {}", folder.display(), page.display());
    Ok(true)
}

/// The recipe that was named, or the one that the official flags stand for.
fn recipe(arguments: &TrainArguments) -> Result<Option<Recipe>> {
    let official = &arguments.official;
    let recipe = match &arguments.recipe {
        Some(path) if official.is_given() => {
            return Err(Error::config(format!(
                "{} and the official flags (--dataset, --model, --lr, …) both say what to train: give the flags \
                 alone, or change the recipe with --data SPEC and --set learning_rate=0.01",
                path.display()
            )));
        }
        Some(path) => Some(Recipe::read(path, &arguments.set)?),
        None if official.is_given() => Some(Recipe::parse(&official.recipe()?.to_toml()?, &arguments.set)?),
        None => None,
    };
    Ok(recipe.map(|recipe| changed(recipe, arguments)))
}

/// The recipe with the data and the initial weights that the command line names.
fn changed(mut recipe: Recipe, arguments: &TrainArguments) -> Recipe {
    recipe.data.source = arguments.data.clone().unwrap_or(recipe.data.source);
    recipe.model.weights = arguments.init.clone().or(recipe.model.weights);
    recipe
}
