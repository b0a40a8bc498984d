//! `bandwise demo`.

use std::path::PathBuf;

use bandwise::evaluate::record;
use bandwise::outputs::{self, Kind};
use bandwise::report::report_for_runs;
use bandwise::train::recipe::Recipe;
use bandwise::train::run::{self, Surroundings};
use bandwise::{Error, Interrupt, Result};
use clap::Args;

use crate::device;
use crate::progress::TrainingProgress;

/// The demo's networks.
const RECIPES: [&str; 3] = [
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/demo/plain.toml")),
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/demo/frequency.toml")),
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/demo/adversarial.toml")),
];

/// Train a plain, a frequency-regularized and an adversarially trained network, compare them, report.
///
/// They learn images that are drawn on the fly. Each class has a shape (low frequencies) and a fine texture (high
/// frequencies). The demo shows which of the two each network follows, and how robust that makes it.
#[derive(Args)]
pub struct DemoArguments {
    /// Folder for the runs and the report
    #[arg(long, value_name = "DIR", default_value = "bandwise-demo")]
    out: PathBuf,
    /// Seed of weights, order and attacks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda[:N] or metal
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Runs the command.
pub fn run(arguments: &DemoArguments, interrupt: &Interrupt) -> Result<bool> {
    let device = device::open(&arguments.device)?;
    let page = arguments.out.join("report.html");
    outputs::check(&page, &Kind::Page)?;
    let mut folders = Vec::new();
    for text in RECIPES {
        let recipe = Recipe::parse(text, &[format!("seed={}", arguments.seed)])?;
        let observer = TrainingProgress::new(&recipe.name);
        let folder = arguments.out.join(&recipe.name);
        let surroundings = Surroundings { device: &device, observer: &observer, interrupt };
        run::start_or_resume(&folder, recipe, surroundings).map_err(|error| match error {
            Error::Interrupted(_) => {
                let place = arguments.out.display();
                Error::Interrupted(format!("saved in {place}; the same command goes on"))
            }
            other => other,
        })?;
        folders.push(folder);
    }
    report_for_runs(&folders)?.write(&page)?;
    say!();
    for folder in &folders {
        summarize(folder)?;
    }
    say!();
    say!("Open the report: {}", page.display());
    Ok(true)
}

/// One line per number of a run.
fn summarize(folder: &std::path::Path) -> Result<()> {
    say!("{}", folder.display());
    for record in record::read(&folder.join("results.jsonl"))? {
        // The cue set's images of the training distribution are the test split over again.
        if record.provenance.split == "iid" {
            continue;
        }
        let what = match (record.metric.as_str(), record.attack.as_str()) {
            ("shape_share", _) => "conflict images judged by shape".to_string(),
            (_, "none") => format!("accuracy, {}", record.provenance.split),
            (_, attack) => format!("accuracy under {attack}, ε = {:.0}/255", record.epsilon * 255.0),
        };
        let [low, high] = record.ci95.unwrap_or([f64::NAN; 2]);
        say!("  {what:<36} {:5.1} %   ({:.1} to {:.1})", 100.0 * record.value, 100.0 * low, 100.0 * high);
    }
    Ok(())
}
