//! Applies corruptions to images, reproducibly and on all cores.

use rand::Rng;
use rayon::prelude::*;

use super::byte_image::ByteImage;
use super::constants::elastic_side;
use super::elastic::Elastic;
use super::frost::{FrostTextures, procedural};
use super::kinds::{Protocol, Severity};
use super::table::{Corruption, Strength};
use super::weather;
use crate::data::Image;
use crate::random::{Stream, stream, tag};
use crate::{Error, Result};

/// Makes corrupted images under one protocol.
///
/// The result for an image depends on the seed, the corruption, the severity and the image's index, and on nothing
/// else: not on batches, threads, or which other images are asked for.
#[derive(Debug, Clone)]
pub struct Corruptor {
    protocol: Protocol,
    seed: u64,
    frost: FrostTextures,
}

impl Corruptor {
    /// A corruptor with procedural frost; see [`with_frost`](Self::with_frost).
    pub fn new(protocol: Protocol, seed: u64) -> Self {
        Self { protocol, seed, frost: FrostTextures::Procedural }
    }

    /// Takes frost from these textures.
    pub fn with_frost(mut self, textures: FrostTextures) -> Self {
        self.frost = textures.scaled(self.protocol);
        self
    }

    /// Whose constants are used.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The seed of all randomness.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What tells one source of frost from another: `procedural`, or the textures' SHA-256.
    pub fn frost_fingerprint(&self) -> String {
        self.frost.fingerprint()
    }

    /// Whether `corruption` follows the published protocol on images of this size; results that do not must say so.
    pub fn is_official(&self, corruption: Corruption, height: usize, width: usize) -> bool {
        let side = self.protocol.side();
        (corruption != Corruption::Frost || self.frost.is_official()) && (height, width) == (side, side)
    }

    /// What is doubtful about images of another size than the constants were made for.
    pub fn doubt(&self, height: usize, width: usize) -> Option<String> {
        let side = self.protocol.side();
        let other = (height, width) != (side, side);
        other.then(|| {
            let protocol = self.protocol;
            format!(
                "the {protocol} protocol was made for {side}×{side} pixels, the images are {height}×{width}"
            )
        })
    }

    /// The corrupted image; `index` is the image's position in its data set.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty image, one that is neither gray nor RGB, or one larger than the frost textures.
    pub fn apply(
        &self,
        input: &ByteImage,
        corruption: Corruption,
        severity: Severity,
        index: u64,
    ) -> Result<ByteImage> {
        check(input)?;
        let tags = [tag(corruption.name()), u64::from(severity.level()), index];
        let random = &mut stream(self.seed, &tags);
        corruption.apply(&Strength { corruptor: self, severity }, input, random)
    }

    /// As [`apply`](Self::apply) for pixels in [0, 1]: the image is taken as bytes, and so is the result.
    pub fn apply_image(
        &self,
        image: &Image,
        corruption: Corruption,
        severity: Severity,
        index: u64,
    ) -> Result<Image> {
        Ok(Image::from(&self.apply(&ByteImage::from(image), corruption, severity, index)?))
    }

    /// All images corrupted, in order, on all cores; the first has index `first_index`.
    pub fn apply_all(
        &self,
        inputs: &[ByteImage],
        corruption: Corruption,
        severity: Severity,
        first_index: u64,
    ) -> Result<Vec<ByteImage>> {
        inputs
            .par_iter()
            .enumerate()
            .map(|(i, input)| self.apply(input, corruption, severity, first_index + i as u64))
            .collect()
    }

    /// Frost of this corruptor's textures: so much of the image is kept, so much frost added.
    pub(super) fn frost(
        &self,
        input: &ByteImage,
        (keep, amount): (f64, f64),
        random: &mut Stream,
    ) -> Result<ByteImage> {
        let ByteImage { height, width, .. } = *input;
        match &self.frost {
            FrostTextures::Procedural => {
                let texture = procedural(height, width, random);
                Ok(weather::frost(input, keep, amount, &texture, random))
            }
            FrostTextures::Photos { photos, .. } => {
                let texture = &photos[random.random_range(0..photos.len())];
                if texture.height < height || texture.width < width {
                    return Err(Error::config(format!(
                        "a frost texture of {}x{} (after scaling for protocol {}) is smaller than the {height}x{width} \
                         image; use larger textures",
                        texture.height, texture.width, self.protocol
                    )));
                }
                Ok(weather::frost(input, keep, amount, texture, random))
            }
        }
    }

    /// The published constants are for one size; other sizes scale with their shorter side.
    pub(super) fn elastic(
        &self,
        input: &ByteImage,
        (displacement, sigma, corner): (f64, f64, f64),
    ) -> Elastic {
        let shorter = input.height.min(input.width) as f64;
        let side = elastic_side(self.protocol) * shorter / self.protocol.side() as f64;
        Elastic { displacement: displacement * side, sigma: sigma * side, corner: corner * side }
    }
}

fn check(input: &ByteImage) -> Result<()> {
    if input.bytes.is_empty() || !matches!(input.channels, 1 | 3) {
        return Err(Error::config(format!(
            "corruptions need a gray or RGB image, got {}x{} with {} channels",
            input.height, input.width, input.channels
        )));
    }
    Ok(())
}
