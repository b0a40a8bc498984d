//! `bandwise analyze filters`.

use std::path::PathBuf;

use bandwise::Result;
use bandwise::analyze::filters;
use bandwise::report::{AnalysisFolder, check_folder};
use candle_core::Device;
use clap::Args;

use crate::arguments::models::ModelsArguments;
use crate::output;

/// Energy of the convolution filters per cosine frequency, layer by layer (Lukasik et al. 2023).
///
/// Works on any network with 3×3 or larger convolutions, decomposed or plain; it looks at weights alone and
/// needs no images.
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
    check_folder(&arguments.out, &filters::SECTIONS)?;
    let mut models = Vec::new();
    for (choice, label) in arguments.models.each(None, None)? {
        let loaded = choice.source().load(&Device::Cpu)?;
        say!("{label}: {}", loaded.describe());
        loaded.warnings.iter().for_each(|warning| note!("warning: {label}: {warning}"));
        models.push((label, loaded));
    }
    let folder = AnalysisFolder::reserve(&arguments.out, &filters::SECTIONS)?;
    let findings = filters::run(&models)?.findings;
    output::say_findings(&findings, &folder.write(&findings)?);
    Ok(true)
}
