//! Losses on logits `[batch, classes]` and labels `[batch]` (u32), one value per sample.
//!
//! Every function returns `[batch]`, so that sums, means and weights compose, and is
//! differentiable in its logits, in float32 and float64, on every device.
//!
//! The cross-entropy needs care: autodiff through `log_softmax` computes `p − y` with a
//! cancellation in the entry of the true class, and for a confident image (`1 − p < 1e-5`) the
//! float32 gradient is then rounding noise: the sign of a third of its pixels is wrong. Here
//! `p_true − 1` is minus the sum of the other probabilities, which is exact to the last digit.

use candle_core::{D, DType, Tensor};

use crate::{Error, Result};

/// Cross-entropy `−log p_label` per sample, `[batch]`, with an exact gradient `p − y`.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    smoothed_cross_entropy(logits, labels, 0.0)
}

/// Mean of [`cross_entropy`] over the batch.
pub fn mean_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(cross_entropy(logits, labels)?.mean_all()?)
}

/// [`cross_entropy`] with the gradient as PyTorch computes it, `softmax − onehot` by subtraction.
///
/// In float32 the entry of the true class cancels for confident images, and gradient attacks lose their
/// way there. Published numbers of FGSM and PGD contain this effect (on golden's ResNet-20, 21 of 500
/// images survive FGSM at 2/255 for no other reason), so reproducing them needs it.
pub fn pytorch_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let log_probabilities = log_softmax(&logits.detach())?;
    let label = one_hot(labels, logits.dim(1)?)?.to_dtype(logits.dtype())?;
    let gradient = (log_probabilities.exp()? - label)?;
    with_gradient(&at(&log_probabilities, labels)?.neg()?, &gradient, logits)
}

/// The tangent of [`cross_entropy`] per sample, `[batch]`: how it changes when the logits move along
/// `tangents` `[batch, classes]`. Differentiable in both, to any confidence.
///
/// `Σ_k (p_k − y_k)·t_k` is written as `Σ_{k≠label} p_k·(t_k − t_label)`, where nothing cancels.
pub fn cross_entropy_tangent(logits: &Tensor, tangents: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let parts = SoftmaxParts::of(logits, labels)?;
    let relative = tangents.broadcast_sub(&at(tangents, labels)?.unsqueeze(1)?)?;
    let weighted = (&parts.others * relative)?.sum_keepdim(1)?;
    Ok((weighted / parts.normalizer()?)?.squeeze(1)?)
}

/// Cross-entropy against `(1 − smoothing)·onehot + smoothing/classes`, per sample.
pub fn smoothed_cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f64) -> Result<Tensor> {
    let parts = SoftmaxParts::of(&logits.detach(), labels)?;
    let classes = logits.dim(1)? as f64;
    let mut value = parts.negative_log_probability()?;
    let mut gradient = parts.residual()?;
    if smoothing != 0.0 {
        value = (value - parts.gap.mean(1)?.affine(smoothing, 0.0)?)?;
        gradient = (gradient + parts.label_mask.affine(smoothing, -smoothing / classes)?)?;
    }
    with_gradient(&value, &gradient, logits)
}

/// `KL(softmax(clean) ‖ softmax(adversarial))` per sample; differentiable in both arguments.
pub fn kl_divergence(clean_logits: &Tensor, adversarial_logits: &Tensor) -> Result<Tensor> {
    let clean = log_softmax(clean_logits)?;
    let adversarial = log_softmax(adversarial_logits)?;
    Ok((clean.exp()? * (clean - adversarial)?)?.sum(D::Minus1)?)
}

/// Margin loss of Carlini and Wagner: `max_{j≠label} z_j − z_label`; positive means misclassified.
pub fn margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok((at(logits, &strongest_other(logits, labels)?)? - at(logits, labels)?)?)
}

/// `z_target − z_label`, the targeted margin; positive means the target is preferred to the label.
pub fn targeted_margin(logits: &Tensor, labels: &Tensor, targets: &Tensor) -> Result<Tensor> {
    Ok((at(logits, targets)? - at(logits, labels)?)?)
}

/// Difference-of-logits-ratio loss (Croce and Hein 2020, eq. 6; official `dlr_loss`):
/// `(max_{j≠label} z_j − z_label) / (z_(1) − z_(3) + 1e-12)`. Needs at least three classes.
pub fn dlr(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    need_classes(logits, 3, "the DLR loss")?;
    let order = descending(logits)?;
    let range = (ranked(logits, &order, 0)? - ranked(logits, &order, 2)?)?;
    Ok((margin(logits, labels)? / (range + 1e-12)?)?)
}

/// Targeted DLR loss (Croce and Hein 2020, eq. 7; official `dlr_loss_targeted`):
/// `(z_target − z_label) / (z_(1) − (z_(3) + z_(4))/2 + 1e-12)`. Needs at least four classes.
pub fn targeted_dlr(logits: &Tensor, labels: &Tensor, targets: &Tensor) -> Result<Tensor> {
    need_classes(logits, 4, "the targeted DLR loss")?;
    let order = descending(logits)?;
    let low = (ranked(logits, &order, 2)? + ranked(logits, &order, 3)?)?.affine(0.5, 0.0)?;
    let range = (ranked(logits, &order, 0)? - low)?;
    Ok((targeted_margin(logits, labels, targets)? / (range + 1e-12)?)?)
}

/// Boosted cross-entropy of MART (Wang et al. 2020, eq. 8; official `mart_loss`): cross-entropy plus
/// `−log(1.0001 − p_j + 1e-12)` for the most probable wrong class `j`.
pub fn boosted_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let other = strongest_other(logits, labels)?;
    let probability = at(&log_softmax(logits)?.exp()?, &other)?;
    let boost = probability.affine(-1.0, 1.0001 + 1e-12)?.log()?;
    Ok((cross_entropy(logits, labels)? - boost)?)
}

/// Probability of the label, `[batch]`, differentiable; MART weights its KL term with `1 − p`.
pub fn label_probability(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    at(&log_softmax(logits)?.exp()?, labels)
}

/// `log softmax` along the last dimension, safe against overflow.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    let normalizer = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&normalizer)?)
}

/// Index of the strongest class other than the label, `[batch]` u32. Carries no gradient.
pub fn strongest_other(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let logits = logits.detach();
    let (_, classes) = logits.dims2()?;
    need_classes(&logits, 2, "a margin")?;
    let lowest = logits.min_keepdim(1)?.affine(1.0, -1.0)?.broadcast_as(logits.shape())?;
    let is_label = one_hot(labels, classes)?;
    Ok(is_label.where_cond(&lowest, &logits)?.argmax(D::Minus1)?)
}

/// `logits[i, classes[i]]`, `[batch]`, differentiable.
fn at(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
    Ok(logits.gather(&classes.unsqueeze(1)?, 1)?.squeeze(1)?)
}

/// Class indices by falling logit, `[batch, classes]`.
fn descending(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.detach().contiguous()?.arg_sort_last_dim(false)?)
}

/// The `rank`-th largest logit (0 = largest), `[batch]`, differentiable.
fn ranked(logits: &Tensor, order: &Tensor, rank: usize) -> Result<Tensor> {
    at(logits, &order.narrow(1, rank, 1)?.squeeze(1)?.contiguous()?)
}

/// One where the class is the label, `[batch, classes]` u8.
fn one_hot(labels: &Tensor, classes: usize) -> Result<Tensor> {
    let all = Tensor::arange(0u32, classes as u32, labels.device())?.unsqueeze(0)?;
    Ok(all.broadcast_eq(&labels.unsqueeze(1)?)?)
}

fn need_classes(logits: &Tensor, needed: usize, what: &str) -> Result<()> {
    let classes = logits.dim(1)?;
    if classes < needed {
        return Err(Error::model(format!(
            "{what} needs at least {needed} classes, the model has {classes}; use the cross-entropy or the margin loss"
        )));
    }
    Ok(())
}

/// A value `[batch]` whose gradient with respect to `logits` is exactly `gradient` (per sample).
///
/// The surrogate `⟨logits, gradient⟩` is added and subtracted: nothing changes but the backward
/// pass, and no operator of our own is needed on any device.
fn with_gradient(value: &Tensor, gradient: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let surrogate = (logits * gradient.detach())?.sum(D::Minus1)?;
    Ok((value.detach() + (&surrogate - surrogate.detach())?)?)
}

/// Softmax relative to the label, without cancellation.
struct SoftmaxParts {
    /// 1 at the label, `[batch, classes]`.
    label_mask: Tensor,
    /// `z_j − z_label`, `[batch, classes]`.
    gap: Tensor,
    /// `max(0, max_j gap_j)`, `[batch, 1]`, constant to autodiff.
    shift: Tensor,
    /// `exp(gap_j − shift)`, 0 at the label.
    others: Tensor,
    /// Sum of `others`, `[batch, 1]`.
    others_sum: Tensor,
}

impl SoftmaxParts {
    fn of(logits: &Tensor, labels: &Tensor) -> Result<Self> {
        let label_mask = one_hot(labels, logits.dim(1)?)?.to_dtype(logits.dtype())?;
        let gap = logits.broadcast_sub(&at(logits, labels)?.unsqueeze(1)?)?;
        // The label's own gap is 0, so the maximum over all classes is never negative.
        let shift = gap.detach().max_keepdim(1)?;
        let others = (gap.broadcast_sub(&shift)?.exp()? * label_mask.affine(-1.0, 1.0)?)?;
        let others_sum = others.sum_keepdim(1)?;
        Ok(Self { label_mask, gap, shift, others, others_sum })
    }

    /// `−log p_label = shift + log1p(exp(−shift) − 1 + Σ others)`, accurate near 0 and for large gaps.
    fn negative_log_probability(&self) -> Result<Tensor> {
        let excess = (self.shift.neg()?.exp()?.affine(1.0, -1.0)? + &self.others_sum)?;
        Ok((&self.shift + log1p(&excess)?)?.squeeze(1)?)
    }

    /// `p − y` with `p_label − 1` as minus the sum of the other probabilities.
    fn residual(&self) -> Result<Tensor> {
        let numerator = (&self.others - self.label_mask.broadcast_mul(&self.others_sum)?)?;
        Ok(numerator.broadcast_div(&self.normalizer()?)?)
    }

    /// The softmax's denominator on the scale of `others`, `[batch, 1]`.
    fn normalizer(&self) -> Result<Tensor> {
        Ok((self.shift.neg()?.exp()? + &self.others_sum)?)
    }
}

/// `log(1 + x)` for `x > −1`, accurate for small `x` (Kahan: the rounding of `1 + x` divides out).
fn log1p(x: &Tensor) -> Result<Tensor> {
    let one_plus = x.affine(1.0, 1.0)?;
    let rounded = one_plus.affine(1.0, -1.0)?;
    let vanishes = rounded.eq(0.0)?;
    let safe = vanishes.where_cond(&rounded.ones_like()?, &rounded)?;
    let scaled = ((one_plus.log()? * x)? / safe)?;
    Ok(vanishes.where_cond(x, &scaled)?)
}

/// Reads a `[batch]` tensor of any float type to the host in float64 (exact for float32).
pub fn to_host(values: &Tensor) -> Result<Vec<f64>> {
    Ok(values.to_dtype(DType::F64)?.to_vec1()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn logits(dtype: DType) -> Var {
        let values = [[1.0, -2.0, 0.5, 3.0], [4.0, 0.1, 0.2, -1.0], [-0.3, 0.7, 0.6, 0.5]];
        Var::from_tensor(&Tensor::new(&values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()).unwrap()
    }

    fn labels() -> Tensor {
        Tensor::new(&[3u32, 0, 2], &Device::Cpu).unwrap()
    }

    /// Central differences of the summed loss against autodiff, in float64.
    fn assert_gradient(loss: impl Fn(&Tensor) -> Result<Tensor>) {
        let at = logits(DType::F64);
        let gradient = loss(&at).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = gradient.get(&at).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let base = at.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let value = |index: usize, step: f64| {
            let mut moved = base.clone();
            moved[index] += step;
            let moved = Tensor::from_vec(moved, (3, 4), &Device::Cpu).unwrap();
            loss(&moved).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        for (index, gradient) in gradient.iter().enumerate() {
            let numeric = (value(index, 1e-5) - value(index, -1e-5)) / 2e-5;
            assert!((gradient - numeric).abs() < 1e-8, "entry {index}: {gradient} against {numeric}");
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        let targets = Tensor::new(&[0u32, 2, 1], &Device::Cpu).unwrap();
        let fixed =
            Tensor::new(&[[0.3, 0.1, -1.0, 2.0], [0.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.2, 0.1]], &Device::Cpu)
                .unwrap();
        assert_gradient(|z| cross_entropy(z, &labels()));
        assert_gradient(|z| pytorch_cross_entropy(z, &labels()));
        assert_gradient(|z| smoothed_cross_entropy(z, &labels(), 0.1));
        assert_gradient(|z| margin(z, &labels()));
        assert_gradient(|z| dlr(z, &labels()));
        assert_gradient(|z| targeted_dlr(z, &labels(), &targets));
        assert_gradient(|z| boosted_cross_entropy(z, &labels()));
        assert_gradient(|z| label_probability(z, &labels()));
        assert_gradient(|z| kl_divergence(z, &fixed));
        assert_gradient(|z| kl_divergence(&fixed, z));
        assert_gradient(|z| cross_entropy_tangent(z, &fixed, &labels()));
        assert_gradient(|t| cross_entropy_tangent(&fixed, t, &labels()));
    }

    #[test]
    fn the_tangent_of_the_cross_entropy_is_its_directional_derivative() {
        let (z, direction) =
            (logits(DType::F64), (logits(DType::F64).as_tensor() * 0.3).unwrap().sin().unwrap());
        let at =
            |step: f64| cross_entropy(&(z.as_tensor() + (&direction * step).unwrap()).unwrap(), &labels());
        let numeric = ((at(1e-5).unwrap() - at(-1e-5).unwrap()).unwrap() / 2e-5).unwrap();
        let exact = cross_entropy_tangent(&z, &direction, &labels()).unwrap();
        for (a, b) in to_host(&exact).unwrap().iter().zip(to_host(&numeric).unwrap()) {
            assert!((a - b).abs() < 1e-9, "{a} against {b}");
        }
    }

    #[test]
    fn values_equal_the_plain_formulas() {
        let z = logits(DType::F64);
        let rows = z.to_vec2::<f64>().unwrap();
        let smooth = to_host(&smoothed_cross_entropy(&z, &labels(), 0.2).unwrap()).unwrap();
        let difference = to_host(&dlr(&z, &labels()).unwrap()).unwrap();
        for (i, &label) in [3usize, 0, 2].iter().enumerate() {
            let total: f64 = rows[i].iter().map(|z| z.exp()).sum();
            let expected: f64 = rows[i]
                .iter()
                .enumerate()
                .map(|(j, z)| -(z - total.ln()) * if j == label { 0.8 + 0.05 } else { 0.05 })
                .sum();
            assert!((smooth[i] - expected).abs() < 1e-12);
            let mut sorted = rows[i].clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let other = if rows[i][label] == sorted[0] { sorted[1] } else { sorted[0] };
            assert!((difference[i] - (other - rows[i][label]) / (sorted[0] - sorted[2])).abs() < 1e-10);
        }
    }

    #[test]
    fn confident_samples_keep_their_float32_gradient() {
        let z = Var::new(&[[30.0f32, 1.0, 0.0], [-90.0, 60.0, 0.0]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[0u32, 0], &Device::Cpu).unwrap();
        let loss = cross_entropy(&z, &labels).unwrap();
        let values = loss.to_vec1::<f32>().unwrap();
        let exact = ((1.0f64 - 30.0).exp() + (-30.0f64).exp()).ln_1p();
        assert!((f64::from(values[0]) / exact - 1.0).abs() < 1e-5, "{} against {exact}", values[0]);
        assert_eq!(values[1], 150.0);
        let gradient = loss.sum_all().unwrap().backward().unwrap();
        let gradient = gradient.get(&z).unwrap().to_vec2::<f32>().unwrap();
        assert!((f64::from(gradient[0][0]) / -exact - 1.0).abs() < 1e-5);
        assert_eq!(gradient[1][0], -1.0);
    }

    #[test]
    fn too_few_classes_are_refused_with_a_reason() {
        let z = Tensor::new(&[[1.0f32, 2.0]], &Device::Cpu).unwrap();
        let labels = Tensor::new(&[0u32], &Device::Cpu).unwrap();
        assert!(dlr(&z, &labels).unwrap_err().to_string().contains("at least 3 classes"));
    }
}
