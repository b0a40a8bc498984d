//! `bandwise train`.

use std::path::PathBuf;

use bandwise::data::DataSpec;
use bandwise::report::report_for_runs;
use bandwise::train::recipe::Recipe;
use bandwise::train::session;
use bandwise::{Error, Interrupt, Result};
use clap::Args;

use super::official::OfficialTraining;
use crate::arguments::data_spec;
use crate::device;
use crate::progress::TrainingProgress;

/// Train the network that a recipe describes.
///
/// Instead of a recipe, the flags of FPCM's official train.py may be given; they choose and change one of
/// recipes/fpcm.
///
/// The run folder holds everything: run.toml (the complete configuration), metrics.jsonl, TensorBoard
/// events, checkpoints, model.safetensors (last weights), best.safetensors, results.jsonl and
/// report.html. A run that was stopped at any moment goes on with --resume.
#[derive(Args)]
pub struct TrainArguments {
    /// A recipe (see the folder recipes/); with --resume the run folder's own is used
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
    /// Go on with the run in the run folder from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// cpu, cuda[:N] or metal
    #[arg(long, default_value = "cpu")]
    device: String,
    #[command(flatten)]
    official: OfficialTraining,
}

/// Runs the command.
pub fn run(arguments: &TrainArguments, interrupt: &Interrupt) -> Result<bool> {
    let device = device::open(&arguments.device)?;
    let recipe = recipe(arguments)?;
    if let Some(recipe) = &recipe {
        device::announce(&device, recipe.precision.into());
    }
    let folder = match (&arguments.out, &recipe) {
        (Some(folder), _) => folder.clone(),
        (None, Some(recipe)) => PathBuf::from("runs").join(&recipe.name),
        (None, None) if arguments.resume => {
            return Err(Error::config("--resume needs the run folder: --out DIR (or the recipe)"));
        }
        (None, None) => {
            return Err(Error::config(
                "name a recipe, for example recipes/cifar10/resnet9-quick.toml, or give the official FPCM flags: \
                 --data_root DIR --dataset CIFAR10 --model resnet18",
            ));
        }
    };
    let observer = TrainingProgress::new(recipe.as_ref().map_or("run", |recipe| &recipe.name));
    if arguments.resume {
        session::resume(&folder, recipe.as_ref(), &device, &observer, interrupt)?;
    } else if let Some(recipe) = recipe {
        session::start(&folder, recipe, &device, &observer, interrupt)?;
    } else {
        return Err(Error::config(
            "name the recipe that is to be trained; --resume goes on with a run folder",
        ));
    }
    let page = folder.join("report.html");
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
                "{} and the official FPCM flags (--dataset, --model, --lr, …) both say what to train: give the flags \
                 alone, or change the recipe with --data SPEC and --set learning_rate=0.01",
                path.display()
            )));
        }
        Some(path) => Some(Recipe::read(path, &arguments.set)?),
        None if official.is_given() => Some(Recipe::parse(&official.recipe()?.to_toml()?, &arguments.set)?),
        None => None,
    };
    Ok(recipe.map(|mut recipe| {
        recipe.data.source = arguments.data.clone().unwrap_or(recipe.data.source);
        recipe
    }))
}
