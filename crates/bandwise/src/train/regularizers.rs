//! What is added to any objective: the `[regularizers]` table of a recipe.

use serde::{Deserialize, Serialize};

use super::objective::Outcome;
use super::step::Step;
use crate::Result;
use crate::method::filter_frequency::Penalty;

/// The terms that are switched on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Regularizers {
    /// Filter frequency regularization: λ times the norms of high-frequency filter coefficients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_frequency: Option<Penalty>,
}

impl Regularizers {
    /// Whether nothing is added.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses parameters that make no sense.
    pub fn validate(&self) -> Result<()> {
        self.filter_frequency.iter().try_for_each(Penalty::validate)
    }

    /// Adds every term to the loss.
    pub fn apply(&self, step: &Step, mut outcome: Outcome) -> Result<Outcome> {
        if let Some(penalty) = &self.filter_frequency {
            outcome.loss = (outcome.loss + penalty.value(step.model)?)?;
        }
        Ok(outcome)
    }
}
