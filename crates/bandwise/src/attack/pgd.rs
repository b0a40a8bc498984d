//! Projected gradient descent (Madry et al. 2018).

use serde::{Deserialize, Serialize};

use super::ascent::{Ascent, Start, answered_by_ascent};
use super::method::{AttackMethod, Settings, StepSize, Wording};
use super::oracle::Objective;
use super::{Band, Epsilon, Norm};
use crate::{Error, Result};

/// The loss that PGD climbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PgdLoss {
    /// Cross-entropy of the label.
    #[default]
    CrossEntropy,
    /// Carlini and Wagner's margin.
    Margin,
    /// Difference of logits ratio; at least three classes.
    Dlr,
    /// KL divergence from the clean prediction (TRADES); needs a start other than zero, where its
    /// gradient vanishes.
    KlDivergence,
}

/// Steps along the sign of the gradient (L2: along the gradient), projected onto the ε-ball and the
/// pixel box: `x ← clamp(origin + clip(x + α·sign(g) − origin, ±ε), 0, 1)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pgd {
    /// L∞ or L2.
    pub norm: Norm,
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
    /// What is climbed.
    pub loss: PgdLoss,
    /// Computes the gradient of the cross-entropy exactly. Off, it is rounded as in PyTorch's float32, so that
    /// published numbers come out; a few very confident images then survive for no other reason.
    pub exact_gradient: bool,
    /// Frequencies to which the perturbation is confined; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<Band>,
}

impl Default for Pgd {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            step_size: None,
            steps: 10,
            start: Start::Random,
            restarts: 1,
            loss: PgdLoss::CrossEntropy,
            exact_gradient: false,
            band: None,
        }
    }
}

impl Pgd {
    fn step_size(&self) -> Epsilon {
        self.step_size.unwrap_or(self.epsilon.scaled(0.25))
    }

    fn ascent(&self) -> Ascent {
        Ascent {
            name: "pgd",
            norm: self.norm,
            epsilon: self.epsilon.value(),
            step_size: self.step_size().value(),
            steps: self.steps,
            start: self.start,
            restarts: self.restarts,
            objective: match self.loss {
                PgdLoss::CrossEntropy => Objective::cross_entropy(self.exact_gradient),
                PgdLoss::Margin => Objective::Margin,
                PgdLoss::Dlr => Objective::Dlr,
                PgdLoss::KlDivergence => Objective::Divergence,
            },
            momentum: None,
            band: self.band.clone(),
        }
    }
}

impl AttackMethod for Pgd {
    const SUMMARY: &'static str = "projected gradient descent";
    const SOURCE: &'static str = "Madry et al. 2018";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2];

    answered_by_ascent!();

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, step_size, steps, start, restarts, loss: _, exact_gradient, band } = self;
        Settings {
            norm: Some(norm),
            steps: Some(steps),
            step_size: Some(StepSize { given: step_size, default: epsilon.scaled(0.25) }),
            start: Some(start),
            restarts: Some(restarts),
            exact_gradient: Some(exact_gradient),
            band: Some(band),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        if self.loss == PgdLoss::KlDivergence && self.start == Start::Zero {
            return Err(Error::config(
                "pgd: the KL divergence has no gradient at the clean image; choose the start `random` or `gaussian`",
            ));
        }
        Ok(())
    }

    fn protocol(&self) -> Wording {
        let loss = self.ascent().objective;
        Wording::new(format!("PGD-{}", self.steps), self.norm, self.epsilon)
            .step(self.step_size())
            .start(self.start)
            .count(self.restarts, "restart")
            .loss(loss)
            .when(self.exact_gradient && loss != Objective::CrossEntropy, "exact gradient")
            .band(&self.band)
    }
}
