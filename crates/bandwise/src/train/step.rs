//! What an objective sees of the training loop: one batch, the model, and ways to attack it.

use candle_core::Tensor;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::attack::{Attack, AttackContext, FrozenModel};
use crate::nn::{Mode, Model, Pass};
use crate::{Result, random};

/// Batch norm's statistics while training pictures are attacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackMode {
    /// Running statistics; the network is folded, which is fastest. What most recipes use.
    #[default]
    Eval,
    /// Batch statistics; running statistics are left alone.
    BatchStatistics,
    /// Batch statistics, and every pass of the attack updates the running ones, as in the official
    /// FPCM code.
    Train,
}

/// One batch on its way through an objective.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The model in training.
    pub model: &'a Model,
    /// Clean pictures `[batch, height, width, channels]` in [0, 1].
    pub images: &'a Tensor,
    /// Classes `[batch]`, u32.
    pub labels: &'a Tensor,
    /// Each picture's index in the data set.
    pub image_ids: &'a [u64],
    /// The run's seed.
    pub seed: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// How far training has come: the current epoch, counted from 1, over all epochs.
    pub progress: f64,
}

impl Step<'_> {
    /// Logits in training mode.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.model.logits(images, &Pass::train(self.progress))
    }

    /// Adversarial pictures against the present weights, detached. Every picture has a random stream of
    /// its own, new in each epoch.
    pub fn attack(&self, attack: &Attack, mode: AttackMode) -> Result<Tensor> {
        let target = match mode {
            AttackMode::Eval => FrozenModel::folded(self.model)?,
            AttackMode::BatchStatistics => {
                FrozenModel::in_mode(self.model, Mode::BatchStatistics, self.progress)
            }
            AttackMode::Train => FrozenModel::in_mode(self.model, Mode::Train, self.progress),
        };
        let seed = random::stream(self.seed, &[random::tag("training attack"), self.epoch]).next_u64();
        let context = AttackContext::training(seed, self.image_ids);
        Ok(attack.perturb(&target, self.images, self.labels, &context)?.detach())
    }
}
