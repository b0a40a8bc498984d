//! A network with its input normalization: pixels in [0, 1] in, logits out.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bandwise_kernels::{Algorithm, Precision};
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::architecture::ModelShape;
use super::build::{Builder, Initialization};
use super::context::ForwardContext;
use super::dual_tensor::DualTensor;
use super::fold::fold;
use super::layer::{Layer, forward, visit_convolutions, visit_convolutions_mut, visit_stages};
use super::parameter::{Parameter, Role};
use super::plan::Plan;
use super::weights::StateDict;
use super::zoo;
use crate::wording::counted;
use crate::{Error, Result, random};

/// Per-channel constants: the network sees `(pixel − mean) / std`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Mean of each channel, pixels in [0, 1].
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    pub std: Vec<f64>,
}

/// Images whose pixels deviate by less are of one color each.
const LEAST_DEVIATION: f64 = 1e-3;
/// No pixels in [0, 1] deviate by more, and no scaling that anybody uses divides by more.
const MOST_DEVIATION: f64 = 10.0;

impl Normalization {
    /// Refuses lengths that do not fit, deviations that are not positive, and constants that are none of pixels in
    /// [0, 1].
    pub fn check(&self, channels: usize) -> Result<()> {
        let fits = |values: &[f64]| values.len() == channels || values.len() == 1;
        if !fits(&self.mean) || !fits(&self.std) {
            let (mean, std) = (self.mean.len(), self.std.len());
            return Err(Error::config(format!(
                "normalization: {} and {} for images of {}",
                counted(mean, "mean"),
                counted(std, "deviation"),
                counted(channels, "channel")
            )));
        }
        let refuse = |what: &str| Err(Error::config(format!("normalization: {what}")));
        const OF_BYTES: &str = "are pixels from 0 to 255 meant? Then divide mean and std by 255";
        if let Some(value) = self.mean.iter().chain(&self.std).find(|value| !value.is_finite()) {
            return refuse(&format!("{value} is no finite number"));
        }
        if let Some(std) = self.std.iter().find(|std| **std <= 0.0) {
            return refuse(&format!("deviations must be positive, not {std}"));
        }
        if let Some(std) = self.std.iter().find(|std| **std < LEAST_DEVIATION) {
            return refuse(&format!("a deviation of {std} is smaller than the step between two bytes"));
        }
        if let Some(mean) = self.mean.iter().find(|mean| !(0.0..=1.0).contains(*mean)) {
            return refuse(&format!("a mean of {mean} does not lie in [0, 1], where pixels are; {OF_BYTES}"));
        }
        if let Some(std) = self.std.iter().find(|std| **std > MOST_DEVIATION) {
            return refuse(&format!("a deviation of {std} is none of pixels in [0, 1]; {OF_BYTES}"));
        }
        Ok(())
    }
}

impl std::fmt::Display for Normalization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Six digits tell constants apart; those of files are rounded to single precision.
        let row = |values: &[f64]| {
            let short = |value: &f64| ((value * 1e6).round() / 1e6).to_string();
            values.iter().map(short).collect::<Vec<_>>().join(", ")
        };
        write!(f, "mean {}, std {}", row(&self.mean), row(&self.std))
    }
}

/// A network: layers and the normalization in front of them.
#[derive(Clone, Debug)]
pub struct Model {
    /// The layers.
    pub layers: Vec<Layer>,
    pub(super) normalization: Option<(Tensor, Tensor)>,
    shape: ModelShape,
    dtype: DType,
    device: Device,
}

impl Model {
    /// A freshly initialized network of the zoo.
    pub fn new(
        architecture: &str,
        shape: ModelShape,
        normalization: Option<&Normalization>,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let random = random::stream(seed, &[random::tag("weights")]);
        let builder = Builder::new(Initialization::PyTorch, random, dtype, device);
        Self::built(architecture, shape, normalization, builder)
    }

    /// A network of the zoo whose weights, still zero, are about to be read.
    pub(crate) fn zeros(
        architecture: &str,
        shape: ModelShape,
        normalization: Option<&Normalization>,
        device: &Device,
    ) -> Result<Self> {
        Self::built(architecture, shape, normalization, Builder::zeros(DType::F32, device))
    }

    /// Names and shapes of the tensors of a network of the zoo, without making them.
    ///
    /// # Errors
    /// For unknown names and for networks too large to be built.
    pub fn plan(architecture: &str, shape: ModelShape) -> Result<Plan> {
        shape.check()?;
        let mut builder = Builder::planning();
        let layers = zoo::find(architecture)?(&mut builder, shape)?;
        let mut plan = builder.into_plan();
        visit_stages(&layers, &mut |stage| plan.stages.push(stage.channels));
        Ok(plan)
    }

    fn built(
        architecture: &str,
        shape: ModelShape,
        normalization: Option<&Normalization>,
        mut builder: Builder,
    ) -> Result<Self> {
        // Sizes are judged before anything is allocated.
        Self::plan(architecture, shape)?;
        let layers = zoo::find(architecture)?(&mut builder, shape)?;
        Self::from_layers(layers, shape, normalization, builder.dtype, &builder.device)
    }

    /// A network of any layers.
    pub fn from_layers(
        layers: Vec<Layer>,
        shape: ModelShape,
        normalization: Option<&Normalization>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let normalization = match normalization {
            None => None,
            Some(constants) => {
                constants.check(shape.channels)?;
                let row = |values: Vec<f64>| -> Result<Tensor> {
                    let count = values.len();
                    Ok(Tensor::from_vec(values, count, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
                };
                // One multiplication and one addition: x·(1/std) − mean/std.
                let pairs = constants.std.iter().zip(constants.mean.iter().cycle());
                let shift = pairs.map(|(s, m)| -m / s).collect();
                Some((row(constants.std.iter().map(|s| 1.0 / s).collect())?, row(shift)?))
            }
        };
        Ok(Self { layers, normalization, shape, dtype, device: device.clone() })
    }

    /// Channels, classes and width.
    pub fn shape(&self) -> ModelShape {
        self.shape
    }

    /// Type of its tensors.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where its tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Pixels `[batch, height, width, channels]` in [0, 1] to logits `[batch, classes]`.
    pub fn forward(&self, images: &DualTensor, pass: &ForwardContext) -> Result<DualTensor> {
        let input = match &self.normalization {
            None => images.clone(),
            Some((scale, shift)) => images.linear(|x| Ok(x.broadcast_mul(scale)?))?.add_constant(shift)?,
        };
        forward(&self.layers, &input, pass)
    }

    /// [`Model::forward`] for an ordinary tensor.
    pub fn logits(&self, images: &Tensor, pass: &ForwardContext) -> Result<Tensor> {
        let channels = images.dims().last().copied().unwrap_or(0);
        if images.rank() != 4 || channels != self.shape.channels {
            return Err(Error::model(format!(
                "expected images of shape [batch, height, width, {}], got {:?}",
                self.shape.channels,
                images.dims()
            )));
        }
        Ok(self.forward(&DualTensor::plain(images.clone()), pass)?.value)
    }

    /// All parameters and buffers in PyTorch's order.
    pub fn parameters(&self) -> Vec<&Parameter> {
        self.layers.iter().flat_map(Layer::parameters).collect()
    }

    /// What an optimizer trains, in PyTorch's order.
    pub fn trainable(&self) -> Vec<(String, Var)> {
        let learned = self.parameters().into_iter().filter(|p| p.role() != Role::Buffer);
        learned.map(|p| (p.name().to_string(), p.var().clone())).collect()
    }

    /// Number of learned values.
    pub fn parameter_count(&self) -> usize {
        self.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Names and current values (shared storage) of all parameters and buffers.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.parameters().into_iter().map(|p| (p.name().to_string(), p.var().as_detached_tensor())).collect()
    }

    /// Overwrites parameters and buffers in place.
    ///
    /// # Errors
    /// If one is missing from `state`; nothing has changed then.
    pub fn set_state(&self, state: &StateDict) -> Result<()> {
        let parameters = self.parameters();
        if let Some(missing) = parameters.iter().find(|p| !state.contains_key(p.name())) {
            return Err(Error::model(format!("the weights of {} are missing", missing.name())));
        }
        parameters.into_iter().try_for_each(|parameter| parameter.set(&state[parameter.name()]))
    }

    /// Overwrites the parameters and buffers that `state` has.
    pub(crate) fn set_present(&self, state: &StateDict) -> Result<()> {
        let present = self.parameters().into_iter().filter_map(|p| Some((p, state.get(p.name())?)));
        present.into_iter().try_for_each(|(parameter, value)| parameter.set(value))
    }

    /// A copy that shares every tensor but is constant to autodiff: no weight gradients are computed.
    pub fn frozen(&self) -> Self {
        Self { layers: self.layers.iter().map(Layer::frozen).collect(), ..self.clone() }
    }

    /// The same function in evaluation mode, frozen, with batch norm folded into convolutions. It holds
    /// the weights as they are now; later updates do not reach it.
    pub fn folded(&self) -> Result<Self> {
        Ok(Self { layers: fold(&self.layers)?, ..self.clone() })
    }

    /// What convolutions run as in evaluation mode, and how many of them; most first.
    pub fn algorithms(&self) -> Result<Vec<(Algorithm, usize)>> {
        let mut convolutions = Vec::new();
        visit_convolutions(&self.layers, &mut |convolution| convolutions.push(convolution));
        let mut counts = BTreeMap::new();
        for convolution in convolutions {
            *counts.entry(convolution.algorithm()?).or_insert(0) += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        Ok(counts)
    }

    /// Chooses the arithmetic of all convolutions.
    pub fn set_precision(&mut self, precision: Precision) -> Result<()> {
        visit_convolutions_mut(&mut self.layers, &mut |convolution| {
            convolution.config.precision = precision;
            Ok(())
        })
    }
}
