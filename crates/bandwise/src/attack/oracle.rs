//! Questions put to a frozen classifier: logits without a graph, and gradients with respect to pixels.
//!
//! Attacks hold the state of many images (a batch) in whole tensors and ask about those still alive;
//! the oracle cuts them into batches of bounded size. When images leave, the batches stay full.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Tensor, Var};

use super::{AttackContext, Classifier};
use crate::nn::loss;
use crate::{Error, Result};

/// What a gradient attack climbs. All are maximized, and positive margins mean "misclassified".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objective {
    /// Cross-entropy of the label, gradient exact.
    CrossEntropy,
    /// Cross-entropy, its gradient as PyTorch rounds it in float32.
    PytorchCrossEntropy,
    /// `max_{j≠label} z_j − z_label`.
    Margin,
    /// `z_target − z_label`.
    TargetedMargin,
    /// Difference of logits ratio.
    Dlr,
    /// Targeted difference of logits ratio.
    TargetedDlr,
    /// KL divergence from the clean prediction.
    Divergence,
}

impl Objective {
    /// The cross-entropy in one of its two arithmetics.
    pub fn cross_entropy(exact: bool) -> Self {
        if exact { Self::CrossEntropy } else { Self::PytorchCrossEntropy }
    }
}

/// What belongs to each image beside its pixels; rows leave together with their image.
#[derive(Clone, Debug)]
pub(crate) struct LossTargets {
    /// `[n]` u32.
    pub labels: Tensor,
    /// `[n]` u32, for targeted objectives.
    pub targets: Option<Tensor>,
    /// `[n, classes]`, for [`Objective::Divergence`].
    pub clean_logits: Option<Tensor>,
}

impl LossTargets {
    pub fn new(labels: &Tensor) -> Self {
        Self { labels: labels.clone(), targets: None, clean_logits: None }
    }

    /// The rows `indices` (u32) of every part.
    pub fn select(&self, indices: &Tensor) -> Result<Self> {
        self.map(|part| part.index_select(indices, 0))
    }

    fn narrow(&self, start: usize, count: usize) -> Result<Self> {
        self.map(|part| part.narrow(0, start, count)?.contiguous())
    }

    /// The tensors that it consists of.
    fn parts(&self) -> impl Iterator<Item = &Tensor> {
        [Some(&self.labels), self.targets.as_ref(), self.clean_logits.as_ref()].into_iter().flatten()
    }

    fn map(&self, apply: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self {
            labels: apply(&self.labels)?,
            targets: self.targets.as_ref().map(&apply).transpose()?,
            clean_logits: self.clean_logits.as_ref().map(&apply).transpose()?,
        })
    }

    /// The loss per sample, `[n]`.
    fn loss(&self, objective: Objective, logits: &Tensor) -> Result<Tensor> {
        let missing = || Error::config("a targeted objective was used without targets");
        match objective {
            Objective::CrossEntropy => loss::cross_entropy(logits, &self.labels),
            Objective::PytorchCrossEntropy => loss::pytorch_cross_entropy(logits, &self.labels),
            Objective::Margin => loss::margin(logits, &self.labels),
            Objective::Dlr => loss::dlr(logits, &self.labels),
            Objective::TargetedMargin => {
                loss::targeted_margin(logits, &self.labels, self.targets.as_ref().ok_or_else(missing)?)
            }
            Objective::TargetedDlr => {
                loss::targeted_dlr(logits, &self.labels, self.targets.as_ref().ok_or_else(missing)?)
            }
            Objective::Divergence => {
                loss::kl_divergence(self.clean_logits.as_ref().ok_or_else(missing)?, logits)
            }
        }
    }
}

/// Answer to a gradient question about `n` images.
pub(crate) struct GradientEval {
    /// `[n, classes]`.
    pub logits: Tensor,
    /// `[n]`.
    pub losses: Tensor,
    /// `[n, height, width, channels]`.
    pub gradient: Tensor,
}

/// A classifier, asked in batches of bounded size.
pub(crate) struct Oracle<'a> {
    pub model: &'a dyn Classifier,
    batch_size: usize,
    context: &'a AttackContext<'a>,
    /// Images of the question that is being answered.
    asked: AtomicUsize,
}

impl<'a> Oracle<'a> {
    pub fn new(model: &'a dyn Classifier, context: &'a AttackContext<'a>) -> Self {
        Self { model, batch_size: context.batch_size.max(1), context, asked: AtomicUsize::new(1) }
    }

    /// Logits `[n, classes]`, computed without a graph.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let parts: Vec<Tensor> = self
            .batches(images)?
            .map(|(start, count)| {
                self.check_interrupt()?;
                let pixels = images.narrow(0, start, count)?.contiguous()?;
                let size = count * self.model.num_classes();
                let logits = self.recalled(("logits", &[&pixels]), size, || {
                    Ok(vec![self.model.logits_no_graph(&pixels)?])
                })?;
                self.passed(count, 1);
                Ok(Tensor::cat(&logits, 0)?)
            })
            .collect::<Result<_>>()?;
        Ok(Tensor::cat(&parts, 0)?.detach())
    }

    /// Logits, losses and the gradient of each image's loss with respect to its pixels.
    pub fn slope(&self, images: &Tensor, goal: &LossTargets, objective: Objective) -> Result<GradientEval> {
        let (mut logits, mut losses, mut gradients) = (Vec::new(), Vec::new(), Vec::new());
        for (start, count) in self.batches(images)? {
            self.check_interrupt()?;
            let pixels = Var::from_tensor(&images.narrow(0, start, count)?.contiguous()?)?;
            let goal = goal.narrow(start, count)?;
            let mut asked = vec![pixels.as_tensor()];
            asked.extend(goal.parts());
            let kind = format!("slope of {objective:?}");
            let answer = self.recalled((&kind, &asked), pixels.elem_count(), || {
                let logits = self.model.logits(&pixels)?;
                let loss = goal.loss(objective, &logits)?;
                let gradient = pixel_gradient(&loss.sum_all()?, &pixels)?;
                Ok(vec![logits.detach(), loss.detach(), gradient])
            })?;
            let [logit, loss, gradient] = <[Tensor; 3]>::try_from(answer)
                .map_err(|_| Error::config("answers of the model were kept that do not fit"))?;
            logits.push(logit);
            losses.push(loss);
            gradients.push(gradient);
            self.passed(count, 1);
        }
        Ok(GradientEval {
            logits: Tensor::cat(&logits, 0)?,
            losses: Tensor::cat(&losses, 0)?,
            gradient: Tensor::cat(&gradients, 0)?,
        })
    }

    /// Logits `[n, classes]` and the gradient of every logit, one `[n, h, w, c]` per class, for images
    /// that fit into one batch.
    pub fn jacobian(&self, images: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        self.check_interrupt()?;
        let pixels = Var::from_tensor(&images.contiguous()?)?;
        let classes = self.model.num_classes();
        let mut answer = self.recalled(("jacobian", &[&pixels]), pixels.elem_count() * classes, || {
            let logits = self.model.logits(&pixels)?;
            let gradients =
                (0..classes).map(|class| pixel_gradient(&logits.narrow(1, class, 1)?.sum_all()?, &pixels));
            std::iter::once(Ok(logits.detach())).chain(gradients).collect()
        })?;
        let gradients = answer.split_off(1);
        self.passed(images.dim(0)?, gradients.len());
        Ok((answer.swap_remove(0), gradients))
    }

    /// An answer of `size` numbers, computed or recalled.
    fn recalled(
        &self,
        question: (&str, &[&Tensor]),
        size: usize,
        compute: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        match self.context.recall {
            Some(recall) => recall.answer(question, 4 * size, compute),
            None => compute(),
        }
    }

    /// Equal shares no larger than the batch size, as (start, count).
    pub fn batches(&self, images: &Tensor) -> Result<impl Iterator<Item = (usize, usize)> + use<>> {
        let total = images.dim(0)?;
        self.asked.store(total.max(1), Ordering::Relaxed);
        let parts = total.div_ceil(self.batch_size).max(1);
        Ok((0..parts).map(move |part| {
            let (start, end) = (part * total / parts, (part + 1) * total / parts);
            (start, end - start)
        }))
    }

    /// Tells who watches that `passes` passes of `count` images are done.
    fn passed(&self, count: usize, passes: usize) {
        if let Some(watch) = self.context.watch {
            watch((count * passes) as f64 / self.asked.load(Ordering::Relaxed) as f64);
        }
    }

    fn check_interrupt(&self) -> Result<()> {
        let interrupt = self.context.interrupt;
        interrupt.map_or(Ok(()), |interrupt| interrupt.check("the images under attack were not finished"))
    }
}

/// Gradient of a scalar with respect to pixels; zero where it does not depend on them.
fn pixel_gradient(scalar: &Tensor, pixels: &Var) -> Result<Tensor> {
    let gradients = scalar.backward()?;
    match gradients.get(pixels.as_tensor()) {
        Some(gradient) => Ok(gradient.detach().contiguous()?),
        None => Ok(pixels.zeros_like()?.detach()),
    }
}
