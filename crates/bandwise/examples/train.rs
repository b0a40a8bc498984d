//! Trains a recipe in a folder, from Rust: a small network with frequency-regularized filters, on made images.
//!
//! `cargo run --release -p bandwise --example train -- runs/example`; called again, it goes on where it was stopped.

use std::path::PathBuf;

use bandwise::evaluate::record;
use bandwise::train::observer::Observer;
use bandwise::train::recipe::Recipe;
use bandwise::train::run::{Surroundings, start_or_resume};
use bandwise::train::run_folder::MetricsLine;
use bandwise::{Interrupt, Result, candle_core::Device};

/// The same text as in a file for `bandwise train`.
const RECIPE: &str = r#"
name = "example"
epochs = 2
batch_size = 50
learning_rate = 0.05

[data]
source = "synthetic:count=200,test_count=100"

[model]
architecture = "smallcnn"
width = 8

[regularizers]
filter_frequency = { lambda = 0.01, kind = "high", depth = 1.0 }
"#;

/// Says one line per epoch.
struct Lines;

impl Observer for Lines {
    fn epoch(&self, line: &MetricsLine, epochs: u64, seconds: f64) {
        let loss = line.values.get("train/loss").copied().unwrap_or(f64::NAN);
        println!("epoch {} of {epochs}, {seconds:.1} s: loss {loss:.3}", line.epoch);
    }
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("bandwise-example-{}", std::process::id())),
        PathBuf::from,
    );
    let surroundings =
        Surroundings { device: &Device::Cpu, observer: &Lines, interrupt: &Interrupt::default() };
    let network = start_or_resume(&folder, Recipe::parse(RECIPE, &[])?, surroundings)?;
    println!("{} with {} parameters", network.config.architecture, network.model.parameter_count());
    for record in record::read(&folder.join("results.jsonl"))? {
        println!("{} ({}): {:.4}", record.metric, record.provenance.split, record.value);
    }
    Ok(())
}
