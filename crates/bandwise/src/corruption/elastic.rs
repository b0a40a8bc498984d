//! Elastic transform: a random affine map, then a smooth random displacement field.

use rand::Rng;

use super::byte_image::ByteImage;
use super::filter::{Edge, gaussian_field};
use crate::random::Stream;

/// Strengths in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elastic {
    /// Size of the displacements before smoothing.
    pub displacement: f64,
    /// Standard deviation of their smoothing.
    pub sigma: f64,
    /// How far the three points that define the affine map move.
    pub corner: f64,
}

/// Warps an image.
pub(super) fn elastic_transform(input: &ByteImage, settings: Elastic, random: &mut Stream) -> ByteImage {
    let ByteImage { height, width, channels, .. } = *input;
    let image = input.unit_f32();
    let inverse = random_affine(height, width, settings.corner, random);
    let mut moved = vec![0.0; image.len()];
    for (p, out) in moved.chunks_exact_mut(channels).enumerate() {
        let (x, y) = ((p % width) as f64, (p / width) as f64);
        let at = |row: [f64; 3]| row[0] * x + row[1] * y + row[2];
        sample(&image, input, at(inverse[1]) as f32, at(inverse[0]) as f32, Edge::Mirror, out);
    }
    if settings.displacement == 0.0 {
        return input.with_unit_f32(moved);
    }
    let mut field = || -> Vec<f32> {
        let noise = (0..height * width).map(|_| random.random_range(-1.0..1.0)).collect();
        gaussian_field(noise, height, width, settings.sigma)
    };
    let (dx, dy) = (field(), field());
    let scale = settings.displacement as f32;
    let mut result = vec![0.0; image.len()];
    for (p, out) in result.chunks_exact_mut(channels).enumerate() {
        let (row, column) = ((p / width) as f32 + dy[p] * scale, (p % width) as f32 + dx[p] * scale);
        sample(&moved, input, row, column, Edge::Reflect, out);
    }
    input.with_unit_f32(result)
}

/// The pixel at a fractional position, bilinearly.
fn sample(image: &[f32], shape: &ByteImage, row: f32, column: f32, edge: Edge, out: &mut [f32]) {
    let (top, left) = (floor(row), floor(column));
    let (down, right) = (row - top as f32, column - left as f32);
    let rows = [0, 1].map(|k| edge.inside(top + k, shape.height) * shape.width);
    let columns = [0, 1].map(|k| edge.inside(left + k, shape.width));
    let pixel = |r: usize, c: usize| &image[(rows[r] + columns[c]) * shape.channels..][..out.len()];
    let (upper_left, upper_right, lower_left, lower_right) =
        (pixel(0, 0), pixel(0, 1), pixel(1, 0), pixel(1, 1));
    let (a, b) = ((1.0 - down) * (1.0 - right), (1.0 - down) * right);
    let (c, d) = (down * (1.0 - right), down * right);
    for (channel, out) in out.iter_mut().enumerate() {
        *out = upper_left[channel] * a
            + upper_right[channel] * b
            + lower_left[channel] * c
            + lower_right[channel] * d;
    }
}

/// Largest whole number not above `x`; without a call into the mathematics library, which processors without a rounding
/// instruction in their baseline would need.
fn floor(x: f32) -> isize {
    let whole = x as isize;
    whole - isize::from((whole as f32) > x)
}

/// The inverse of the affine map that moves three points around the center by up to `corner` pixels: rows for x and y
/// of `[x, y, 1]`.
fn random_affine(height: usize, width: usize, corner: f64, random: &mut Stream) -> [[f64; 3]; 2] {
    let center = [(height / 2) as f64, (width / 2) as f64];
    let reach = (height.min(width) / 3).max(1) as f64;
    let from = [
        [center[0] + reach, center[1] + reach],
        [center[0] + reach, center[1] - reach],
        [center[0] - reach, center[1] - reach],
    ];
    let mut moved = from;
    for point in &mut moved {
        for coordinate in point {
            *coordinate += if corner > 0.0 { random.random_range(-corner..corner) } else { 0.0 };
        }
    }
    // Solved directly from the moved points back to the original ones.
    affine_through(moved, from)
}

/// The affine map that takes three points to three others (Cramer's rule); the identity if the points lie on a line.
fn affine_through(from: [[f64; 2]; 3], to: [[f64; 2]; 3]) -> [[f64; 3]; 2] {
    let [a, b, c] = from;
    let determinant = a[0] * (b[1] - c[1]) + b[0] * (c[1] - a[1]) + c[0] * (a[1] - b[1]);
    if determinant.abs() < 1e-12 {
        return [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    }
    [0, 1].map(|axis| {
        let [p, q, r] = to.map(|point| point[axis]);
        let x = p * (b[1] - c[1]) + q * (c[1] - a[1]) + r * (a[1] - b[1]);
        let y = a[0] * (q - r) + b[0] * (r - p) + c[0] * (p - q);
        let one = a[0] * (b[1] * r - c[1] * q) + b[0] * (c[1] * p - a[1] * r) + c[0] * (a[1] * q - b[1] * p);
        [x / determinant, y / determinant, one / determinant]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_points_define_the_map() {
        let from = [[1.0, 2.0], [4.0, -1.0], [0.5, 7.0]];
        let to = [[3.0, 3.0], [5.0, -2.0], [1.0, 9.0]];
        let map = affine_through(from, to);
        for (point, target) in from.iter().zip(to) {
            for axis in 0..2 {
                let image = map[axis][0] * point[0] + map[axis][1] * point[1] + map[axis][2];
                assert!((image - target[axis]).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn no_movement_keeps_the_picture() {
        let input = ByteImage::new(6, 5, 3, (0..90).map(|i| (i * 2) as u8).collect());
        let settings = Elastic { displacement: 0.0, sigma: 0.0, corner: 0.0 };
        let same = elastic_transform(&input, settings, &mut crate::random::stream(1, &[]));
        let close = input.bytes.iter().zip(&same.bytes).all(|(a, b)| a.abs_diff(*b) <= 1);
        assert!(close);
    }
}
