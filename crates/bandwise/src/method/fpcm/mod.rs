//! FPCM, the Frequency Preference Control Module (Bu, Huang, Cui; ICCV 2023).
//!
//! A block behind a stage of a network. It splits the feature map `x` of P = h·w positions into a low and
//! a high part and mixes them anew, per sample and channel:
//!
//! ```text
//! low = IFFT( G ⊙ FFT(x) ),   G[p] = exp(−½ (min(p, P − p) / D0)²)
//! ω   = ½ + ½ σ( projection( mean over positions of x ) )        ½ and 1 are settings: `omega_min`, `omega_max`
//! out = ω · low + (1 − ω) · (x − low)
//! ```
//!
//! The published filter runs over the *flattened* positions (raster scan): vertical detail counts as low
//! frequency, horizontal detail as high. [`Filter::Radial`] is a true two-dimensional low-pass instead.
//! The official code also transforms along channels; since G does not depend on the channel, those two
//! transforms cancel and are left out. The official mean of the projected map equals the projection of the
//! mean, which is what is computed here.
//!
//! ```
//! use bandwise::candle_core::Device;
//! use bandwise::method::fpcm::{self, FpcmConfig};
//! use bandwise::network::{Network, NetworkConfig};
//!
//! # fn main() -> bandwise::Result<()> {
//! let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") };
//! let mut model = Network::new(config, 0, &Device::Cpu)?.model;
//! let before = model.parameter_count();
//! fpcm::install(&mut model, &FpcmConfig { stages: vec![1], ..FpcmConfig::default() }, 0)?;
//! // A weight and a bias for each of the first stage's four channels.
//! assert_eq!(model.parameter_count(), before + 8);
//! assert!(model.state().iter().any(|(name, _)| name == "attn1.projection.weight"));
//! # Ok(())
//! # }
//! ```

mod mixing;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::nn::build::{Builder, Initialization};
use crate::nn::layer::{Stage, StageBlock, sigmoid, visit_stages_mut};
use crate::nn::weights::StateDict;
use crate::nn::{DualTensor, ForwardContext, Model, Parameter, Plan, Role};
use crate::spectral::{bands, circular, fourier};
use crate::{Error, Result, random};

/// Where FPCM stands in a network and how it filters: the `[model.fpcm]` table of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FpcmConfig {
    /// Stages to put a block behind, counted from 1; all if empty.
    pub stages: Vec<usize>,
    /// What ω is computed with.
    pub projection: Projection,
    /// What "low" means.
    pub filter: Filter,
    /// D0 when training begins, as a divisor: 2 means P div 2 (radial: side / 2).
    pub cutoff_start: usize,
    /// D0 when training has ended, and in evaluation.
    pub cutoff_end: usize,
    /// Epochs that D0 takes from the first to the last cut-off, then it stays; those of the run if absent. The official
    /// code has 120 written into it, whatever the run's length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_epochs: Option<u64>,
    /// The smallest ω (published: ½, so that the low part always counts more).
    pub omega_min: f64,
    /// The largest ω.
    pub omega_max: f64,
    /// Forces every ω to this value: nothing is learned then. Not published; for experiments on what a preference
    /// does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omega: Option<f64>,
}

impl Default for FpcmConfig {
    /// The published block of ResNet-18: the filter narrows from P div 2 to P div 8.
    fn default() -> Self {
        Self {
            stages: Vec::new(),
            projection: Projection::Depthwise,
            filter: Filter::Flattened,
            cutoff_start: 2,
            cutoff_end: 8,
            schedule_epochs: None,
            omega_min: 0.5,
            omega_max: 1.0,
            omega: None,
        }
    }
}

impl FpcmConfig {
    /// The published block of WRN-34-10: dense projection, D0 = P div 8 throughout.
    pub fn wide_resnet() -> Self {
        Self { projection: Projection::Full, cutoff_start: 8, ..Self::default() }
    }

    /// The published block that a state dict of the official code was trained with, as its names and shapes
    /// (`attn1.projection.weight`, …) tell; `None` where there is none.
    pub fn found_in(tensors: &StateDict) -> Option<Self> {
        let blocks = tensors.iter().filter_map(|(name, weight)| {
            let block = name.strip_suffix(".projection.weight")?.rsplit(['.', '/']).next()?;
            let stage: usize = block.strip_prefix("attn")?.parse().ok()?;
            Some((stage, weight.dims3().ok().filter(|dims| dims.2 == 1)?))
        });
        let blocks: BTreeMap<usize, (usize, usize, usize)> = blocks.collect();
        let (_, (_, inputs, _)) = blocks.first_key_value()?;
        let published = if *inputs == 1 { Self::default() } else { Self::wide_resnet() };
        Some(Self { stages: blocks.into_keys().collect(), ..published })
    }

    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if self.cutoff_start == 0 || self.cutoff_end == 0 {
            return Err(Error::config("fpcm: cut-offs are divisors of the number of positions, at least 1"));
        }
        if self.schedule_epochs == Some(0) {
            return Err(Error::config("fpcm: schedule_epochs must be at least 1"));
        }
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if !share(self.omega_min) || !share(self.omega_max) || self.omega_min > self.omega_max {
            return Err(Error::config(format!(
                "fpcm: omega_min and omega_max must lie in [0, 1], in order, not {} and {}",
                self.omega_min, self.omega_max
            )));
        }
        match self.omega {
            Some(omega) if !share(omega) => {
                Err(Error::config(format!("fpcm: omega must lie in [0, 1], not {omega}")))
            }
            _ => Ok(()),
        }
    }

    /// How far D0 has come after `epoch` (from 1) of `epochs`, in [0, 1].
    pub fn progress(&self, epoch: u64, epochs: u64) -> f64 {
        let whole = self.schedule_epochs.unwrap_or(epochs).max(1);
        (epoch as f64 / whole as f64).min(1.0)
    }
}

impl FpcmConfig {
    /// Whether there is a block behind stage `number`, from 1.
    fn has_block(&self, number: usize) -> bool {
        self.stages.is_empty() || self.stages.contains(&number)
    }

    /// Refuses stages that a network of `count` stages does not have.
    fn check_stages(&self, count: usize) -> Result<()> {
        match self.stages.iter().find(|&&stage| stage == 0 || stage > count) {
            Some(stage) => {
                Err(Error::config(format!("fpcm: there is no stage {stage}; this network has {count}")))
            }
            None => Ok(()),
        }
    }
}

/// The 1×1 convolution in front of ω.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// Each channel from itself (ResNet).
    Depthwise,
    /// Each channel from all (WRN).
    Full,
}

impl Projection {
    /// Channels that each channel is computed from.
    fn inputs(self, channels: usize) -> usize {
        match self {
            Self::Depthwise => 1,
            Self::Full => channels,
        }
    }
}

/// The low-pass filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// As published: one-dimensional over the flattened positions.
    Flattened,
    /// Two-dimensional: G depends on the distance of (u, v) from zero frequency.
    Radial,
}

/// Puts a block behind the chosen stages of `model`; parameters are named `attn1.projection.weight`, …, as
/// in the official code.
///
/// # Errors
/// If a stage does not exist.
pub fn install(model: &mut Model, config: &FpcmConfig, seed: u64) -> Result<()> {
    config.validate()?;
    let random = random::stream(seed, &[random::tag("fpcm")]);
    let mut builder = Builder::new(Initialization::PyTorch, random, model.dtype(), model.device());
    let mut number = 0;
    visit_stages_mut(&mut model.layers, &mut |stage: &mut Stage| {
        number += 1;
        if config.has_block(number) {
            stage.post_block = Some(Arc::new(Fpcm::new(config, number, stage.channels, &mut builder)?));
        }
        Ok(())
    })?;
    config.check_stages(number)
}

/// Names and shapes after [`install`]; the blocks' come last.
pub(crate) fn plan(plan: &mut Plan, config: &FpcmConfig) -> Result<()> {
    config.validate()?;
    config.check_stages(plan.stages.len())?;
    for (index, channels) in plan.stages.clone().into_iter().enumerate() {
        if config.has_block(index + 1) {
            let [weight, bias] = names(index + 1);
            plan.note(&weight, &[channels, config.projection.inputs(channels), 1], true)?;
            plan.note(&bias, &[channels], true)?;
        }
    }
    Ok(())
}

/// Names of the parameters of the block behind stage `number`.
fn names(number: usize) -> [String; 2] {
    ["weight", "bias"].map(|part| format!("attn{number}.projection.{part}"))
}

/// One block.
#[derive(Clone, Debug)]
pub struct Fpcm {
    name: String,
    config: FpcmConfig,
    /// `[channels, 1 or channels, 1]`.
    weight: Parameter,
    /// `[channels]`.
    bias: Parameter,
}

impl Fpcm {
    /// A freshly initialized block behind stage `number` (from 1) of `channels` channels.
    pub fn new(config: &FpcmConfig, number: usize, channels: usize, builder: &mut Builder) -> Result<Self> {
        let inputs = config.projection.inputs(channels);
        let bound = (inputs as f64).powf(-0.5);
        let [weight_name, bias_name] = names(number);
        let weight = builder.uniform(&[channels, inputs, 1], bound)?;
        let bias = builder.uniform(&[channels], bound)?;
        Ok(Self {
            weight: Parameter::new(weight_name, Role::Weight, &weight)?,
            bias: Parameter::new(bias_name, Role::Affine, &bias)?,
            config: config.clone(),
            name: format!("attn{number}"),
        })
    }

    /// D0 of a map with `positions` positions: a line from the first to the last cut-off.
    ///
    /// Official, over 120 epochs: `P div 2 + (P div 8 − P div 2)·epoch / 120`.
    pub fn cutoff(&self, positions: usize, progress: f64) -> f64 {
        let (start, end) = (positions / self.config.cutoff_start, positions / self.config.cutoff_end);
        start as f64 + (end as f64 - start as f64) * progress
    }

    /// ω between its bounds (published: ½ and 1), `[batch, channels]`: the weight of the low part.
    fn omega(&self, x: &DualTensor) -> Result<DualTensor> {
        if let Some(omega) = self.config.omega {
            let (batch, _, _, channels) = x.value.dims4()?;
            return Ok(DualTensor::plain(constant(omega, x)?.broadcast_as((batch, channels))?.contiguous()?));
        }
        let mean = x.linear(|x| Ok(mixing::mean(x)?))?;
        let weight = self.weight.tensor().squeeze(D::Minus1)?;
        let projected = match self.config.projection {
            Projection::Depthwise => mean.linear(|m| Ok(m.broadcast_mul(&weight.squeeze(1)?)?))?,
            Projection::Full => mean.linear(|m| Ok(m.matmul(&weight.t()?)?))?,
        };
        let gate = projected
            .add_constant(self.bias.tensor())?
            .map(sigmoid, |_, s, t| Ok((t * (s * (1.0 - s)?)?)?))?;
        let (lowest, highest) = (self.config.omega_min, self.config.omega_max);
        gate.linear(|g| Ok((g * (highest - lowest))?))?.add_constant(&constant(lowest, x)?)
    }

    /// The gains of the flattened filter.
    fn gains(&self, positions: usize, progress: f64) -> Vec<f64> {
        gaussian(positions, self.cutoff(positions, progress))
    }

    /// The low part of a map `[batch, height, width, channels]`.
    fn low_pass(&self, x: &Tensor, progress: f64) -> Result<Tensor> {
        let (batch, height, width, channels) = x.dims4()?;
        let positions = height * width;
        match self.config.filter {
            Filter::Flattened => {
                let flat = x.reshape((batch, positions, channels))?;
                Ok(circular::filter(&flat, &self.gains(positions, progress))?.reshape(x.shape())?)
            }
            Filter::Radial => {
                let cutoff = self.cutoff(height.max(width), progress);
                let gain =
                    bands::radii(height, width).into_iter().map(|radius| gain(radius, cutoff)).collect();
                let gain = Tensor::from_vec::<_, f64>(gain, (height, width), &Device::Cpu)?;
                let gain = gain.to_dtype(x.dtype())?.to_device(x.device())?;
                fourier::filter2(x, &gain)
            }
        }
    }

    /// ω·low + (1 − ω)·(x − low) = (2ω − 1)·low + (1 − ω)·x, out of single operators.
    fn mixed(&self, x: &DualTensor, omega: &DualTensor, progress: f64) -> Result<DualTensor> {
        let omega = omega.linear(|o| Ok(o.unsqueeze(1)?.unsqueeze(1)?))?;
        let low = x.linear(|x| self.low_pass(x, progress))?;
        let preference = omega.linear(|o| Ok((o * 2.0)?))?.add_constant(&constant(-1.0, x)?)?;
        let rest = omega.linear(|o| Ok(o.neg()?))?.add_constant(&constant(1.0, x)?)?;
        low.multiply(&preference)?.add(&x.multiply(&rest)?)
    }
}

impl StageBlock for Fpcm {
    fn forward(&self, input: &DualTensor, pass: &ForwardContext) -> Result<DualTensor> {
        let omega = self.omega(input)?;
        if let Some(recorder) = pass.recorder {
            recorder.record(&format!("{}.omega", self.name), &omega.value);
        }
        let fused = self.config.filter == Filter::Flattened && input.tangent.is_none();
        if fused && mixing::has_operator(&input.value) {
            let (_, height, width, _) = input.value.dims4()?;
            let gains = self.gains(height * width, pass.progress);
            return Ok(DualTensor::plain(mixing::mix(&input.value, &omega.value, gains)?));
        }
        self.mixed(input, &omega, pass.progress)
    }

    fn parameters(&self) -> Vec<&Parameter> {
        vec![&self.weight, &self.bias]
    }

    fn frozen(&self) -> Arc<dyn StageBlock> {
        Arc::new(Self { weight: self.weight.frozen(), bias: self.bias.frozen(), ..self.clone() })
    }
}

fn constant(value: f64, like: &DualTensor) -> Result<Tensor> {
    Ok(Tensor::new(value, like.value.device())?.to_dtype(like.value.dtype())?)
}

/// G over the flattened positions.
fn gaussian(positions: usize, cutoff: f64) -> Vec<f64> {
    (0..positions).map(|p| gain(p.min(positions - p) as f64, cutoff)).collect()
}

/// The Gaussian low-pass; with a cut-off of zero (maps of fewer than eight positions) only the mean passes.
fn gain(frequency: f64, cutoff: f64) -> f64 {
    if frequency == 0.0 { 1.0 } else { (-0.5 * (frequency / cutoff).powi(2)).exp() }
}

#[cfg(test)]
pub(crate) mod tests;
