//! Optimizers over named variables, numerically those of `torch.optim`.
//!
//! A step touches each weight once: on the CPU in `f32` the update is a single parallel pass over
//! weight, gradient and state (`spans`); other devices and number types go through tensor
//! operations (`tensors`). Both follow the same formulas, written side by side per optimizer.
//! Every element is updated on its own, so results do not depend on the number of threads.

mod config;
mod hessian;
mod spans;
mod tensors;
#[cfg(test)]
mod tests;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::nn::weights::StateDict;
use crate::{Error, Result};

pub use config::OptimizerConfig;
pub use hessian::{hessian_diagonal, random_signs};
pub(super) use spans::{is_span, sum_of_squares};

/// Name of the step counts among the tensors of [`Optimizer::state`].
const STEPS: &str = "steps";

/// Which parameters weight decay acts on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayScope {
    /// All of them, as PyTorch does and most recipes mean.
    #[default]
    All,
    /// Matrices and kernels only: not batch norm and not biases.
    Weights,
}

/// How one parameter is treated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterSettings {
    /// Whether weight decay acts on it.
    pub decay: bool,
    /// Multiplies the learning rate.
    pub learning_rate_factor: f64,
}

impl Default for ParameterSettings {
    fn default() -> Self {
        Self { decay: true, learning_rate_factor: 1.0 }
    }
}

/// State of one parameter, one entry per slot of the optimizer (momentum, moments, …).
enum Slots {
    /// CPU and `f32`: updated in place.
    Spans(Vec<Vec<f32>>),
    /// Everything else.
    Tensors(Vec<Tensor>),
}

struct Entry {
    name: String,
    var: Var,
    settings: ParameterSettings,
    /// Steps taken; parameters without a gradient do not take part.
    steps: u64,
    slots: Slots,
}

/// Numbers that one parameter's update needs beside the configuration.
#[derive(Debug, Clone, Copy)]
struct Update {
    learning_rate: f64,
    weight_decay: f64,
    /// This step's number, from 1.
    step: u64,
    /// Multiplies the gradient (clipping).
    gradient_scale: f64,
}

/// An optimizer with its state.
pub struct Optimizer {
    config: OptimizerConfig,
    entries: Vec<Entry>,
}

impl Optimizer {
    /// An optimizer of the given variables, at its first step.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn new(config: OptimizerConfig, parameters: Vec<(String, Var)>) -> Result<Self> {
        config.check()?;
        let entries = parameters
            .into_iter()
            .map(|(name, var)| {
                let slots = Slots::new(&config, &var)?;
                Ok(Entry { name, var, settings: ParameterSettings::default(), steps: 0, slots })
            })
            .collect::<Result<_>>()?;
        Ok(Self { config, entries })
    }

    /// Limits weight decay to some of the parameters.
    pub fn with_decay_scope(self, scope: DecayScope) -> Self {
        self.with_settings(|_, tensor| ParameterSettings {
            decay: scope == DecayScope::All || tensor.rank() > 1,
            ..ParameterSettings::default()
        })
    }

    /// Sets how each parameter is treated, given its name and value.
    pub fn with_settings(mut self, settings: impl Fn(&str, &Tensor) -> ParameterSettings) -> Self {
        for entry in &mut self.entries {
            entry.settings = settings(&entry.name, entry.var.as_tensor());
        }
        self
    }

    /// The configuration.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Updates every variable that has a gradient.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        self.step_scaled(gradients, learning_rate, 1.0)
    }

    /// Like [`Optimizer::step`], with the gradients scaled down to a joint L2 norm of at most
    /// `max_norm` (as `torch.nn.utils.clip_grad_norm_`); returns the norm they had.
    ///
    /// # Errors
    /// The norm is not a finite number, in which case nothing is updated.
    pub fn step_clipped(&mut self, gradients: &GradStore, learning_rate: f64, max_norm: f64) -> Result<f64> {
        let norm = self.gradient_norm(gradients)?;
        if !norm.is_finite() {
            return Err(Error::model(format!(
                "the gradient norm is {norm}: training diverged; lower the learning rate"
            )));
        }
        self.step_scaled(gradients, learning_rate, (max_norm / (norm + 1e-6)).min(1.0))?;
        Ok(norm)
    }

    /// The joint L2 norm of all gradients.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn gradient_norm(&self, gradients: &GradStore) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in self.entries.iter().filter_map(|entry| gradients.get(entry.var.as_tensor())) {
            sum += spans::sum_of_squares(gradient)?;
        }
        Ok(sum.sqrt())
    }

    /// Like [`Optimizer::step`], for optimizers that also need what [`hessian_diagonal`] gives.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn step_with_hessian(
        &mut self,
        gradients: &GradStore,
        diagonal: &GradStore,
        learning_rate: f64,
    ) -> Result<()> {
        self.step_all(gradients, Some(diagonal), learning_rate, 1.0)
    }

    fn step_scaled(&mut self, gradients: &GradStore, learning_rate: f64, gradient_scale: f64) -> Result<()> {
        if self.config.needs_hessian() {
            return Err(Error::config("adahessian cannot step without the Hessian's diagonal"));
        }
        self.step_all(gradients, None, learning_rate, gradient_scale)
    }

    fn step_all(
        &mut self,
        gradients: &GradStore,
        diagonal: Option<&GradStore>,
        learning_rate: f64,
        gradient_scale: f64,
    ) -> Result<()> {
        let Self { config, entries } = self;
        for entry in entries {
            let Some(gradient) = gradients.get(entry.var.as_tensor()) else { continue };
            entry.steps += 1;
            let update = Update {
                learning_rate: learning_rate * entry.settings.learning_rate_factor,
                weight_decay: if entry.settings.decay { config.weight_decay() } else { 0.0 },
                step: entry.steps,
                gradient_scale,
            };
            match &mut entry.slots {
                Slots::Spans(slots) => spans::update(config, update, &entry.var, gradient, slots)?,
                Slots::Tensors(slots) => {
                    let diagonal = diagonal.and_then(|diagonal| diagonal.get(entry.var.as_tensor()));
                    tensors::update(config, update, &entry.var, gradient, diagonal, slots)?;
                }
            }
        }
        Ok(())
    }

    /// Everything that a later [`Optimizer::load_state`] needs to go on exactly: tensors named
    /// `SLOT/PARAMETER`, and the step counts.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn state(&self) -> Result<StateDict> {
        let mut state = StateDict::new();
        let steps: Vec<i64> = self.entries.iter().map(|entry| entry.steps as i64).collect();
        let count = steps.len();
        state.insert(STEPS.to_owned(), Tensor::from_vec(steps, count, &Device::Cpu)?);
        for entry in &self.entries {
            for (index, slot) in self.config.slots().iter().enumerate() {
                let tensor = match &entry.slots {
                    Slots::Spans(slots) => Tensor::from_slice(&slots[index], entry.var.dims(), &Device::Cpu)?,
                    Slots::Tensors(slots) => slots[index].clone(),
                };
                state.insert(format!("{slot}/{}", entry.name), tensor);
            }
        }
        Ok(state)
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// The state belongs to another optimizer or model; the optimizer is then unchanged.
    pub fn load_state(&mut self, state: &StateDict) -> Result<()> {
        let find = |name: &str| {
            state.get(name).ok_or_else(|| {
                Error::model(format!(
                    "the optimizer state has no {name:?}: it belongs to another optimizer or model"
                ))
            })
        };
        let steps = find(STEPS)?.to_dtype(DType::I64)?.flatten_all()?.to_vec1::<i64>()?;
        if steps.len() != self.entries.len() {
            return Err(Error::model(format!(
                "the optimizer state is for {} parameters, the model has {}",
                steps.len(),
                self.entries.len()
            )));
        }
        let mut loaded = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let mut tensors = Vec::new();
            for slot in self.config.slots() {
                let name = format!("{slot}/{}", entry.name);
                let tensor = find(&name)?;
                if tensor.shape() != entry.var.shape() {
                    return Err(Error::model(format!(
                        "the optimizer state {name:?} is {:?}, the model has {:?}",
                        tensor.dims(),
                        entry.var.dims()
                    )));
                }
                tensors.push(tensor.to_device(entry.var.device())?.to_dtype(entry.var.dtype())?);
            }
            loaded.push(match &entry.slots {
                Slots::Spans(_) => Slots::Spans(
                    tensors.iter().map(|t| t.flatten_all()?.to_vec1()).collect::<candle_core::Result<_>>()?,
                ),
                Slots::Tensors(_) => Slots::Tensors(tensors),
            });
        }
        for ((entry, slots), steps) in self.entries.iter_mut().zip(loaded).zip(steps) {
            entry.slots = slots;
            entry.steps = steps.max(0) as u64;
        }
        Ok(())
    }
}

impl Slots {
    fn new(config: &OptimizerConfig, var: &Var) -> Result<Self> {
        let (count, initial) = (config.slots().len(), config.initial_state());
        if is_span(var) && !config.needs_hessian() {
            return Ok(Self::Spans(vec![vec![initial as f32; var.elem_count()]; count]));
        }
        let tensors = (0..count).map(|_| var.zeros_like()?.affine(1.0, initial));
        Ok(Self::Tensors(tensors.collect::<candle_core::Result<_>>()?))
    }
}
