//! Adversarial attacks: plain values with a pure `run`, one file each.
//!
//! Pixels lie in `[0, 1]`, models return logits and normalize their input themselves, ε is in pixel
//! units. Every image draws from its own random stream (seed, attack, image, restart), so results do
//! not depend on batch size, order or sharding.
//!
//! Each attack is its own file, which implements `AttackMethod` (`method.rs`), and one line in `table.rs`, from
//! which the enum [`Attack`], names, help, documentation and suggestions are made.
//!
//! FGSM, R-FGSM, PGD, MI-FGSM and CW-L∞ can be confined to a [`Band`] of frequencies.
//!
//! Beneath them: `ascent` (the loop of the simple gradient attacks), `oracle` (questions to the
//! model), `active_batch` (who is still alive), `geometry` and `projection` (balls and boxes).
//!
//! ```
//! use bandwise::attack::{Attack, AttackContext, Classifier, Epsilon, Fgsm};
//! use bandwise::candle_core::{Device, Tensor};
//!
//! /// Bright or dark? The logits are the mean pixel and what it lacks to 1.
//! struct Brightness;
//!
//! impl Classifier for Brightness {
//!     fn logits(&self, images: &Tensor) -> bandwise::Result<Tensor> {
//!         let mean = images.flatten_from(1)?.mean_keepdim(1)?;
//!         Ok(Tensor::cat(&[&mean, &mean.affine(-1.0, 1.0)?], 1)?)
//!     }
//!
//!     fn num_classes(&self) -> usize {
//!         2
//!     }
//! }
//!
//! # fn main() -> bandwise::Result<()> {
//! let image = Tensor::full(0.51f32, (1, 4, 4, 1), &Device::Cpu)?;
//! let bright = Tensor::new(&[0u32], &Device::Cpu)?;
//! let context = AttackContext::evaluation(0, &[0], 100);
//! // 0.51 is 2.55/255 above one half.
//! for (levels, broken) in [(2.0, false), (3.0, true)] {
//!     let attack = Attack::Fgsm(Fgsm { epsilon: Epsilon::of_255(levels), ..Fgsm::default() });
//!     let result = attack.run(&Brightness, &image, &bright, &context)?;
//!     assert_eq!(result.outcomes[0].broken, broken);
//! }
//! # Ok(())
//! # }
//! ```

mod active_batch;
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
mod foreign;
mod fourier_basis;
mod frozen;
mod geometry;
mod low_frequency;
mod method;
mod mi_fgsm;
mod oracle;
mod overrides;
mod pgd;
mod projection;
mod recall;
mod square;
mod table;

use std::sync::Arc;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub(crate) use active_batch::pick;
pub use active_batch::{Verdict, judge_logits};
pub use apgd::{Apgd, ApgdTargeted};
pub use ascent::Start;
pub(crate) use autoattack::square_better;
pub use autoattack::{AutoAttack, AutoAttackVersion};
pub use band::Band;
pub(crate) use check::advice;
pub use check::{Warning, check_gradients, check_model};
pub use cw_l2::CwL2;
pub use cw_linf::CwLinf;
pub use deepfool::DeepFool;
pub use epsilon::Epsilon;
pub use fab::Fab;
pub use fgsm::{Fgsm, RandomFgsm};
pub(crate) use foreign::NO_GRADIENTS;
pub use foreign::{ForeignClassifier, ForeignImages, ForeignModel, Pullback};
pub use fourier_basis::FourierBasis;
pub use frozen::FrozenModel;
pub use geometry::Norm;
pub use low_frequency::LowFrequency;
pub use method::PassCount;
pub use mi_fgsm::MiFgsm;
pub use overrides::AttackOverrides;
pub use pgd::{Pgd, PgdLoss};
pub use recall::Recall;
pub use square::Square;
pub use table::Attack;

use crate::{Interrupt, Result};

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

    /// Whether logits can be differentiated; without, only attacks that need no gradient run.
    fn has_gradients(&self) -> bool {
        true
    }
}

impl<C: Classifier + ?Sized> Classifier for Arc<C> {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        (**self).logits(images)
    }

    fn num_classes(&self) -> usize {
        (**self).num_classes()
    }

    fn logits_no_graph(&self, images: &Tensor) -> Result<Tensor> {
        (**self).logits_no_graph(images)
    }

    fn has_gradients(&self) -> bool {
        (**self).has_gradients()
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
    /// Set from outside to stop: the attack then returns [`crate::Error::Interrupted`].
    pub interrupt: Option<&'a Interrupt>,
    /// Is told after every pass through the model which share of the images still alive went through it.
    pub watch: Option<&'a (dyn Fn(f64) + Sync)>,
    /// Keeps the model's answers, for whoever goes on if this process is stopped.
    pub recall: Option<&'a Recall>,
}

impl<'a> AttackContext<'a> {
    /// For measuring robustness: images leave once broken, outcomes are filled in.
    pub fn evaluation(seed: u64, image_ids: &'a [u64], batch_size: usize) -> Self {
        Self {
            seed,
            image_ids,
            batch_size,
            early_stop: true,
            judge: true,
            interrupt: None,
            watch: None,
            recall: None,
        }
    }

    /// For adversarial training: all steps for all images in one batch, no outcomes.
    pub fn training(seed: u64, image_ids: &'a [u64]) -> Self {
        Self {
            seed,
            image_ids,
            batch_size: usize::MAX,
            early_stop: false,
            judge: false,
            interrupt: None,
            watch: None,
            recall: None,
        }
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
    /// It met a gradient of zero, or one that is not a number, in the attack; of several parts, in every one that
    /// follows a gradient.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_gradient: bool,
}

impl Outcome {
    /// Takes in what `part` of an attack did to an image that the parts before it had not broken.
    pub fn add_part(&mut self, name: &str, part: Self) {
        if part.gradients > 0 {
            // The first part that follows a gradient decides alone; later ones must all agree.
            self.no_gradient = part.no_gradient && (self.gradients == 0 || self.no_gradient);
        }
        self.queries += part.queries;
        self.gradients += part.gradients;
        self.margin = if part.broken { part.margin } else { self.margin.min(part.margin) };
        if part.broken {
            self.broken = true;
            (self.restart, self.distance) = (part.restart, part.distance);
            self.by = Some(name.to_string());
        }
    }

    /// Whether the image survived an attack that saw nothing there: no robustness.
    pub fn survived_unseen(&self) -> bool {
        self.no_gradient && !self.broken
    }
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

#[cfg(test)]
pub(crate) mod golden_tests;
#[cfg(test)]
mod tests;
