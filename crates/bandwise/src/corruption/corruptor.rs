//! Applies corruptions to images, reproducibly and on all cores.

use rand::Rng;
use rayon::prelude::*;

use super::constants::*;
use super::elastic::{Elastic, elastic_transform};
use super::frost::{FrostTextures, procedural};
use super::kinds::{Corruption, Protocol, Severity};
use super::picture::Picture;
use super::{blur, color, jpeg, noise, pixelate, plasma, spatter, weather, zoom};
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
        picture: &Picture,
        corruption: Corruption,
        severity: Severity,
        index: u64,
    ) -> Result<Picture> {
        check(picture)?;
        let tags = [tag(corruption.name()), u64::from(severity.level()), index];
        let random = &mut stream(self.seed, &tags);
        let protocol = self.protocol;
        Ok(match corruption {
            Corruption::GaussianNoise => {
                noise::gaussian_noise(picture, GAUSSIAN_NOISE.at(protocol, severity), || {
                    noise::normal(random)
                })
            }
            Corruption::ShotNoise => noise::shot_noise(picture, SHOT_NOISE.at(protocol, severity), random),
            Corruption::ImpulseNoise => {
                noise::impulse_noise(picture, IMPULSE_NOISE.at(protocol, severity), random)
            }
            Corruption::SpeckleNoise => {
                noise::speckle_noise(picture, SPECKLE_NOISE.at(protocol, severity), || noise::normal(random))
            }
            Corruption::GaussianBlur => blur::gaussian_blur(picture, GAUSSIAN_BLUR.at(protocol, severity)),
            Corruption::GlassBlur => {
                let (sigma, step, passes) = GLASS_BLUR.at(protocol, severity);
                blur::glass_blur(picture, sigma, step, passes, random)
            }
            Corruption::DefocusBlur => {
                let (radius, alias_sigma) = DEFOCUS_BLUR.at(protocol, severity);
                blur::defocus_blur(picture, radius, alias_sigma)
            }
            Corruption::MotionBlur => {
                let (radius, sigma) = MOTION_BLUR.at(protocol, severity);
                blur::motion_blur(picture, radius, sigma, random.random_range(-45.0..45.0))
            }
            Corruption::ZoomBlur => {
                let (end, step) = ZOOM_BLUR.at(protocol, severity);
                zoom::zoom_blur(picture, end, step)
            }
            Corruption::Snow => weather::snow(picture, SNOW.at(protocol, severity), random),
            Corruption::Frost => self.frost(picture, severity, random)?,
            Corruption::Fog => {
                let (amount, decay) = FOG.at(protocol, severity);
                let side = weather::fog_side(picture.height, picture.width);
                weather::fog(picture, amount, &plasma::plasma_fractal(side, decay, random), side)
            }
            Corruption::Brightness => color::brightness(picture, BRIGHTNESS.at(protocol, severity)),
            Corruption::Contrast => color::contrast(picture, CONTRAST.at(protocol, severity)),
            Corruption::Saturate => {
                let (factor, offset) = SATURATE.at(protocol, severity);
                color::saturate(picture, factor, offset)
            }
            Corruption::ElasticTransform => {
                elastic_transform(picture, self.elastic(picture, severity), random)
            }
            Corruption::Pixelate => pixelate::pixelate(picture, PIXELATE.at(protocol, severity)),
            Corruption::JpegCompression => {
                jpeg::jpeg_compression(picture, JPEG_COMPRESSION.at(protocol, severity))
            }
            Corruption::Spatter => spatter::spatter(picture, SPATTER.at(protocol, severity), random),
        })
    }

    /// As [`apply`](Self::apply) for pixels in [0, 1]: the image is taken as bytes, and so is the result.
    pub fn apply_image(
        &self,
        image: &Image,
        corruption: Corruption,
        severity: Severity,
        index: u64,
    ) -> Result<Image> {
        Ok(Image::from(&self.apply(&Picture::from(image), corruption, severity, index)?))
    }

    /// All images corrupted, in order, on all cores; the first has index `first_index`.
    pub fn apply_all(
        &self,
        pictures: &[Picture],
        corruption: Corruption,
        severity: Severity,
        first_index: u64,
    ) -> Result<Vec<Picture>> {
        pictures
            .par_iter()
            .enumerate()
            .map(|(i, picture)| self.apply(picture, corruption, severity, first_index + i as u64))
            .collect()
    }

    fn frost(&self, picture: &Picture, severity: Severity, random: &mut Stream) -> Result<Picture> {
        let Picture { height, width, .. } = *picture;
        let (keep, amount) = FROST.at(self.protocol, severity);
        match &self.frost {
            FrostTextures::Procedural => {
                let texture = procedural(height, width, random);
                Ok(weather::frost(picture, keep, amount, &texture, random))
            }
            FrostTextures::Pictures { pictures, .. } => {
                let texture = &pictures[random.random_range(0..pictures.len())];
                if texture.height < height || texture.width < width {
                    return Err(Error::config(format!(
                        "a frost texture of {}x{} (after scaling for protocol {}) is smaller than the {height}x{width} \
                         image; use larger textures",
                        texture.height, texture.width, self.protocol
                    )));
                }
                Ok(weather::frost(picture, keep, amount, texture, random))
            }
        }
    }

    /// The published constants are for one size; other sizes scale with their shorter side.
    fn elastic(&self, picture: &Picture, severity: Severity) -> Elastic {
        let (displacement, sigma, corner) = ELASTIC_TRANSFORM.at(self.protocol, severity);
        let shorter = picture.height.min(picture.width) as f64;
        let side = elastic_side(self.protocol) * shorter / self.protocol.side() as f64;
        Elastic { displacement: displacement * side, sigma: sigma * side, corner: corner * side }
    }
}

fn check(picture: &Picture) -> Result<()> {
    if picture.bytes.is_empty() || !matches!(picture.channels, 1 | 3) {
        return Err(Error::config(format!(
            "corruptions need a gray or RGB image, got {}x{} with {} channels",
            picture.height, picture.width, picture.channels
        )));
    }
    Ok(())
}
