//! Brightness and saturation in the HSV model, and contrast.

use super::byte_image::ByteImage;

/// Raises the HSV value by `amount`.
pub(super) fn brightness(input: &ByteImage, amount: f64) -> ByteImage {
    if input.channels == 1 {
        // A gray pixel's value is the pixel.
        return input
            .with_unit(input.bytes.iter().map(|&byte| (f64::from(byte) / 255.0 + amount).clamp(0.0, 1.0)));
    }
    map_hsv(input, |[h, s, v]| [h, s, (v + amount).clamp(0.0, 1.0)])
}

/// Turns the HSV saturation `s` into `s · factor + offset`. A gray pixel counts as red.
pub(super) fn saturate(input: &ByteImage, factor: f64, offset: f64) -> ByteImage {
    if input.channels == 1 {
        return saturate(&input.to_color(), factor, offset).to_gray();
    }
    map_hsv(input, |[h, s, v]| [h, (s * factor + offset).clamp(0.0, 1.0), v])
}

/// Scales the contrast of each channel around its mean.
pub(super) fn contrast(input: &ByteImage, remaining: f64) -> ByteImage {
    let channels = input.channels;
    let mut means = vec![0.0; channels];
    let image = input.unit();
    for pixel in image.chunks_exact(channels) {
        means.iter_mut().zip(pixel).for_each(|(mean, x)| *mean += x);
    }
    means.iter_mut().for_each(|mean| *mean /= (image.len() / channels) as f64);
    input.with_unit(
        image.iter().enumerate().map(|(i, x)| (x - means[i % channels]) * remaining + means[i % channels]),
    )
}

fn map_hsv(input: &ByteImage, change: impl Fn([f64; 3]) -> [f64; 3]) -> ByteImage {
    input.with_unit(input.bytes.chunks_exact(3).flat_map(|pixel| {
        let rgb = [pixel[0], pixel[1], pixel[2]].map(|byte| f64::from(byte) / 255.0);
        hsv_to_rgb(change(rgb_to_hsv(rgb)))
    }))
}

/// Hue, saturation and value, all in [0, 1].
fn rgb_to_hsv([r, g, b]: [f64; 3]) -> [f64; 3] {
    let value = r.max(g).max(b);
    let span = value - r.min(g).min(b);
    if span == 0.0 {
        return [0.0, 0.0, value];
    }
    let sixths = if b == value {
        4.0 + (r - g) / span
    } else if g == value {
        2.0 + (b - r) / span
    } else {
        (g - b) / span
    };
    let hue = sixths / 6.0;
    [if hue < 0.0 { hue + 1.0 } else { hue }, span / value, value]
}

fn hsv_to_rgb([hue, saturation, value]: [f64; 3]) -> [f64; 3] {
    let sector = (hue * 6.0) as u8;
    let fraction = hue * 6.0 - f64::from(sector);
    let low = value * (1.0 - saturation);
    let falling = value * (1.0 - fraction * saturation);
    let rising = value * (1.0 - (1.0 - fraction) * saturation);
    match sector % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_survive_the_round_trip() {
        for code in 0..4096u32 {
            let rgb = [code >> 8, code >> 4 & 15, code & 15].map(|v| f64::from(v) / 15.0);
            let back = hsv_to_rgb(rgb_to_hsv(rgb));
            assert!(rgb.iter().zip(back).all(|(a, b)| (a - b).abs() < 1e-12), "{rgb:?}");
        }
    }
}
