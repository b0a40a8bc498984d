//! The models and pictures of an analysis.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bandwise::data::{DataSpec, load_all};
use bandwise::evaluate::subject::{Subject, TestSet};
use bandwise::{Error, Result};
use candle_core::{Device, Tensor};
use clap::Args;
use indicatif::ProgressBar;

use super::models::ModelsArguments;
use super::output::Output;
use crate::arguments::{ComputeArguments, SplitArgument, data_spec};

/// What every analysis of models on pictures takes.
#[derive(Args)]
pub struct SubjectArguments {
    #[command(flatten)]
    pub models: ModelsArguments,
    /// Mean of each channel, pixels in [0,1]; the networks see (pixel − mean)/std
    #[arg(long, value_name = "R,G,B", requires = "std", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel
    #[arg(long, value_name = "R,G,B", requires = "mean", value_delimiter = ',')]
    pub std: Option<Vec<f64>>,
    /// cifar10:DIR, cifar100:DIR, cifar10-bin:FILE, idx:DIR, imagefolder:DIR, npy:DIR, synthetic[:key=value,…]
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    pub data: DataSpec,
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArgument::Test)]
    pub split: SplitArgument,
    /// Only the first N pictures
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Pictures per pass
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub batch_size: usize,
    /// Folder for CSV, figures, records and report
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub compute: ComputeArguments,
}

/// The pictures that all models look at.
pub struct Pictures {
    /// `[n, height, width, channels]`.
    pub images: Tensor,
    /// `[n]` u32, on the device.
    pub labels: Tensor,
    /// The same on the host.
    pub label_values: Vec<u32>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

impl SubjectArguments {
    /// Loads models and pictures.
    pub fn load(&self) -> Result<(Vec<Subject>, Pictures)> {
        if self.batch_size == 0 {
            return Err(Error::config("--batch-size must be at least 1"));
        }
        Output::check(&self.out)?;
        let models = self.models.each(self.mean.as_ref(), self.std.as_ref())?;
        let compute = self.compute.compute()?;
        let data = TestSet::open(&self.data, self.split.into(), self.limit)?;
        data.check_batch(self.batch_size)?;
        let mut subjects = Vec::new();
        for (arguments, label) in models {
            let mut subject = Subject::load(&arguments.source(), &data, &compute)?;
            subject.label = label;
            subject.provenance.seeds = vec![self.seed];
            say!("{}: {}", subject.label, subject.describe());
            subject.warnings.iter().for_each(|warning| note!("warning: {}: {warning}", subject.label));
            subjects.push(subject);
        }
        Ok((subjects, Pictures::load(&data, &compute.device)?))
    }
}

impl Pictures {
    /// All images that are judged.
    fn load(data: &TestSet, device: &Device) -> Result<Self> {
        let dataset = data.dataset.as_ref();
        let batch = load_all(dataset, data.limit)?;
        Ok(Self {
            label_values: batch.labels.to_vec1()?,
            images: batch.images.to_device(device)?,
            labels: batch.labels.to_device(device)?,
            classes: dataset.class_names().to_vec(),
        })
    }
}

/// A progress callback that moves a bar and ends the analysis after a signal.
pub fn progress<'a>(
    bar: &'a ProgressBar,
    interrupt: &'a AtomicBool,
) -> impl FnMut(usize, usize) -> Result<()> + 'a {
    move |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if interrupt.load(Ordering::Relaxed) {
            return Err(Error::Interrupted("nothing was written".into()));
        }
        Ok(())
    }
}
