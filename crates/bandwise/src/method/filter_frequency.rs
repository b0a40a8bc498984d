//! Filter frequency regularization (Lukasik, Gavrikov, Keuper and Keuper, TMLR 2023).
//!
//! A convolution filter is written in a cosine basis ([`DctBasis`]), and the norms of its
//! high-frequency coefficients are added to the training loss:
//!
//! ```text
//! loss = cross-entropy + λ · Σ over the first layers of  Σ over (i, j) of  a(i, j) · n[i, j]
//! n[i, j] = ‖C[:, :, i, j]‖₂          (Frobenius norm over filters, not squared)
//! ```
//!
//! [`decompose`] makes the coefficients the trained parameters, as published; [`Penalty`] acts on
//! decomposed and, beyond the paper, on plain convolutions (through the inverse basis), so that any model
//! can be fine-tuned with it. [`recompose`] goes back to plain convolutions of the same function.
//!
//! The official code treats kernels of side 3 as one case and all others as side 5. Both follow from one
//! rule, applied here to any side N (with *ring* of a frequency = max(i, j)): `high` counts rings above
//! N/2, `weighted` counts rings above N/2 − 1. Decomposing keeps bias, groups and non-square kernels,
//! which the official code drops or breaks; see `docs/methods/filter-frequency.md`.
//!
//! ```
//! use bandwise::candle_core::Device;
//! use bandwise::method::filter_frequency::{Decomposition, Init, decompose, recompose};
//! use bandwise::network::{Network, NetworkConfig};
//!
//! # fn main() -> bandwise::Result<()> {
//! let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") };
//! let mut model = Network::new(config, 0, &Device::Cpu)?.model;
//! let parameters = model.parameter_count();
//! let keep = Decomposition { init: Init::Keep, ..Decomposition::default() };
//! assert_eq!(decompose(&mut model, &keep, 0)?, 4);
//! assert_eq!(model.parameter_count(), parameters);
//! assert!(model.state().iter().any(|(name, _)| name.ends_with(".coefficients")));
//! recompose(&mut model)?;
//! assert!(model.state().iter().all(|(name, _)| !name.ends_with(".coefficients")));
//! # Ok(())
//! # }
//! ```

use candle_core::Tensor;
use rand::Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::nn::convolution::{Convolution, Filters};
use crate::nn::decomposed::{Decomposed, Domain, FilterBasis};
use crate::nn::layer::{visit_convolutions, visit_convolutions_mut};
use crate::nn::weights::StateDict;
use crate::nn::{Model, Plan};
use crate::spectral::dct::DctBasis;
use crate::{Error, Result, random};

#[cfg(test)]
mod tests;

/// Smallest kernel side that counts as a spatial filter, unless configured otherwise.
const MIN_KERNEL_SIZE: usize = 3;

/// How convolutions are decomposed: the `decomposition` key of `[model]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decomposition {
    /// `weight` (filters from coefficients) or `signal` (a 1×1 convolution mixes basis responses).
    pub kind: Domain,
    /// Convolutions with a smaller kernel side stay plain (official flag `min_kernel_size`).
    pub min_kernel_size: usize,
    /// Where coefficients start.
    pub init: Init,
}

/// Where coefficients start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// As the official code: `kaiming_uniform` for `weight`, the default of a 1×1 convolution (uniform in
    /// ±1/√fan-in) for `signal`.
    #[default]
    Published,
    /// Uniform in ±√3·σ, σ = √2/√(in·N²) with all input channels, whatever the groups.
    KaimingUniform,
    /// Normal with deviation σ.
    KaimingNormal,
    /// From the present weights: the model's function stays.
    Keep,
}

impl Default for Decomposition {
    fn default() -> Self {
        Self { kind: Domain::Weight, min_kernel_size: MIN_KERNEL_SIZE, init: Init::Published }
    }
}

impl Decomposition {
    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if self.min_kernel_size < 2 {
            return Err(Error::config(
                "decomposition.min_kernel_size must be at least 2: a 1×1 kernel has one frequency only",
            ));
        }
        Ok(())
    }
}

/// Replaces the filters of every convolution whose smaller kernel side is at least
/// `decomposition.min_kernel_size` by coefficients, in place, and says how many these were. New
/// coefficients depend on `seed` alone.
///
/// # Errors
/// If no convolution is large enough.
pub fn decompose(model: &mut Model, decomposition: &Decomposition, seed: u64) -> Result<usize> {
    decomposition.validate()?;
    let mut count = 0;
    visit_convolutions_mut(&mut model.layers, &mut |convolution| {
        if smaller_side(convolution) >= decomposition.min_kernel_size {
            let mut random = random::stream(seed, &[random::tag("decomposition"), count]);
            let filters = decomposed(convolution, decomposition, &mut random)?;
            convolution.filters = Filters::Decomposed(filters);
            count += 1;
        }
        Ok(())
    })?;
    if count == 0 {
        return Err(Error::config(format!(
            "decomposition: the model has no convolution of {0}×{0} or larger",
            decomposition.min_kernel_size
        )));
    }
    Ok(count as usize)
}

/// The decomposition that a state dict was trained with, as its names tell.
pub fn decomposition_of(tensors: &StateDict) -> Option<Decomposition> {
    let named = |suffix: &str| tensors.keys().any(|name| name.ends_with(suffix));
    let kind = if named(".coefficients.weight") {
        Domain::Signal
    } else if named(".coefficients") {
        Domain::Weight
    } else {
        return None;
    };
    Some(Decomposition { kind, ..Decomposition::default() })
}

/// Names and shapes after [`decompose`].
pub(crate) fn plan(plan: &mut Plan, decomposition: &Decomposition) -> Result<()> {
    decomposition.validate()?;
    plan.rename(|name, shape| {
        let shape: [usize; 4] = shape.try_into().ok()?;
        let large = shape[2].min(shape[3]) >= decomposition.min_kernel_size;
        let convolution = name.strip_suffix(".weight").filter(|_| large)?;
        let (name, shape) = decomposition.kind.parameter(convolution, shape);
        Some((name, shape.to_vec()))
    });
    Ok(())
}

/// Turns every decomposed convolution back into a plain one of the same filters, in place.
pub fn recompose(model: &mut Model) -> Result<()> {
    visit_convolutions_mut(&mut model.layers, &mut Convolution::recompose)
}

fn decomposed(
    convolution: &Convolution,
    decomposition: &Decomposition,
    random: &mut random::Stream,
) -> Result<Decomposed> {
    let weight = convolution.weight()?.detach();
    let (outputs, inputs, height, width) = weight.dims4()?;
    let basis = FilterBasis::of(&weight)?;
    let area = height * width;
    let sigma = (2.0 / (inputs * convolution.config.groups * area) as f64).sqrt();
    let uniform = |random: &mut random::Stream, bound: f64| (random.random::<f64>() * 2.0 - 1.0) * bound;
    let mut draw = |one: &dyn Fn(&mut random::Stream) -> f64| -> Result<Tensor> {
        let values: Vec<f64> = (0..weight.elem_count()).map(|_| one(random)).collect();
        Ok(Tensor::from_vec(values, weight.elem_count(), weight.device())?.to_dtype(weight.dtype())?)
    };
    let coefficients = match (decomposition.init, decomposition.kind) {
        (Init::Keep, _) => basis.analyze(&weight)?,
        (Init::KaimingNormal, _) => draw(&|random| random.sample::<f64, _>(StandardNormal) * sigma)?,
        (Init::Published, Domain::Signal) => {
            draw(&|random| uniform(random, ((inputs * area) as f64).powf(-0.5)))?
        }
        (Init::KaimingUniform, _) | (Init::Published, Domain::Weight) => {
            draw(&|random| uniform(random, 3f64.sqrt() * sigma))?
        }
    };
    let shape = [outputs, inputs, height, width];
    Decomposed::new(decomposition.kind, &convolution.name, shape, &coefficients, basis)
}

fn smaller_side(convolution: &Convolution) -> usize {
    let (height, width) = convolution.kernel();
    height.min(width)
}

/// What is added to the training loss: `[regularizers] filter_frequency`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Penalty {
    /// The weight λ of the penalty (0.01 in the official examples).
    pub lambda: f64,
    /// Which norms count.
    pub kind: PenaltyKind,
    /// Also punish n[0, 1], n[1, 0] and n[1, 1] as far as they exceed n[0, 0] (official flag `reg_diff`);
    /// adds to `high` and `weighted`.
    pub low_dominance: bool,
    /// The first ⌊L/depth⌋ + 1 of L layers count: 3 about the first third, 1 all (official flag `reg_depth`).
    pub depth: f64,
}

/// Which norms a [`Penalty`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PenaltyKind {
    /// The high half, each ring weighted by its number (official default).
    #[default]
    High,
    /// All but the lowest rings, weighted by i² + j² (official flag `reg_all_freq`).
    Weighted,
    /// Norms must fall from each anti-diagonal i + j = s − 1 to the next (official flag `reg_diff_all`).
    Monotone,
}

impl Default for Penalty {
    fn default() -> Self {
        Self { lambda: 0.01, kind: PenaltyKind::High, low_dominance: false, depth: 3.0 }
    }
}

impl Penalty {
    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        if !(self.lambda.is_finite() && self.lambda >= 0.0) {
            return Err(Error::config("filter_frequency.lambda must be a number of at least 0"));
        }
        if !(self.depth.is_finite() && self.depth > 0.0) {
            return Err(Error::config(
                "filter_frequency.depth must be positive: 1 counts all layers, 3 the first third",
            ));
        }
        if self.low_dominance && self.kind == PenaltyKind::Monotone {
            return Err(Error::config(
                "filter_frequency.low_dominance adds to the kinds high and weighted; monotone excludes it",
            ));
        }
        Ok(())
    }

    /// λ · penalty of the counted layers: a differentiable scalar to add to the loss.
    ///
    /// Where the model has decomposed convolutions, these are its layers; else all convolutions with a
    /// smaller kernel side of at least 3.
    ///
    /// # Errors
    /// If there is no such convolution.
    pub fn value(&self, model: &Model) -> Result<Tensor> {
        Ok((self.unweighted(model)? * self.lambda)?)
    }

    /// [`Self::value`] without λ.
    pub fn unweighted(&self, model: &Model) -> Result<Tensor> {
        let layers = spatial_convolutions(model);
        let counted = self.layers_counted(layers.len());
        let values: Vec<Tensor> =
            layers.into_iter().take(counted).map(|layer| self.of_layer(layer)).collect::<Result<_>>()?;
        if values.is_empty() {
            return Err(Error::config(
                "filter_frequency: the model has no convolution of 3×3 or larger to act on",
            ));
        }
        Ok(Tensor::stack(&values, 0)?.sum_all()?)
    }

    /// How many of `layers` layers count: min(L, ⌊L/depth⌋ + 1), the quotient floored as Python does.
    pub fn layers_counted(&self, layers: usize) -> usize {
        let total = layers as f64;
        // Python's float `//` floors the exact quotient, where a rounded one may be an integer.
        let quotient = ((total - total % self.depth) / self.depth).round();
        layers.min(quotient as usize + 1)
    }

    /// The penalty of one layer, without λ.
    fn of_layer(&self, convolution: &Convolution) -> Result<Tensor> {
        let (coefficients, basis) = convolution.coefficients()?;
        let norms = frequency_norms(&coefficients)?;
        let rule = self.rule(&basis.dct);
        let (dtype, device) = (norms.dtype(), norms.device());
        let weights = Tensor::from_vec(rule.weights, norms.dims(), device)?.to_dtype(dtype)?;
        let linear = (&norms * weights)?.sum_all()?;
        if rule.ordered.is_empty() {
            return Ok(linear);
        }
        let (lower, higher): (Vec<u32>, Vec<u32>) = rule.ordered.into_iter().unzip();
        let pick = |indices: Vec<u32>| -> Result<Tensor> {
            Ok(norms.index_select(&Tensor::new(indices, device)?, 0)?)
        };
        let excess = (pick(higher)? - pick(lower)?)?;
        // max(0, x) with gradient 0 at 0, as PyTorch's; candle's own has 1 there.
        let positive = excess.gt(0.0)?.to_dtype(dtype)?;
        Ok((linear + (excess * positive)?.sum_all()?)?)
    }

    fn rule(&self, basis: &DctBasis) -> Rule {
        let (height, width) = (basis.height(), basis.width());
        let index = |(i, j): (usize, usize)| (i * height + j) as u32;
        let frequencies: Vec<(usize, usize)> = basis.frequencies().collect();
        let weight = |&(i, j): &(usize, usize)| match self.kind {
            PenaltyKind::High if above(i, j, basis, 0) => i.max(j) as f64,
            PenaltyKind::Weighted if above(i, j, basis, 2) => (i * i + j * j) as f64,
            _ => 0.0,
        };
        let mut ordered = Vec::new();
        if self.kind == PenaltyKind::Monotone {
            for &low in &frequencies {
                let next = frequencies.iter().filter(|high| high.0 + high.1 == low.0 + low.1 + 1);
                ordered.extend(next.map(|&high| (index(low), index(high))));
            }
        } else if self.low_dominance && height > 1 && width > 1 {
            ordered.extend([(0, 1), (1, 0), (1, 1)].map(|high| (0, index(high))));
        }
        Rule { weights: frequencies.iter().map(weight).collect(), ordered }
    }
}

/// The penalty of one layer as a function of its norms n: `Σ weights·n + Σ max(0, n[higher] − n[lower])`.
struct Rule {
    weights: Vec<f64>,
    /// Pairs (lower, higher).
    ordered: Vec<(u32, u32)>,
}

/// Whether 2·frequency exceeds `side − margin` along either axis. Margin 0 gives rings above N/2 (ring 2 of a
/// 3×3 kernel, rings 3 and 4 of a 5×5 one), margin 2 rings above N/2 − 1.
fn above(i: usize, j: usize, basis: &DctBasis, margin: usize) -> bool {
    2 * i + margin > basis.width() || 2 * j + margin > basis.height()
}

/// Which frequencies of a basis the penalty `high` counts, in the order of the coefficients.
pub fn high_frequencies(basis: &DctBasis) -> Vec<bool> {
    basis.frequencies().map(|(i, j)| above(i, j, basis, 0)).collect()
}

/// The convolutions that a penalty or an analysis looks at, in module order: the decomposed ones if there
/// are any, else those with a smaller kernel side of at least 3.
pub fn spatial_convolutions(model: &Model) -> Vec<&Convolution> {
    let mut all = Vec::new();
    visit_convolutions(&model.layers, &mut |convolution| all.push(convolution));
    let is_decomposed = |layer: &&Convolution| matches!(layer.filters, Filters::Decomposed(_));
    if all.iter().any(is_decomposed) {
        all.retain(is_decomposed);
    } else {
        all.retain(|layer| smaller_side(layer) >= MIN_KERNEL_SIZE);
    }
    all
}

/// n: the norm of each column of `[filters, frequency]`. Its gradient is 0 where the norm is 0.
fn frequency_norms(coefficients: &Tensor) -> Result<Tensor> {
    let ones = Tensor::ones((1, coefficients.dim(0)?), coefficients.dtype(), coefficients.device())?;
    let energy = ones.matmul(&coefficients.sqr()?)?.squeeze(0)?;
    let zero = energy.eq(0.0)?.to_dtype(energy.dtype())?;
    // √(0 + 1) − 1 = 0, with a finite slope that meets the slope 0 of the square.
    Ok(((&energy + &zero)?.sqrt()? - zero)?)
}
