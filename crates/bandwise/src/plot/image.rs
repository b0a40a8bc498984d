//! Images as PNG, and captioned grids of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use super::color::ColorMap;

/// A PNG with its caption.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PngImage {
    /// The PNG file, in base64.
    pub png: String,
    /// Width of the PNG in pixels, after enlarging.
    pub width: usize,
    /// Height of the PNG in pixels, after enlarging.
    pub height: usize,
    /// A few words below the image.
    #[serde(default)]
    pub caption: String,
}

/// Images are enlarged by a whole factor until their longer side has at least this many pixels.
const SMALLEST_SIDE: usize = 112;

impl PngImage {
    /// An image `[height, width, channels]` with pixels in `[0, 1]` (clamped); one channel is gray,
    /// three are RGB, of any other number the first is shown.
    pub fn from_pixels(pixels: &[f32], height: usize, width: usize, channels: usize) -> Self {
        let byte = |v: f32| (v.clamp(0.0, 1.0) * 255.0).round() as u8;
        let bytes: Vec<u8> = pixels.iter().map(|v| byte(*v)).collect();
        Self::from_bytes(&bytes, height, width, channels, SMALLEST_SIDE)
    }

    /// A signed image such as a perturbation: zero is middle gray, ±`scale` black and white per
    /// channel (one channel: blue and red). Without a scale, the largest absolute value.
    pub fn signed(pixels: &[f32], height: usize, width: usize, channels: usize, scale: Option<f32>) -> Self {
        let largest = || pixels.iter().filter(|v| v.is_finite()).fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = scale.unwrap_or_else(largest).max(f32::MIN_POSITIVE);
        if channels == 1 {
            return Self::heat(pixels, height, width, ColorMap::Diverging, Some([-scale, scale]));
        }
        let shifted: Vec<f32> = pixels.iter().map(|v| 0.5 + 0.5 * v / scale).collect();
        Self::from_pixels(&shifted, height, width, channels)
    }

    /// One value per pixel `[height, width]` through a color map, over `range` or the values' own.
    pub fn heat(
        values: &[f32],
        height: usize,
        width: usize,
        colors: ColorMap,
        range: Option<[f32; 2]>,
    ) -> Self {
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let [low, high] = range.unwrap_or_else(|| {
            [finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max)]
        });
        let span = if high > low { high - low } else { 1.0 };
        let bytes: Vec<u8> = values.iter().flat_map(|v| colors.color((v - low) / span)).collect();
        Self::from_bytes(&bytes, height, width, 3, SMALLEST_SIDE)
    }

    /// Adds a caption.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// `[height, width, channels]` bytes; missing ones are black.
    pub(super) fn from_bytes(
        bytes: &[u8],
        height: usize,
        width: usize,
        channels: usize,
        smallest: usize,
    ) -> Self {
        if height * width * channels == 0 {
            return Self::from_bytes(&[0], 1, 1, 1, smallest);
        }
        let factor = smallest.div_ceil(height.max(width)).max(1);
        let kept = if channels == 3 { 3 } else { 1 };
        let mut enlarged = Vec::with_capacity(height * width * factor * factor * kept);
        for y in 0..height * factor {
            for x in 0..width * factor {
                let start = (y / factor * width + x / factor) * channels;
                enlarged.extend((start..start + kept).map(|i| bytes.get(i).copied().unwrap_or(0)));
            }
        }
        let (height, width) = (height * factor, width * factor);
        Self {
            png: BASE64.encode(encode(&enlarged, height, width, kept)),
            width,
            height,
            caption: String::new(),
        }
    }

    /// The PNG file's bytes; `None` if the text is not base64.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64.decode(&self.png).ok()
    }

    /// Whether this is a PNG file in base64, as it must be before it is put into a page.
    pub(crate) fn is_sound(&self) -> bool {
        self.bytes().is_some_and(|bytes| bytes.starts_with(b"\x89PNG\r\n\x1a\n"))
    }
}

fn encode(bytes: &[u8], height: usize, width: usize, channels: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let color = if channels == 3 { ExtendedColorType::Rgb8 } else { ExtendedColorType::L8 };
    // Enlarged rows repeat, so the difference to the row above is mostly zero.
    PngEncoder::new_with_quality(&mut file, CompressionType::Best, FilterType::Up)
        .write_image(bytes, width as u32, height as u32, color)
        .expect("the buffer has the size it says, and memory cannot fail to be written");
    file
}

/// Rows of captioned images under common column headings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageGrid {
    /// What the images show.
    #[serde(default)]
    pub title: String,
    /// A sentence below them.
    #[serde(default)]
    pub caption: String,
    /// Column headings, for example `original`, `adversarial`, `perturbation`.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<ImageRow>,
}

/// One row of an [`ImageGrid`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageRow {
    /// What the row shows, for example the true class.
    #[serde(default)]
    pub label: String,
    /// The images from left to right.
    pub pictures: Vec<PngImage>,
}

impl ImageGrid {
    /// A grid without rows.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|c| (*c).to_owned()).collect();
        Self { title: title.into(), columns, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(mut self, label: impl Into<String>, pictures: Vec<PngImage>) -> Self {
        self.rows.push(ImageRow { label: label.into(), pictures });
        self
    }

    /// Says something below the images.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(picture: &PngImage) -> image::RgbImage {
        image::load_from_memory(&picture.bytes().unwrap()).unwrap().to_rgb8()
    }

    #[test]
    fn tiny_pictures_are_enlarged_by_a_whole_factor() {
        let picture = PngImage::from_pixels(&[0.0, 1.0, 0.5, 2.0], 2, 2, 1);
        let image = decode(&picture);
        assert_eq!(image.dimensions(), (112, 112));
        assert_eq!((image.get_pixel(0, 0)[0], image.get_pixel(111, 0)[0]), (0, 255));
        assert_eq!((image.get_pixel(55, 56)[0], image.get_pixel(56, 56)[0]), (128, 255));
        assert_eq!(
            decode(&PngImage::from_pixels(&[0.5; 3 * 200 * 100], 200, 100, 3)).dimensions(),
            (100, 200)
        );
    }

    #[test]
    fn signed_pictures_have_a_neutral_zero() {
        let image = decode(&PngImage::signed(&[0.0, 0.1, -0.1], 1, 1, 3, None));
        assert_eq!(image.get_pixel(0, 0).0, [128, 255, 0]);
        let gray = decode(&PngImage::signed(&[0.0, 0.1], 1, 2, 1, Some(0.1)));
        assert_eq!(gray.get_pixel(0, 0).0, [0xf7, 0xf6, 0xf6]);
    }

    #[test]
    fn broken_input_still_gives_a_picture() {
        assert!(PngImage::from_pixels(&[], 0, 0, 3).is_sound());
        assert!(PngImage::from_pixels(&[0.5], 4, 4, 3).is_sound());
        assert!(PngImage::heat(&[f32::NAN; 4], 2, 2, ColorMap::Magma, None).is_sound());
        let hostile = PngImage { png: "\"><script>".into(), width: 1, height: 1, caption: String::new() };
        assert!(!hostile.is_sound());
    }
}
