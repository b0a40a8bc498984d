//! `bandwise convert`.

use std::path::PathBuf;

use bandwise::network::ModelSource;
use bandwise::nn::weights;
use bandwise::outputs::{self, Kind};
use bandwise::wording::counted;
use bandwise::{Error, Result};
use candle_core::Device;
use clap::Args;

use crate::arguments::ModelArguments;

/// Turn weights of one file format into another.
///
/// Reads .safetensors and PyTorch .pt/.pth/.th (zip and pre-1.6 format) without executing code, and
/// writes .safetensors under PyTorch's parameter names. With --model, names and shapes are checked strictly,
/// prefixes such as `module.` are removed, and the architecture is stored in the file, with what was doubtful.
#[derive(Args)]
pub struct ConvertArguments {
    /// File to read
    input: PathBuf,
    /// .safetensors file to write
    output: PathBuf,
    /// Architecture (see `bandwise models`)
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Number of classes; by default as in the file
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Channels of the images; by default as in the file
    #[arg(long, value_name = "N")]
    channels: Option<usize>,
    /// Channels of the first stage; by default as in the file
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Mean of each channel, pixels in [0,1]
    #[arg(long, value_name = "R,G,B", requires = "std", value_delimiter = ',', allow_hyphen_values = true)]
    mean: Option<Vec<f64>>,
    /// Standard deviation of each channel
    #[arg(long, value_name = "R,G,B", requires = "mean", value_delimiter = ',')]
    std: Option<Vec<f64>>,
    /// Turn convolutions that were trained as cosine coefficients into plain ones
    #[arg(long)]
    recompose: bool,
    /// Convert weights that do not fit the architecture; what is missing is random
    #[arg(long)]
    allow_mismatch: bool,
}

/// Runs the command.
pub fn run(arguments: &ConvertArguments) -> Result<bool> {
    if arguments.output.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Error::config(format!(
            "{}: the output's name must end in .safetensors",
            arguments.output.display()
        )));
    }
    outputs::check(&arguments.output, &Kind::Safetensors)?;
    let named = arguments.model.is_some() || arguments.recompose || arguments.allow_mismatch;
    let named = named || arguments.mean.is_some() || arguments.width.is_some();
    let file = weights::open(&arguments.input)?;
    // A checkpoint is more than a network: of it, only a network is taken.
    if named || file.metadata.contains_key(weights::CHECKPOINT_MARK) {
        let mut loaded = arguments.source().load(&Device::Cpu)?;
        say!("{}", loaded.describe());
        loaded.report.to_string().lines().for_each(|line| say!("{line}"));
        if arguments.recompose {
            loaded.network = loaded.network.recomposed()?;
        }
        loaded.save(&arguments.output)?;
        loaded.warnings.iter().for_each(|warning| note!("warning: {warning}"));
    } else {
        weights::write_safetensors(&arguments.output, &file.tensors, &file.metadata)?;
        say!("{}", counted(file.tensors.len(), "tensor"));
    }
    say!("wrote {}", arguments.output.display());
    Ok(true)
}

impl ConvertArguments {
    fn source(&self) -> ModelSource {
        let model = ModelArguments {
            weights: self.input.clone(),
            model: self.model.clone(),
            width: self.width,
            mean: self.mean.clone(),
            std: self.std.clone(),
            allow_mismatch: self.allow_mismatch,
        };
        ModelSource { classes: self.classes, channels: self.channels, ..model.source() }
    }
}
