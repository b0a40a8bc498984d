//! Box resampling in Pillow's fixed-point arithmetic.

use super::picture::Picture;

/// Fraction bits of a weight.
const PRECISION: u32 = 22;

/// Shrinks to `int(side · factor)` and back, both with Pillow's box filter.
pub(super) fn pixelate(picture: &Picture, factor: f64) -> Picture {
    let small = |side: usize| ((side as f64 * factor) as usize).max(1);
    let shrunk = resize(picture, small(picture.height), small(picture.width));
    resize(&shrunk, picture.height, picture.width)
}

fn resize(picture: &Picture, height: usize, width: usize) -> Picture {
    let Picture { height: rows, channels, .. } = *picture;
    let across = Axis::new(picture.width, width);
    let mut wide = vec![0; rows * width * channels];
    for (source, out) in
        picture.bytes.chunks_exact(picture.width * channels).zip(wide.chunks_exact_mut(width * channels))
    {
        for (pixel, span) in out.chunks_exact_mut(channels).zip(&across.spans) {
            for (channel, out) in pixel.iter_mut().enumerate() {
                let values = source[span.start * channels + channel..].iter().step_by(channels);
                *out = round(span.weights.iter().zip(values).map(|(w, &v)| w * i32::from(v)).sum());
            }
        }
    }
    let down = Axis::new(rows, height);
    let stride = width * channels;
    let mut result = vec![0; height * stride];
    let mut sums = vec![0; stride];
    for (out, span) in result.chunks_exact_mut(stride).zip(&down.spans) {
        sums.fill(0);
        for (weight, row) in span.weights.iter().zip(wide[span.start * stride..].chunks_exact(stride)) {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += weight * i32::from(v));
        }
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = round(sum));
    }
    Picture::new(height, width, channels, result)
}

fn round(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// For each output pixel the inputs it averages.
struct Axis {
    spans: Vec<Span>,
}

struct Span {
    start: usize,
    weights: Vec<i32>,
}

impl Axis {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let support = 0.5 * scale.max(1.0);
        let spans = (0..to).map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let start = ((centre - support + 0.5) as isize).max(0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let inside = |i: usize| {
                let distance = (i as f64 - centre + 0.5) / scale.max(1.0);
                distance > -0.5 && distance <= 0.5
            };
            let weights: Vec<f64> = (start..end).map(|i| if inside(i) { 1.0 } else { 0.0 }).collect();
            let total: f64 = weights.iter().sum();
            let fixed = |w: f64| (0.5 + w / total * f64::from(1 << PRECISION)) as i32;
            Span { start, weights: weights.into_iter().map(fixed).collect() }
        });
        Self { spans: spans.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_stay() {
        let picture = Picture::new(10, 13, 3, vec![77; 390]);
        assert_eq!(pixelate(&picture, 0.6), picture);
        assert_eq!(pixelate(&Picture::new(1, 1, 1, vec![9]), 0.25).bytes, [9]);
    }

    #[test]
    fn halving_averages_pairs() {
        let picture = Picture::new(1, 4, 1, vec![10, 20, 30, 50]);
        assert_eq!(resize(&picture, 1, 2).bytes, [15, 40]);
    }
}
