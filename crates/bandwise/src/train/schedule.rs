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
    pub fn progress(&self, per: Per) -> f64 {
        let share = match per {
            Per::Step => self.step as f64 / self.total_steps() as f64,
            Per::Epoch => self.epoch() as f64 / self.epochs.max(1) as f64,
        };
        share.min(1.0)
    }
}

/// How often the rate changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
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
        per: Per,
    },
    /// Half a cosine from 1 to `floor` (`CosineAnnealingLR`).
    Cosine {
        /// The factor at the end.
        #[serde(default)]
        floor: f64,
        /// How often the rate changes.
        #[serde(default)]
        per: Per,
    },
    /// Straight up from `start` to 1, then half a cosine to `floor` (`LinearLR`, then
    /// `CosineAnnealingLR`).
    WarmupCosine {
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
        per: Per,
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
        base * self.factor(position)
    }

    /// What the base rate is multiplied with.
    pub fn factor(&self, position: Position) -> f64 {
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
            Self::WarmupCosine { warmup, start, floor, per } => match position.progress(per) {
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
            Self::WarmupCosine { warmup, start, floor, .. } => {
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
mod tests {
    use super::*;

    /// Rates of a base of 0.4, one per step.
    fn rates(config: &str, steps_per_epoch: u64, epochs: u64) -> Vec<f64> {
        let schedule: Schedule = toml::from_str(config).unwrap();
        schedule.check().unwrap();
        let position = |step| Position { step, steps_per_epoch, epochs };
        (0..steps_per_epoch * epochs).map(|step| schedule.rate(0.4, position(step))).collect()
    }

    fn assert_rates(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
        }
    }

    /// Values of torch 2.15's schedulers with lr 0.4, one step per epoch.
    #[test]
    fn rates_are_those_of_torch() {
        // OneCycleLR(max_lr=0.4, total_steps=20, pct_start=0.3)
        assert_rates(
            &rates("name = \"one_cycle\"", 4, 5),
            &[
                0.016,
                0.05266873708,
                0.1486687371,
                0.2673312629,
                0.3633312629,
                0.4,
                0.3949856025,
                0.3801938528,
                0.356366471,
                0.3246982616,
                0.2867772007,
                0.2445048088,
                0.2000008,
                0.1554967912,
                0.1132243993,
                0.07530333842,
                0.04363512897,
                0.01980774719,
                0.005015997506,
                1.6e-06,
            ],
        );
        // OneCycleLR(max_lr=0.4, total_steps=30, pct_start=0.1), the first four and the last
        let one_cycle = rates("name = \"one_cycle\"\nwarmup = 0.1", 3, 10);
        assert_rates(&one_cycle[..4], &[0.016, 0.208, 0.4, 0.398647677]);
        assert_rates(&one_cycle[29..], &[1.6e-06]);
        // CosineAnnealingLR(T_max=8, eta_min=0.004)
        let cosine = [
            0.4,
            0.3849281474,
            0.3420071427,
            0.2777713196,
            0.202,
            0.1262286804,
            0.06199285733,
            0.01907185256,
        ];
        assert_rates(&rates("name = \"cosine\"\nfloor = 0.01\nper = \"epoch\"", 1, 8), &cosine);
        assert_rates(&rates("name = \"cosine\"\nfloor = 0.01", 2, 4), &cosine);
        // StepLR(3, 0.1); MultiStepLR([2, 5], 0.1); LinearLR(1, 0, 8)
        assert_rates(
            &rates("name = \"step\"\nevery = 3", 1, 8),
            &[0.4, 0.4, 0.4, 0.04, 0.04, 0.04, 0.004, 0.004],
        );
        assert_rates(
            &rates("name = \"multistep\"\nmilestones = [2, 5]", 1, 8),
            &[0.4, 0.4, 0.04, 0.04, 0.04, 0.004, 0.004, 0.004],
        );
        assert_rates(&rates("name = \"linear\"", 1, 8), &[0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05]);
        // SequentialLR([LinearLR(0.01, 1, 3), CosineAnnealingLR(7)], [3])
        assert_rates(
            &rates("name = \"warmup_cosine\"\nwarmup = 0.3\nper = \"epoch\"", 1, 10),
            &[
                0.004,
                0.136,
                0.268,
                0.4,
                0.3801937736,
                0.3246979604,
                0.2445041868,
                0.1554958132,
                0.07530203963,
                0.01980622642,
            ],
        );
    }

    #[test]
    fn the_triangle_rises_to_its_peak_and_ends_at_zero() {
        let found = rates("name = \"cyclic\"", 2, 5);
        assert_rates(&found, &[0.1, 0.2, 0.3, 0.4, 1. / 3., 0.8 / 3., 0.2, 0.4 / 3., 0.2 / 3., 0.0]);
    }

    #[test]
    fn the_schedules_of_fpcm() {
        let multistep = rates("name = \"fpcm_multistep\"", 1, 120);
        assert_rates(&multistep[..6], &[0.04, 0.112, 0.184, 0.256, 0.328, 0.4]);
        assert_rates(
            &[multistep[83], multistep[84], multistep[107], multistep[108]],
            &[0.4, 0.04, 0.04, 0.004],
        );
        // int(0.7 · 15) = 10, int(0.9 · 15) = 13
        let short = rates("name = \"fpcm_multistep\"", 1, 15);
        assert_rates(&short[9..14], &[0.4, 0.04, 0.04, 0.04, 0.004]);
        let cosine = rates("name = \"fpcm_cosine\"", 1, 120);
        assert_rates(&cosine[..6], &multistep[..6]);
        assert!(cosine[119] > 0.004 && cosine[119] < 0.0041);
    }

    #[test]
    fn piecewise_is_linear_between_its_points() {
        let found = rates("name = \"piecewise\"\nepochs = [0, 2, 4]\nfactors = [0, 1, 0.5]", 2, 5);
        assert_rates(&found, &[0.0, 0.1, 0.2, 0.3, 0.4, 0.35, 0.3, 0.25, 0.2, 0.2]);
    }

    #[test]
    fn per_epoch_schedules_hold_within_an_epoch() {
        let found = rates("name = \"fpcm_multistep\"", 3, 2);
        assert_rates(&found, &[0.04, 0.04, 0.04, 0.112, 0.112, 0.112]);
    }

    #[test]
    fn settings_out_of_range_and_unknown_ones_are_refused() {
        for (text, reason) in [
            ("name = \"step\"\nevery = 0", "at least 1"),
            ("name = \"multistep\"\nmilestones = [5, 2]", "ascending"),
            ("name = \"warmup_cosine\"\nwarmup = 1.5", "share of the training"),
            ("name = \"piecewise\"\nepochs = [1]\nfactors = []", "same length"),
            ("name = \"cyclic\"\npeak = 0", "between 0 and 1"),
        ] {
            let error = toml::from_str::<Schedule>(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(toml::from_str::<Schedule>("name = \"cosine\"\nflor = 0.1").is_err());
        assert!(toml::from_str::<Schedule>("name = \"cosine_annealing\"").is_err());
    }
}
