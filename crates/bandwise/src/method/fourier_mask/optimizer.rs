//! Adam and the one-cycle schedule as PyTorch computes them, for many masks that each stand at a step of
//! their own.

use std::f64::consts::PI;

use candle_core::{Device, Tensor};

use crate::Result;

const SECOND_DECAY: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Adam's first-moment decay without a schedule.
const FIRST_DECAY: f64 = 0.9;

/// Learning rate and first-moment decay of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub learning_rate: f64,
    pub first_decay: f64,
}

/// How the rate changes over the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Schedule {
    Constant {
        learning_rate: f64,
    },
    /// PyTorch's `OneCycleLR` with its defaults: cosine from `peak / 25` up to `peak` during the share
    /// `warm_up` of all steps and down to `peak / 250,000`; Adam's momentum moves from 0.95 to 0.85 and
    /// back.
    OneCycle {
        peak: f64,
        steps: usize,
        warm_up: f64,
    },
}

impl Schedule {
    /// A one-cycle schedule, or a constant rate where `warm_up` is 0.
    pub fn new(peak: f64, steps: usize, warm_up: f64) -> Self {
        if warm_up > 0.0 {
            Self::OneCycle { peak, steps, warm_up }
        } else {
            Self::Constant { learning_rate: peak }
        }
    }

    /// The rate of step `step`, counted from 0.
    pub fn at(&self, step: usize) -> Rate {
        match *self {
            Self::Constant { learning_rate } => Rate { learning_rate, first_decay: FIRST_DECAY },
            Self::OneCycle { peak, steps, warm_up } => {
                let summit = (warm_up * steps as f64 - 1.0).max(0.0);
                let end = (steps as f64 - 1.0).max(summit + 1.0);
                let step = (step as f64).min(end);
                let between =
                    |from: f64, to: f64, share: f64| to + (from - to) / 2.0 * (1.0 + (PI * share).cos());
                if step <= summit && summit > 0.0 {
                    let share = step / summit;
                    let learning_rate = between(peak / 25.0, peak, share);
                    return Rate { learning_rate, first_decay: between(0.95, 0.85, share) };
                }
                let share = (step - summit) / (end - summit);
                let learning_rate = between(peak, peak / 25.0 / 1e4, share);
                Rate { learning_rate, first_decay: between(0.85, 0.95, share) }
            }
        }
    }
}

/// Adam's moments for masks `[masks, height, width]`.
#[derive(Clone, Debug)]
pub(super) struct Adam {
    pub first: Tensor,
    pub second: Tensor,
}

impl Adam {
    pub fn new(masks: &Tensor) -> Result<Self> {
        Ok(Self { first: masks.zeros_like()?, second: masks.zeros_like()? })
    }

    /// One step down `gradient`, then the clamp to `[0, 1]`. `steps[i]` counts the steps that mask `i` has
    /// already taken.
    pub fn step(
        &mut self,
        masks: &Tensor,
        gradient: &Tensor,
        rates: &[Rate],
        steps: &[usize],
    ) -> Result<Tensor> {
        let device = masks.device();
        let column = |value: &dyn Fn(usize) -> f64| column(rates.len(), value, device);
        let first_decay = column(&|i| rates[i].first_decay)?;
        let first_share = column(&|i| 1.0 - rates[i].first_decay)?;
        self.first = (self.first.broadcast_mul(&first_decay)? + gradient.broadcast_mul(&first_share)?)?;
        let squares = gradient.sqr()?.affine(1.0 - SECOND_DECAY, 0.0)?;
        self.second = (self.second.affine(SECOND_DECAY, 0.0)? + squares)?;
        let exponent = |i: usize| steps[i] as i32 + 1;
        let size = column(&|i| rates[i].learning_rate / (1.0 - rates[i].first_decay.powi(exponent(i))))?;
        let root = column(&|i| (1.0 - SECOND_DECAY.powi(exponent(i))).sqrt().recip())?;
        let scale = self.second.sqrt()?.broadcast_mul(&root)?.affine(1.0, EPSILON)?;
        let change = self.first.broadcast_mul(&size)?.div(&scale)?;
        Ok((masks - change)?.clamp(0f32, 1f32)?)
    }

    /// The moments of the masks `rows` (u32), and zeros for `fresh` masks behind them.
    pub fn rearrange(&mut self, rows: &Tensor, fresh: usize) -> Result<()> {
        for moment in [&mut self.first, &mut self.second] {
            *moment = rearrange(moment, rows, fresh, 0.0)?;
        }
        Ok(())
    }
}

/// The rows `rows` (u32) of `[n, height, width]`, and `fresh` rows of `value` behind them.
pub(super) fn rearrange(tensor: &Tensor, rows: &Tensor, fresh: usize, value: f64) -> Result<Tensor> {
    let (_, height, width) = tensor.dims3()?;
    let new =
        Tensor::full(value as f32, (fresh, height, width), tensor.device())?.to_dtype(tensor.dtype())?;
    match (rows.elem_count(), fresh) {
        (0, _) => Ok(new),
        (_, 0) => Ok(tensor.index_select(rows, 0)?),
        _ => Ok(Tensor::cat(&[&tensor.index_select(rows, 0)?, &new], 0)?),
    }
}

/// One value per mask, `[masks, 1, 1]`.
fn column(count: usize, value: &dyn Fn(usize) -> f64, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = (0..count).map(|i| value(i) as f32).collect();
    Ok(Tensor::from_vec(values, (count, 1, 1), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `torch.optim.lr_scheduler.OneCycleLR(Adam, 0.2, total_steps=20, pct_start=0.1)`.
    #[test]
    fn one_cycle_starts_peaks_and_ends_where_pytorch_does() {
        let schedule = Schedule::new(0.2, 20, 0.1);
        let close = |step, rate: f64, decay: f64| {
            let at = schedule.at(step);
            assert!(
                (at.learning_rate - rate).abs() < 1e-7 && (at.first_decay - decay).abs() < 1e-7,
                "{at:?}"
            );
        };
        close(0, 0.008, 0.95);
        close(1, 0.2, 0.85);
        close(10, 0.100_000_4, 0.9);
        close(19, 8e-7, 0.95);
    }

    #[test]
    fn the_published_per_image_schedule_stays_at_its_start() {
        let schedule = Schedule::new(0.2, 200 * 20_000, 0.1);
        assert!((schedule.at(0).learning_rate - 0.008).abs() < 1e-9);
        assert!((0.0080..0.0095).contains(&schedule.at(19_999).learning_rate));
    }
}
