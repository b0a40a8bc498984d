//! What can be added to any objective: the `[regularizers]` table of a recipe.

use serde::{Deserialize, Serialize};

use crate::attack::Epsilon;
use crate::method::filter_frequency::Penalty as FilterPenalty;
use crate::method::grad_align::GradAlign;
use crate::method::{GradientNorm, GroupSparsity, Jafr};
use crate::{Error, Result};

/// All regularizers of a run; absent ones cost nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Regularizers {
    /// Filter frequency regularization: λ times the norms of high-frequency filter coefficients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_frequency: Option<FilterPenalty>,
    /// Jacobian frequency regularization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jafr: Option<Jafr>,
    /// Gradient alignment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_align: Option<GradAlign>,
    /// The input gradient's L2 norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<GradientNorm>,
    /// The input gradient's group sparsity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_sparsity: Option<GroupSparsity>,
    /// Takes the J of `jafr`, `gradient_norm` and `group_sparsity` at x + δ instead of x, δ uniform in ± this, new in
    /// each epoch and not clipped (official `delta_type_for_grad_backprop = random_uniform`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_noise: Option<Epsilon>,
}

impl Regularizers {
    /// Whether nothing is added.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        let Self { filter_frequency, jafr, grad_align, gradient_norm, group_sparsity, gradient_noise } = self;
        filter_frequency.as_ref().map_or(Ok(()), FilterPenalty::validate)?;
        jafr.as_ref().map_or(Ok(()), Jafr::validate)?;
        grad_align.as_ref().map_or(Ok(()), GradAlign::validate)?;
        gradient_norm.as_ref().map_or(Ok(()), GradientNorm::validate)?;
        group_sparsity.as_ref().map_or(Ok(()), GroupSparsity::validate)?;
        match gradient_noise.map(|noise| noise.value()) {
            Some(noise) if noise > 1.0 => {
                Err(Error::config("gradient_noise must lie within [0, 1] (pixels do): 8/255, for example"))
            }
            _ => Ok(()),
        }
    }
}
