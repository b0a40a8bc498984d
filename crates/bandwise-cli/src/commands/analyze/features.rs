//! `bandwise analyze features`.

use std::sync::atomic::AtomicBool;

use bandwise::Result;
use bandwise::analyze::features::{FeatureSpectra, csv, section};
use bandwise::evaluate::record::Record;
use clap::Args;

use super::output::Output;
use super::subjects::{SubjectArguments, progress};
use crate::progress::bar;

/// Spectra of the feature maps that leave each stage.
#[derive(Args)]
pub struct FeaturesArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
}

/// Runs the command.
pub fn run(arguments: &FeaturesArguments, interrupt: &AtomicBool) -> Result<bool> {
    let (subjects, pictures) = arguments.subjects.load()?;
    let (mut spectra, mut records) = (Vec::new(), Vec::new());
    for subject in &subjects {
        let bar = bar(&subject.label, 1);
        let (model, batch_size) = (&subject.network.model, arguments.subjects.batch_size);
        let mut progress = progress(&bar, interrupt);
        let found =
            FeatureSpectra::measure(&subject.label, model, &pictures.images, batch_size, &mut progress)?;
        bar.finish_and_clear();
        for stage in &found.stages {
            say!(
                "{} {}: {:.1} % of the power above half of Nyquist",
                found.label,
                stage.stage,
                100.0 * stage.high_share()
            );
            let mut record = Record::scalar("feature_high_frequency_share", stage.high_share());
            record.extra.insert("label".into(), found.label.clone().into());
            record.extra.insert("stage".into(), stage.stage.clone().into());
            records.push(subject.sign(record));
        }
        spectra.push(found);
    }
    let mut output = Output::new(&arguments.subjects.out, "Feature maps");
    output.csv("features", &csv(&spectra))?;
    output.records(&records)?;
    output.section("features", section(&spectra))?;
    output.finish()?;
    Ok(true)
}
