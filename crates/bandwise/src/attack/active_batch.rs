//! The images an attack works on at once, and who of them is still alive.
//!
//! An attack keeps its state (current point, gradient, counters) for the images still alive only.
//! When images are broken they [`retire`](ActiveBatch::retire), and the attack selects the rows that stay.

use candle_core::{Device, Tensor};

use super::geometry::without_direction;
use super::{AttackResult, Outcome, Warning};
use crate::{Error, Result};

/// What the logits say about one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The predicted class is not the label.
    pub wrong: bool,
    /// `z_label − max_{j≠label} z_j`.
    pub margin: f64,
}

/// Judges logits `[n, classes]` against labels; the first of equal logits is the prediction.
///
/// # Errors
/// [`Error::Model`] for logits that are not numbers, or a label the model does not know.
pub fn judge_logits(logits: &Tensor, labels: &[u32]) -> Result<Vec<Verdict>> {
    let rows = logits.to_dtype(candle_core::DType::F64)?.to_vec2::<f64>()?;
    rows.iter()
        .zip(labels)
        .map(|(row, &label)| {
            let label = label as usize;
            if label >= row.len() {
                return Err(Error::model(format!(
                    "the data has class {label}, but the model knows only {} classes; is it the right model?",
                    row.len()
                )));
            }
            if row.iter().any(|z| !z.is_finite()) {
                return Err(Error::model(
                    "the model's logits are not finite numbers; are its weights damaged?",
                ));
            }
            let predicted = (0..row.len()).fold(0, |best, j| if row[j] > row[best] { j } else { best });
            let other =
                (0..row.len()).filter(|&j| j != label).map(|j| row[j]).fold(f64::NEG_INFINITY, f64::max);
            Ok(Verdict { wrong: predicted != label, margin: row[label] - other })
        })
        .collect()
}

/// Bookkeeping for one call of an attack.
pub(crate) struct ActiveBatch {
    /// For every row of the attack's state: which image of the caller's batch it is.
    pub alive: Vec<usize>,
    /// One per image of the caller's batch.
    pub outcomes: Vec<Outcome>,
    labels: Vec<u32>,
    finished: Vec<(Vec<usize>, Tensor)>,
    device: Device,
}

impl ActiveBatch {
    pub fn new(images: &Tensor, labels: &Tensor) -> Result<Self> {
        let labels = labels.to_vec1::<u32>()?;
        let count = images.dim(0)?;
        if labels.len() != count || count == 0 {
            return Err(Error::config(format!("an attack got {count} images and {} labels", labels.len())));
        }
        Ok(Self {
            alive: (0..count).collect(),
            outcomes: vec![Outcome::default(); count],
            labels,
            finished: Vec::new(),
            device: images.device().clone(),
        })
    }

    /// Labels of the images still alive, in row order.
    pub fn labels(&self) -> Vec<u32> {
        self.alive.iter().map(|&image| self.labels[image]).collect()
    }

    /// Identities of the images still alive, in row order.
    pub fn ids(&self, ids: &[u64]) -> Vec<u64> {
        self.alive.iter().map(|&image| ids[image]).collect()
    }

    /// Judges logits of the rows still alive.
    pub fn judge(&self, logits: &Tensor) -> Result<Vec<Verdict>> {
        judge_logits(logits, &self.labels())
    }

    /// Counts one forward pass for every row still alive.
    pub fn count_queries(&mut self, queries: u64) {
        for &image in &self.alive {
            self.outcomes[image].queries += queries;
        }
    }

    /// Counts forward and backward passes for every row still alive.
    pub fn count_gradients(&mut self, gradients: u64) {
        for &image in &self.alive {
            self.outcomes[image].queries += 1;
            self.outcomes[image].gradients += gradients;
        }
    }

    /// Remembers the rows still alive whose gradient `[n, height, width, channels]` leads nowhere.
    pub fn note_gradients(&mut self, gradient: &Tensor) -> Result<()> {
        for (&image, lost) in self.alive.iter().zip(without_direction(gradient)?) {
            self.outcomes[image].no_gradient |= lost;
        }
        Ok(())
    }

    /// Writes verdicts into the outcomes of all rows still alive.
    pub fn record(&mut self, verdicts: &[Verdict], restart: u32) {
        for (&image, verdict) in self.alive.iter().zip(verdicts) {
            let outcome = &mut self.outcomes[image];
            outcome.margin = verdict.margin;
            outcome.broken = verdict.wrong;
            outcome.restart = verdict.wrong.then_some(restart);
        }
    }

    /// Takes the rows marked in `leaving` out of the batch with their final images (rows of
    /// `images`); returns the indices of the rows that stay, `None` if nobody left.
    pub fn retire(&mut self, leaving: &[bool], images: &Tensor) -> Result<Option<Tensor>> {
        let rows = |wanted: bool| -> Vec<u32> {
            (0..leaving.len() as u32).filter(|&row| leaving[row as usize] == wanted).collect()
        };
        let gone = rows(true);
        if gone.is_empty() {
            return Ok(None);
        }
        let stay = rows(false);
        let positions = gone.iter().map(|&row| self.alive[row as usize]).collect();
        self.finished.push((positions, images.index_select(&self.indices(&gone)?, 0)?.detach()));
        self.alive = stay.iter().map(|&row| self.alive[row as usize]).collect();
        Ok(Some(self.indices(&stay)?))
    }

    /// Row numbers as an index tensor on the images' device.
    pub fn indices(&self, rows: &[u32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(rows, rows.len(), &self.device)?)
    }

    /// Puts all images back into the caller's order. `images` are the rows still alive.
    pub fn finish(mut self, images: &Tensor) -> Result<AttackResult> {
        self.retire(&vec![true; self.alive.len()], images)?;
        let mut place = vec![0u32; self.outcomes.len()];
        for (row, &image) in self.finished.iter().flat_map(|(positions, _)| positions).enumerate() {
            place[image] = row as u32;
        }
        let parts: Vec<&Tensor> = self.finished.iter().map(|(_, rows)| rows).collect();
        let images = Tensor::cat(&parts, 0)?.index_select(&self.indices(&place)?, 0)?;
        let lost = self.outcomes.iter().filter(|outcome| outcome.survived_unseen()).count();
        let warnings = Warning::zero_gradients(lost, String::new()).into_iter().collect();
        Ok(AttackResult { images, outcomes: self.outcomes, warnings })
    }
}

/// Rows of several tensors at once, for an attack's state.
pub(crate) fn select_all(tensors: &mut [&mut Tensor], stay: &Tensor) -> Result<()> {
    for tensor in tensors {
        **tensor = tensor.index_select(stay, 0)?;
    }
    Ok(())
}

/// Rows of `yes` where `which` is set, of `no` elsewhere.
pub(crate) fn pick(which: &[bool], yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    let mask: Vec<u8> = which.iter().map(|&w| u8::from(w)).collect();
    let mask = Tensor::from_vec(mask, (which.len(), 1, 1, 1), yes.device())?;
    Ok(mask.broadcast_as(yes.shape())?.where_cond(yes, no)?)
}

/// Elements of a host array at the rows `stay`.
pub(crate) fn select_host<T: Clone>(values: &mut Vec<T>, stay: &Tensor) -> Result<()> {
    *values = stay.to_vec1::<u32>()?.iter().map(|&row| values[row as usize].clone()).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retired_images_return_in_the_callers_order() {
        let device = Device::Cpu;
        let images = Tensor::arange(0f32, 4f32, &device).unwrap().reshape((4, 1, 1, 1)).unwrap();
        let labels = Tensor::new(&[0u32, 1, 0, 1], &device).unwrap();
        let mut active = ActiveBatch::new(&images, &labels).unwrap();
        let stay = active.retire(&[false, true, false, true], &images).unwrap().unwrap();
        let rest = images.index_select(&stay, 0).unwrap();
        assert_eq!((active.alive.clone(), active.labels()), (vec![0, 2], vec![0, 0]));
        assert!(active.retire(&[false, false], &rest).unwrap().is_none());
        let stay = active.retire(&[true, false], &rest).unwrap().unwrap();
        let rest = rest.index_select(&stay, 0).unwrap();
        let result = active.finish(&rest).unwrap();
        assert_eq!(result.images.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn verdicts_take_the_first_of_equal_logits_and_refuse_nan() {
        let logits =
            Tensor::new(&[[1.0f32, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 5.0]], &Device::Cpu).unwrap();
        let judged = judge_logits(&logits, &[0, 1, 2]).unwrap();
        assert_eq!(judged.iter().map(|v| v.wrong).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(judged.iter().map(|v| v.margin).collect::<Vec<_>>(), [0.0, 0.0, 3.0]);
        let nan = Tensor::new(&[[f32::NAN, 0.0]], &Device::Cpu).unwrap();
        assert!(judge_logits(&nan, &[0]).is_err());
        assert!(judge_logits(&logits.narrow(0, 0, 1).unwrap(), &[7]).is_err());
    }
}
