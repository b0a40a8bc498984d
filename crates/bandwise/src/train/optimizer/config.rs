//! Which optimizer, and its settings.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// An optimizer and its settings; names, formulas and defaults are those of `torch.optim`.
///
/// The learning rate is given with each step: see [`Schedule`](crate::train::schedule::Schedule).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent.
    Sgd {
        /// Share of the former update that is kept; 0 for none.
        #[serde(default)]
        momentum: f64,
        /// Looks ahead along the momentum.
        #[serde(default)]
        nesterov: bool,
        /// Adds this multiple of the weight to its gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam; weight decay goes through the moments.
    Adam {
        /// Decay of the first and second moment.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Adds this multiple of the weight to its gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay.
    #[serde(rename = "adamw")]
    AdamW {
        /// Decay of the first and second moment.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Shrinks the weight by this multiple of the learning rate.
        #[serde(default = "adamw_weight_decay")]
        weight_decay: f64,
    },
    /// Adagrad.
    Adagrad {
        /// Decay of the learning rate with the step.
        #[serde(default)]
        learning_rate_decay: f64,
        /// Where the sum of squares starts.
        #[serde(default)]
        initial_sum: f64,
        /// Added to the root of the sum of squares.
        #[serde(default = "adagrad_epsilon")]
        epsilon: f64,
        /// Adds this multiple of the weight to its gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// AdaHessian; weight decay is decoupled. Defaults and formula are those of `torch_optimizer`, which the official code of
    /// filter frequency regularization takes (the authors' own has `hessian_power = 1`).
    #[serde(rename = "adahessian")]
    AdaHessian {
        /// Decay of the first moment and of the squared diagonal of the Hessian.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the power of the diagonal.
        #[serde(default = "adahessian_epsilon")]
        epsilon: f64,
        /// Power of the diagonal by which the step is divided, in [0, 1].
        #[serde(default = "half")]
        hessian_power: f64,
        /// Shrinks the weight by this multiple of the learning rate.
        #[serde(default)]
        weight_decay: f64,
    },
    /// RMSprop.
    #[serde(rename = "rmsprop")]
    RmsProp {
        /// Decay of the mean square (`alpha` in PyTorch).
        #[serde(default = "smoothing")]
        smoothing: f64,
        /// Added to the root of the mean square.
        #[serde(default = "epsilon")]
        epsilon: f64,
        /// Share of the former update that is kept; 0 for none.
        #[serde(default)]
        momentum: f64,
        /// Divides by the deviation instead of the root mean square.
        #[serde(default)]
        centered: bool,
        /// Adds this multiple of the weight to its gradient.
        #[serde(default)]
        weight_decay: f64,
    },
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn epsilon() -> f64 {
    1e-8
}

fn adagrad_epsilon() -> f64 {
    1e-10
}

fn adahessian_epsilon() -> f64 {
    1e-4
}

fn half() -> f64 {
    0.5
}

fn adamw_weight_decay() -> f64 {
    0.01
}

fn smoothing() -> f64 {
    0.99
}

impl Default for OptimizerConfig {
    /// SGD with momentum 0.9 and weight decay 5e-4, as in most recipes of this field.
    fn default() -> Self {
        Self::Sgd { momentum: 0.9, nesterov: false, weight_decay: 5e-4 }
    }
}

impl OptimizerConfig {
    /// Refuses settings out of range.
    ///
    /// # Errors
    /// Names the setting and its range.
    pub fn check(&self) -> Result<()> {
        let share = |name: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::config(format!("optimizer.{name} must lie in [0, 1), not {value}"))),
        };
        let not_negative = |name: &str, value: f64| match value >= 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(Error::config(format!("optimizer.{name} must not be negative, not {value}"))),
        };
        not_negative("weight_decay", self.weight_decay())?;
        match *self {
            Self::Sgd { momentum, nesterov, .. } => {
                share("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err(Error::config("optimizer.nesterov needs a momentum above 0"));
                }
                Ok(())
            }
            Self::Adam { betas, epsilon, .. } | Self::AdamW { betas, epsilon, .. } => {
                betas.iter().try_for_each(|&beta| share("betas", beta))?;
                not_negative("epsilon", epsilon)
            }
            Self::AdaHessian { betas, epsilon, hessian_power, .. } => {
                betas.iter().try_for_each(|&beta| share("betas", beta))?;
                if !(0.0..=1.0).contains(&hessian_power) {
                    return Err(Error::config(format!(
                        "optimizer.hessian_power must lie in [0, 1], not {hessian_power}"
                    )));
                }
                not_negative("epsilon", epsilon)
            }
            Self::Adagrad { learning_rate_decay, initial_sum, epsilon, .. } => {
                not_negative("learning_rate_decay", learning_rate_decay)?;
                not_negative("initial_sum", initial_sum)?;
                not_negative("epsilon", epsilon)
            }
            Self::RmsProp { smoothing, epsilon, momentum, .. } => {
                share("smoothing", smoothing)?;
                share("momentum", momentum)?;
                not_negative("epsilon", epsilon)
            }
        }
    }

    /// The weight decay, whatever the optimizer.
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::Sgd { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. }
            | Self::AdaHessian { weight_decay, .. }
            | Self::Adagrad { weight_decay, .. }
            | Self::RmsProp { weight_decay, .. } => weight_decay,
        }
    }

    /// Whether its steps need the diagonal of the Hessian.
    pub fn needs_hessian(&self) -> bool {
        matches!(self, Self::AdaHessian { .. })
    }

    /// Names of the tensors kept per parameter, in the order in which updates expect them.
    pub(super) fn slots(&self) -> &'static [&'static str] {
        match *self {
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["momentum"],
            Self::Adam { .. } | Self::AdamW { .. } => &["first_moment", "second_moment"],
            Self::AdaHessian { .. } => &["first_moment", "squared_hessian"],
            Self::Adagrad { .. } => &["sum_of_squares"],
            Self::RmsProp { .. } => &["mean_square", "momentum", "mean"],
        }
    }

    /// What those tensors hold before the first step.
    pub(super) fn initial_state(&self) -> f64 {
        match *self {
            Self::Adagrad { initial_sum, .. } => initial_sum,
            _ => 0.0,
        }
    }
}
