//! What JPEG compression does to an image, in libjpeg's integer arithmetic.
//!
//! The entropy coding of a JPEG file loses nothing, so it is left out: color conversion, 4:2:0 subsampling, the
//! integer cosine transform, quantization, and all the way back with the decoder's smooth upsampling. The result is
//! the one a libjpeg round trip gives.

use super::byte_image::ByteImage;

const LUMINANCE: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17,
    22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78,
    87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];
const CHROMINANCE: [u16; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

/// One color component, padded to whole blocks.
struct Component {
    height: usize,
    width: usize,
    samples: Vec<u8>,
}

/// The image after compression with `quality` (1 to 100) and decompression.
pub(super) fn jpeg_compression(input: &ByteImage, quality: u32) -> ByteImage {
    let ByteImage { height, width, channels, .. } = *input;
    let luminance = scaled_table(&LUMINANCE, quality);
    if channels == 1 {
        let mut gray = padded(input, 8, |pixel| i32::from(pixel[0]));
        gray.requantize(&luminance);
        let rows = gray.samples.chunks_exact(gray.width).take(height);
        return input.with(rows.flat_map(|row| row[..width].to_vec()).collect());
    }
    let chrominance = scaled_table(&CHROMINANCE, quality);
    let mut luma =
        padded(input, 16, |p| (19595 * at(p, 0) + 38470 * at(p, 1) + 7471 * at(p, 2) + HALF) >> 16);
    let offset = (128 << 16) + HALF - 1;
    let mut blue =
        padded(input, 16, |p| (-11059 * at(p, 0) - 21709 * at(p, 1) + 32768 * at(p, 2) + offset) >> 16)
            .halved();
    let mut red =
        padded(input, 16, |p| (32768 * at(p, 0) - 27439 * at(p, 1) - 5329 * at(p, 2) + offset) >> 16)
            .halved();
    luma.requantize(&luminance);
    blue.requantize(&chrominance);
    red.requantize(&chrominance);
    let (blue, red) = (blue.doubled(height, width), red.doubled(height, width));
    let mut bytes = Vec::with_capacity(input.bytes.len());
    for (p, (cb, cr)) in blue.iter().zip(&red).enumerate() {
        let y = i32::from(luma.samples[p / width * luma.width + p % width]);
        let (cb, cr) = (i32::from(*cb) - 128, i32::from(*cr) - 128);
        let r = y + ((91881 * cr + HALF) >> 16);
        let g = y + ((-22554 * cb - 46802 * cr + HALF) >> 16);
        let b = y + ((116130 * cb + HALF) >> 16);
        bytes.extend([r, g, b].map(|v| v.clamp(0, 255) as u8));
    }
    input.with(bytes)
}

const HALF: i32 = 1 << 15;

fn at(pixel: &[u8], channel: usize) -> i32 {
    i32::from(pixel[channel])
}

/// The quantization table for a quality, as libjpeg scales it.
fn scaled_table(base: &[u16; 64], quality: u32) -> [i32; 64] {
    let quality = quality.clamp(1, 100);
    let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    base.map(|value| ((u32::from(value) * scale + 50) / 100).clamp(1, 255) as i32)
}

/// A component of an image, its border pixels repeated up to whole multiples of `block`.
fn padded(input: &ByteImage, block: usize, convert: impl Fn(&[u8]) -> i32) -> Component {
    let (height, width) = (input.height.next_multiple_of(block), input.width.next_multiple_of(block));
    let mut samples = Vec::with_capacity(height * width);
    for row in 0..height {
        let start = row.min(input.height - 1) * input.width * input.channels;
        let pixels = input.bytes[start..start + input.width * input.channels].chunks_exact(input.channels);
        samples.extend(pixels.map(|pixel| convert(pixel) as u8));
        let last = samples[samples.len() - 1];
        samples.resize((row + 1) * width, last);
    }
    Component { height, width, samples }
}

impl Component {
    /// 2×2 means, rounded down and up in turn.
    fn halved(&self) -> Self {
        let (height, width) = (self.height / 2, self.width / 2);
        let mut samples = Vec::with_capacity(height * width);
        for rows in self.samples.chunks_exact(2 * self.width) {
            let (upper, lower) = rows.split_at(self.width);
            for (x, (a, b)) in upper.chunks_exact(2).zip(lower.chunks_exact(2)).enumerate() {
                let sum: u16 = [a[0], a[1], b[0], b[1]].map(u16::from).iter().sum();
                samples.push(((sum + 1 + x as u16 % 2) >> 2) as u8);
            }
        }
        Self { height, width, samples }
    }

    /// Every 8×8 block transformed, quantized, and transformed back.
    fn requantize(&mut self, table: &[i32; 64]) {
        for top in (0..self.height).step_by(8) {
            for left in (0..self.width).step_by(8) {
                let mut block = [0; 64];
                for (row, values) in block.chunks_exact_mut(8).enumerate() {
                    let samples = &self.samples[(top + row) * self.width + left..][..8];
                    values.iter_mut().zip(samples).for_each(|(v, &s)| *v = i32::from(s) - 128);
                }
                forward(&mut block);
                for (value, &step) in block.iter_mut().zip(table) {
                    // The forward transform leaves values scaled by 8.
                    let divisor = step << 3;
                    let magnitude = (value.abs() + (divisor >> 1)) / divisor * step;
                    *value = magnitude * value.signum();
                }
                inverse(&mut block);
                for (row, values) in block.chunks_exact(8).enumerate() {
                    let samples = &mut self.samples[(top + row) * self.width + left..][..8];
                    samples.iter_mut().zip(values).for_each(|(s, &v)| *s = (v + 128).clamp(0, 255) as u8);
                }
            }
        }
    }

    /// Twice the size with libjpeg's triangle filter, cut to `height × width`.
    fn doubled(&self, height: usize, width: usize) -> Vec<u8> {
        let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
        let row = |index: usize| &self.samples[index * self.width..][..columns];
        let mut result = Vec::with_capacity(height * width);
        let mut line = vec![0u16; columns];
        for y in 0..height {
            let near = y / 2;
            if columns <= 2 {
                // Too narrow for the filter: libjpeg repeats the samples.
                result.extend((0..width).map(|x| row(near)[x / 2]));
                continue;
            }
            let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min(rows - 1) };
            for (out, (&a, &b)) in line.iter_mut().zip(row(near).iter().zip(row(far))) {
                *out = 3 * u16::from(a) + u16::from(b);
            }
            result.extend((0..width).map(|x| {
                let this = 3 * line[x / 2];
                let sum = if x % 2 == 0 {
                    this + line[(x / 2).saturating_sub(1)] + 8
                } else {
                    this + line[(x / 2 + 1).min(columns - 1)] + 7
                };
                (sum >> 4) as u8
            }));
        }
        result
    }
}

const CONSTANT_BITS: u32 = 13;
const PASS_BITS: u32 = 2;

fn descale(value: i32, bits: u32) -> i32 {
    (value + (1 << (bits - 1))) >> bits
}

/// The odd part common to both transforms.
fn odd_part(mut t: [i32; 4]) -> [i32; 4] {
    let [a, b, c, d] = t;
    let z5 = (a + b + c + d) * 9633;
    let (z1, z2) = ((a + d) * -7373, (b + c) * -20995);
    let (z3, z4) = ((a + c) * -16069 + z5, (b + d) * -3196 + z5);
    t = [a * 2446 + z1 + z3, b * 16819 + z2 + z4, c * 25172 + z2 + z3, d * 12299 + z1 + z4];
    t
}

/// libjpeg's accurate integer forward transform, in place; results are scaled by 8.
fn forward(block: &mut [i32; 64]) {
    for first in [true, false] {
        let (step, stride) = if first { (8, 1) } else { (1, 8) };
        for line in 0..8 {
            let d: [i32; 8] = std::array::from_fn(|i| block[line * step + i * stride]);
            let sums: [i32; 4] = std::array::from_fn(|i| d[i] + d[7 - i]);
            let [t10, t11] = [sums[0] + sums[3], sums[1] + sums[2]];
            let [t12, t13] = [sums[1] - sums[2], sums[0] - sums[3]];
            let bits = if first { CONSTANT_BITS - PASS_BITS } else { CONSTANT_BITS + PASS_BITS };
            let mut set = |i: usize, value: i32| block[line * step + i * stride] = value;
            if first {
                set(0, (t10 + t11) << PASS_BITS);
                set(4, (t10 - t11) << PASS_BITS);
            } else {
                set(0, descale(t10 + t11, PASS_BITS));
                set(4, descale(t10 - t11, PASS_BITS));
            }
            let z1 = (t12 + t13) * 4433;
            set(2, descale(z1 + t13 * 6270, bits));
            set(6, descale(z1 - t12 * 15137, bits));
            let odd = odd_part([d[3] - d[4], d[2] - d[5], d[1] - d[6], d[0] - d[7]]);
            for (i, value) in [7, 5, 3, 1].into_iter().zip(odd) {
                set(i, descale(value, bits));
            }
        }
    }
}

/// libjpeg's accurate integer inverse transform, in place.
fn inverse(block: &mut [i32; 64]) {
    for first in [true, false] {
        let (step, stride) = if first { (1, 8) } else { (8, 1) };
        let bits = if first { CONSTANT_BITS - PASS_BITS } else { CONSTANT_BITS + PASS_BITS + 3 };
        for line in 0..8 {
            let d: [i32; 8] = std::array::from_fn(|i| block[line * step + i * stride]);
            let z1 = (d[2] + d[6]) * 4433;
            let (t2, t3) = (z1 - d[6] * 15137, z1 + d[2] * 6270);
            let (t0, t1) = ((d[0] + d[4]) << CONSTANT_BITS, (d[0] - d[4]) << CONSTANT_BITS);
            let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
            let odd = odd_part([d[7], d[5], d[3], d[1]]);
            for i in 0..4 {
                block[line * step + i * stride] = descale(even[i] + odd[3 - i], bits);
                block[line * step + (7 - i) * stride] = descale(even[i] - odd[3 - i], bits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_undo_each_other() {
        let mut block: [i32; 64] = std::array::from_fn(|i| (i as i32 * 37 % 255) - 128);
        let original = block;
        forward(&mut block);
        block.iter_mut().for_each(|v| *v = descale(*v, 3));
        inverse(&mut block);
        assert!(block.iter().zip(&original).all(|(a, b)| (a - b).abs() <= 1));
    }

    #[test]
    fn odd_sizes_and_flat_images() {
        for (height, width, channels) in [(1, 1, 3), (5, 3, 3), (17, 33, 3), (9, 7, 1)] {
            let flat = ByteImage::new(height, width, channels, vec![128; height * width * channels]);
            assert_eq!(jpeg_compression(&flat, 80), flat);
        }
    }

    #[test]
    fn quality_scales_the_table() {
        assert_eq!(scaled_table(&LUMINANCE, 50)[0], 16);
        assert_eq!(scaled_table(&LUMINANCE, 25)[0], 32);
        assert_eq!(scaled_table(&LUMINANCE, 100)[5], 1);
    }
}
