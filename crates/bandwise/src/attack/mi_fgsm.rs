//! Momentum iterative FGSM (Dong et al. 2018).

use serde::{Deserialize, Serialize};

use super::ascent::{Ascent, Start, answered_by_ascent};
use super::method::{AttackMethod, Settings, StepSize, Wording, check_number};
use super::oracle::Objective;
use super::{Band, Epsilon, Norm};
use crate::Result;

/// Iterated FGSM whose direction accumulates the L1-normalized gradients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MiFgsm {
    /// L∞ or L2.
    pub norm: Norm,
    /// Radius of the ball.
    pub epsilon: Epsilon,
    /// Step length; ε/steps if not given, as in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
    /// Gradient steps.
    pub steps: usize,
    /// Decay of the accumulated gradient (the paper's µ).
    pub decay: f64,
    /// Computes the gradient of the cross-entropy exactly. Off, it is rounded as in PyTorch's float32, so that
    /// published numbers come out; a few very confident images then survive for no other reason.
    pub exact_gradient: bool,
    /// Frequencies to which the perturbation is confined; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<Band>,
}

impl Default for MiFgsm {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            step_size: None,
            steps: 10,
            decay: 1.0,
            exact_gradient: false,
            band: None,
        }
    }
}

impl MiFgsm {
    fn default_step_size(&self) -> Epsilon {
        self.epsilon.scaled(1.0 / self.steps.max(1) as f64)
    }

    fn step_size(&self) -> Epsilon {
        self.step_size.unwrap_or(self.default_step_size())
    }

    fn ascent(&self) -> Ascent {
        Ascent {
            name: "mifgsm",
            norm: self.norm,
            epsilon: self.epsilon.value(),
            step_size: self.step_size().value(),
            steps: self.steps,
            start: Start::Zero,
            restarts: 1,
            objective: Objective::cross_entropy(self.exact_gradient),
            momentum: Some(self.decay),
            band: self.band.clone(),
        }
    }
}

impl AttackMethod for MiFgsm {
    const SUMMARY: &'static str = "momentum iterative FGSM";
    const SOURCE: &'static str = "Dong et al. 2018";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2];

    answered_by_ascent!();

    fn settings(&mut self) -> Settings<'_> {
        let default = self.default_step_size();
        let Self { norm, epsilon, step_size, steps, decay: _, exact_gradient, band } = self;
        Settings {
            norm: Some(norm),
            steps: Some(steps),
            step_size: Some(StepSize { given: step_size, default }),
            exact_gradient: Some(exact_gradient),
            band: Some(band),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        check_number("mifgsm", "decay", self.decay, self.decay >= 0.0, "at least 0")
    }

    fn protocol(&self) -> Wording {
        Wording::new(format!("MI-FGSM-{}", self.steps), self.norm, self.epsilon)
            .step(self.step_size())
            .with(format!("decay {}", self.decay))
            .loss(self.ascent().objective)
            .band(&self.band)
    }
}
