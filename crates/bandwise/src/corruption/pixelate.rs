//! Box resampling in Pillow's fixed-point arithmetic.

use super::byte_image::ByteImage;

/// Fraction bits of a weight.
const PRECISION: u32 = 22;

/// Shrinks to `int(side · factor)` and back, both with Pillow's box filter.
pub(super) fn pixelate(input: &ByteImage, factor: f64) -> ByteImage {
    let small = |side: usize| ((side as f64 * factor) as usize).max(1);
    let shrunk = resize(input, small(input.height), small(input.width));
    resize(&shrunk, input.height, input.width)
}

fn resize(input: &ByteImage, height: usize, width: usize) -> ByteImage {
    let across = Axis::new(input.width, width);
    let wide = match input.channels {
        1 => squeeze_rows::<1>(input, &across, width),
        _ => squeeze_rows::<3>(input, &across, width),
    };
    let down = Axis::new(input.height, height);
    let stride = width * input.channels;
    let mut result = vec![0; height * stride];
    let mut sums = vec![0; stride];
    for (index, out) in result.chunks_exact_mut(stride).enumerate() {
        sums.fill(0);
        let (start, weights) = down.span(index);
        for (weight, row) in weights.iter().zip(wide[start * stride..].chunks_exact(stride)) {
            sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += weight * i32::from(v));
        }
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = round(sum));
    }
    ByteImage::new(height, width, input.channels, result)
}

/// Every row brought to `width` pixels of `C` channels.
fn squeeze_rows<const C: usize>(input: &ByteImage, axis: &Axis, width: usize) -> Vec<u8> {
    let mut wide = Vec::with_capacity(input.height * width * C);
    for row in input.bytes.chunks_exact(input.width * C) {
        for index in 0..width {
            let (start, weights) = axis.span(index);
            let mut sums = [0; C];
            for (weight, pixel) in weights.iter().zip(row[start * C..].chunks_exact(C)) {
                (0..C).for_each(|channel| sums[channel] += weight * i32::from(pixel[channel]));
            }
            wide.extend(sums.map(round));
        }
    }
    wide
}

fn round(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// For each output pixel the first of the inputs it averages, and their weights.
struct Axis {
    starts: Vec<usize>,
    /// Where the weights of each output pixel begin, and in the end their number.
    offsets: Vec<usize>,
    weights: Vec<i32>,
}

impl Axis {
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let support = 0.5 * scale.max(1.0);
        let mut axis = Self { starts: Vec::with_capacity(to), offsets: vec![0], weights: Vec::new() };
        for index in 0..to {
            let center = (index as f64 + 0.5) * scale;
            let start = ((center - support + 0.5) as isize).max(0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let inside = |i: usize| {
                let distance = (i as f64 - center + 0.5) / scale.max(1.0);
                distance > -0.5 && distance <= 0.5
            };
            let count = (start..end).filter(|&i| inside(i)).count() as f64;
            let weight = (0.5 + 1.0 / count * f64::from(1 << PRECISION)) as i32;
            axis.weights.extend((start..end).map(|i| if inside(i) { weight } else { 0 }));
            axis.starts.push(start);
            axis.offsets.push(axis.weights.len());
        }
        axis
    }

    fn span(&self, index: usize) -> (usize, &[i32]) {
        (self.starts[index], &self.weights[self.offsets[index]..self.offsets[index + 1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_stay() {
        let input = ByteImage::new(10, 13, 3, vec![77; 390]);
        assert_eq!(pixelate(&input, 0.6), input);
        assert_eq!(pixelate(&ByteImage::new(1, 1, 1, vec![9]), 0.25).bytes, [9]);
    }

    #[test]
    fn halving_averages_pairs() {
        let input = ByteImage::new(1, 4, 1, vec![10, 20, 30, 50]);
        assert_eq!(resize(&input, 1, 2).bytes, [15, 40]);
    }
}
