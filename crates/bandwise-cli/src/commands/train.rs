//! `bandwise train`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bandwise::data::DataSpec;
use bandwise::report::report_for_runs;
use bandwise::train::recipe::Recipe;
use bandwise::train::session;
use bandwise::{Error, Result};
use clap::Args;

use crate::arguments::data_spec;
use crate::device;
use crate::progress::TrainingProgress;

/// Train the network that a recipe describes.
///
/// The run folder holds everything: run.toml (the complete configuration), metrics.jsonl, TensorBoard
/// events, checkpoints, model.safetensors (last weights), best.safetensors, results.jsonl and
/// report.html. A run that was stopped at any moment goes on with --resume.
#[derive(Args)]
pub struct TrainArguments {
    /// A recipe (see the folder recipes/); with --resume the run folder's own is used
    #[arg(value_name = "RECIPE.toml", required_unless_present = "resume")]
    recipe: Option<PathBuf>,
    /// Data set, instead of the recipe's: cifar10:DIR, imagefolder:DIR, synthetic, …
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    data: Option<DataSpec>,
    /// Run folder; by default runs/NAME of the recipe
    #[arg(long, value_name = "DIR")]
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
}

/// Runs the command.
pub fn run(arguments: &TrainArguments, interrupt: &AtomicBool) -> Result<bool> {
    let device = device::open(&arguments.device)?;
    let recipe = arguments.recipe.as_ref().map(|path| Recipe::read(path, &arguments.set)).transpose()?;
    let recipe = match (recipe, &arguments.data) {
        (Some(mut recipe), Some(data)) => {
            recipe.data.source = data.clone();
            Some(recipe)
        }
        (recipe, _) => recipe,
    };
    let folder = match (&arguments.out, &recipe) {
        (Some(folder), _) => folder.clone(),
        (None, Some(recipe)) => PathBuf::from("runs").join(&recipe.name),
        (None, None) => {
            return Err(Error::config("--resume needs the run folder: --out DIR (or the recipe)"));
        }
    };
    let observer = TrainingProgress::new(recipe.as_ref().map_or("run", |recipe| &recipe.name));
    if arguments.resume {
        session::resume(&folder, recipe.as_ref(), &device, &observer, interrupt)?;
    } else if let Some(recipe) = recipe {
        session::start(&folder, recipe, &device, &observer, interrupt)?;
    }
    let page = folder.join("report.html");
    report_for_runs(std::slice::from_ref(&folder))?.write(&page)?;
    println!("{}: weights in model.safetensors, report in {}", folder.display(), page.display());
    Ok(true)
}
