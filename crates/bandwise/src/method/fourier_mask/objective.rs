//! The loss of mask learning and its gradient, for one mask shared by a batch or one mask per sample.

use candle_core::{D, DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::attack::Classifier;
use crate::nn::loss;
use crate::spectral::fourier::{ImageSpectra, filter2};
use crate::{Error, Result};

/// Larger invariances weigh no more than this unless told otherwise: `exp` of more, squared by Adam, leaves
/// float32, and the published code then fills the mask with NaN.
pub(super) const LARGEST_EXPONENT: f64 = 30.0;

/// How a batch that shares one mask forms its invariance term; for batches of one there is no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariance {
    /// Mean over samples of `exp((CE masked − CE clean)²)`: the mean of what batches of one would do.
    #[default]
    PerSample,
    /// `exp((mean CE masked − mean CE clean)²)`, the published code run with larger batches: samples
    /// that lose and samples that gain cancel.
    BatchMean,
}

/// What the network says about unfiltered images: computed once, compared against in every step.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Predicted classes.
    pub predictions: Vec<u32>,
    /// Cross-entropy of each image's label, `[n]`.
    pub losses: Tensor,
}

impl Baseline {
    /// Asks the model about `images` `[n, height, width, channels]`; the losses are those of `labels`
    /// `[n]` (u32) or, without, of the predictions themselves.
    pub fn measure(
        model: &dyn Classifier,
        images: &Tensor,
        labels: Option<&Tensor>,
        batch_size: usize,
    ) -> Result<Self> {
        let logits = logits(model, images, None, batch_size)?;
        let predictions = logits.argmax(D::Minus1)?;
        let losses = loss::cross_entropy(&logits, labels.unwrap_or(&predictions))?.detach();
        Ok(Self { predictions: predictions.to_vec1()?, losses })
    }
}

/// Classes predicted for `images` `[n, height, width, channels]` seen through `mask`, `[height, width]`
/// for all or `[n, height, width]`.
pub fn masked_predictions(
    model: &dyn Classifier,
    images: &Tensor,
    mask: &Tensor,
    batch_size: usize,
) -> Result<Vec<u32>> {
    Ok(logits(model, images, Some(mask), batch_size)?.argmax(D::Minus1)?.to_vec1()?)
}

fn logits(
    model: &dyn Classifier,
    images: &Tensor,
    mask: Option<&Tensor>,
    batch_size: usize,
) -> Result<Tensor> {
    let total = images.dim(0)?;
    if total == 0 {
        return Err(Error::config("there are no images to look at through a mask"));
    }
    let mut parts = Vec::new();
    for start in (0..total).step_by(batch_size.max(1)) {
        let count = batch_size.max(1).min(total - start);
        let part = images.narrow(0, start, count)?.contiguous()?;
        let part = match mask {
            None => part,
            Some(mask) if mask.rank() == 2 => filter2(&part, mask)?,
            Some(masks) => filter2(&part, &masks.narrow(0, start, count)?.contiguous()?)?,
        };
        parts.push(model.logits_no_graph(&part)?);
    }
    Ok(Tensor::cat(&parts, 0)?.detach())
}

/// A batch of images whose masks are asked about: what stays the same from step to step.
pub(super) struct Samples {
    /// The transformed images.
    pub spectra: ImageSpectra,
    /// `[batch]` u32.
    pub labels: Tensor,
    /// Cross-entropy without mask, `[batch]`.
    pub clean_losses: Tensor,
}

/// One evaluation of the loss.
pub(super) struct Evaluation {
    /// `(CE masked − CE clean)²`, one per sample; one in all for [`Invariance::BatchMean`].
    pub invariance: Vec<f64>,
    /// Classes predicted through the masks.
    pub predictions: Vec<u32>,
    /// Gradient of `exp(invariance)` with respect to the masks, `[masks, height, width]`; for a shared
    /// mask its mean over the batch.
    pub gradient: Tensor,
}

impl Samples {
    /// Evaluates `masks` `[masks, height, width]`: one for all samples, or one for each. Invariances above
    /// `largest_exponent` weigh no more than that.
    pub fn evaluate(
        &self,
        model: &dyn Classifier,
        masks: &Tensor,
        invariance: Invariance,
        largest_exponent: f64,
    ) -> Result<Evaluation> {
        let shared = masks.dim(0)? == 1;
        let variable = Var::from_tensor(&if shared { masks.squeeze(0)? } else { masks.clone() })?;
        let logits = model.logits(&self.spectra.filter(&variable)?)?;
        let losses = loss::cross_entropy(&logits, &self.labels)?;
        let difference = match invariance {
            Invariance::PerSample => (losses - &self.clean_losses)?,
            Invariance::BatchMean => (losses.mean_keepdim(0)? - self.clean_losses.mean_keepdim(0)?)?,
        };
        let squared = difference.sqr()?;
        // d exp(i) = exp(i)·di, with the exponential as a bounded constant.
        let weight = squared.detach().minimum(largest_exponent)?.exp()?;
        let weighted = (&squared * weight)?;
        let total = if shared { weighted.mean_all()? } else { weighted.sum_all()? };
        let gradients = total.backward()?;
        let gradient = match gradients.get(&variable) {
            Some(gradient) => gradient.detach().reshape(masks.shape())?,
            None => masks.zeros_like()?,
        };
        Ok(Evaluation {
            invariance: squared.detach().to_dtype(DType::F64)?.to_vec1()?,
            predictions: logits.detach().argmax(D::Minus1)?.to_vec1()?,
            gradient,
        })
    }
}
