//! A model as attacks see it: frozen, so that no weight gradients are ever computed.

use candle_core::Tensor;

use super::Classifier;
use crate::Result;
use crate::nn::{ForwardContext, Mode, Model, Randomness};

/// A frozen model in one mode.
#[derive(Clone, Debug)]
pub struct FrozenModel {
    model: Model,
    mode: Mode,
    progress: f64,
    /// Seed and images of a training step, for dropout.
    randomness: Option<(u64, Vec<u64>)>,
}

impl FrozenModel {
    /// In evaluation mode, with batch norm folded into convolutions and, on the CPU, layers fused into one
    /// operator. It holds the weights as they are now.
    pub fn folded(model: &Model) -> Result<Self> {
        Ok(Self { model: model.folded()?.fused()?, mode: Mode::Eval, progress: 1.0, randomness: None })
    }

    /// As it is in a given pass, sharing the weights of `model`.
    pub fn in_pass(model: &Model, pass: &ForwardContext) -> Self {
        let randomness = pass.randomness.map(|given| (given.seed, given.image_ids.to_vec()));
        Self { model: model.frozen(), mode: pass.mode, progress: pass.progress, randomness }
    }
}

impl Classifier for FrozenModel {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let randomness =
            self.randomness.as_ref().map(|(seed, ids)| Randomness { seed: *seed, image_ids: ids });
        let pass = ForwardContext { mode: self.mode, progress: self.progress, recorder: None, randomness };
        self.model.logits(images, &pass)
    }

    fn num_classes(&self) -> usize {
        self.model.shape().classes
    }
}
