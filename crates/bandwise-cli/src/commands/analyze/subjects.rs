//! The models and pictures of an analysis.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bandwise::attack::FrozenModel;
use bandwise::data::{DataSpec, Dataset, Split, load_all};
use bandwise::evaluate::record::Provenance;
use bandwise::method::Network;
use bandwise::{Error, Result, files};
use candle_core::{Device, Tensor};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::models::ModelsArguments;
use crate::arguments::{ComputeArguments, ModelArguments, SplitArgument, data_spec};
use crate::output;

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

/// A loaded model.
pub struct Subject {
    /// Its name in plots.
    pub label: String,
    /// As loaded.
    pub network: Network,
    /// Folded, for predictions and gradients.
    pub frozen: FrozenModel,
    /// For its records.
    pub provenance: Provenance,
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
        let models = self.models.each(self.mean.as_ref(), self.std.as_ref())?;
        let device = self.compute.open()?;
        let split = Split::from(self.split);
        let dataset = self.data.open(split)?;
        let pictures = Pictures::load(&dataset, self.limit, &device)?;
        let channels = pictures.images.dim(3)?;
        let load = |(arguments, label)| Subject::load(&arguments, label, &dataset, channels, &device, self);
        Ok((models.into_iter().map(load).collect::<Result<_>>()?, pictures))
    }
}

impl Subject {
    fn load(
        arguments: &ModelArguments,
        label: String,
        dataset: &Arc<dyn Dataset>,
        channels: usize,
        device: &Device,
        common: &SubjectArguments,
    ) -> Result<Self> {
        let config = arguments.config(dataset.num_classes(), channels)?;
        let (mut network, report) = Network::load(&arguments.weights, config, device)?;
        if !report.is_exact() {
            output::explain(format_args!("{label}: {report}"));
        }
        network.model.set_precision(common.compute.precision().into())?;
        let frozen = FrozenModel::folded(&network.model)?;
        let provenance = Provenance {
            model: network.config.architecture.clone(),
            weights_sha256: files::sha256(&files::read(&arguments.weights)?),
            data: common.data.to_string(),
            data_sha256: dataset.fingerprint().to_string(),
            split: Split::from(common.split).to_string(),
            seeds: vec![common.seed],
            device: common.compute.device.clone(),
            precision: common.compute.precision().name().to_string(),
            configuration: json!({ "model": network.config, "limit": common.limit }),
            ..Provenance::default()
        };
        Ok(Self { label, network, frozen, provenance })
    }

    /// Under its name, for the library.
    pub fn named(&self) -> bandwise::analyze::NamedClassifier<'_> {
        bandwise::analyze::NamedClassifier { label: &self.label, classifier: &self.frozen }
    }
}

impl Pictures {
    /// The first `limit` pictures of a data set.
    pub fn load(dataset: &Arc<dyn Dataset>, limit: Option<usize>, device: &Device) -> Result<Self> {
        let batch = load_all(dataset.as_ref(), limit)?;
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
