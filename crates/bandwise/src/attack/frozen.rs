//! A model as attacks see it: frozen, so that no weight gradients are ever computed.

use candle_core::Tensor;

use super::Classifier;
use crate::Result;
use crate::nn::{Mode, Model, Pass};

/// A frozen model in one mode.
#[derive(Clone, Debug)]
pub struct FrozenModel {
    model: Model,
    mode: Mode,
    progress: f64,
}

impl FrozenModel {
    /// In evaluation mode, with batch norm folded into convolutions and, on the CPU, layers fused into one
    /// operator. It holds the weights as they are now.
    pub fn folded(model: &Model) -> Result<Self> {
        Ok(Self { model: model.folded()?.fused()?, mode: Mode::Eval, progress: 1.0 })
    }

    /// In any mode, sharing the weights of `model`; `progress` in [0, 1] is how far training has come.
    pub fn in_mode(model: &Model, mode: Mode, progress: f64) -> Self {
        Self { model: model.frozen(), mode, progress }
    }
}

impl Classifier for FrozenModel {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.model.logits(images, &Pass { mode: self.mode, progress: self.progress, recorder: None })
    }

    fn num_classes(&self) -> usize {
        self.model.interface().classes
    }
}
