//! `bandwise convert`.

use std::path::PathBuf;

use bandwise::method::Network;
use bandwise::nn::weights;
use bandwise::{Error, Result};
use candle_core::Device;
use clap::Args;

use crate::arguments::ModelArguments;

/// Turn weights of one file format into another.
///
/// Reads .safetensors and PyTorch .pt/.pth/.th (zip and pre-1.6 format) without executing code, and
/// writes .safetensors under PyTorch's parameter names. With --model, names and shapes are checked,
/// prefixes such as `module.` are removed, and the architecture is stored in the file.
#[derive(Args)]
pub struct ConvertArguments {
    /// File to read
    input: PathBuf,
    /// .safetensors file to write
    output: PathBuf,
    /// Architecture (see `bandwise models`)
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Number of classes
    #[arg(long, default_value_t = 10)]
    classes: usize,
    /// Channels of the pictures
    #[arg(long, default_value_t = 3)]
    channels: usize,
    /// Channels of the first stage, if not as published
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
}

/// Runs the command.
pub fn run(arguments: &ConvertArguments) -> Result<bool> {
    if arguments.output.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Error::config(format!(
            "{}: the output's name must end in .safetensors",
            arguments.output.display()
        )));
    }
    let model = ModelArguments {
        weights: arguments.input.clone(),
        model: arguments.model.clone(),
        width: arguments.width,
        mean: arguments.mean.clone(),
        std: arguments.std.clone(),
    };
    match model.config(arguments.classes, arguments.channels)? {
        config if config.is_some() || arguments.recompose => {
            let (network, report) = Network::load(&arguments.input, config, &Device::Cpu)?;
            report.to_string().lines().for_each(|line| say!("{line}"));
            let network = if arguments.recompose { network.recomposed()? } else { network };
            network.save(&arguments.output)?;
        }
        _ => {
            let file = weights::read(&arguments.input)?;
            weights::write_safetensors(&arguments.output, &file.tensors, &file.metadata)?;
            say!("{} tensors", file.tensors.len());
        }
    }
    say!("wrote {}", arguments.output.display());
    Ok(true)
}
