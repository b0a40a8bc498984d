//! `bandwise analyze gradients`.

use std::sync::atomic::AtomicBool;

use bandwise::Result;
use bandwise::analyze::gradients::{GradientSpectrum, csv, section};
use bandwise::evaluate::record::Record;
use bandwise::spectral::statistics::SpectrumStatistics;
use clap::Args;

use super::output::Output;
use super::subjects::{SubjectArguments, progress};
use crate::progress::bar;

/// Spectrum of the input gradient, its radial profile and low-frequency bias, beside that of the pictures.
#[derive(Args)]
pub struct GradientsArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
}

/// Runs the command.
pub fn run(arguments: &GradientsArguments, interrupt: &AtomicBool) -> Result<bool> {
    let (subjects, pictures) = arguments.subjects.load()?;
    let batch_size = arguments.subjects.batch_size;
    let bar = bar("input gradients", subjects.len());
    let mut progress = progress(&bar, interrupt);
    let (mut models, mut records) = (Vec::new(), Vec::new());
    for (index, subject) in subjects.iter().enumerate() {
        progress(index, subjects.len())?;
        let found = GradientSpectrum::measure(
            &subject.network.model,
            &pictures.images,
            &pictures.labels,
            batch_size,
        )?;
        let bias = found.low_frequency_bias()?;
        bar.suspend(|| {
            say!("{}: low-frequency bias {bias:.3}, mean norm {:.4}", subject.label, found.mean_norm());
        });
        for (metric, value) in [("low_frequency_bias", bias), ("gradient_norm", found.mean_norm())] {
            let mut record = Record::scalar(metric, value);
            record.extra.insert("label".into(), subject.label.clone().into());
            records.push(subject.sign(record));
        }
        models.push((subject.label.clone(), found));
    }
    bar.finish_and_clear();
    let images = SpectrumStatistics::of_tensor(&pictures.images)?;
    let mut output = Output::new(&arguments.subjects.out, "Input gradients");
    output.csv("gradients", &csv(&models))?;
    output.records(&records)?;
    output.section("gradients", section(&models, &images)?)?;
    output.finish()?;
    Ok(true)
}
