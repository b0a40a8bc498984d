//! Textures for the frost corruption: the published photographs, or a procedural stand-in.

use std::path::Path;

use super::byte_image::{ByteImage, truncate};
use super::kinds::Protocol;
use super::noise::normal;
use super::plasma::plasma_fractal;
use crate::data::Image;
use crate::random::Stream;
use crate::{Error, Result, files};

/// The published textures. The script draws from the first five; the sixth is never used.
const OFFICIAL: [&str; 5] = ["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"];

/// Where frost comes from.
#[derive(Debug, Clone, Default)]
pub enum FrostTextures {
    /// Fractal frost made for each image: *not* the published protocol.
    #[default]
    Procedural,
    /// Images, as read from a folder.
    Photos {
        /// The textures at full size.
        photos: Vec<ByteImage>,
        /// Whether they carry the published names.
        official: bool,
    },
}

impl FrostTextures {
    /// The textures of a folder: `frost1.png` to `frost5.jpg` of the published set if they are there, otherwise every
    /// PNG or JPEG in order of name (which does not count as the published protocol).
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] if the folder or an image cannot be read; [`Error::Config`] if there is none.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let official: Vec<_> = OFFICIAL.iter().map(|name| folder.join(name)).collect();
        let is_official = official.iter().all(|path| path.is_file());
        let paths = if is_official { official } else { pictures_in(folder)? };
        if paths.is_empty() {
            return Err(Error::config(format!(
                "{} holds no frost texture: expected {} (from hendrycks/robustness) or other PNG or JPEG images",
                folder.display(),
                OFFICIAL.join(", ")
            )));
        }
        let photos =
            paths.iter().map(|path| Ok(ByteImage::from(&Image::read(path)?))).collect::<Result<_>>()?;
        Ok(Self::Photos { photos, official: is_official })
    }

    /// Whether frost made from these follows the published protocol.
    pub fn is_official(&self) -> bool {
        matches!(self, Self::Photos { official: true, .. })
    }

    /// What tells one set of textures from another.
    pub(super) fn fingerprint(&self) -> String {
        match self {
            Self::Procedural => "procedural".to_owned(),
            Self::Photos { photos, .. } => {
                let all: Vec<u8> = photos.iter().flat_map(|input| input.bytes.iter().copied()).collect();
                files::sha256(&all)
            }
        }
    }

    /// These textures at the scale a protocol uses them.
    pub(super) fn scaled(self, protocol: Protocol) -> Self {
        let scale = match protocol {
            Protocol::Cifar => 0.2,
            Protocol::Side64 => 0.3,
            Protocol::Side224 => return self,
        };
        match self {
            Self::Procedural => Self::Procedural,
            Self::Photos { photos, official } => {
                Self::Photos { photos: photos.iter().map(|input| shrink(input, scale)).collect(), official }
            }
        }
    }
}

fn pictures_in(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        if matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// OpenCV's linear resize, which takes two neighbors however much it shrinks.
fn shrink(input: &ByteImage, scale: f64) -> ByteImage {
    let ByteImage { channels, .. } = *input;
    let size = |side: usize| ((side as f64 * scale).round_ties_even() as usize).max(1);
    let (height, width) = (size(input.height), size(input.width));
    let neighbors = |index: usize, side: usize| {
        let position = ((index as f64 + 0.5) / scale - 0.5).clamp(0.0, (side - 1) as f64);
        (position as usize, (position as usize + 1).min(side - 1), position.fract())
    };
    let mut bytes = Vec::with_capacity(height * width * channels);
    for row in 0..height {
        let (top, bottom, down) = neighbors(row, input.height);
        for column in 0..width {
            let (left, right, across) = neighbors(column, input.width);
            for channel in 0..channels {
                let at =
                    |r: usize, c: usize| f64::from(input.bytes[(r * input.width + c) * channels + channel]);
                let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
                let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
                bytes.push((upper * (1.0 - down) + lower * down).round() as u8);
            }
        }
    }
    ByteImage::new(height, width, channels, bytes)
}

/// A bluish-white fractal of the image's size, with the mean, contrast and spectrum that the published photographs have
/// at 32 pixels.
pub(super) fn procedural(height: usize, width: usize, random: &mut Stream) -> ByteImage {
    let side = height.max(width).next_power_of_two();
    let map = plasma_fractal(side, 1.6, random);
    let mean = map.iter().sum::<f64>() / map.len() as f64;
    let brightness = 0.64 + 0.17 * normal(random);
    let tint = [0.95, 1.0, 1.05];
    let mut bytes = Vec::with_capacity(height * width * 3);
    for p in 0..height * width {
        let relief = map[p / width * side + p % width] - mean;
        let value = brightness + 0.34 * relief + 0.077 * normal(random);
        bytes.extend(tint.map(|share| truncate(share * value)));
    }
    ByteImage::new(height, width, 3, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_without_textures_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let message = FrostTextures::from_folder(folder.path()).unwrap_err().to_string();
        assert!(message.contains("frost1.png"), "{message}");
    }

    #[test]
    fn shrinking_by_five_takes_the_middle_pixel() {
        let input = ByteImage::new(10, 10, 1, (0..100).collect());
        assert_eq!(shrink(&input, 0.2).bytes, [22, 27, 72, 77]);
    }
}
