//! Poisson draws for the 256 brightnesses of a byte, by inversion from tables.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use rand::Rng;

use crate::random::Stream;

/// Entries of the guide that says where to start the search in a cumulative distribution.
const GUIDE: usize = 128;

/// Cumulative Poisson distributions with means `byte / 255 · photons`.
pub(super) struct PoissonTable {
    levels: Vec<Level>,
}

struct Level {
    /// The count that `cumulative[0]` belongs to; smaller ones are less likely than any draw can tell.
    first: u32,
    cumulative: Vec<f64>,
    guide: [u16; GUIDE],
}

impl PoissonTable {
    /// The table for a white pixel of `photons`, made once and kept.
    pub fn for_photons(photons: f64) -> Arc<Self> {
        static TABLES: LazyLock<Mutex<HashMap<u64, Arc<PoissonTable>>>> = LazyLock::new(Default::default);
        let mut tables = TABLES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let build = || {
            Arc::new(Self {
                levels: (0..256).map(|byte| Level::new(f64::from(byte) / 255.0 * photons)).collect(),
            })
        };
        tables.entry(photons.to_bits()).or_insert_with(build).clone()
    }

    /// A draw for a pixel of brightness `byte`.
    pub fn draw(&self, byte: u8, random: &mut Stream) -> u32 {
        let level = &self.levels[usize::from(byte)];
        let uniform: f64 = random.random();
        let start = usize::from(level.guide[(uniform * GUIDE as f64) as usize]);
        let steps = level.cumulative[start..].iter().position(|&c| c > uniform);
        level.first + steps.map_or(level.cumulative.len() - 1, |steps| start + steps) as u32
    }
}

impl Level {
    fn new(mean: f64) -> Self {
        // Ten standard deviations to either side hold all that 53 bits can resolve.
        let reach = 10.0 * mean.sqrt() + 12.0;
        let first = (mean - reach).max(0.0) as u32;
        let last = (mean + reach) as u32;
        let mode = mean as u32;
        let mut weights = vec![0.0; (last - first + 1) as usize];
        weights[(mode - first) as usize] = 1.0;
        for count in mode + 1..=last {
            weights[(count - first) as usize] =
                weights[(count - 1 - first) as usize] * mean / f64::from(count);
        }
        for count in (first..mode).rev() {
            weights[(count - first) as usize] =
                weights[(count + 1 - first) as usize] * f64::from(count + 1) / mean;
        }
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let cumulative: Vec<f64> = weights
            .iter()
            .map(|weight| {
                sum += weight / total;
                sum
            })
            .collect();
        let mut guide = [0; GUIDE];
        for (i, start) in guide.iter_mut().enumerate() {
            let reached = cumulative.partition_point(|&c| c <= i as f64 / GUIDE as f64);
            *start = reached.min(cumulative.len() - 1) as u16;
        }
        Self { first, cumulative, guide }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_variance_are_the_rate() {
        let table = PoissonTable::for_photons(500.0);
        for byte in [0u8, 1, 40, 255] {
            let rate = f64::from(byte) / 255.0 * 500.0;
            let mut random = crate::random::stream(1, &[u64::from(byte)]);
            let draws: Vec<f64> = (0..20_000).map(|_| f64::from(table.draw(byte, &mut random))).collect();
            let mean = draws.iter().sum::<f64>() / draws.len() as f64;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64;
            assert!((mean - rate).abs() <= 5.0 * (rate / 20_000.0).sqrt(), "mean {mean} for {rate}");
            assert!((variance - rate).abs() <= 0.05 * rate, "variance {variance} for {rate}");
        }
    }
}
