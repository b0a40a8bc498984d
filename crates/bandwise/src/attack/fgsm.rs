//! Fast gradient sign method (Goodfellow et al. 2015), plain and with a random start.

use serde::{Deserialize, Serialize};

use super::ascent::{Ascent, Start, answered_by_ascent};
use super::method::{AttackMethod, Settings, StepSize, Wording};
use super::oracle::Objective;
use super::{Band, Epsilon, Norm};
use crate::Result;

/// One step of length ε along the sign of the gradient (L2: along the gradient).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fgsm {
    /// L∞ or L2.
    pub norm: Norm,
    /// Size of the perturbation.
    pub epsilon: Epsilon,
    /// Computes the gradient of the cross-entropy exactly. Off, it is rounded as in PyTorch's float32, so that
    /// published numbers come out; a few very confident images then survive for no other reason.
    pub exact_gradient: bool,
    /// Frequencies to which the perturbation is confined; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<Band>,
}

impl Default for Fgsm {
    fn default() -> Self {
        Self { norm: Norm::Linf, epsilon: Epsilon::of_255(8.0), exact_gradient: false, band: None }
    }
}

impl Fgsm {
    fn ascent(&self) -> Ascent {
        Ascent {
            name: "fgsm",
            norm: self.norm,
            epsilon: self.epsilon.value(),
            step_size: self.epsilon.value(),
            steps: 1,
            start: Start::Zero,
            restarts: 1,
            objective: Objective::cross_entropy(self.exact_gradient),
            momentum: None,
            band: self.band.clone(),
        }
    }
}

impl AttackMethod for Fgsm {
    const SUMMARY: &'static str = "fast gradient sign method: one step of length ε";
    const SOURCE: &'static str = "Goodfellow et al. 2015";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2];

    answered_by_ascent!();

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, exact_gradient, band } = self;
        Settings {
            norm: Some(norm),
            exact_gradient: Some(exact_gradient),
            band: Some(band),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn protocol(&self) -> Wording {
        Wording::new("FGSM", self.norm, self.epsilon).loss(self.ascent().objective).band(&self.band)
    }
}

/// FGSM from a random point of the ε-ball (Wong et al. 2020, "Fast is better than free", FGSM-RS).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomFgsm {
    /// L∞ or L2.
    pub norm: Norm,
    /// Size of the perturbation.
    pub epsilon: Epsilon,
    /// Step length; 1.25·ε if not given, as in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Epsilon>,
    /// Independent attempts; an image is broken if one succeeds.
    pub restarts: usize,
    /// Computes the gradient of the cross-entropy exactly. Off, it is rounded as in PyTorch's float32, so that
    /// published numbers come out; a few very confident images then survive for no other reason.
    pub exact_gradient: bool,
    /// Frequencies to which the perturbation is confined; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<Band>,
}

impl Default for RandomFgsm {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            step_size: None,
            restarts: 1,
            exact_gradient: false,
            band: None,
        }
    }
}

impl RandomFgsm {
    fn step_size(&self) -> Epsilon {
        self.step_size.unwrap_or(self.epsilon.scaled(1.25))
    }

    fn ascent(&self) -> Ascent {
        Ascent {
            name: "rfgsm",
            norm: self.norm,
            epsilon: self.epsilon.value(),
            step_size: self.step_size().value(),
            steps: 1,
            start: Start::Random,
            restarts: self.restarts,
            objective: Objective::cross_entropy(self.exact_gradient),
            momentum: None,
            band: self.band.clone(),
        }
    }
}

impl AttackMethod for RandomFgsm {
    const SUMMARY: &'static str = "FGSM from a random start";
    const SOURCE: &'static str = "Wong et al. 2020";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2];

    answered_by_ascent!();

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, step_size, restarts, exact_gradient, band } = self;
        Settings {
            norm: Some(norm),
            step_size: Some(StepSize { given: step_size, default: epsilon.scaled(1.25) }),
            restarts: Some(restarts),
            exact_gradient: Some(exact_gradient),
            band: Some(band),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn protocol(&self) -> Wording {
        Wording::new("FGSM-RS", self.norm, self.epsilon)
            .step(self.step_size())
            .start(Start::Random)
            .count(self.restarts, "restart")
            .loss(self.ascent().objective)
            .band(&self.band)
    }
}
