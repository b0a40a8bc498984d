//! Learning-rate schedules: pure functions of how far training has come.
//!
//! A schedule has no state, so a resumed run needs nothing but its position. Where PyTorch has the
//! schedule too, the values are PyTorch's.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where training stands, before an update is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Updates made so far.
    pub step: u64,
    /// Updates per epoch.
    pub steps_per_epoch: u64,
    /// Epochs planned in all.
    pub epochs: u64,
}

impl Position {
    /// Whole epochs done so far.
    pub fn epoch(&self) -> u64 {
        self.step / self.steps_per_epoch.max(1)
    }

    /// Updates planned in all.
    pub fn total_steps(&self) -> u64 {
        (self.steps_per_epoch * self.epochs).max(1)
    }

    /// Share of the training that is done, in [0, 1], counted in steps or whole epochs.
    pub fn progress(&self, per: Interval) -> f64 {
        let share = match per {
            Interval::Step => self.step as f64 / self.total_steps() as f64,
            Interval::Epoch => self.epoch() as f64 / self.epochs.max(1) as f64,
        };
        share.min(1.0)
    }
}

/// How often the rate changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// With every update.
    #[default]
    Step,
    /// Once per epoch, as PyTorch's schedulers are mostly used.
    Epoch,
}

/// A learning-rate schedule. All factors multiply the base rate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always the base rate.
    #[default]
    Constant,
    /// Times `factor` after every `every` epochs (`StepLR`).
    Step {
        /// Epochs between changes.
        every: u64,
        /// What the rate is multiplied with.
        #[serde(default = "tenth")]
        factor: f64,
    },
    /// Times `factor` at each of the epochs `milestones` (`MultiStepLR`).
    Multistep {
        /// Epochs at which the rate changes, ascending.
        milestones: Vec<u64>,
        /// What the rate is multiplied with.
        #[serde(default = "tenth")]
        factor: f64,
    },
    /// Straight lines between points (`numpy.interp`), per step.
    Piecewise {
        /// Where the points are, in epochs, ascending; fractions count.
        epochs: Vec<f64>,
        /// The factor at each point.
        factors: Vec<f64>,
    },
    /// Straight down from 1 to `floor` (`LinearLR`).
    Linear {
        /// The factor at the end.
        #[serde(default)]
        floor: f64,
        /// How often the rate changes.
        #[serde(default)]
        per: Interval,
    },
    /// Half a cosine from 1 to `floor` (`CosineAnnealingLR`).
    Cosine {
        /// The factor at the end.
        #[serde(default)]
        floor: f64,
        /// How often the rate changes.
        #[serde(default)]
        per: Interval,
    },
    /// As in filter frequency regularization's official code (`WarmupCosineLR`), per epoch: from a rate of 1e-8 up
    /// by 1/(w − 1) of the base rate per epoch, w being `warmup` times all epochs, then half a cosine to 1e-8. Where
    /// w is no whole number the last step up goes beyond the base rate (1.0137 times at 125 epochs), and the
    /// cosine keeps that factor; with w below 2 it is useless. [`Schedule::LinearCosine`] has neither problem.
    WarmupCosine {
        /// Share of the epochs that the way up takes.
        #[serde(default = "warmup")]
        warmup: f64,
    },
    /// Straight up from `start` to 1, then half a cosine to `floor` (`LinearLR`, then
    /// `CosineAnnealingLR`).
    LinearCosine {
        /// Share of the training that the way up takes.
        #[serde(default = "warmup")]
        warmup: f64,
        /// The factor at the beginning.
        #[serde(default = "hundredth")]
        start: f64,
        /// The factor at the end.
        #[serde(default)]
        floor: f64,
        /// How often the rate changes.
        #[serde(default)]
        per: Interval,
    },
    /// One cycle, cosines up and down, per step (`OneCycleLR`); the base rate is the highest.
    OneCycle {
        /// Share of the steps that the way up takes (`pct_start`).
        #[serde(default = "warmup")]
        warmup: f64,
        /// The rate starts at the base rate divided by this (`div_factor`).
        #[serde(default = "start_divisor")]
        start_divisor: f64,
        /// The rate ends at its start divided by this (`final_div_factor`).
        #[serde(default = "final_divisor")]
        final_divisor: f64,
    },
    /// A triangle, per step: 0 to 1 at `peak`, then down to 0 (fast adversarial training; JaFR).
    Cyclic {
        /// Share of the training at which the rate is highest.
        #[serde(default = "peak")]
        peak: f64,
    },
    /// FPCM's default, per epoch: linear from 0.1 to 1 over five epochs, ×0.1 from 70 % and ×0.01
    /// from 90 % of the epochs.
    FpcmMultistep,
    /// FPCM's other one, per epoch: linear from 0.1 to 1 over five epochs, then a cosine to 0.01.
    FpcmCosine,
}

fn tenth() -> f64 {
    0.1
}

fn hundredth() -> f64 {
    0.01
}

fn warmup() -> f64 {
    0.3
}

fn start_divisor() -> f64 {
    25.0
}

fn final_divisor() -> f64 {
    1e4
}

fn peak() -> f64 {
    0.4
}

impl Schedule {
    /// The learning rate of the next update.
    pub fn rate(&self, base: f64, position: Position) -> f64 {
        match *self {
            Self::WarmupCosine { warmup } => warmup_cosine(base, warmup, position),
            _ => base * self.factor(position),
        }
    }

    /// What the base rate is multiplied with.
    fn factor(&self, position: Position) -> f64 {
        let epoch = position.epoch();
        match *self {
            Self::Constant => 1.0,
            Self::Step { every, factor } => factor.powf((epoch / every.max(1)) as f64),
            Self::Multistep { ref milestones, factor } => {
                factor.powf(milestones.iter().filter(|&&milestone| milestone <= epoch).count() as f64)
            }
            Self::Piecewise { ref epochs, ref factors } => {
                let at = position.step as f64 / position.steps_per_epoch.max(1) as f64;
                interpolate(at, epochs, factors)
            }
            Self::Linear { floor, per } => linear(1.0, floor, position.progress(per)),
            Self::Cosine { floor, per } => cosine(1.0, floor, position.progress(per)),
            Self::WarmupCosine { warmup } => warmup_cosine(1.0, warmup, position),
            Self::LinearCosine { warmup, start, floor, per } => match position.progress(per) {
                t if t < warmup => linear(start, 1.0, t / warmup),
                t => cosine(1.0, floor, share(t - warmup, 1.0 - warmup)),
            },
            Self::OneCycle { warmup, start_divisor, final_divisor } => {
                let (step, total) = (position.step as f64, position.total_steps() as f64);
                // PyTorch counts the last step of each phase as its end.
                let (top, end) = (warmup * total - 1.0, total - 1.0);
                let start = 1.0 / start_divisor;
                if step <= top {
                    cosine(start, 1.0, share(step, top))
                } else {
                    cosine(1.0, start / final_divisor, share(step - top, end - top))
                }
            }
            Self::Cyclic { peak } => {
                // At the end of the coming step: the first one would otherwise change nothing.
                let t = ((position.step + 1) as f64 / position.total_steps() as f64).min(1.0);
                interpolate(t, &[0.0, peak, 1.0], &[0.0, 1.0, 0.0])
            }
            Self::FpcmMultistep => fpcm(position, || {
                // Rounded down, as in the official code.
                let from = |share: f64| (share * position.epochs as f64) as u64;
                match epoch {
                    epoch if epoch < from(0.7) => 1.0,
                    epoch if epoch < from(0.9) => 0.1,
                    _ => 0.01,
                }
            }),
            Self::FpcmCosine => fpcm(position, || {
                let rest = position.epochs as f64 - FPCM_WARMUP;
                cosine(1.0, 0.01, share(epoch as f64 - FPCM_WARMUP, rest))
            }),
        }
    }

    /// Refuses settings out of range.
    ///
    /// # Errors
    /// Names the setting and its range.
    pub fn check(&self) -> Result<()> {
        let require = |holds: bool, what: &str| match holds {
            true => Ok(()),
            false => Err(Error::config(format!("schedule: {what}"))),
        };
        let share = |value: f64| (0.0..1.0).contains(&value);
        let factor = |value: f64| value >= 0.0 && value.is_finite();
        match self {
            Self::Constant | Self::FpcmMultistep | Self::FpcmCosine => Ok(()),
            Self::Step { every, factor: f } => {
                require(*every > 0, "every must be at least 1 epoch")?;
                require(factor(*f), "factor must not be negative")
            }
            Self::Multistep { milestones, factor: f } => {
                require(milestones.is_sorted(), "milestones must be ascending")?;
                require(factor(*f), "factor must not be negative")
            }
            Self::Piecewise { epochs, factors } => {
                let same = !epochs.is_empty() && epochs.len() == factors.len();
                require(same, "epochs and factors must be lists of the same length")?;
                require(epochs.is_sorted(), "epochs must be ascending")?;
                require(factors.iter().all(|&f| factor(f)), "factors must not be negative")
            }
            Self::Linear { floor, .. } | Self::Cosine { floor, .. } => {
                require(factor(*floor), "floor must not be negative")
            }
            Self::WarmupCosine { warmup } => {
                require(share(*warmup), "warmup must be a share of the training in [0, 1)")
            }
            Self::LinearCosine { warmup, start, floor, .. } => {
                require(share(*warmup), "warmup must be a share of the training in [0, 1)")?;
                require(factor(*start) && factor(*floor), "start and floor must not be negative")
            }
            Self::OneCycle { warmup, start_divisor, final_divisor } => {
                require(share(*warmup), "warmup must be a share of the steps in [0, 1)")?;
                let positive = *start_divisor > 0.0 && *final_divisor > 0.0;
                require(positive, "start_divisor and final_divisor must be positive")
            }
            Self::Cyclic { peak } => require(*peak > 0.0 && *peak < 1.0, "peak must lie between 0 and 1"),
        }
    }
}

const FPCM_WARMUP: f64 = 5.0;

/// FPCM's warm-up, and the given factor after it.
fn fpcm(position: Position, after: impl Fn() -> f64) -> f64 {
    match position.epoch() as f64 {
        epoch if epoch < FPCM_WARMUP => linear(0.1, 1.0, epoch / FPCM_WARMUP),
        _ => after(),
    }
}

/// The rate at which filter frequency regularization's `WarmupCosineLR` starts and ends.
const NEARLY_ZERO: f64 = 1e-8;

/// `WarmupCosineLR.get_lr`, its chain of factors multiplied out: each epoch after the warm-up multiplies the last rate
/// with the ratio of two values of `1 + cos`.
fn warmup_cosine(base: f64, warmup: f64, position: Position) -> f64 {
    let (epoch, all) = (position.epoch() as f64, position.epochs as f64);
    let warmup = all * warmup;
    let rising = |epoch: f64| {
        let slope = if epoch == 0.0 { 0.0 } else { (base - NEARLY_ZERO) / (warmup - 1.0) };
        NEARLY_ZERO + epoch * slope
    };
    if epoch == 0.0 || epoch < warmup {
        return rising(epoch);
    }
    // The last rate that the chain starts from: the base rate itself only where the warm-up is a whole number.
    let top = warmup.ceil();
    let (highest, at) = if top == warmup { (base, top) } else { (rising(top - 1.0), top - 1.0) };
    let bell = |epoch: f64| 1.0 + (PI * (epoch - warmup) / (all - warmup)).cos();
    NEARLY_ZERO + (highest - NEARLY_ZERO) * bell(epoch) / bell(at)
}

/// `part / whole` in [0, 1], and 1 where there is no whole.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 1.0 }
}

fn linear(from: f64, to: f64, t: f64) -> f64 {
    from + (to - from) * t
}

/// Half a cosine from `from` at 0 to `to` at 1.
fn cosine(from: f64, to: f64, t: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + (PI * t).cos())
}

/// `numpy.interp`: straight lines between points, constant outside.
fn interpolate(at: f64, places: &[f64], values: &[f64]) -> f64 {
    let next = places.partition_point(|&place| place <= at);
    match (
        next.checked_sub(1).and_then(|i| Some((places.get(i)?, values.get(i)?))),
        places.get(next).zip(values.get(next)),
    ) {
        (Some((x0, y0)), Some((x1, y1))) => linear(*y0, *y1, (at - x0) / (x1 - x0)),
        (Some((_, value)), None) | (None, Some((_, value))) => *value,
        (None, None) => 1.0,
    }
}

#[cfg(test)]
mod tests;
