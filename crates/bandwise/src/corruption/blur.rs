//! Blur: Gaussian, defocus, glass and motion; zoom blur is in [`super::zoom`].

use rand::Rng;

use super::byte_image::{ByteImage, truncate};
use super::filter::{Edge, Shape, Tap, correlate, gaussian};
use crate::random::Stream;

fn shape(input: &ByteImage) -> Shape {
    Shape { height: input.height, width: input.width, channels: input.channels }
}

/// scikit-image's Gaussian: four standard deviations wide, the border pixel repeated beyond it.
fn skimage_gaussian(image: &mut [f64], shape: Shape, sigma: f64) {
    gaussian(image, shape, sigma, 4.0, Edge::Nearest);
}

/// Gaussian blur with standard deviation `sigma` pixels.
pub(super) fn gaussian_blur(input: &ByteImage, sigma: f64) -> ByteImage {
    let mut image = input.unit();
    skimage_gaussian(&mut image, shape(input), sigma);
    input.with_unit(image)
}

/// Blur, `passes` rounds in which every inner pixel takes the place of a near neighbor, blur.
///
/// As published, the neighbor is *copied*, not swapped, and lies −step to step − 1 pixels away.
pub(super) fn glass_blur(
    input: &ByteImage,
    sigma: f64,
    step: usize,
    passes: usize,
    random: &mut Stream,
) -> ByteImage {
    let ByteImage { height, width, channels, .. } = *input;
    let mut image = input.unit();
    skimage_gaussian(&mut image, shape(input), sigma);
    let mut bytes: Vec<u8> = image.into_iter().map(truncate).collect();
    for _ in 0..passes {
        for row in (step + 1..(height + 1).saturating_sub(step)).rev() {
            for column in (step + 1..(width + 1).saturating_sub(step)).rev() {
                // Two offsets from one word; the bias of the multiplication is below 2·step / 65536.
                let word: u32 = random.random();
                let offset = |bits: u32| (((bits & 0xffff) * 2 * step as u32) >> 16) as usize;
                let (from_row, from_column) = (row + offset(word >> 16) - step, column + offset(word) - step);
                let from = (from_row * width + from_column) * channels;
                bytes.copy_within(from..from + channels, (row * width + column) * channels);
            }
        }
    }
    let mut image: Vec<f64> = bytes.into_iter().map(|byte| f64::from(byte) / 255.0).collect();
    skimage_gaussian(&mut image, shape(input), sigma);
    input.with_unit(image)
}

/// Blur with a disk of `radius` pixels whose edge is smoothed by a Gaussian of `alias_sigma`.
pub(super) fn defocus_blur(input: &ByteImage, radius: f64, alias_sigma: f64) -> ByteImage {
    let blurred = correlate(&input.unit_f32(), shape(input), &disk(radius, alias_sigma), Edge::Mirror);
    input.with_unit_f32(blurred)
}

/// The smoothed disk as filter taps: 17 pixels square and smoothed by 3×3 up to radius 8, larger and by 5×5 beyond.
///
/// From radius 8 on the disk touches the kernel's border, where smoothing reflects it: as published, those kernels
/// brighten the image by one percent.
fn disk(radius: f64, alias_sigma: f64) -> Vec<Tap> {
    let (reach, smoothing) = if radius <= 8.0 { (8, 1) } else { (radius as isize, 2) };
    let side = (2 * reach + 1) as usize;
    let squared = |i: usize| (i as isize - reach).pow(2);
    let mut disk: Vec<f32> = (0..side * side)
        .map(|p| if (squared(p / side) + squared(p % side)) as f64 <= radius * radius { 1.0 } else { 0.0 })
        .collect();
    let total: f32 = disk.iter().sum();
    disk.iter_mut().for_each(|v| *v /= total);
    let weights: Vec<f64> = (-smoothing..=smoothing)
        .map(|k: isize| (-0.5 * (k * k) as f64 / (alias_sigma * alias_sigma)).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let taps: Vec<Tap> = weights
        .iter()
        .enumerate()
        .flat_map(|(i, a)| weights.iter().enumerate().map(move |(j, b)| (i, j, a * b)))
        .map(|(i, j, w)| (i as isize - smoothing, j as isize - smoothing, (w / (total * total)) as f32))
        .collect();
    let smooth = correlate(&disk, Shape { height: side, width: side, channels: 1 }, &taps, Edge::Mirror);
    let tap = |p: usize, weight| ((p / side) as isize - reach, (p % side) as isize - reach, weight);
    smooth.into_iter().enumerate().filter(|(_, w)| *w > 1e-12).map(|(p, w)| tap(p, w)).collect()
}

/// ImageMagick's motion blur: a half Gaussian along the direction `degrees`, border pixels repeated.
pub(super) fn motion_blur(input: &ByteImage, radius: f64, sigma: f64, degrees: f64) -> ByteImage {
    let image: Vec<f32> = input.bytes.iter().map(|&byte| f32::from(byte)).collect();
    let blurred = correlate(&image, shape(input), &streak(radius, sigma, degrees), Edge::Nearest);
    // ImageMagick rounds to 16 bits; the way back to 8 cuts off.
    input.with(blurred.into_iter().map(|value| ((value * 257.0 + 0.5) as u32 / 257).min(255) as u8).collect())
}

fn streak(radius: f64, sigma: f64, degrees: f64) -> Vec<Tap> {
    let length = 2 * radius.ceil() as usize + 1;
    let weights: Vec<f64> = (0..length).map(|i| (-((i * i) as f64) / (2.0 * sigma * sigma)).exp()).collect();
    let total: f64 = weights.iter().sum();
    let (sin, cos) = degrees.to_radians().sin_cos();
    let offset = |i: usize, direction: f64| (i as f64 * direction - 0.5).ceil() as isize;
    weights.iter().enumerate().map(|(i, w)| (offset(i, sin), offset(i, cos), (w / total) as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_keep_the_mean() {
        for taps in [disk(0.3, 0.4), disk(3.0, 0.1), disk(6.0, 0.5), streak(15.0, 8.0, 30.0)] {
            let total: f32 = taps.iter().map(|tap| tap.2).sum();
            assert!((total - 1.0).abs() < 1e-5, "{total}");
        }
    }

    #[test]
    fn large_disks_brighten_as_published() {
        let total = |radius| disk(radius, 0.5).iter().map(|tap| tap.2).sum::<f32>();
        assert!((total(8.0) - 1.0129755).abs() < 1e-5);
        assert!((total(10.0) - 1.0107858).abs() < 1e-5);
    }

    #[test]
    fn glass_never_leaves_the_picture() {
        let mut random = crate::random::stream(1, &[]);
        for side in 1..9 {
            let input = ByteImage::new(side, side + 1, 1, vec![7; side * (side + 1)]);
            let glassy = glass_blur(&input, 0.4, 4, 2, &mut random);
            assert_eq!(glassy.bytes.len(), input.bytes.len());
        }
    }
}
