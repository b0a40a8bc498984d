//! Clean accuracy, PGD and AutoAttack of a network, with intervals.
//!
//! `cargo run --release -p bandwise --example evaluate -- model.safetensors cifar10:data/cifar10 1000`; without arguments,
//! a small network that was never trained, on made images.

use bandwise::data::Split;
use bandwise::evaluate::attacks::{self, AttacksConfig};
use bandwise::evaluate::subject::{Compute, Subject, TestSet};
use bandwise::network::{ModelSource, Network, NetworkConfig};
use bandwise::{Job, Result, candle_core::Device};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = std::env::temp_dir().join(format!("bandwise-example-{}", std::process::id()));
    let weights = match arguments.next() {
        Some(path) => path.into(),
        None => untrained(&folder)?,
    };
    let data = arguments.next().unwrap_or("synthetic:test_count=40".into());
    let limit = arguments.next().and_then(|count| count.parse().ok());

    let images = TestSet::open(&data.parse()?, Split::Test, limit)?;
    let subject = Subject::load(&ModelSource::new(weights), &images, &Compute::default())?;
    let config =
        AttacksConfig { attacks: vec!["pgd".parse()?, "autoattack".parse()?], ..AttacksConfig::default() };
    let found = attacks::run(&subject, &Job::default(), &config)?;
    println!("{}", subject.describe());
    for (name, record) in found.rows() {
        let [low, high] = record.ci95.unwrap_or_default().map(|bound| 100.0 * bound);
        println!("{name}: {:.2} % (95 % interval {low:.2} to {high:.2} %)", 100.0 * record.value);
    }
    for warning in &found.warnings {
        println!("warning: {warning}");
    }
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}

fn untrained(folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
    let path = folder.join("model.safetensors");
    Network::new(config, 0, &Device::Cpu)?.save(&path)?;
    Ok(path)
}
