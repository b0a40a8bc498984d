//! Adversarial attacks: plain values with a pure `run`, one file each.
//!
//! Pixels lie in `[0, 1]`, models return logits and normalise their input themselves, ε is in pixel
//! units. Every image draws from its own random stream (seed, attack, image, restart), so results do
//! not depend on batch size, order or sharding.
//!
//! | file | attack | norms |
//! |---|---|---|
//! | `fgsm` | FGSM, FGSM with random start | L∞, L2 |
//! | `pgd` | PGD with restarts | L∞, L2 |
//! | `mi_fgsm` | momentum iterative FGSM | L∞, L2 |
//! | `cw_linf` | PGD on Carlini and Wagner's margin | L∞ |
//!
//! Beneath them: `ascent` (the loop of the simple gradient attacks), `oracle` (questions to the
//! model), `wave` (who is still alive), `geometry` and `projection` (balls and boxes).

mod ascent;
mod cw_linf;
mod epsilon;
mod fgsm;
mod frozen;
#[allow(dead_code)]
mod geometry;
mod mi_fgsm;
#[allow(dead_code)] // parts wait for the stronger attacks
mod oracle;
mod pgd;
#[allow(dead_code)]
mod projection;
#[allow(dead_code)]
mod wave;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use ascent::Start;
pub use cw_linf::CwLinf;
pub use epsilon::Epsilon;
pub use fgsm::{Fgsm, RandomFgsm};
pub use frozen::FrozenModel;
pub use geometry::Norm;
pub use mi_fgsm::MiFgsm;
pub use pgd::{Pgd, PgdLoss};

use crate::{Error, Result};

/// A frozen classifier: images `[batch, height, width, channels]` in `[0, 1]` to logits
/// `[batch, classes]`. It computes no gradients of its weights.
pub trait Classifier: Send + Sync {
    /// Logits `[batch, classes]`, differentiable in the images.
    fn logits(&self, images: &Tensor) -> Result<Tensor>;

    /// Number of classes.
    fn num_classes(&self) -> usize;

    /// Logits without any graph.
    fn logits_no_graph(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.logits(&images.detach())?.detach())
    }
}

/// Everything an attack needs beside its own parameters, the model and the images.
#[derive(Clone, Copy)]
pub struct AttackContext<'a> {
    /// Seed of all random streams.
    pub seed: u64,
    /// Identity of each image (its index in the data set), one per row.
    pub image_ids: &'a [u64],
    /// Largest number of images in one pass through the model.
    pub batch_size: usize,
    /// Drop an image as soon as it is misclassified (evaluation) instead of running all steps and
    /// keeping the last iterate (training, and papers that count the last iterate).
    pub early_stop: bool,
    /// Whether outcomes are wanted; without, a pass through the model is saved and they stay empty.
    pub judge: bool,
    /// Set from outside to stop: the attack then returns [`Error::Interrupted`].
    pub interrupt: Option<&'a AtomicBool>,
}

impl<'a> AttackContext<'a> {
    /// For measuring robustness: images leave once broken, outcomes are filled in.
    pub fn evaluation(seed: u64, image_ids: &'a [u64], batch_size: usize) -> Self {
        Self { seed, image_ids, batch_size, early_stop: true, judge: true, interrupt: None }
    }

    /// For adversarial training: all steps for all images in one batch, no outcomes.
    pub fn training(seed: u64, image_ids: &'a [u64]) -> Self {
        Self { seed, image_ids, batch_size: usize::MAX, early_stop: false, judge: false, interrupt: None }
    }
}

/// What an attack did to one image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The returned image is misclassified (and within ε).
    pub broken: bool,
    /// `z_label − max_{j≠label} z_j` of the returned image: negative means misclassified.
    pub margin: f64,
    /// Forward passes of this image.
    pub queries: u64,
    /// Backward passes of this image.
    pub gradients: u64,
    /// The restart (targeted attacks: the target's rank, 0 = strongest other class) that broke it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<u32>,
    /// Size of the smallest perturbation found, for minimum-norm attacks; may exceed ε.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<f64>,
}

/// Adversarial images in the caller's order, and what happened to each.
#[derive(Clone, Debug)]
pub struct AttackResult {
    /// `[n, height, width, channels]`.
    pub images: Tensor,
    /// One per image.
    pub outcomes: Vec<Outcome>,
}

/// An attack with its parameters. In recipes: `{ name = "pgd", epsilon = "8/255", steps = 10 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name")]
pub enum Attack {
    /// Fast gradient sign method.
    #[serde(rename = "fgsm")]
    Fgsm(Fgsm),
    /// FGSM with a random start.
    #[serde(rename = "rfgsm")]
    RandomFgsm(RandomFgsm),
    /// Projected gradient descent.
    #[serde(rename = "pgd")]
    Pgd(Pgd),
    /// Momentum iterative FGSM.
    #[serde(rename = "mifgsm")]
    MiFgsm(MiFgsm),
    /// PGD on the margin.
    #[serde(rename = "cw-linf")]
    CwLinf(CwLinf),
}

/// Applies an expression to the parameters inside any variant.
macro_rules! each {
    ($attack:expr, $inner:ident => $body:expr) => {
        match $attack {
            Attack::Fgsm($inner) => $body,
            Attack::RandomFgsm($inner) => $body,
            Attack::Pgd($inner) => $body,
            Attack::MiFgsm($inner) => $body,
            Attack::CwLinf($inner) => $body,
        }
    };
}

impl Attack {
    /// Names accepted on the command line and in recipes.
    pub const NAMES: [&'static str; 5] = ["fgsm", "rfgsm", "pgd", "mifgsm", "cw-linf"];

    /// The name of this attack.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fgsm(_) => "fgsm",
            Self::RandomFgsm(_) => "rfgsm",
            Self::Pgd(_) => "pgd",
            Self::MiFgsm(_) => "mifgsm",
            Self::CwLinf(_) => "cw-linf",
        }
    }

    /// The radius within which a misclassified image counts as broken.
    pub fn epsilon(&self) -> Epsilon {
        each!(self, attack => attack.epsilon)
    }

    /// The norm that measures the perturbation.
    pub fn norm(&self) -> Norm {
        match self {
            Self::Fgsm(attack) => attack.norm,
            Self::RandomFgsm(attack) => attack.norm,
            Self::Pgd(attack) => attack.norm,
            Self::MiFgsm(attack) => attack.norm,
            Self::CwLinf(_) => Norm::Linf,
        }
    }

    /// Attacks `images` `[n, height, width, channels]` with `labels` `[n]` (u32).
    ///
    /// # Errors
    /// [`Error::Config`] for parameters that make no sense, [`Error::Model`] for logits that are not
    /// numbers, [`Error::Interrupted`] if the context's flag was raised.
    pub fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        self.validate()?;
        if context.image_ids.len() != images.dim(0)? {
            return Err(Error::config(format!(
                "an attack got {} images and {} image identities",
                images.dim(0)?,
                context.image_ids.len()
            )));
        }
        each!(self, attack => attack.run(model, images, labels, context))
    }

    /// The adversarial images alone, `[n, height, width, channels]`.
    pub fn perturb(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<Tensor> {
        Ok(self.run(model, images, labels, context)?.images)
    }

    /// Checks the parameters before anything runs.
    pub fn validate(&self) -> Result<()> {
        let epsilon = self.epsilon();
        if self.norm() == Norm::Linf && epsilon.value() > 1.0 {
            return Err(Error::config(format!(
                "ε = {epsilon} is larger than the whole pixel range [0, 1]; did you mean {}/255?",
                epsilon.value()
            )));
        }
        Ok(())
    }
}

impl FromStr for Attack {
    type Err = Error;

    /// The attack of that name with its default parameters.
    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "fgsm" => Self::Fgsm(Fgsm::default()),
            "rfgsm" => Self::RandomFgsm(RandomFgsm::default()),
            "pgd" => Self::Pgd(Pgd::default()),
            "mifgsm" => Self::MiFgsm(MiFgsm::default()),
            "cw-linf" => Self::CwLinf(CwLinf::default()),
            _ => {
                let nearest = Self::NAMES
                    .into_iter()
                    .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)))
                    .expect("there are names");
                return Err(Error::config(format!(
                    "no attack `{name}`; did you mean `{nearest}`? There are: {}",
                    Self::NAMES.join(", ")
                )));
            }
        })
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ε = {}", self.name(), self.norm(), self.epsilon())
    }
}

#[cfg(test)]
mod tests;
