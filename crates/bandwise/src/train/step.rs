//! What an objective sees of the training loop: one batch, the model, and ways to attack it.

use candle_core::Tensor;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::attack::{Attack, AttackContext, FrozenModel};
use crate::nn::{ForwardContext, Mode, Model, Randomness};
use crate::{Result, random};

/// Batch norm's statistics while training images are attacked.
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

/// One batch, or a part of one, on its way through an objective.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    /// The model in training.
    pub model: &'a Model,
    /// Clean images `[batch, height, width, channels]` in [0, 1].
    pub images: Tensor,
    /// Classes `[batch]`, u32.
    pub labels: Tensor,
    /// Each image's index in the data set.
    pub image_ids: &'a [u64],
    /// The perturbation that free adversarial training keeps from step to step, the shape of `images`.
    pub carried_delta: Option<Tensor>,
    /// The run's seed.
    pub seed: u64,
    /// Whole epochs completed.
    pub epoch: u64,
    /// Epochs completed when this step is: `epoch` and a share of the present one.
    pub time: f64,
    /// How far training has come: the current epoch, counted from 1, over all epochs.
    pub progress: f64,
    /// Batch norm's statistics in the passes of the loss.
    pub mode: Mode,
}

impl<'a> Step<'a> {
    /// Logits as the loss wants them.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.model.logits(images, &self.pass(self.mode))
    }

    /// A pass of this step through the network. Dropout decides the same in all of them.
    pub fn pass(&self, mode: Mode) -> ForwardContext<'a> {
        let seed = random::stream(self.seed, &[random::tag("dropout"), self.time.to_bits()]).next_u64();
        let randomness = Some(Randomness { seed, image_ids: self.image_ids });
        ForwardContext { mode, progress: self.progress, recorder: None, randomness }
    }

    /// Adversarial images against the present weights, detached. Every image has a random stream of
    /// its own, new in each epoch. In the first `warmup` epochs the attack's ε grows linearly.
    pub fn attack(&self, attack: &Attack, mode: AttackMode, warmup: f64) -> Result<Tensor> {
        let target = match mode {
            AttackMode::Eval => FrozenModel::folded(self.model)?,
            AttackMode::BatchStatistics => {
                FrozenModel::in_pass(self.model, &self.pass(Mode::BatchStatistics))
            }
            AttackMode::Train => FrozenModel::in_pass(self.model, &self.pass(Mode::Train)),
        };
        let seed = random::stream(self.seed, &[random::tag("training attack"), self.epoch]).next_u64();
        let context = AttackContext::training(seed, self.image_ids);
        let attack = attack.warmed_up(self.warmed_up(warmup));
        Ok(attack.perturb(&target, &self.images, &self.labels, &context)?.detach())
    }

    /// The share of ε that a warm-up of so many epochs has reached, in (0, 1].
    pub fn warmed_up(&self, warmup: f64) -> f64 {
        if self.time < warmup { self.time / warmup } else { 1.0 }
    }

    /// The batch in `count` parts of (almost) equal size, in order; fewer if it has fewer images.
    pub fn parts(&self, count: usize) -> Result<Vec<Step<'a>>> {
        let all = self.image_ids.len();
        let size = all.div_ceil(count.max(1)).max(1);
        (0..all)
            .step_by(size)
            .map(|start| {
                let rows = size.min(all - start);
                let part = |tensor: &Tensor| tensor.narrow(0, start, rows);
                Ok(Step {
                    images: part(&self.images)?,
                    labels: part(&self.labels)?,
                    image_ids: &self.image_ids[start..start + rows],
                    carried_delta: self.carried_delta.as_ref().map(part).transpose()?,
                    ..self.clone()
                })
            })
            .collect()
    }
}
