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
//! | `cw_l2` | Carlini and Wagner's minimum-norm attack | L2 |
//! | `deepfool` | DeepFool | L∞, L2 |
//! | `apgd` | APGD-CE, APGD-DLR, APGD-T | L∞, L2, L1 |
//! | `fab` | FAB, FAB-T | L∞, L2, L1 |
//! | `square` | Square (black box) | L∞, L2, L1 |
//! | `autoattack` | `standard`, `plus`, `rand`, `custom` | L∞, L2, L1 |
//! | `fourier_basis` | single Fourier waves (black box) | L∞, L2 |
//! | `low_frequency` | SimBA in the DCT basis (black box) | L∞, L2 |
//!
//! FGSM, R-FGSM, PGD, MI-FGSM and CW-L∞ can be confined to a [`Band`] of frequencies.
//!
//! Beneath them: `ascent` (the loop of the simple gradient attacks), `oracle` (questions to the
//! model), `wave` (who is still alive), `geometry` and `projection` (balls and boxes).

mod apgd;
mod ascent;
mod autoattack;
mod band;
mod boundary;
mod check;
mod cw_l2;
mod cw_linf;
mod deepfool;
mod epsilon;
mod fab;
mod fgsm;
mod fourier_basis;
mod frozen;
mod geometry;
mod low_frequency;
mod mi_fgsm;
mod oracle;
mod overrides;
mod pgd;
mod projection;
mod square;
mod wave;

use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use apgd::{Apgd, ApgdTargeted};
pub use ascent::Start;
pub use autoattack::{AutoAttack, Version, merged};
pub use band::Band;
pub use check::{Warning, check_model};
pub use cw_l2::CwL2;
pub use cw_linf::CwLinf;
pub use deepfool::DeepFool;
pub use epsilon::Epsilon;
pub use fab::Fab;
pub use fgsm::{Fgsm, RandomFgsm};
pub use fourier_basis::FourierBasis;
pub use frozen::FrozenModel;
pub use geometry::Norm;
pub use low_frequency::LowFrequency;
pub use mi_fgsm::MiFgsm;
pub use overrides::Overrides;
pub use pgd::{Pgd, PgdLoss};
pub use square::Square;
pub use wave::{Verdict, verdicts};

use crate::{Error, Interrupt, Result};
use oracle::Objective;

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
    pub interrupt: Option<&'a Interrupt>,
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
    /// What broke it: the part of AutoAttack, or the frequency of a Fourier attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Adversarial images in the caller's order, and what happened to each.
#[derive(Clone, Debug)]
pub struct AttackResult {
    /// `[n, height, width, channels]`.
    pub images: Tensor,
    /// One per image.
    pub outcomes: Vec<Outcome>,
    /// What a reader of the result must know.
    pub warnings: Vec<Warning>,
}

/// An attack with its parameters. In recipes: `{ name = "pgd", epsilon = "8/255", steps = 10 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Attack {
    /// Fast gradient sign method.
    Fgsm(Fgsm),
    /// FGSM with a random start.
    #[serde(rename = "rfgsm")]
    RandomFgsm(RandomFgsm),
    /// Projected gradient descent.
    Pgd(Pgd),
    /// Momentum iterative FGSM.
    #[serde(rename = "mifgsm")]
    MiFgsm(MiFgsm),
    /// PGD on the margin.
    CwLinf(CwLinf),
    /// Carlini and Wagner's minimum-norm attack.
    CwL2(CwL2),
    /// DeepFool.
    #[serde(rename = "deepfool")]
    DeepFool(DeepFool),
    /// APGD on the cross-entropy.
    ApgdCe(Apgd),
    /// APGD on the DLR loss.
    ApgdDlr(Apgd),
    /// APGD on the targeted DLR loss.
    #[serde(rename = "apgd-t")]
    ApgdTargeted(ApgdTargeted),
    /// FAB, untargeted.
    Fab(Fab),
    /// FAB, targeted.
    #[serde(rename = "fab-t")]
    FabTargeted(Fab),
    /// Square.
    Square(Square),
    /// AutoAttack.
    #[serde(rename = "autoattack")]
    AutoAttack(AutoAttack),
    /// Single Fourier waves.
    FourierBasis(FourierBasis),
    /// SimBA in the DCT basis.
    LowFrequency(LowFrequency),
}

/// Applies an expression to the parameters inside any variant that has the field used.
macro_rules! each {
    ($attack:expr, $inner:ident => $body:expr) => {
        match $attack {
            Attack::Fgsm($inner) => $body,
            Attack::RandomFgsm($inner) => $body,
            Attack::Pgd($inner) => $body,
            Attack::MiFgsm($inner) => $body,
            Attack::CwLinf($inner) => $body,
            Attack::CwL2($inner) => $body,
            Attack::DeepFool($inner) => $body,
            Attack::ApgdCe($inner) | Attack::ApgdDlr($inner) => $body,
            Attack::ApgdTargeted($inner) => $body,
            Attack::Fab($inner) | Attack::FabTargeted($inner) => $body,
            Attack::Square($inner) => $body,
            Attack::AutoAttack($inner) => $body,
            Attack::FourierBasis($inner) => $body,
            Attack::LowFrequency($inner) => $body,
        }
    };
}

impl Attack {
    /// Names accepted on the command line.
    pub const NAMES: [&'static str; 18] = [
        "fgsm",
        "rfgsm",
        "pgd",
        "mifgsm",
        "cw-linf",
        "cw-l2",
        "deepfool",
        "apgd-ce",
        "apgd-dlr",
        "apgd-t",
        "fab",
        "fab-t",
        "square",
        "autoattack",
        "autoattack-plus",
        "autoattack-rand",
        "fourier-basis",
        "low-frequency",
    ];

    /// The name of this attack.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Fgsm(_) => "fgsm",
            Self::RandomFgsm(_) => "rfgsm",
            Self::Pgd(_) => "pgd",
            Self::MiFgsm(_) => "mifgsm",
            Self::CwLinf(_) => "cw-linf",
            Self::CwL2(_) => "cw-l2",
            Self::DeepFool(_) => "deepfool",
            Self::ApgdCe(_) => "apgd-ce",
            Self::ApgdDlr(_) => "apgd-dlr",
            Self::ApgdTargeted(_) => "apgd-t",
            Self::Fab(_) => "fab",
            Self::FabTargeted(_) => "fab-t",
            Self::Square(_) => "square",
            Self::AutoAttack(attack) => match attack.version {
                Version::Standard => "autoattack",
                Version::Plus => "autoattack-plus",
                Version::Rand => "autoattack-rand",
                Version::Custom => "autoattack-custom",
            },
            Self::FourierBasis(_) => "fourier-basis",
            Self::LowFrequency(_) => "low-frequency",
        }
    }

    /// The radius within which a misclassified image counts as broken.
    pub fn epsilon(&self) -> Epsilon {
        each!(self, attack => attack.epsilon)
    }

    /// The same attack of `factor` times the strength: ε, and a step size given in pixels, are multiplied.
    pub fn scaled(&self, factor: f64) -> Self {
        let mut attack = self.clone();
        if factor == 1.0 {
            return attack;
        }
        each!(&mut attack, attack => attack.epsilon = attack.epsilon.scaled(factor));
        let mut none = None;
        let step_size = match &mut attack {
            Self::RandomFgsm(attack) => &mut attack.step_size,
            Self::Pgd(attack) => &mut attack.step_size,
            Self::MiFgsm(attack) => &mut attack.step_size,
            Self::CwLinf(attack) => &mut attack.step_size,
            Self::LowFrequency(attack) => &mut attack.step_size,
            _ => &mut none,
        };
        *step_size = step_size.map(|step_size| step_size.scaled(factor));
        attack
    }

    /// The norm that measures the perturbation.
    pub fn norm(&self) -> Norm {
        match self {
            Self::Fgsm(attack) => attack.norm,
            Self::RandomFgsm(attack) => attack.norm,
            Self::Pgd(attack) => attack.norm,
            Self::MiFgsm(attack) => attack.norm,
            Self::CwLinf(_) => Norm::Linf,
            Self::CwL2(_) => Norm::L2,
            Self::DeepFool(attack) => attack.norm,
            Self::ApgdCe(attack) | Self::ApgdDlr(attack) => attack.norm,
            Self::ApgdTargeted(attack) => attack.norm,
            Self::Fab(attack) | Self::FabTargeted(attack) => attack.norm,
            Self::Square(attack) => attack.norm,
            Self::AutoAttack(attack) => attack.norm,
            Self::FourierBasis(attack) => attack.norm,
            Self::LowFrequency(attack) => attack.norm,
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
        match self {
            Self::Fgsm(attack) => attack.run(model, images, labels, context),
            Self::RandomFgsm(attack) => attack.run(model, images, labels, context),
            Self::Pgd(attack) => attack.run(model, images, labels, context),
            Self::MiFgsm(attack) => attack.run(model, images, labels, context),
            Self::CwLinf(attack) => attack.run(model, images, labels, context),
            Self::CwL2(attack) => attack.run(model, images, labels, context),
            Self::DeepFool(attack) => attack.run(model, images, labels, context),
            Self::ApgdCe(attack) => attack.run(Objective::CrossEntropy, model, images, labels, context),
            Self::ApgdDlr(attack) => attack.run(Objective::Dlr, model, images, labels, context),
            Self::ApgdTargeted(attack) => attack.run(model, images, labels, context),
            Self::Fab(attack) => attack.run(false, model, images, labels, context),
            Self::FabTargeted(attack) => attack.run(true, model, images, labels, context),
            Self::Square(attack) => attack.run(model, images, labels, context),
            Self::AutoAttack(attack) => attack.run(model, images, labels, context),
            Self::FourierBasis(attack) => attack.run(model, images, labels, context),
            Self::LowFrequency(attack) => attack.run(model, images, labels, context),
        }
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
        if let Self::AutoAttack(attack) = self {
            attack.validate()?;
        }
        Ok(())
    }
}

/// Passes of one image through a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Forward passes without a graph.
    pub forward: u64,
    /// Forward passes with a backward pass.
    pub gradient: u64,
}

impl Attack {
    /// The most that this attack spends on one image, if the image survives to the end.
    pub fn passes(&self, classes: usize) -> Passes {
        let classes = classes as u64;
        let n = |count: usize| count as u64;
        let targets = |targets: usize| n(targets).min(classes.saturating_sub(1));
        let (forward, gradient) = match self {
            Self::Fgsm(_) => (1, 1),
            Self::RandomFgsm(a) => (n(a.restarts), n(a.restarts)),
            Self::Pgd(a) => (n(a.restarts), n(a.restarts * a.steps)),
            Self::MiFgsm(a) => (1, n(a.steps)),
            Self::CwLinf(a) => (n(a.restarts), n(a.restarts * a.steps)),
            Self::CwL2(a) => (1, n(a.search_steps * a.steps)),
            Self::DeepFool(a) => (n(a.steps) + 1, n(a.steps) * classes),
            Self::ApgdCe(a) | Self::ApgdDlr(a) => (1, n(a.restarts * (a.steps + 1) * a.averaged_gradients)),
            Self::ApgdTargeted(a) => {
                (1, targets(a.targets) * n(a.restarts * (a.steps + 1) * a.averaged_gradients))
            }
            Self::Fab(a) => (n(a.restarts * a.steps), n(a.restarts * a.steps) * classes),
            Self::FabTargeted(a) => {
                let starts = targets(a.targets) * n(a.restarts);
                (starts * n(a.steps), starts * n(a.steps))
            }
            Self::Square(a) => (n(a.restarts) * n(a.queries + 1) + 1, 0),
            Self::AutoAttack(a) => {
                let parts = a.parts(classes as usize).unwrap_or_default();
                let passes = parts.iter().map(|part| part.passes(classes as usize));
                passes.fold((1, 0), |sum, part| (sum.0 + part.forward, sum.1 + part.gradient))
            }
            Self::FourierBasis(a) => (n(a.queries), 0),
            Self::LowFrequency(a) => (n(a.queries), 0),
        };
        Passes { forward, gradient }
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
            "cw-l2" => Self::CwL2(CwL2::default()),
            "deepfool" => Self::DeepFool(DeepFool::default()),
            "apgd-ce" => Self::ApgdCe(Apgd::default()),
            "apgd-dlr" => Self::ApgdDlr(Apgd::default()),
            "apgd-t" => Self::ApgdTargeted(ApgdTargeted::default()),
            "fab" => Self::Fab(Fab::default()),
            "fab-t" => Self::FabTargeted(Fab::default()),
            "square" => Self::Square(Square::default()),
            "autoattack" => Self::AutoAttack(AutoAttack::default()),
            "autoattack-plus" => {
                Self::AutoAttack(AutoAttack { version: Version::Plus, ..AutoAttack::default() })
            }
            "autoattack-rand" => {
                Self::AutoAttack(AutoAttack { version: Version::Rand, ..AutoAttack::default() })
            }
            "fourier-basis" => Self::FourierBasis(FourierBasis::default()),
            "low-frequency" => Self::LowFrequency(LowFrequency::default()),
            _ => {
                let nearest = Self::NAMES
                    .into_iter()
                    .min_by_key(|known| strsim::damerau_levenshtein(known, name))
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
        write!(f, "{} {} ε = {}", self.name(), self.norm(), self.epsilon().short())
    }
}

#[cfg(test)]
pub(crate) mod golden_tests;
#[cfg(test)]
mod tests;
