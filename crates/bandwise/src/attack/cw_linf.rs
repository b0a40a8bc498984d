//! The L∞ form of Carlini and Wagner's attack used by the adversarial-training literature.

use serde::{Deserialize, Serialize};

use super::ascent::{Ascent, Start, answered_by_ascent};
use super::method::{AttackMethod, Settings, StepSize, Wording};
use super::oracle::Objective;
use super::{Band, Epsilon, Norm};
use crate::Result;

/// PGD on the margin `max_{j≠label} z_j − z_label`, 50 steps by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CwLinf {
    /// Radius of the ball.
    pub epsilon: Epsilon,
    /// Step length; ε/4 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
    /// Gradient steps.
    pub steps: usize,
    /// Starting point.
    pub start: Start,
    /// Independent attempts; an image is broken if one succeeds.
    pub restarts: usize,
    /// Frequencies to which the perturbation is confined; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<Band>,
}

impl Default for CwLinf {
    fn default() -> Self {
        Self {
            epsilon: Epsilon::of_255(8.0),
            step_size: None,
            steps: 50,
            start: Start::Random,
            restarts: 1,
            band: None,
        }
    }
}

impl CwLinf {
    fn step_size(&self) -> Epsilon {
        self.step_size.unwrap_or(self.epsilon.scaled(0.25))
    }

    fn ascent(&self) -> Ascent {
        Ascent {
            name: "cw-linf",
            norm: Norm::Linf,
            epsilon: self.epsilon.value(),
            step_size: self.step_size().value(),
            steps: self.steps,
            start: self.start,
            restarts: self.restarts,
            objective: Objective::Margin,
            momentum: None,
            band: self.band.clone(),
        }
    }
}

impl AttackMethod for CwLinf {
    const SUMMARY: &'static str = "PGD on the margin, as adversarial training papers use it";
    const SOURCE: &'static str = "after Carlini & Wagner 2017";
    const NORMS: &'static [Norm] = &[Norm::Linf];

    answered_by_ascent!();

    fn settings(&mut self) -> Settings<'_> {
        let Self { epsilon, step_size, steps, start, restarts, band } = self;
        Settings {
            steps: Some(steps),
            step_size: Some(StepSize { given: step_size, default: epsilon.scaled(0.25) }),
            start: Some(start),
            restarts: Some(restarts),
            band: Some(band),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn protocol(&self) -> Wording {
        Wording::new(format!("CW-{}", self.steps), Norm::Linf, self.epsilon)
            .step(self.step_size())
            .start(self.start)
            .count(self.restarts, "restart")
            .loss(self.ascent().objective)
            .band(&self.band)
    }
}
