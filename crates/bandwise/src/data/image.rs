//! One image in memory: decoding, encoding, cropping, resizing.

use std::path::Path;

use image::{DynamicImage, ImageFormat};

use crate::{Error, Result};

/// Images larger than this in either direction are refused: a damaged header, most likely.
const MAX_SIDE: u32 = 20_000;

/// One image: `[height, width, channels]`, row-major, pixels in `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Color channels: 3 (red, green, blue) or 1 (gray).
    pub channels: usize,
    /// `height * width * channels` values in `[0, 1]`.
    pub pixels: Vec<f32>,
}

impl Image {
    /// An image of one value everywhere.
    pub fn filled(height: usize, width: usize, channels: usize, value: f32) -> Self {
        Self { height, width, channels, pixels: vec![value; height * width * channels] }
    }

    /// An image from bytes (`[height, width, channels]`, 0 to 255).
    ///
    /// # Panics
    /// If the number of bytes is not `height * width * channels`.
    pub fn from_bytes(height: usize, width: usize, channels: usize, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), height * width * channels);
        Self { height, width, channels, pixels: bytes.iter().map(|&b| f32::from(b) / 255.0).collect() }
    }

    /// The pixels as bytes, rounded; exact for images that came from bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.pixels.iter().map(|&p| (p.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
    }

    /// `[height, width, channels]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    /// Where pixel (`row`, `column`, `channel`) lies in [`Image::pixels`].
    pub fn offset(&self, row: usize, column: usize, channel: usize) -> usize {
        (row * self.width + column) * self.channels + channel
    }

    /// Decodes PNG or JPEG bytes as RGB; `origin` is named in errors.
    pub fn decode(bytes: &[u8], origin: &Path) -> Result<Self> {
        let bad = |reason: String| Error::format(origin, reason);
        let format = image::guess_format(bytes)
            .ok()
            .filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg))
            .ok_or_else(|| bad("expected a PNG or JPEG image, found something else".into()))?;
        let mut reader = image::ImageReader::with_format(std::io::Cursor::new(bytes), format);
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        reader.limits(limits);
        let rgb = reader.decode().map_err(|e| bad(format!("the image cannot be decoded ({e})")))?.into_rgb8();
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        Ok(Self::from_bytes(height, width, 3, rgb.as_raw()))
    }

    /// Reads a PNG or JPEG file as RGB.
    pub fn read(path: &Path) -> Result<Self> {
        Self::decode(&crate::files::read(path)?, path)
    }

    /// The image as a PNG file's bytes; gray or RGB.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let (width, height, bytes) = (self.width as u32, self.height as u32, self.to_bytes());
        let encoded = match self.channels {
            1 => image::GrayImage::from_raw(width, height, bytes).map(DynamicImage::ImageLuma8),
            3 => image::RgbImage::from_raw(width, height, bytes).map(DynamicImage::ImageRgb8),
            _ => None,
        };
        let encoded = encoded.ok_or_else(|| {
            Error::config(format!("an image of shape {:?} cannot be written as PNG", self.shape()))
        })?;
        let mut png = std::io::Cursor::new(Vec::new());
        encoded
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| Error::config(format!("a PNG could not be written ({e})")))?;
        Ok(png.into_inner())
    }

    /// The rectangle of `height` by `width` whose upper left corner is (`top`, `left`); what lies
    /// outside the image is black, so the corner may be negative.
    pub fn crop(&self, top: isize, left: isize, height: usize, width: usize) -> Self {
        let mut result = Self::filled(height, width, self.channels, 0.0);
        let first = (-left).clamp(0, width as isize) as usize;
        let last = (self.width as isize - left).clamp(first as isize, width as isize) as usize;
        if first == last {
            return result;
        }
        for row in 0..height {
            let source_row = top + row as isize;
            if source_row < 0 || source_row >= self.height as isize {
                continue;
            }
            let source = self.offset(source_row as usize, (left + first as isize) as usize, 0);
            let target = result.offset(row, first, 0);
            let length = (last - first) * self.channels;
            result.pixels[target..target + length].copy_from_slice(&self.pixels[source..source + length]);
        }
        result
    }

    /// The middle `height` by `width`, placed as torchvision's `CenterCrop` does; padded with black
    /// where the image is smaller.
    pub fn center_crop(&self, height: usize, width: usize) -> Self {
        let start = |have: usize, want: usize| {
            // Half to even, the rounding of the original.
            ((have as f64 - want as f64) / 2.0).round_ties_even() as isize
        };
        self.crop(start(self.height, height), start(self.width, width), height, width)
    }

    /// Mirrored left to right.
    pub fn flipped(mut self) -> Self {
        let (width, channels) = (self.width, self.channels);
        for row in self.pixels.chunks_exact_mut(width * channels) {
            for column in 0..width / 2 {
                for channel in 0..channels {
                    row.swap(column * channels + channel, (width - 1 - column) * channels + channel);
                }
            }
        }
        self
    }

    /// Mirrored top to bottom.
    pub fn upside_down(mut self) -> Self {
        let (row, height) = (self.width * self.channels, self.height);
        for top in 0..height / 2 {
            let (above, below) = self.pixels.split_at_mut((height - 1 - top) * row);
            above[top * row..(top + 1) * row].swap_with_slice(&mut below[..row]);
        }
        self
    }

    /// Bilinear resize; when shrinking, the triangle widens with the factor, so that nothing
    /// aliases (as Pillow and torchvision's `antialias=True` do).
    pub fn resized(&self, height: usize, width: usize) -> Self {
        if (height, width) == (self.height, self.width) {
            return self.clone();
        }
        let row_length = width * self.channels;
        let mut wide = vec![0.0f32; self.height * row_length];
        for (column, (first, weights)) in triangle_weights(self.width, width).into_iter().enumerate() {
            for row in 0..self.height {
                for channel in 0..self.channels {
                    let sum = weights.iter().enumerate().map(|(k, w)| {
                        w * self.pixels[(row * self.width + first + k) * self.channels + channel]
                    });
                    wide[row * row_length + column * self.channels + channel] = sum.sum();
                }
            }
        }
        let mut result = Self::filled(height, width, self.channels, 0.0);
        let rows = result.pixels.chunks_exact_mut(row_length.max(1));
        for (target, (first, weights)) in rows.zip(triangle_weights(self.height, height)) {
            for (k, weight) in weights.iter().enumerate() {
                let source = &wide[(first + k) * row_length..(first + k + 1) * row_length];
                target.iter_mut().zip(source).for_each(|(t, s)| *t += weight * s);
            }
        }
        result
    }

    /// Resized so that the shorter side is `side`, keeping the proportions.
    pub fn shorter_side_resized(&self, side: usize) -> Self {
        let [height, width] = Self::shorter_side_scaled([self.height, self.width], side);
        self.resized(height, width)
    }

    /// `[height, width]` with the shorter one brought to `side`, proportions kept.
    pub(super) fn shorter_side_scaled(lengths: [usize; 2], side: usize) -> [usize; 2] {
        let shorter = lengths[0].min(lengths[1]).max(1);
        lengths.map(|length| (length * side / shorter).max(1))
    }
}

/// For each output position: the first contributing input and the weights from there on.
fn triangle_weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    let radius = scale.max(1.0);
    (0..to)
        .map(|position| {
            let center = (position as f64 + 0.5) * scale;
            let first = ((center - radius + 0.5).floor().max(0.0) as usize).min(from - 1);
            let last = ((center + radius + 0.5).floor() as usize).clamp(first + 1, from);
            let weight = |k: usize| (1.0 - ((k as f64 + 0.5 - center) / radius).abs()).max(0.0);
            let total: f64 = (first..last).map(weight).sum();
            (first, (first..last).map(|k| (weight(k) / total) as f32).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: usize, width: usize) -> Image {
        let bytes: Vec<u8> = (0..height * width * 3).map(|i| (i * 7 % 251) as u8).collect();
        Image::from_bytes(height, width, 3, &bytes)
    }

    #[test]
    fn bytes_and_png_are_lossless() {
        let image = ramp(5, 4);
        let back = Image::decode(&image.to_png().unwrap(), Path::new("x.png")).unwrap();
        assert_eq!(back, image);
    }

    #[test]
    fn cropping_outside_gives_black_and_inside_keeps_pixels() {
        let image = ramp(4, 4);
        let crop = image.crop(-1, -2, 4, 4);
        assert!(crop.pixels[..12].iter().all(|&p| p == 0.0));
        assert_eq!(crop.pixels[crop.offset(1, 2, 0)..crop.offset(1, 4, 0)], image.pixels[..6]);
        assert!(image.crop(100, -100, 2, 2).pixels.iter().all(|&p| p == 0.0));
    }

    #[test]
    fn flipping_twice_is_nothing() {
        let image = ramp(3, 5);
        assert_ne!(image.clone().flipped(), image);
        assert_eq!(image.clone().flipped().flipped(), image);
    }

    #[test]
    fn resizing_matches_known_values() {
        // Pillow 12: Image.fromarray(a).resize((w, h), BILINEAR), a = (arange(77) * 7 % 251) as 11 × 7.
        let bytes: Vec<u8> = (0..77).map(|i| (i * 7 % 251) as u8).collect();
        let image = Image::from_bytes(11, 7, 1, &bytes);
        let smaller = [62, 77, 92, 143, 141, 156, 95, 94, 109, 174, 138, 149];
        let wider =
            [40, 44, 49, 54, 59, 63, 68, 73, 78, 82, 135, 139, 144, 149, 154, 158, 163, 168, 173, 177];
        let close = |a: Vec<u8>, b: &[u8]| a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) <= 1);
        assert!(close(image.resized(4, 3).to_bytes(), &smaller));
        assert!(close(image.resized(5, 10).to_bytes(), &wider));
        let constant = Image::filled(7, 9, 3, 0.25).resized(13, 4);
        assert!(constant.pixels.iter().all(|p| (p - 0.25).abs() < 1e-6));
    }

    #[test]
    fn damaged_images_are_errors() {
        let png = ramp(8, 8).to_png().unwrap();
        for bytes in [&png[..png.len() / 2], b"<html>not found</html>", b""] {
            let error = Image::decode(bytes, Path::new("a/b.png")).unwrap_err();
            assert!(error.to_string().starts_with("a/b.png: "), "{error}");
        }
    }
}
