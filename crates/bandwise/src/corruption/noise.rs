//! Noise: Gaussian, shot, impulse and speckle.

use rand::Rng;
use rand_distr::StandardNormal;

use super::byte_image::{ByteImage, truncate};
use super::poisson::PoissonTable;
use crate::random::Stream;

/// Draws from the standard normal distribution.
pub(super) fn normal(random: &mut Stream) -> f64 {
    random.sample(StandardNormal)
}

/// `x + sigma · z`.
pub(super) fn gaussian_noise(input: &ByteImage, sigma: f64, mut z: impl FnMut() -> f64) -> ByteImage {
    input.with_unit(input.bytes.iter().map(|&byte| f64::from(byte) / 255.0 + z() * sigma))
}

/// `x + x · sigma · z`.
pub(super) fn speckle_noise(input: &ByteImage, sigma: f64, mut z: impl FnMut() -> f64) -> ByteImage {
    input.with_unit(input.bytes.iter().map(|&byte| {
        let x = f64::from(byte) / 255.0;
        x + x * (z() * sigma)
    }))
}

/// `Poisson(x · photons) / photons`.
pub(super) fn shot_noise(input: &ByteImage, photons: f64, random: &mut Stream) -> ByteImage {
    let table = PoissonTable::for_photons(photons);
    input.with_unit(input.bytes.iter().map(|&byte| f64::from(table.draw(byte, random)) / photons))
}

/// Each value becomes 0 or 1 with probability `amount`, either with one half.
pub(super) fn impulse_noise(input: &ByteImage, amount: f64, random: &mut Stream) -> ByteImage {
    input.with(
        input
            .bytes
            .iter()
            .map(|&byte| match random.random::<f64>() {
                draw if draw > amount => truncate(f64::from(byte) / 255.0),
                draw if draw > amount / 2.0 => 255,
                _ => 0,
            })
            .collect(),
    )
}
