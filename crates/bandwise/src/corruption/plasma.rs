//! Fractal height maps by the diamond-square algorithm, on a torus.

use rand::Rng;

use crate::random::Stream;

/// A height map of `side × side` (a power of two), scaled to [0, 1]; each octave is `decay` times flatter than the last.
pub(super) fn plasma_fractal(side: usize, decay: f64, random: &mut Stream) -> Vec<f64> {
    debug_assert!(side.is_power_of_two());
    let mut map = Map { side, heights: vec![0.0; side * side] };
    let mut step = side;
    let mut wobble: f64 = 100.0;
    while step >= 2 {
        map.fill_squares(step, wobble, random);
        map.fill_diamonds(step, wobble, random);
        step /= 2;
        wobble /= decay;
    }
    let lowest = map.heights.iter().copied().fold(f64::INFINITY, f64::min);
    let span = map.heights.iter().copied().fold(f64::NEG_INFINITY, f64::max) - lowest;
    let scale = if span > 0.0 { 1.0 / span } else { 0.0 };
    map.heights.iter().map(|height| (height - lowest) * scale).collect()
}

struct Map {
    side: usize,
    heights: Vec<f64>,
}

impl Map {
    /// The height `(down, right)` of `(row, column)`, wrapped around.
    fn at(&self, row: usize, column: usize) -> f64 {
        self.heights[row % self.side * self.side + column % self.side]
    }

    fn set(&mut self, row: usize, column: usize, neighbors: f64, wobble: f64, random: &mut Stream) {
        let deviation = wobble * wobble * (2.0 * random.random::<f64>() - 1.0);
        self.heights[row * self.side + column] = neighbors / 4.0 + deviation;
    }

    /// The middle of every square from its four corners.
    fn fill_squares(&mut self, step: usize, wobble: f64, random: &mut Stream) {
        let half = step / 2;
        for row in (0..self.side).step_by(step) {
            for column in (0..self.side).step_by(step) {
                let corners = self.at(row, column)
                    + self.at(row + step, column)
                    + self.at(row, column + step)
                    + self.at(row + step, column + step);
                self.set(row + half, column + half, corners, wobble, random);
            }
        }
    }

    /// The middle of every edge from its two ends and the two square centers beside it.
    fn fill_diamonds(&mut self, step: usize, wobble: f64, random: &mut Stream) {
        let (half, back) = (step / 2, self.side - step / 2);
        for row in (0..self.side).step_by(step) {
            for column in (0..self.side).step_by(step) {
                let horizontal = self.at(row, column)
                    + self.at(row, column + step)
                    + self.at(row + half, column + half)
                    + self.at(row + back, column + half);
                self.set(row, column + half, horizontal, wobble, random);
                let vertical = self.at(row, column)
                    + self.at(row + step, column)
                    + self.at(row + half, column + half)
                    + self.at(row + half, column + back);
                self.set(row + half, column, vertical, wobble, random);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_fill_the_unit_interval() {
        let map = plasma_fractal(16, 2.0, &mut crate::random::stream(3, &[]));
        assert_eq!(map.iter().copied().fold(1.0, f64::min), 0.0);
        assert_eq!(map.iter().copied().fold(0.0, f64::max), 1.0);
        assert_eq!(plasma_fractal(1, 2.0, &mut crate::random::stream(3, &[])), [0.0]);
    }
}
