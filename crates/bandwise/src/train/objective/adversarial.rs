//! Adversarial training (Madry et al. 2018): min over θ of CE(f(x + δ), y), with δ from an attack on the
//! present weights. With FGSM and a random start it is fast adversarial training (Wong et al. 2020).

use candle_core::Tensor;
use rand::RngCore;
use serde::{Deserialize, Serialize};

use super::Outcome;
use crate::attack::{Attack, Norm};
use crate::method::grad_align::uniform_noise;
use crate::nn::loss::smoothed_cross_entropy;
use crate::train::step::{AttackMode, Step};
use crate::{Error, Result, random};

/// What the images are moved by, as in JaFR's training code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Perturbation {
    /// What the attack gives.
    #[default]
    Attack,
    /// The corner of the ε-ball that what the attack gives points to: ε·sign(δ), clipped to [0, 1] (`pgd_corner`).
    Corner,
    /// A random corner, without any attack (`random_corner`); not clipped, as published.
    RandomCorner,
    /// Uniform noise, without any attack (`random_uniform`); not clipped, as published.
    RandomUniform,
}

/// Cross-entropy on adversarial images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adversarial {
    /// Attack that generates the training images.
    pub attack: Attack,
    /// What becomes of its perturbation δ; the random ones take the attack's ε alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub perturbation: Perturbation,
    /// Statistics of batch norm while the attack runs.
    #[serde(default)]
    pub attack_mode: AttackMode,
    /// Epochs over which the attack's ε (and step size) grows linearly to its full value.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub epsilon_warmup: f64,
    /// Share of the target probability that is spread over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
}

fn is_default(perturbation: &Perturbation) -> bool {
    *perturbation == Perturbation::default()
}

impl Adversarial {
    pub(super) fn attack(&self, step: &Step) -> Result<Tensor> {
        let epsilon = self.attack.epsilon().value() * step.warmed_up(self.epsilon_warmup);
        let attacked = || step.attack(&self.attack, self.attack_mode, self.epsilon_warmup);
        let noise = || {
            let seed = random::stream(step.seed, &[random::tag("perturbation"), step.epoch]).next_u64();
            uniform_noise(&step.images, epsilon, seed, step.image_ids)
        };
        match self.perturbation {
            Perturbation::Attack => attacked(),
            Perturbation::Corner => {
                let delta = (attacked()? - &step.images)?;
                Ok((&step.images + (delta.sign()? * epsilon)?)?.clamp(0.0, 1.0)?)
            }
            Perturbation::RandomCorner => Ok((&step.images + (noise()?.sign()? * epsilon)?)?),
            Perturbation::RandomUniform => Ok((&step.images + noise()?)?),
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        if self.perturbation != Perturbation::Attack && self.attack.norm() != Norm::Linf {
            return Err(Error::config(
                "objective.perturbation: corners and uniform noise belong to the L∞ norm",
            ));
        }
        Ok(())
    }

    pub(super) fn loss(&self, step: &Step, adversarial: &Tensor) -> Result<Outcome> {
        let logits = step.logits(adversarial)?;
        let loss = smoothed_cross_entropy(&logits, &step.labels, self.label_smoothing)?.mean_all()?;
        let terms = vec![(super::CROSS_ENTROPY, loss.detach())];
        Ok(Outcome { loss, logits, terms })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::attack::Pgd;
    use crate::golden;
    use crate::nn::Mode;
    use crate::nn::tests::{model, noise};

    #[test]
    fn corners_and_noise_lie_where_they_should() {
        let model = model("smallcnn", 4, DType::F64);
        let images = noise(&[3, 8, 8, 3], DType::F64, 5);
        let labels = Tensor::new(&[1u32, 4, 7], &Device::Cpu).unwrap();
        let step = |epoch| Step {
            model: &model,
            images: images.clone(),
            labels: labels.clone(),
            image_ids: &[10, 11, 12],
            carried_delta: None,
            seed: 3,
            epoch,
            time: epoch as f64 + 0.5,
            progress: 0.5,
            mode: Mode::Train,
        };
        let epsilon = 8.0 / 255.0;
        let run = |perturbation, epoch| {
            let objective = Adversarial {
                attack: Attack::Pgd(Pgd { steps: 2, ..Pgd::default() }),
                perturbation,
                attack_mode: AttackMode::BatchStatistics,
                epsilon_warmup: 0.0,
                label_smoothing: 0.0,
            };
            golden::values(&objective.attack(&step(epoch)).unwrap())
        };
        let clean = golden::values(&images);
        let inner = |attacked: &[f64]| {
            let sizes = attacked.iter().zip(&clean).filter(|(_, x)| (0.1..0.9).contains(*x));
            sizes.map(|(a, x)| (a - x).abs()).collect::<Vec<f64>>()
        };
        let plain = run(Perturbation::Attack, 0);
        assert!(inner(&plain).iter().any(|size| *size < 0.99 * epsilon));
        let corner = run(Perturbation::Corner, 0);
        for ((corner, plain), x) in corner.iter().zip(&plain).zip(&clean) {
            let expected = (x + epsilon * (plain - x).signum() * f64::from(plain != x)).clamp(0.0, 1.0);
            assert!((corner - expected).abs() < 1e-9);
        }
        let random_corner = run(Perturbation::RandomCorner, 0);
        assert!(inner(&random_corner).iter().all(|size| (size - epsilon).abs() < 1e-7));
        let uniform = run(Perturbation::RandomUniform, 0);
        let sizes = inner(&uniform);
        assert!(sizes.iter().all(|size| *size <= epsilon + 1e-9));
        let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
        assert!((mean / epsilon - 0.5).abs() < 0.1, "{mean}");
        assert_ne!(uniform, run(Perturbation::RandomUniform, 1), "new noise in each epoch");
        assert!(random_corner.iter().any(|x| !(0.0..=1.0).contains(x)), "not clipped");
    }
}
