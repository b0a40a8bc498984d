//! Layers that leave something out at random while a network is trained: dropout, drop-connect.
//!
//! What is left out depends on the seed of the step, the layer and the image, not on the batch: a resumed run
//! repeats it, and all passes of a step (an attack's, the loss's, the dual one of a penalty) see the same network.

use candle_core::{Device, Tensor};
use rand::Rng;

use super::context::{ForwardContext, Mode};
use super::dual_tensor::DualTensor;
use crate::{Result, random};

/// What is kept or left out together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Every value on its own (dropout).
    Value,
    /// All values of an image: its branch of a residual block (drop-connect, stochastic depth).
    Image,
}

/// Sets values to zero with a probability, and scales the others up so that the mean stays. Outside training, and in
/// passes without [`Randomness`], it changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Tells its decisions from those of other layers.
    pub name: String,
    /// The probability, in [0, 1).
    pub rate: f64,
    /// What is left out together.
    pub unit: Unit,
}

/// Where the decisions of a training pass come from.
#[derive(Clone, Copy, Debug)]
pub struct Randomness<'a> {
    /// The step's own seed.
    pub seed: u64,
    /// Each image's index in the data set.
    pub image_ids: &'a [u64],
}

impl Dropout {
    /// A linear map: the tangent goes through the same mask.
    pub fn forward(&self, input: &DualTensor, pass: &ForwardContext) -> Result<DualTensor> {
        let Some(randomness) = pass.randomness.filter(|_| pass.mode != Mode::Eval && self.rate > 0.0) else {
            return Ok(input.clone());
        };
        let mask = self.mask(&input.value, randomness)?;
        input.linear(|x| Ok(x.broadcast_mul(&mask)?))
    }

    /// 0 or 1/(1 − rate) for every unit of `x`.
    fn mask(&self, x: &Tensor, randomness: Randomness) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let mut shape = x.dims().to_vec();
        if self.unit == Unit::Image {
            shape[1..].fill(1);
        }
        let units = shape[1..].iter().product();
        let (tag, kept) = (random::tag(&self.name), (1.0 / (1.0 - self.rate)) as f32);
        let mut values = Vec::with_capacity(batch * units);
        for &id in randomness.image_ids.iter().take(batch) {
            let mut stream = random::stream(randomness.seed, &[tag, id]);
            values.extend((0..units).map(|_| if stream.random::<f64>() < self.rate { 0.0 } else { kept }));
        }
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::golden;

    fn dropped(dropout: &Dropout, ids: &[u64], seed: u64, mode: Mode) -> Vec<f64> {
        let ones = Tensor::ones((ids.len(), 3, 2, 4), DType::F64, &Device::Cpu).unwrap();
        let pass = ForwardContext {
            mode,
            randomness: Some(Randomness { seed, image_ids: ids }),
            ..ForwardContext::train(0.5)
        };
        golden::values(&dropout.forward(&DualTensor::plain(ones), &pass).unwrap().value)
    }

    #[test]
    fn the_mean_stays_and_units_fall_together() {
        let ids: Vec<u64> = (0..2000).collect();
        for (unit, size) in [(Unit::Value, 1), (Unit::Image, 24)] {
            let dropout = Dropout { name: "d".into(), rate: 0.2, unit };
            let values = dropped(&dropout, &ids, 1, Mode::Train);
            assert!(values.iter().all(|v| *v == 0.0 || (v - 1.25).abs() < 1e-7));
            assert!(values.chunks(size).all(|unit| unit.iter().all(|v| *v == unit[0])));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            assert!((mean - 1.0).abs() < 0.05, "{mean}");
        }
    }

    #[test]
    fn decisions_belong_to_step_layer_and_image() {
        let dropout = |name: &str| Dropout { name: name.into(), rate: 0.5, unit: Unit::Value };
        let all = dropped(&dropout("a"), &[7, 8, 9], 1, Mode::Train);
        assert_eq!(all[24..48], dropped(&dropout("a"), &[8], 1, Mode::BatchStatistics)[..]);
        assert_ne!(all, dropped(&dropout("b"), &[7, 8, 9], 1, Mode::Train));
        assert_ne!(all, dropped(&dropout("a"), &[7, 8, 9], 2, Mode::Train));
        assert_ne!(all[..24], all[24..48]);
        assert_eq!(dropped(&dropout("a"), &[7], 1, Mode::Eval), [1.0; 24]);
    }
}
