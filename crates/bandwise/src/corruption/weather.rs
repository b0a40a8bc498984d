//! Weather: fog, snow and frost. Brightness, which the benchmark also counts here, is in [`super::color`].

use rand::Rng;

use super::blur::motion_blur;
use super::byte_image::{ByteImage, truncate};
use super::constants::SnowSettings;
use super::noise::normal;
use super::zoom::clipped_zoom;
use crate::random::Stream;

/// Side of the height map for an image: the power of two that covers it.
pub(super) fn fog_side(height: usize, width: usize) -> usize {
    height.max(width).next_power_of_two()
}

/// `amount` of fog shaped by a height map (`side × side`, values in [0, 1]), rescaled to the image's brightest value.
pub(super) fn fog(input: &ByteImage, amount: f64, map: &[f64], side: usize) -> ByteImage {
    let ByteImage { width, channels, .. } = *input;
    let brightest = f64::from(input.bytes.iter().copied().max().unwrap_or(0)) / 255.0;
    let scale = |x: f64| x * brightest / (brightest + amount);
    input.with_unit(input.bytes.iter().enumerate().map(|(index, &byte)| {
        let pixel = index / channels;
        scale(f64::from(byte) / 255.0 + amount * map[pixel / width * side + pixel % width])
    }))
}

/// A layer of streaks over a whitened image, and the same layer turned by half a circle.
pub(super) fn snow(input: &ByteImage, settings: SnowSettings, random: &mut Stream) -> ByteImage {
    let ByteImage { height, width, channels, .. } = *input;
    let field: Vec<f64> =
        (0..height * width).map(|_| settings.mean + settings.deviation * normal(random)).collect();
    let flakes = clipped_zoom(&field, height, width, settings.zoom).into_iter().map(|v| {
        let v = f64::from(v);
        if v < settings.threshold { 0 } else { truncate(v) }
    });
    let flakes = ByteImage::new(height, width, 1, flakes.collect());
    let layer =
        motion_blur(&flakes, settings.radius, settings.sigma, random.random_range(-135.0..-45.0)).bytes;
    let keep = settings.keep;
    let pixels = input.bytes.chunks_exact(channels).enumerate().flat_map(|(p, pixel)| {
        let x = |channel: usize| f32::from(pixel[channel]) / 255.0;
        let gray = if channels == 3 { 0.299 * x(0) + 0.587 * x(1) + 0.114 * x(2) } else { x(0) };
        let fallen = f32::from(layer[p]) / 255.0 + f32::from(layer[layer.len() - 1 - p]) / 255.0;
        pixel.iter().map(move |&byte| {
            let x = f32::from(byte) / 255.0;
            keep * x + (1.0 - keep) * x.max(gray * 1.5 + 0.5) + fallen
        })
    });
    input.with_unit_f32(pixels)
}

/// `keep · image + amount · texture`, the texture a color image of at least the image's size, cut at random.
pub(super) fn frost(
    input: &ByteImage,
    keep: f64,
    amount: f64,
    texture: &ByteImage,
    random: &mut Stream,
) -> ByteImage {
    let ByteImage { height, width, channels, .. } = *input;
    let corner =
        |spare: usize, random: &mut Stream| if spare == 0 { 0 } else { random.random_range(0..spare) };
    let top = corner(texture.height - height, random);
    let left = corner(texture.width - width, random);
    let bytes = input.bytes.iter().enumerate().map(|(index, &byte)| {
        let (pixel, channel) = (index / channels, index % channels);
        let from =
            ((top + pixel / width) * texture.width + left + pixel % width) * texture.channels + channel;
        (keep * f64::from(byte) + amount * f64::from(texture.bytes[from])).clamp(0.0, 255.0) as u8
    });
    input.with(bytes.collect())
}
