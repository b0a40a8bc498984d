//! What several commands take.

pub mod models;
pub mod subjects;

use std::path::PathBuf;

use bandwise::corruption::Corruption;
use bandwise::data::{DataSpec, Split};
use bandwise::evaluate::overview;
use bandwise::evaluate::subject::Compute;
use bandwise::network::ModelSource;
use bandwise::nn::Normalization;
use bandwise::{Error, Result};
use bandwise_kernels::Precision;
use candle_core::Device;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::device;

/// Which weights, and how to read them.
#[derive(Args, Clone)]
pub struct ModelArguments {
    /// Weights: .safetensors, or a PyTorch .pt/.pth/.th state dict (no code in it is executed); or a run
    /// folder; FILE#ENTRY takes one of several state dicts in a file
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Architecture (see `bandwise models`); by default what the file says, or the only one that fits it
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Channels of the first stage; by default as in the file
    #[arg(long, value_name = "N")]
    pub width: Option<usize>,
    /// Mean of each channel, pixels in [0,1]; the network sees (pixel − mean)/std
    #[arg(long, value_name = "R,G,B", requires = "std", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel
    #[arg(long, value_name = "R,G,B", requires = "mean", value_delimiter = ',')]
    pub std: Option<Vec<f64>>,
    /// Load weights that do not fit the architecture, and take labels as they are where the classes of network and
    /// images differ; results carry a warning
    #[arg(long)]
    pub allow_mismatch: bool,
}

impl ModelArguments {
    /// As the library takes it.
    pub fn source(&self) -> ModelSource {
        let normalization = match (&self.mean, &self.std) {
            (Some(mean), Some(std)) => Some(Normalization { mean: mean.clone(), std: std.clone() }),
            _ => None,
        };
        ModelSource {
            architecture: self.model.clone(),
            width: self.width,
            normalization,
            allow_mismatch: self.allow_mismatch,
            ..ModelSource::new(&self.weights)
        }
    }
}

/// Where and how to compute.
#[derive(Args, Clone)]
pub struct ComputeArguments {
    /// cpu, cuda[:N] or metal
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Arithmetic of convolutions
    #[arg(long, value_parser = precisions(), default_value = "f32")]
    pub precision: Precision,
}

impl ComputeArguments {
    /// The device; says what the precision means there.
    fn open(&self) -> Result<Device> {
        let device = device::open(&self.device)?;
        device::announce(&device, self.precision);
        Ok(device)
    }

    /// Device and precision for the library.
    pub fn compute(&self) -> Result<Compute> {
        Ok(Compute { device: self.open()?, device_name: self.device.clone(), precision: self.precision })
    }
}

/// What `--precision` takes.
fn precisions() -> impl TypedValueParser<Value = Precision> {
    let what = |precision| match precision {
        Precision::F32 => "Single precision",
        Precision::F32Fast => "Near single precision, by whatever is fastest here",
        Precision::Tf32 => "Ten bits of mantissa on CUDA's tensor cores; on the CPU the same as f32",
        Precision::Bf16 => "bfloat16 products, f32 sums",
    };
    let value = |precision: Precision| PossibleValue::new(precision.name()).help(what(precision));
    let values = Precision::ALL.map(|precision| match precision {
        Precision::F32Fast => value(precision).alias("f32x3"),
        _ => value(precision),
    });
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Precision>())
}

#[derive(Clone, Copy, ValueEnum)]
pub enum SplitArgument {
    Train,
    Test,
}

impl From<SplitArgument> for Split {
    fn from(argument: SplitArgument) -> Self {
        match argument {
            SplitArgument::Train => Self::Train,
            SplitArgument::Test => Self::Test,
        }
    }
}

/// A data set named on the command line.
pub fn data_spec(text: &str) -> std::result::Result<DataSpec, String> {
    text.parse().map_err(|e: Error| e.to_string())
}

/// What was named, without what was named before; says so.
pub fn each_once(paths: &[PathBuf]) -> Vec<PathBuf> {
    let (kept, left_out) = overview::distinct(paths);
    for path in left_out {
        note!("note: {} is named more than once; it is shown once", path.display());
    }
    kept
}

/// Help that says which corruptions there are.
pub fn corruptions_help(what: &str) -> String {
    format!("{what}: names separated by commas, {}", Corruption::groups())
}

/// The same with a line per corruption.
pub fn corruptions_long_help(what: &str) -> String {
    format!("{}\n{}", corruptions_help(what), Corruption::help())
}
