//! Learns the Fourier mask of a network: which frequencies of the input it needs, in a folder with figures and a page.
//!
//! `cargo run --release -p bandwise --features report --example mask -- model.safetensors cifar10:data/cifar10 masks`;
//! without arguments, a small network that was never trained, on made images.

use std::path::PathBuf;

use bandwise::analyze::masks::data_set::{self, DataSetMasksConfig};
use bandwise::data::Split;
use bandwise::evaluate::subject::{Compute, Subject, TestSet};
use bandwise::method::fourier_mask::SharedMaskConfig;
use bandwise::network::{ModelSource, Network, NetworkConfig};
use bandwise::report::write_analysis;
use bandwise::{Job, Result, candle_core::Device};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let scratch = std::env::temp_dir().join(format!("bandwise-example-{}", std::process::id()));
    let weights = match arguments.next() {
        Some(path) => PathBuf::from(path),
        None => {
            let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
            Network::new(config, 0, &Device::Cpu)?.save(&scratch.join("model.safetensors"))?;
            scratch.join("model.safetensors")
        }
    };
    let data = arguments.next().unwrap_or("synthetic:test_count=40".into());
    let folder = arguments.next().map_or(scratch.join("masks"), PathBuf::from);

    let images = TestSet::open(&data.parse()?, Split::Test, None)?;
    let subject = Subject::load(&ModelSource::new(weights), &images, &Compute::default())?;
    // The paper's settings, but for fewer epochs.
    let config = DataSetMasksConfig {
        learning: SharedMaskConfig { epochs: 3, ..SharedMaskConfig::default() },
        ..DataSetMasksConfig::default()
    };
    let found = data_set::run(&[subject], &Job::default(), &config, &folder)?;
    found.findings.lines.iter().for_each(|line| println!("{line}"));
    println!("{}", write_analysis(&folder, &found.findings)?.display());
    Ok(())
}
