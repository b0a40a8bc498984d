//! The pre-flight check: does the model keep the contract, do its gradients lead anywhere, what will the evaluation
//! cost?
//!
//! The contract is *input in [0, 1], logits out, normalization inside the model*. It is checked on a few images
//! before hours are spent.

use std::fmt;
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor, Var};

use crate::attack::{Attack, AttackContext, Classifier, Warning, check_gradients, check_model, judge_logits};
use crate::nn::loss;
use crate::wording::counted;
use crate::{Error, Result};

/// Images that the check before an evaluation or an analysis looks at.
pub const CHECKED_IMAGES: usize = 16;

/// What a few images told about a model.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Departures from the contract, and gradients that lead nowhere: results are doubtful but not impossible.
    pub warnings: Vec<Warning>,
    /// Images tried.
    pub images: usize,
    /// Of which classified correctly.
    pub correct: usize,
    /// Time of one image in a forward pass without a graph.
    pub forward: Duration,
    /// Time of one image in a forward and backward pass.
    pub gradient: Duration,
    /// Most memory the process has used so far, in bytes, where the system tells.
    pub peak_memory: Option<u64>,
}

/// Checks the contract on one batch of images `[n, height, width, channels]` with labels `[n]`, whether the gradients
/// that `attacks` follow are there, and measures the cost of a pass.
///
/// # Errors
/// [`Error::Model`] if pixels leave `[0, 1]`, labels are unknown to the model, logits have the wrong
/// shape or are not finite: the evaluation would be meaningless; also for attacks that follow a gradient which the
/// model does not have. [`Error::Config`] for attacks whose band holds no
/// frequency of such images.
pub fn check(
    model: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
    attacks: &[Attack],
) -> Result<Preflight> {
    let (count, height, width, _) = images.dims4()?;
    for attack in attacks {
        attack.check_size(height, width)?;
        attack.check_gradients_of(model)?;
    }
    let extreme = |values: Tensor| -> Result<f64> { Ok(values.to_dtype(DType::F64)?.to_scalar()?) };
    let (low, high) = (extreme(images.min_all()?)?, extreme(images.max_all()?)?);
    if !(0.0..=1.0).contains(&low) || !(0.0..=1.0).contains(&high) {
        return Err(Error::model(format!(
            "pixels reach from {low} to {high}, but must lie in [0, 1]: give the images without normalization and \
             let the model normalize them (mean and std belong to it)"
        )));
    }
    let logits = model.logits_no_graph(images)?;
    if logits.dims() != [count, model.num_classes()] {
        return Err(Error::model(format!(
            "the model returned {:?} for {} of {}",
            logits.dims(),
            counted(count, "image"),
            counted(model.num_classes(), "class")
        )));
    }
    let judged = judge_logits(&logits, &labels.to_vec1()?)?;
    let ids: Vec<u64> = (0..count as u64).collect();
    let context = AttackContext::evaluation(0, &ids, count);
    let mut warnings = check_model(model, images, &context)?;
    warnings.extend(check_gradients(model, images, labels, attacks, &context)?);
    let per_image = |began: Instant| began.elapsed() / count.max(1) as u32;
    let began = Instant::now();
    model.logits_no_graph(images)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    let forward = per_image(began);
    let began = Instant::now();
    let pixels = Var::from_tensor(images)?;
    let loss = loss::mean_cross_entropy(&model.logits(&pixels)?, labels)?;
    if model.has_gradients()
        && let Some(gradient) = loss.backward()?.get(&pixels)
    {
        gradient.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    }
    let gradient = per_image(began);
    let correct = judged.iter().filter(|verdict| !verdict.wrong).count();
    Ok(Preflight { warnings, images: count, correct, forward, gradient, peak_memory: peak_memory() })
}

impl Preflight {
    /// The longest that `attacks` can take on `images` images: every image right and surviving.
    /// Robust models come close to it; others finish in a fraction.
    pub fn longest(&self, attacks: &[Attack], images: usize, classes: usize) -> Duration {
        let right = images as f64 * self.correct as f64 / self.images.max(1) as f64;
        let seconds: f64 = attacks
            .iter()
            .map(|attack| {
                let passes = attack.passes(classes);
                passes.forward as f64 * self.forward.as_secs_f64()
                    + passes.gradient as f64 * self.gradient.as_secs_f64()
            })
            .sum();
        let clean = self.forward.as_secs_f64() * images as f64;
        Duration::try_from_secs_f64(clean + right * seconds).unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pre-flight on {}: {} classified correctly, {:.2} ms per image forward, {:.2} ms with gradient",
            counted(self.images, "image"),
            self.correct,
            1e3 * self.forward.as_secs_f64(),
            1e3 * self.gradient.as_secs_f64()
        )?;
        if let Some(bytes) = self.peak_memory {
            write!(f, ", {:.1} GiB of memory", bytes as f64 / (1u64 << 30) as f64)?;
        }
        Ok(())
    }
}

/// The process's largest resident size so far (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
