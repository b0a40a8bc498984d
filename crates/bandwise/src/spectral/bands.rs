//! Bands of the spectrum: rings, sectors, ideal windows, radial profiles.
//!
//! Windows for filtering ([`low_pass`], [`high_pass`], [`band_pass`]) and profiles use the un-shifted layout. The band
//! masks of the Fourier-mask paper ([`radial_band`], [`angular_band`], [`BandMasks`]) use its centered layout, with
//! the mean at `[height / 2, width / 2]`; [`shift`] and [`unshift`] convert.

use crate::{Error, Result};

/// Signed frequency of un-shifted index `index` along a side: `0, 1, …, −2, −1`.
pub fn signed_frequency(index: usize, side: usize) -> i64 {
    if index * 2 < side { index as i64 } else { index as i64 - side as i64 }
}

/// Distance `√(u² + v²)` of every un-shifted frequency from the mean, `[height, width]`.
pub fn radii(height: usize, width: usize) -> Vec<f64> {
    (0..height * width)
        .map(|p| {
            (signed_frequency(p / width, height) as f64).hypot(signed_frequency(p % width, width) as f64)
        })
        .collect()
}

/// The ring of every un-shifted frequency: its radius rounded to the nearest integer.
pub fn radius_index(height: usize, width: usize) -> Vec<usize> {
    radii(height, width).iter().map(|radius| radius.round() as usize).collect()
}

/// Mean of `values` (un-shifted `[height, width]`) in each ring of [`radius_index`].
pub fn radial_mean(values: &[f64], height: usize, width: usize) -> Vec<f64> {
    let (sums, counts) = ring_sums(values, height, width);
    sums.iter().zip(counts).map(|(sum, count)| sum / count.max(1) as f64).collect()
}

/// Sum of `values` (un-shifted `[height, width]`) in each ring of [`radius_index`].
pub fn radial_sum(values: &[f64], height: usize, width: usize) -> Vec<f64> {
    ring_sums(values, height, width).0
}

fn ring_sums(values: &[f64], height: usize, width: usize) -> (Vec<f64>, Vec<usize>) {
    let rings = radius_index(height, width);
    let count = rings.iter().max().map_or(0, |last| last + 1);
    let (mut sums, mut counts) = (vec![0.0; count], vec![0; count]);
    for (value, ring) in values.iter().zip(rings) {
        sums[ring] += value;
        counts[ring] += 1;
    }
    (sums, counts)
}

/// Ideal low-pass window, un-shifted: 1 where `√(u² + v²) ≤ radius`.
pub fn low_pass(height: usize, width: usize, radius: f64) -> Vec<f32> {
    window(height, width, |r| r <= radius)
}

/// Ideal high-pass window, un-shifted: 1 where `√(u² + v²) > radius`, the complement of [`low_pass`].
pub fn high_pass(height: usize, width: usize, radius: f64) -> Vec<f32> {
    window(height, width, |r| r > radius)
}

/// Ideal band-pass window, un-shifted: 1 where `inner < √(u² + v²) ≤ outer`.
pub fn band_pass(height: usize, width: usize, inner: f64, outer: f64) -> Vec<f32> {
    window(height, width, |r| r > inner && r <= outer)
}

fn window(height: usize, width: usize, inside: impl Fn(f64) -> bool) -> Vec<f32> {
    radii(height, width).into_iter().map(|r| if inside(r) { 1.0 } else { 0.0 }).collect()
}

/// Moves the mean from `[0, 0]` to the center `[height / 2, width / 2]`.
pub fn shift<T: Copy>(values: &[T], height: usize, width: usize) -> Vec<T> {
    roll(values, height, width, height.div_ceil(2), width.div_ceil(2))
}

/// Undoes [`shift`].
pub fn unshift<T: Copy>(values: &[T], height: usize, width: usize) -> Vec<T> {
    roll(values, height, width, height / 2, width / 2)
}

fn roll<T: Copy>(values: &[T], height: usize, width: usize, down: usize, right: usize) -> Vec<T> {
    (0..height * width)
        .map(|p| values[(p / width + down) % height * width + (p % width + right) % width])
        .collect()
}

/// How far a centered frequency is from the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// `|u| + |v|`.
    Manhattan,
    /// `√(u² + v²)`.
    Euclidean,
}

/// Centered ring `inner ≤ distance < outer` (no upper limit for `None`), as in the Fourier-mask code's `radial_band`.
pub fn radial_band(
    height: usize,
    width: usize,
    inner: f32,
    outer: Option<f32>,
    distance: Distance,
) -> Vec<bool> {
    (0..height * width)
        .map(|p| {
            let u = (p / width).abs_diff(height / 2) as f32;
            let v = (p % width).abs_diff(width / 2) as f32;
            let d = match distance {
                Distance::Manhattan => u + v,
                // f32 as in the reference: ring edges fall exactly on pixels, where rounding decides.
                Distance::Euclidean => (u * u + v * v).sqrt(),
            };
            d >= inner && outer.is_none_or(|outer| d < outer)
        })
        .collect()
}

/// Centered sector between two angles in degrees, counter-clockwise from the positive column axis, edges included, as
/// in the Fourier-mask code's `circular_band`: a triangle with its apex at the mean.
pub fn angular_band(height: usize, width: usize, from_degrees: f64, to_degrees: f64) -> Vec<bool> {
    sector(height, width, [from_degrees, to_degrees].map(|degrees| degrees.to_radians().sin_cos()))
}

/// The sector between two directions, given as `(sin, cos)`.
fn sector(height: usize, width: usize, directions: [(f64, f64); 2]) -> Vec<bool> {
    let (row, column) = ((height / 2) as f64, (width / 2) as f64);
    let reach = 1.5 * (height as f64).hypot(width as f64);
    let [from, to] = directions.map(|(sin, cos)| (column + reach * cos, row - reach * sin));
    let triangle = [(column, row), from, to, (column, row)];
    (0..height * width).map(|p| in_polygon(&triangle, (p % width) as f64, (p / width) as f64)).collect()
}

/// Whether a point lies in a polygon or on its edge: crossings of the rays to either side (Hormann and Agathos 2001).
fn in_polygon(corners: &[(f64, f64)], x: f64, y: f64) -> bool {
    const VERTEX: f64 = 1e-12;
    let (mut right, mut left) = (0, 0);
    let (mut x0, mut y0) = corners[corners.len() - 1];
    (x0, y0) = (x0 - x, y0 - y);
    for &(cx, cy) in corners {
        let (x1, y1) = (cx - x, cy - y);
        if x1.abs() < VERTEX && y1.abs() < VERTEX {
            return true;
        }
        let crossing = (x1 * y0 - x0 * y1) / (y0 - y1);
        if (y0 > 0.0) != (y1 > 0.0) && crossing > 0.0 {
            right += 1;
        }
        if (y0 < 0.0) != (y1 < 0.0) && crossing < 0.0 {
            left += 1;
        }
        (x0, y0) = (x1, y1);
    }
    right % 2 != left % 2 || right % 2 == 1
}

/// The rings and sectors of the Fourier-mask paper: `count` of each, centered layout.
///
/// As published: a pixel on a shared edge belongs to the first band that holds it (the last band also yields to the
/// first), and the outermost corner belongs to no ring. Radii reach the corner, `√((H/2)² + (W/2)²)`.
#[derive(Debug, Clone, PartialEq)]
pub struct BandMasks {
    /// Rings from the mean outwards, each `[height, width]`.
    pub radial: Vec<Vec<bool>>,
    /// Sectors counter-clockwise from the positive column axis.
    pub angular: Vec<Vec<bool>>,
}

impl BandMasks {
    /// The masks for spectra `[height, width]`.
    ///
    /// # Errors
    /// [`Error::Config`] for no bands or an empty spectrum; one sector would need to span 360° and is refused too.
    pub fn new(height: usize, width: usize, count: usize) -> Result<Self> {
        if count < 3 || height == 0 || width == 0 {
            return Err(Error::config(format!(
                "at least 3 bands of a non-empty spectrum, got {count} of {height}x{width}"
            )));
        }
        let radii = linspace((height as f64 / 2.0).hypot(width as f64 / 2.0) as f32, count + 1);
        let angles = linspace(360.0, count + 1);
        let (mut radial, mut angular): (Vec<Vec<bool>>, Vec<Vec<bool>>) = (Vec::new(), Vec::new());
        for i in 0..count {
            let mut ring = radial_band(height, width, radii[i], Some(radii[i + 1]), Distance::Euclidean);
            let mut sector =
                sector(height, width, [angles[i], angles[i + 1]].map(single_precision_direction));
            if i > 0 {
                clear(&mut ring, &radial[i - 1]);
                clear(&mut sector, &angular[i - 1]);
            }
            if i == count - 1 {
                clear(&mut ring, &radial[0]);
                clear(&mut sector, &angular[0]);
            }
            radial.push(ring);
            angular.push(sector);
        }
        Ok(Self { radial, angular })
    }

    /// Radial and angular energies of a centered image: its L2 norm within each band, after division by its own L2
    /// norm (the norm, not its square, as published). All zero for a zero image.
    pub fn energies(&self, image: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let norm = image.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        let energy = |mask: &Vec<bool>| {
            let inside = image.iter().zip(mask).filter(|(_, inside)| **inside);
            inside.map(|(&v, _)| (f64::from(v) / norm).powi(2)).sum::<f64>().sqrt()
        };
        (self.radial.iter().map(energy).collect(), self.angular.iter().map(energy).collect())
    }
}

/// The reference takes sines of f32 angles here; their rounding decides to which sector pixels on an edge belong.
fn single_precision_direction(degrees: f32) -> (f64, f64) {
    let radians = degrees * 1f64.to_radians() as f32;
    (f64::from(radians.sin()), f64::from(radians.cos()))
}

fn clear(mask: &mut [bool], taken: &[bool]) {
    mask.iter_mut().zip(taken).for_each(|(mask, taken)| *mask &= !taken);
}

/// `count` values from 0 to `end` in f32, counted from the nearer end as PyTorch does: exact at both.
fn linspace(end: f32, count: usize) -> Vec<f32> {
    let step = end / (count - 1) as f32;
    (0..count)
        .map(|i| if i < count / 2 { step * i as f32 } else { end - step * (count - 1 - i) as f32 })
        .collect()
}

#[cfg(test)]
#[path = "bands_tests.rs"]
mod tests;
