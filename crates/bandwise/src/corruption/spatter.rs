//! Spatter: drops of water, shaded by OpenCV's edge and distance filters, or flat spots of mud.

use super::byte_image::ByteImage;
use super::constants::SpatterSettings;
use super::filter::{Edge, Shape, Tap, correlate, gaussian};
use super::noise::normal;
use crate::random::Stream;

/// Pale turquoise, as shares of white in the order red, green, blue.
const WATER: [f32; 3] = [175.0 / 255.0, 238.0 / 255.0, 238.0 / 255.0];
/// Brown.
const MUD: [f32; 3] = [63.0 / 255.0, 42.0 / 255.0, 20.0 / 255.0];

/// Splashes the image with water or mud.
pub(super) fn spatter(input: &ByteImage, settings: SpatterSettings, random: &mut Stream) -> ByteImage {
    if input.channels == 1 {
        return spatter(&input.to_color(), settings, random).to_gray();
    }
    let ByteImage { height, width, .. } = *input;
    let shape = Shape { height, width, channels: 1 };
    let mut liquid: Vec<f64> =
        (0..height * width).map(|_| settings.mean + settings.deviation * normal(random)).collect();
    gaussian(&mut liquid, shape, settings.sigma, 4.0, Edge::Nearest);
    liquid.iter_mut().filter(|v| **v < settings.threshold).for_each(|v| *v = 0.0);
    let image = input.unit_f32();
    if settings.mud {
        let mut cover: Vec<f64> =
            liquid.iter().map(|&v| if v > settings.threshold { 1.0 } else { 0.0 }).collect();
        gaussian(&mut cover, shape, settings.amount, 4.0, Edge::Nearest);
        let cover: Vec<f32> = cover.into_iter().map(|v| if v < 0.8 { 0.0 } else { v as f32 }).collect();
        let blend = |(i, x): (usize, &f32)| x * (1.0 - cover[i / 3]) + MUD[i % 3] * cover[i / 3];
        return input.with_unit_f32(image.iter().enumerate().map(blend));
    }
    let liquid: Vec<u8> = liquid.into_iter().map(|v| (v * 255.0) as i64 as u8).collect();
    let water: Vec<f32> =
        liquid.iter().zip(shading(&liquid, height, width)).map(|(&l, shade)| f32::from(l) * shade).collect();
    let peak = water.iter().copied().fold(0.0, f32::max);
    // Without any drop the published script divides by zero; here the image stays dry.
    let scale = if peak > 0.0 { settings.amount as f32 / peak } else { 0.0 };
    input.with_unit_f32(image.iter().enumerate().map(|(i, x)| x + water[i / 3] * scale * WATER[i % 3]))
}

/// How light falls on drops: embossed distance from their edges, 0 to 255.
fn shading(liquid: &[u8], height: usize, width: usize) -> Vec<f32> {
    let shape = Shape { height, width, channels: 1 };
    let edges = canny(liquid, height, width, 50, 150);
    let distances: Vec<f32> = distance_to(&edges, height, width).into_iter().map(|d| d.min(20.0)).collect();
    let mean: [Tap; 9] = std::array::from_fn(|i| (i as isize / 3 - 1, i as isize % 3 - 1, 1.0 / 9.0));
    let smooth = correlate(&distances, shape, &mean, Edge::Mirror);
    let equal = equalize(&smooth.into_iter().map(|v| v as u8).collect::<Vec<_>>());
    let emboss: [Tap; 7] =
        [(-1, -1, -2.0), (-1, 0, -1.0), (0, -1, -1.0), (0, 0, 1.0), (0, 1, 1.0), (1, 0, 1.0), (1, 1, 2.0)];
    let floats: Vec<f32> = equal.into_iter().map(f32::from).collect();
    let embossed: Vec<f32> =
        correlate(&floats, shape, &emboss, Edge::Mirror).into_iter().map(|v| v.clamp(0.0, 255.0)).collect();
    correlate(&embossed, shape, &mean, Edge::Mirror).into_iter().map(|v| f32::from((v + 0.5) as u8)).collect()
}

/// Canny's edges with Sobel gradients, the L1 norm and OpenCV's tie rules.
fn canny(image: &[u8], height: usize, width: usize, low: i32, high: i32) -> Vec<bool> {
    let (dx, dy) = sobel(image, height, width);
    let strength = |row: isize, column: isize| {
        let inside = (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
        let p = row * width as isize + column;
        if inside { dx[p as usize].abs() + dy[p as usize].abs() } else { 0 }
    };
    let is_ridge = |p: usize| {
        let (row, column) = ((p / width) as isize, (p % width) as isize);
        let here = strength(row, column);
        let (x, y) = (i64::from(dx[p].abs()), i64::from(dy[p].abs()) << 15);
        // tan 22.5° in 15-bit fixed point; tan 67.5° is that plus 2.
        let flat = x * 13573;
        let steep = flat + (x << 16);
        if y < flat {
            here > strength(row, column - 1) && here >= strength(row, column + 1)
        } else if y > steep {
            here > strength(row - 1, column) && here >= strength(row + 1, column)
        } else {
            let side = if (dx[p] < 0) != (dy[p] < 0) { -1 } else { 1 };
            here > strength(row - 1, column - side) && here > strength(row + 1, column + side)
        }
    };
    let ridges: Vec<i32> = (0..height * width)
        .map(|p| {
            let here = dx[p].abs() + dy[p].abs();
            if here > low && is_ridge(p) { here } else { 0 }
        })
        .collect();
    // Weak ridges count where they touch strong ones.
    let mut edges = vec![false; ridges.len()];
    let mut open: Vec<usize> = (0..ridges.len()).filter(|&p| ridges[p] > high).collect();
    open.iter().for_each(|&p| edges[p] = true);
    while let Some(p) = open.pop() {
        let (row, column) = (p / width, p % width);
        for r in row.saturating_sub(1)..(row + 2).min(height) {
            for c in column.saturating_sub(1)..(column + 2).min(width) {
                let q = r * width + c;
                if ridges[q] > 0 && !edges[q] {
                    edges[q] = true;
                    open.push(q);
                }
            }
        }
    }
    edges
}

/// Horizontal and vertical 3×3 Sobel derivatives, the border pixel repeated.
fn sobel(image: &[u8], height: usize, width: usize) -> (Vec<i32>, Vec<i32>) {
    let at = |row: isize, column: isize| {
        i32::from(image[Edge::Nearest.inside(row, height) * width + Edge::Nearest.inside(column, width)])
    };
    (0..height * width)
        .map(|p| {
            let (r, c) = ((p / width) as isize, (p % width) as isize);
            let across = |r: isize| at(r, c + 1) - at(r, c - 1);
            let down = |c: isize| at(r + 1, c) - at(r - 1, c);
            (across(r - 1) + 2 * across(r) + across(r + 1), down(c - 1) + 2 * down(c) + down(c + 1))
        })
        .unzip()
}

/// Distance from every pixel to the nearest marked one, by the 5×5 chamfer masks of Borgefors.
fn distance_to(marked: &[bool], height: usize, width: usize) -> Vec<f32> {
    const STEPS: [(isize, isize, f32); 8] = [
        (-2, -1, 2.1969),
        (-2, 1, 2.1969),
        (-1, -2, 2.1969),
        (-1, -1, 1.4),
        (-1, 0, 1.0),
        (-1, 1, 1.4),
        (-1, 2, 2.1969),
        (0, -1, 1.0),
    ];
    let mut distance: Vec<f32> = marked.iter().map(|&m| if m { 0.0 } else { f32::from(u16::MAX) }).collect();
    let mut sweep = |p: usize, sign: isize| {
        let (row, column) = ((p / width) as isize, (p % width) as isize);
        for (dy, dx, length) in STEPS {
            let (r, c) = (row + sign * dy, column + sign * dx);
            if (0..height as isize).contains(&r) && (0..width as isize).contains(&c) {
                distance[p] = distance[p].min(distance[r as usize * width + c as usize] + length);
            }
        }
    };
    (0..height * width).for_each(|p| sweep(p, 1));
    (0..height * width).rev().for_each(|p| sweep(p, -1));
    distance
}

/// Histogram equalization.
fn equalize(image: &[u8]) -> Vec<u8> {
    let mut histogram = [0usize; 256];
    image.iter().for_each(|&v| histogram[usize::from(v)] += 1);
    let first = histogram.iter().position(|&count| count > 0).unwrap_or(0);
    if histogram[first] == image.len() {
        return image.to_vec();
    }
    let scale = 255.0 / (image.len() - histogram[first]) as f32;
    let mut table = [0u8; 256];
    let mut sum = 0;
    for value in first + 1..256 {
        sum += histogram[value];
        table[value] = (sum as f32 * scale).round() as u8;
    }
    image.iter().map(|&v| table[usize::from(v)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_has_its_outline() {
        let mut image = vec![0u8; 100];
        for row in 3..7 {
            image[row * 10 + 3..row * 10 + 7].fill(200);
        }
        let edges = canny(&image, 10, 10, 50, 150);
        let count = edges.iter().filter(|&&e| e).count();
        assert!((8..=24).contains(&count), "{count}");
        assert!(!edges[0] && !edges[99]);
    }

    #[test]
    fn chamfer_distances() {
        let mut marked = vec![false; 49];
        marked[24] = true;
        let distance = distance_to(&marked, 7, 7);
        assert_eq!(distance[24], 0.0);
        assert_eq!(distance[25], 1.0);
        assert_eq!(distance[32], 1.4);
        assert_eq!(distance[33], 2.1969);
    }

    #[test]
    fn equalization_spreads_values() {
        assert_eq!(equalize(&[5, 5, 9, 12]), [0, 0, 128, 255]);
        assert_eq!(equalize(&[7, 7]), [7, 7]);
    }
}
