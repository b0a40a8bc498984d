//! `bandwise analyze bands`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bandwise::analyze::NamedClassifier;
use bandwise::analyze::bands::{self, BandConfig};
use bandwise::analyze::masks::{MaskProfile, mean, section as mask_section};
use bandwise::method::fourier_mask::Mask;
use bandwise::{Error, Result};
use clap::Args;

use super::output::Output;
use super::subjects::{SubjectArguments, progress};
use crate::progress::bar;

/// Accuracy on low-passed, high-passed and band-passed pictures, by radius and by direction.
///
/// With --mask, also through a learned Fourier mask (one for all models or one for each) and through what
/// it leaves out.
#[derive(Args)]
pub struct BandsArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    /// Distance of neighbouring radii, in cycles per picture
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    radius_step: f64,
    /// Sectors over 180 degrees
    #[arg(long, value_name = "N", default_value_t = 8)]
    sectors: usize,
    /// Leave the mean colour in every window
    #[arg(long)]
    keep_mean: bool,
    /// A mask.npy of `bandwise mask`, in the order of --weights
    #[arg(long, value_name = "FILE")]
    mask: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: &BandsArguments, interrupt: &AtomicBool) -> Result<bool> {
    let (subjects, pictures) = arguments.subjects.load()?;
    let masks = one_for_each(&arguments.mask, subjects.len())?;
    let batch_size = arguments.subjects.batch_size;
    let config = BandConfig {
        radius_step: arguments.radius_step,
        sectors: arguments.sectors,
        keep_mean: arguments.keep_mean,
        batch_size,
    };
    let (images, labels) = (&pictures.images, &pictures.label_values);
    let (mut results, mut records, mut through, mut profiles) = (vec![], vec![], vec![], vec![]);
    for (index, subject) in subjects.iter().enumerate() {
        let bar = bar(&subject.label, 1);
        let named: [NamedClassifier; 1] = [NamedClassifier::of(subject)];
        let found = bands::measure(&named, images, labels, &config, &mut progress(&bar, interrupt))?;
        bar.finish_and_clear();
        records.extend(bands::records(&found).into_iter().map(|record| subject.sign(record)));
        results.extend(found);
        if let Some(mask) = masks.get(index) {
            let accuracy = bands::mask_accuracy(&named[0], images, labels, mask, batch_size)?;
            records.extend(accuracy.records().into_iter().map(|record| subject.sign(record)));
            through.push(accuracy);
            profiles.push(MaskProfile::new(&*subject.label, mask)?);
        }
    }
    for subject in &subjects {
        if let Some(line) = bands::headline(&results, &subject.label) {
            say!("{line}");
        }
    }
    for accuracy in &through {
        say!("{}", accuracy.summary());
    }
    let mut output = Output::new(&arguments.subjects.out, "Bands of the spectrum");
    output.csv("bands", &bands::csv(&results))?;
    output.records(&records)?;
    output.section("bands", bands::section(&results))?;
    if !profiles.is_empty() {
        output.section("masks", mask_section(&profiles)?.table(bands::accuracy_table(&through)))?;
    }
    output.finish()?;
    Ok(true)
}

/// One mask per model: as many files as models, or one file for all; of a file with masks of many images their mean.
pub fn one_for_each(files: &[PathBuf], models: usize) -> Result<Vec<Mask>> {
    if files.len() > 1 && files.len() != models {
        let count = files.len();
        return Err(Error::config(format!(
            "{models} --weights and {count} --mask: name one for all, or one for each"
        )));
    }
    let mut masks = Vec::new();
    for file in files {
        let found = Mask::read_npy(file)?;
        if found.len() > 1 {
            note!("{}: {} masks of single images; their mean is used", file.display(), found.len());
        }
        masks.push(mean(&found).ok_or_else(|| Error::format(file, "there is no mask in it"))?);
    }
    if masks.len() == 1 {
        masks = vec![masks.remove(0); models];
    }
    Ok(masks)
}
