//! `bandwise analyze filters`.

use std::path::PathBuf;

use bandwise::Result;
use bandwise::analyze::filters::{FilterSpectrum, csv, section};
use bandwise::evaluate::record::Record;
use bandwise::evaluate::subject::provenance;
use candle_core::Device;
use clap::Args;

use super::models::ModelsArguments;
use super::output::Output;

/// Energy of the convolution filters per cosine frequency, layer by layer (Lukasik et al. 2023).
///
/// Works on any network with 3×3 or larger convolutions, decomposed or plain; it looks at weights alone and
/// needs no pictures.
#[derive(Args)]
pub struct FiltersArguments {
    #[command(flatten)]
    models: ModelsArguments,
    /// Folder for CSV, figures, records and report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &FiltersArguments) -> Result<bool> {
    Output::check(&arguments.out)?;
    let (mut spectra, mut records) = (Vec::new(), Vec::new());
    for (choice, label) in arguments.models.each(None, None)? {
        let loaded = choice.source().load(&Device::Cpu)?;
        say!("{label}: {}", loaded.describe());
        let spectrum = FilterSpectrum::measure(label, &loaded.network.model)?;
        say!(
            "{}: {:.2} % of the filter energy is high-frequency",
            spectrum.label,
            100.0 * spectrum.high_share()
        );
        let mut record = Record::scalar("filter_high_frequency_share", spectrum.high_share());
        record.extra.insert("label".into(), spectrum.label.clone().into());
        records.push(record.with_provenance(&provenance(&loaded)));
        spectra.push(spectrum);
    }
    let mut output = Output::new(&arguments.out, "Filter frequencies");
    output.csv("filters", &csv(&spectra))?;
    output.records(&records)?;
    output.section("filters", section(&spectra))?;
    output.finish()?;
    Ok(true)
}
