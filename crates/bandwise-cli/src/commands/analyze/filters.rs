//! `bandwise analyze filters`.

use std::path::{Path, PathBuf};

use bandwise::analyze::filters::{FilterSpectrum, csv, section};
use bandwise::evaluate::record::{Provenance, Record};
use bandwise::method::Network;
use bandwise::{Error, Result, files};
use candle_core::Device;
use clap::Args;

use super::output::Output;
use crate::arguments::ModelArguments;

/// Energy of the convolution filters per cosine frequency, layer by layer (Lukasik et al. 2023).
///
/// Works on any network with 3×3 or larger convolutions, decomposed or plain; it looks at weights alone and
/// needs no pictures.
#[derive(Args)]
pub struct FiltersArguments {
    /// Weights of a model; repeat to set several side by side
    #[arg(long, value_name = "FILE", required = true)]
    weights: Vec<PathBuf>,
    /// Architecture, one for all weights or one for each; not needed for files that Bandwise wrote
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Name of each model in plots, in the order of --weights; otherwise the file's or folder's name
    #[arg(long, value_name = "TEXT")]
    label: Vec<String>,
    /// Number of classes, with --model
    #[arg(long, default_value_t = 10)]
    classes: usize,
    /// Channels of the pictures, with --model
    #[arg(long, default_value_t = 3)]
    channels: usize,
    /// Channels of the first stage, if not as published
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Folder for CSV, figures, records and report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &FiltersArguments) -> Result<bool> {
    let count = arguments.weights.len();
    for (option, given) in [("--model", arguments.model.len()), ("--label", arguments.label.len())] {
        if given > 0 && given != count && !(option == "--model" && given == 1) {
            return Err(Error::config(format!("{count} --weights and {given} {option}: name one for each")));
        }
    }
    let (mut spectra, mut records) = (Vec::new(), Vec::new());
    for (index, weights) in arguments.weights.iter().enumerate() {
        let model = arguments.model.get(index).or(arguments.model.first()).cloned();
        let choice =
            ModelArguments { weights: weights.clone(), model, width: arguments.width, mean: None, std: None };
        let config = choice.config(arguments.classes, arguments.channels)?;
        let (network, _) = Network::load(weights, config, &Device::Cpu)?;
        let label = arguments.label.get(index).cloned().unwrap_or_else(|| file_label(weights));
        let spectrum = FilterSpectrum::measure(label, &network.model)?;
        println!(
            "{}: {:.2} % of the filter energy is high-frequency",
            spectrum.label,
            100.0 * spectrum.high_share()
        );
        let mut record = Record::scalar("filter_high_frequency_share", spectrum.high_share());
        record.extra.insert("label".into(), spectrum.label.clone().into());
        records.push(record.with_provenance(&provenance(weights, &network)?));
        spectra.push(spectrum);
    }
    let mut output = Output::new(&arguments.out, "Filter frequencies");
    output.csv("filters", &csv(&spectra))?;
    output.records(&records)?;
    output.section("filters", section(&spectra))?;
    output.finish()?;
    Ok(true)
}

fn provenance(weights: &Path, network: &Network) -> Result<Provenance> {
    Ok(Provenance {
        model: network.config.architecture.clone(),
        weights_sha256: files::sha256(&files::read(weights)?),
        ..Provenance::default()
    })
}

/// The file's name; its folder's where the file is called as in every run.
fn file_label(weights: &Path) -> String {
    let name = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    let stem = name(weights.file_stem()).unwrap_or_default();
    if !["model", "best", "best_sum"].contains(&&*stem) {
        return stem;
    }
    name(weights.parent().and_then(Path::file_name)).unwrap_or(stem)
}
