//! The images corruptions work on: bytes, as decoded from a file.

use crate::data::Image;

/// One image as bytes, `[height, width, channels]` row-major, 0 to 255.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteImage {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels: 3 (red, green, blue) or 1 (gray).
    pub channels: usize,
    /// `height · width · channels` values.
    pub bytes: Vec<u8>,
}

impl ByteImage {
    /// An image of the given bytes.
    ///
    /// # Panics
    /// If the number of bytes does not fit the shape.
    pub fn new(height: usize, width: usize, channels: usize, bytes: Vec<u8>) -> Self {
        assert_eq!(bytes.len(), height * width * channels);
        Self { height, width, channels, bytes }
    }

    /// An image of the same shape with other bytes.
    pub(super) fn with(&self, bytes: Vec<u8>) -> Self {
        Self::new(self.height, self.width, self.channels, bytes)
    }

    /// Values in [0, 1].
    pub(super) fn unit(&self) -> Vec<f64> {
        self.bytes.iter().map(|&byte| f64::from(byte) / 255.0).collect()
    }

    /// Values in [0, 1], single precision.
    pub(super) fn unit_f32(&self) -> Vec<f32> {
        self.bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect()
    }

    /// The same shape from values in [0, 1].
    pub(super) fn with_unit(&self, values: impl IntoIterator<Item = f64>) -> Self {
        self.with(values.into_iter().map(truncate).collect())
    }

    /// The same shape from single-precision values in [0, 1].
    pub(super) fn with_unit_f32(&self, values: impl IntoIterator<Item = f32>) -> Self {
        self.with(values.into_iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect())
    }

    /// Gray images as color ones.
    pub(super) fn to_color(&self) -> Self {
        match self.channels {
            1 => {
                Self::new(self.height, self.width, 3, self.bytes.iter().flat_map(|&byte| [byte; 3]).collect())
            }
            _ => self.clone(),
        }
    }

    /// Color images as gray ones (ITU-R 601 luma, rounded).
    pub(super) fn to_gray(&self) -> Self {
        if self.channels == 1 {
            return self.clone();
        }
        let luma = |pixel: &[u8]| {
            0.299 * f64::from(pixel[0]) + 0.587 * f64::from(pixel[1]) + 0.114 * f64::from(pixel[2])
        };
        let bytes = self.bytes.chunks_exact(self.channels).map(|pixel| luma(pixel).round() as u8).collect();
        Self::new(self.height, self.width, 1, bytes)
    }
}

/// `[0, 1]` to a byte as the published scripts do: clipped, then cut off, not rounded.
pub(super) fn truncate(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0) as u8
}

impl From<&Image> for ByteImage {
    fn from(image: &Image) -> Self {
        Self::new(image.height, image.width, image.channels, image.to_bytes())
    }
}

impl From<&ByteImage> for Image {
    fn from(input: &ByteImage) -> Self {
        Self::from_bytes(input.height, input.width, input.channels, &input.bytes)
    }
}
