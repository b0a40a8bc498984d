//! Averages of the weights over training: exponential (EMA) and equal (SWA).
//!
//! Parameters and buffers are averaged alike. For SWA, whose weights come from far apart, averaged running
//! statistics of batch norm fit badly: they are computed anew with the averaged weights (see
//! [`super::batch_statistics`]) whenever the average is evaluated or saved.

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::optimizer::is_span;
use super::schedule::Position;
use crate::nn::weights::{AVERAGE_COUNT as COUNT, StateDict};
use crate::{Error, Result};

/// Which average of the weights is kept beside them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum AveragingConfig {
    /// After every update: `average ← decay · average + (1 − decay) · weights`.
    Ema {
        /// Share of the average that is kept.
        #[serde(default = "decay")]
        decay: f64,
        /// Keeps less at first, `(1 + n) / (10 + n)` after n updates, so that short runs forget
        /// their beginning.
        #[serde(default)]
        warmup: bool,
        /// Where batch norm's running statistics come from.
        #[serde(default = "averaged")]
        statistics: Statistics,
    },
    /// The mean of the weights at the end of each epoch.
    Swa {
        /// Share of the training after which averaging begins.
        #[serde(default = "from")]
        from: f64,
        /// Where batch norm's running statistics come from.
        #[serde(default = "recomputed")]
        statistics: Statistics,
    },
}

/// Batch norm's running statistics under averaged weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistics {
    /// Averaged like the weights.
    Averaged,
    /// Computed anew, by one pass through the (clean, augmented) training images.
    Recomputed,
}

fn averaged() -> Statistics {
    Statistics::Averaged
}

fn recomputed() -> Statistics {
    Statistics::Recomputed
}

fn decay() -> f64 {
    0.999
}

fn from() -> f64 {
    0.75
}

impl AveragingConfig {
    /// Refuses settings out of range.
    ///
    /// # Errors
    /// Names the setting and its range.
    pub fn check(&self) -> Result<()> {
        match *self {
            Self::Ema { decay, .. } if !(0.0..1.0).contains(&decay) => {
                Err(Error::config(format!("averaging.decay must lie in [0, 1), not {decay}")))
            }
            Self::Swa { from, .. } if !(0.0..1.0).contains(&from) => Err(Error::config(format!(
                "averaging.from must be a share of the training in [0, 1), not {from}"
            ))),
            _ => Ok(()),
        }
    }

    /// Where batch norm's running statistics come from.
    pub fn statistics(&self) -> Statistics {
        match *self {
            Self::Ema { statistics, .. } | Self::Swa { statistics, .. } => statistics,
        }
    }

    /// Whether the average takes in the weights at this position, an update having just been made.
    pub fn is_due(&self, position: Position) -> bool {
        match *self {
            Self::Ema { .. } => true,
            Self::Swa { from, .. } => {
                position.step.is_multiple_of(position.steps_per_epoch.max(1))
                    && position.epoch() as f64 > from * position.epochs as f64
            }
        }
    }
}

/// An average of named tensors.
pub struct Average {
    config: AveragingConfig,
    /// How many times weights were taken in.
    count: u64,
    tensors: StateDict,
}

impl Average {
    /// An average of nothing yet.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn new(config: AveragingConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config, count: 0, tensors: StateDict::new() })
    }

    /// Which average it is.
    pub fn config(&self) -> &AveragingConfig {
        &self.config
    }

    /// How many times weights were taken in; at 0 there is no average yet.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes in the present weights; the first ones are copied.
    ///
    /// # Errors
    /// A tensor of the average is missing or of another shape.
    pub fn update(&mut self, weights: &[(String, Tensor)]) -> Result<()> {
        let count = self.count as f64;
        let new = match self.config {
            AveragingConfig::Ema { decay, warmup: true, .. } => {
                1.0 - decay.min((1.0 + count) / (10.0 + count))
            }
            AveragingConfig::Ema { decay, warmup: false, .. } => 1.0 - decay,
            AveragingConfig::Swa { .. } => 1.0 / (count + 1.0),
        };
        for (name, weight) in weights {
            match self.tensors.get_mut(name) {
                Some(average) => blend(average, weight, new)?,
                None if self.count == 0 => {
                    self.tensors.insert(name.clone(), weight.detach().copy()?);
                }
                None => return Err(Error::model(format!("the average of the weights has no {name:?}"))),
            }
        }
        self.count += 1;
        Ok(())
    }

    /// The averaged tensors by name.
    pub fn tensors(&self) -> &StateDict {
        &self.tensors
    }

    /// The averaged tensors and the count, for [`Average::load_state`].
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn state(&self) -> Result<StateDict> {
        let mut state = self.tensors.clone();
        state.insert(COUNT.to_owned(), Tensor::new(self.count as i64, &Device::Cpu)?);
        Ok(state)
    }

    /// Continues from a saved state; tensors are put on `device`.
    ///
    /// # Errors
    /// The state has no count.
    pub fn load_state(&mut self, state: &StateDict, device: &Device) -> Result<()> {
        let count = state.get(COUNT).ok_or_else(|| Error::model("the state of the average has no count"))?;
        let count = count.to_dtype(DType::I64)?.to_scalar::<i64>()?.max(0) as u64;
        let tensors = state
            .iter()
            .filter(|(name, _)| *name != COUNT)
            // A copy: averages change in place and must not share storage.
            .map(|(name, tensor)| Ok((name.clone(), tensor.to_device(device)?.copy()?)))
            .collect::<Result<StateDict>>()?;
        (self.count, self.tensors) = (count, tensors);
        Ok(())
    }
}

/// `average ← average + new · (weight − average)`, in one pass on the CPU.
fn blend(average: &mut Tensor, weight: &Tensor, new: f64) -> Result<()> {
    let weight = weight.detach();
    if is_span(average) && is_span(&weight) {
        return Ok(average.inplace_op2(&weight.contiguous()?, &Blend(new as f32))?);
    }
    *average = (&*average + ((weight - &*average)? * new)?)?;
    Ok(())
}

struct Blend(f32);

impl InplaceOp2 for Blend {
    fn name(&self) -> &'static str {
        "blend weights"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        average_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(average), CpuStorage::F32(weight)) = (average, weight) else {
            candle_core::bail!("blending in place wants f32")
        };
        if average_layout.shape() != weight_layout.shape() {
            candle_core::bail!(
                "an average of {:?} for weights of {:?}",
                average_layout.shape(),
                weight_layout.shape()
            )
        }
        let (Some(a), Some(w)) = (average_layout.contiguous_offsets(), weight_layout.contiguous_offsets())
        else {
            candle_core::bail!("blending in place wants contiguous tensors")
        };
        let new = self.0;
        average[a.0..a.1]
            .par_iter_mut()
            .zip(&weight[w.0..w.1])
            .with_min_len(1 << 14)
            .for_each(|(average, &weight)| *average += new * (weight - *average));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ema(decay: f64, warmup: bool) -> AveragingConfig {
        AveragingConfig::Ema { decay, warmup, statistics: Statistics::Averaged }
    }

    fn swa(from: f64) -> AveragingConfig {
        AveragingConfig::Swa { from, statistics: Statistics::Recomputed }
    }

    fn weights(values: &[f32], dtype: DType) -> Vec<(String, Tensor)> {
        vec![("w".into(), Tensor::new(values, &Device::Cpu).unwrap().to_dtype(dtype).unwrap())]
    }

    fn values(average: &Average) -> Vec<f64> {
        average.tensors()["w"].to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn ema_and_swa_are_what_they_say() {
        for dtype in [DType::F32, DType::F64] {
            let mut plain = Average::new(ema(0.9, false)).unwrap();
            let mut warm = Average::new(ema(0.9, true)).unwrap();
            let mut equal = Average::new(swa(0.5)).unwrap();
            for step in [[1.0, -2.0], [3.0, 4.0], [8.0, 1.0]] {
                plain.update(&weights(&step, dtype)).unwrap();
                warm.update(&weights(&step, dtype)).unwrap();
                equal.update(&weights(&step, dtype)).unwrap();
            }
            assert_close(&values(&plain), &[(1.0 * 0.9 + 0.3) * 0.9 + 0.8, (-2.0 * 0.9 + 0.4) * 0.9 + 0.1]);
            let second = 1.0 + 9.0 / 11.0 * 2.0;
            assert_close(&values(&warm)[..1], &[second + 0.75 * (8.0 - second)]);
            assert_close(&values(&equal), &[4.0, 1.0]);
        }
    }

    #[test]
    fn the_average_does_not_follow_its_source_and_goes_on_from_its_state() {
        let var = candle_core::Var::new(&[1.0f32, 2.0], &Device::Cpu).unwrap();
        let source = || vec![("w".to_owned(), var.as_detached_tensor())];
        let mut whole = Average::new(ema(0.5, false)).unwrap();
        whole.update(&source()).unwrap();
        var.set(&Tensor::new(&[5.0f32, 5.0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(values(&whole), [1.0, 2.0]);

        let mut resumed = Average::new(*whole.config()).unwrap();
        resumed.load_state(&whole.state().unwrap(), &Device::Cpu).unwrap();
        whole.update(&source()).unwrap();
        resumed.update(&source()).unwrap();
        assert_eq!((values(&whole), values(&resumed)), (vec![3.0, 3.5], vec![3.0, 3.5]));
        assert_eq!(resumed.count(), 2);
    }

    #[test]
    fn swa_is_due_at_the_end_of_late_epochs() {
        let swa = swa(0.5);
        let due: Vec<u64> =
            (1..=12).filter(|&step| swa.is_due(Position { step, steps_per_epoch: 3, epochs: 4 })).collect();
        assert_eq!(due, [9, 12]);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        assert!(Average::new(ema(1.0, false)).is_err());
        assert!(toml::from_str::<AveragingConfig>("name = \"ema\"\ndecy = 0.9").is_err());
    }
}
