//! The random changes that Square proposes, on one image `[height][width][channels]`.

use rand::Rng;

use crate::attack::Norm;
use crate::attack::projection::l1_ball_and_box;
use crate::random::Stream;

/// Shape of the images and of the ball.
pub(super) struct Canvas {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub norm: Norm,
    pub epsilon: f32,
}

impl Canvas {
    /// The starting point: vertical stripes for L∞, a tiling of pyramids for L2 and L1.
    pub fn first(&self, origin: &[f32], stream: &mut Stream) -> Vec<f32> {
        if self.norm == Norm::Linf {
            let stripes: Vec<f32> =
                (0..self.width * self.channels).map(|_| self.epsilon * sign(stream)).collect();
            return origin
                .iter()
                .enumerate()
                .map(|(i, x)| (x + stripes[i % stripes.len()]).clamp(0.0, 1.0))
                .collect();
        }
        let side = (self.height.min(self.width) / 5).max(1);
        let mut delta = vec![0.0; origin.len()];
        let margin = (self.height.saturating_sub(side * 5)) / 2;
        for row in (margin..=self.height - side).step_by(side).take(self.height / side) {
            for column in (margin..=self.width - side).step_by(side).take(self.width / side) {
                let tile = pyramids(side, self.norm, stream);
                for channel in 0..self.channels {
                    let sign = sign(stream);
                    self.window(row, column, side, channel, |i, w| delta[i] += tile[w] * sign);
                }
            }
        }
        self.land(origin, &delta)
    }

    /// A change of the best point so far in a window that holds `share` of the pixels.
    pub fn next(&self, origin: &[f32], best: &[f32], share: f64, stream: &mut Stream) -> Vec<f32> {
        let side = (share * (self.height * self.width) as f64).sqrt().round() as usize;
        let largest = self.height.min(self.width);
        if self.norm == Norm::Linf {
            return self.next_square(origin, best, side.max(1).min(largest), stream);
        }
        let side = side.max(3) | 1;
        self.next_pyramid(origin, best, if side > largest { (largest - 1) | 1 } else { side }, stream)
    }

    /// L∞: every channel of a square moves by ±2ε, then back into the ball.
    fn next_square(&self, origin: &[f32], best: &[f32], side: usize, stream: &mut Stream) -> Vec<f32> {
        let (row, column) = self.place(side, stream);
        let mut next = best.to_vec();
        for channel in 0..self.channels {
            let change = 2.0 * self.epsilon * sign(stream);
            self.window(row, column, side, channel, |i, _| {
                let moved = (next[i] + change).max(origin[i] - self.epsilon).min(origin[i] + self.epsilon);
                next[i] = moved.clamp(0.0, 1.0);
            });
        }
        next
    }

    /// L2 and L1: the mass of one window is moved into another, shaped like pyramids.
    fn next_pyramid(&self, origin: &[f32], best: &[f32], side: usize, stream: &mut Stream) -> Vec<f32> {
        let mut delta: Vec<f32> = best.iter().zip(origin).map(|(b, o)| b - o).collect();
        let (row, column) = self.place(side, stream);
        let (row2, column2) = self.place(side, stream);
        let tile = pyramids(side, self.norm, stream);
        let free = self.free_mass(&delta, [(row, column), (row2, column2)], side);
        let changes: Vec<Vec<f32>> = (0..self.channels)
            .map(|channel| {
                let sign = sign(stream);
                let mut change: Vec<f32> = tile.iter().map(|value| value * sign).collect();
                let mut old = vec![0.0; side * side];
                self.window(row, column, side, channel, |i, w| old[w] = delta[i]);
                let old_size = self.size(&old) + 1e-12;
                change.iter_mut().zip(&old).for_each(|(change, old)| *change += old / old_size);
                let scale = free / (self.size(&change) + 1e-12);
                change.iter_mut().for_each(|change| *change *= scale);
                change
            })
            .collect();
        for channel in 0..self.channels {
            self.window(row2, column2, side, channel, |i, _| delta[i] = 0.0);
        }
        for (channel, change) in changes.iter().enumerate() {
            self.window(row, column, side, channel, |i, w| delta[i] = change[w]);
        }
        self.land(origin, &delta)
    }

    /// Size each channel's new window may have: what the ball leaves plus what both windows held.
    fn free_mass(&self, delta: &[f32], windows: [(usize, usize); 2], side: usize) -> f32 {
        let mut held = vec![0.0; delta.len()];
        for (row, column) in windows {
            for channel in 0..self.channels {
                self.window(row, column, side, channel, |i, _| held[i] = delta[i]);
            }
        }
        let (total, held, channels) = (self.size(delta), self.size(&held), self.channels as f32);
        match self.norm {
            Norm::L2 => ((self.epsilon.powi(2) - total.powi(2)).max(0.0) / channels + held.powi(2)).sqrt(),
            _ => ((self.epsilon - total).max(0.0) / channels + held) * channels,
        }
    }

    /// The point that belongs to a perturbation: scaled (L2) or projected (L1) to the ball and the box.
    fn land(&self, origin: &[f32], delta: &[f32]) -> Vec<f32> {
        if self.norm == Norm::L2 {
            let scale = self.epsilon / (self.size(delta) + 1e-12);
            return origin.iter().zip(delta).map(|(x, d)| (x + d * scale).clamp(0.0, 1.0)).collect();
        }
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let radius = f64::from(self.epsilon) * (1.0 - 1e-6);
        let delta = l1_ball_and_box(&wide(origin), &wide(delta), radius);
        origin.iter().zip(delta).map(|(x, d)| (x + d as f32).clamp(0.0, 1.0)).collect()
    }

    fn size(&self, values: &[f32]) -> f32 {
        match self.norm {
            Norm::L2 => values.iter().map(|v| v * v).sum::<f32>().sqrt(),
            _ => values.iter().map(|v| v.abs()).sum(),
        }
    }

    /// A random corner of a window; like the official code it never touches the far edge.
    fn place(&self, side: usize, stream: &mut Stream) -> (usize, usize) {
        let mut below = |limit: usize| (stream.random::<f64>() * limit as f64) as usize;
        (below(self.height - side), below(self.width - side))
    }

    /// Calls `visit(index in the image, index in the window)` for one channel of a square window.
    fn window(
        &self,
        row: usize,
        column: usize,
        side: usize,
        channel: usize,
        mut visit: impl FnMut(usize, usize),
    ) {
        for y in 0..side {
            for x in 0..side {
                visit(((row + y) * self.width + column + x) * self.channels + channel, y * side + x);
            }
        }
    }
}

fn sign(stream: &mut Stream) -> f32 {
    if stream.random::<bool>() { 1.0 } else { -1.0 }
}

/// Two opposite pyramids side by side, `[side][side]`, of unit size, randomly transposed (official `eta`).
fn pyramids(side: usize, norm: Norm, stream: &mut Stream) -> Vec<f32> {
    let mut tile = pyramid(side / 2, side, norm);
    tile.extend(pyramid(side - side / 2, side, norm).iter().map(|value| -value));
    let size = match norm {
        Norm::L2 => tile.iter().map(|v| v * v).sum::<f32>().sqrt(),
        _ => tile.iter().map(|v| v.abs()).sum(),
    };
    tile.iter_mut().for_each(|v| *v /= size);
    if stream.random::<bool>() {
        return (0..side * side).map(|p| tile[(p % side) * side + p / side]).collect();
    }
    tile
}

/// Nested rectangles of falling weight, `[rows][columns]`, of unit size (official `eta_rectangles`).
fn pyramid(rows: usize, columns: usize, norm: Norm) -> Vec<f32> {
    let mut delta = vec![0.0f32; rows * columns];
    let (center_row, center_column) = ((rows / 2) as i64, (columns / 2) as i64);
    let layers = (rows / 2 + 1).max(columns / 2 + 1) as i64;
    let power = if norm == Norm::L2 { 2 } else { 4 };
    for layer in 0..layers {
        let reach = |center: i64, end: usize| {
            let from = (center - layer).max(0);
            from..(center - layer + 2 * layer + 1).min(end as i64).max(from)
        };
        for y in reach(center_row, rows) {
            for x in reach(center_column, columns) {
                delta[y as usize * columns + x as usize] += 1.0 / ((layer + 1) as f32).powi(power);
            }
        }
    }
    let size = match norm {
        Norm::L2 => delta.iter().map(|v| v * v).sum::<f32>().sqrt(),
        _ => delta.iter().map(|v| v.abs()).sum(),
    };
    delta.iter_mut().for_each(|v| *v /= size.max(f32::MIN_POSITIVE));
    delta
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    #[test]
    fn proposals_stay_in_the_ball_and_the_box_and_change_something() {
        for (norm, epsilon) in [(Norm::Linf, 0.03), (Norm::L2, 0.5), (Norm::L1, 12.0)] {
            let canvas = Canvas { height: 16, width: 16, channels: 3, norm, epsilon };
            let mut stream = random::stream(1, &[2]);
            let origin: Vec<f32> = (0..16 * 16 * 3).map(|_| stream.random()).collect();
            let mut best = canvas.first(&origin, &mut stream);
            for share in [0.8, 0.2, 0.05, 0.001] {
                let next = canvas.next(&origin, &best, share, &mut stream);
                assert_ne!(next, best);
                let delta: Vec<f32> = next.iter().zip(&origin).map(|(a, b)| a - b).collect();
                let size = if norm == Norm::Linf {
                    delta.iter().fold(0.0f32, |m, d| m.max(d.abs()))
                } else {
                    canvas.size(&delta)
                };
                assert!(size <= epsilon * 1.0001, "{norm}: {size}");
                assert!(next.iter().all(|x| (0.0..=1.0).contains(x)));
                best = next;
            }
        }
    }

    #[test]
    fn pyramids_have_unit_size_and_cancel() {
        let tile = pyramids(7, Norm::L2, &mut random::stream(1, &[]));
        assert!((tile.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
        assert!(tile.iter().any(|&v| v > 0.0) && tile.iter().any(|&v| v < 0.0));
    }
}
