//! The synthetic set: ten classes, each with a low-frequency and a high-frequency cue.
//!
//! It is an instrument for one question: *which part of the spectrum does a network listen to?*
//! Natural images cannot answer it directly, since their cues cannot be separated. Here they can.
//!
//! * **Low-frequency cue: a global shape** ([`SHAPES`]), with random position, scale, tilt and
//!   color, a soft outline and a contrast of 0.3. No perturbation of 8/255 can remove it.
//! * **High-frequency cue: a fine texture** ([`TEXTURES`]) over the whole image: stripes in three
//!   directions and two widths, dots, checks, honeycomb, grain; 0.22 to 0.36 cycles per pixel. All
//!   have the same power and random phases. Its amplitude is 10/255 by default. An L∞ adversary
//!   of size ε that adds `ε · sign` of the opposite wave takes `4/π · ε` from the wave's amplitude: with
//!   ε = 8/255 that is 10.2/255, the whole texture. A network that is to withstand ε = 8/255 must
//!   therefore turn to the shape, while nothing forces an undefended one to.
//! * **Nuisances**: smooth background variation, pixel noise, brightness and color, all alike for
//!   every class.
//!
//! In training, each cue shows the label's class with a probability of its own (`shape=0.95`,
//! `texture=0.95`), otherwise another class, independently. With equal probabilities the cues are
//! equally good advice and the network's own inclination decides; unequal ones make one cue the
//! better advice (as in Tsipras et al., "Robustness may be at odds with accuracy", 2019). By default
//! no classifier can be right in more than about 95 % of the cases.
//!
//! The test splits ([`CueSplit`]) are `iid` (as in training), `shape` (no texture), `texture` (no
//! shape) and `conflict` (shape and texture of different classes; the label is the shape's,
//! [`Dataset::texture_label`] the texture's). The splits are paired: image `i` has the same
//! position, colors, background and noise in all four, and only the cues differ. The share of
//! conflict images decided for the shape, among those decided for either, is the *shape bias*
//! (Geirhos et al. 2019).
//!
//! Images are made on the fly, depend on (seed, split, index) alone, and are rounded to bytes, so
//! that saving them loses nothing. Classes take turns: the first `n` images are balanced.

mod config;
mod shapes;
mod sheet;
mod textures;

pub use config::{CueSplit, SyntheticConfig};
pub use shapes::SHAPES;
pub use sheet::contact_sheet;
pub use textures::TEXTURES;

use std::f32::consts::TAU;

use rand::Rng;

use super::{Dataset, Image, Split, index_error};
use crate::random::{Stream, stream, tag};
use crate::{Result, files};

/// Changes whenever the same parameters would give other images.
const GENERATOR_VERSION: u32 = 1;
/// Classes, shapes and textures.
const CLASSES: u32 = 10;
/// Waves that make up the background, none faster than [`CLUTTER_CYCLES`] per image.
const CLUTTER_WAVES: usize = 4;
const CLUTTER_CYCLES: f32 = 2.5;

/// One split of the synthetic set.
#[derive(Debug, Clone)]
pub struct SyntheticDataset {
    config: SyntheticConfig,
    split: CueSplit,
    name: String,
    class_names: Vec<String>,
    fingerprint: String,
}

/// What an image shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cues {
    label: u32,
    shape: Option<u32>,
    texture: Option<u32>,
}

impl SyntheticDataset {
    /// One split under the given parameters.
    pub fn new(config: SyntheticConfig, split: CueSplit) -> Self {
        let name = format!("synthetic ({split})");
        // Which test images are asked for elsewhere does not change these.
        let relevant = SyntheticConfig { test: split, ..config.clone() };
        let content = format!("synthetic {GENERATOR_VERSION} {relevant:?}");
        let class_names = SHAPES.iter().map(|shape| shape.to_string()).collect();
        Self { config, split, name, class_names, fingerprint: files::sha256(content.as_bytes()) }
    }

    /// The training images, or the test images that the parameter `test` asks for.
    pub fn open(config: SyntheticConfig, split: Split) -> Self {
        let cues = match split {
            Split::Train => CueSplit::Train,
            Split::Test => config.test,
        };
        Self::new(config, cues)
    }

    /// The parameters.
    pub fn config(&self) -> &SyntheticConfig {
        &self.config
    }

    /// Which cues the images show.
    pub fn split(&self) -> CueSplit {
        self.split
    }

    /// Which class shape and texture are of.
    fn cues(&self, index: usize) -> Cues {
        let label = index as u32 % CLASSES;
        let rng = &mut stream(self.config.seed, &[tag("cues"), tag(self.split.name()), index as u64]);
        let mut other = |label: u32| (label + rng.random_range(1..CLASSES)) % CLASSES;
        let (other_shape, other_texture) = (other(label), other(label));
        let mut pick = |reliability: f64, other| if rng.random_bool(reliability) { label } else { other };
        let (shape, texture) = match self.split {
            CueSplit::Train | CueSplit::Iid => {
                (Some(pick(self.config.shape, other_shape)), Some(pick(self.config.texture, other_texture)))
            }
            CueSplit::Shape => (Some(label), None),
            CueSplit::Texture => (None, Some(label)),
            CueSplit::Conflict => (Some(label), Some(other_texture)),
        };
        Cues { label, shape, texture }
    }

    fn render(&self, index: usize) -> Image {
        let cues = self.cues(index);
        let config = &self.config;
        let part = if self.split == CueSplit::Train { "train" } else { "test" };
        // One stream for each ingredient: leaving one out changes none of the others.
        let rng = |ingredient: &str| stream(config.seed, &[tag(ingredient), tag(part), index as u64]);
        let mut image = Image::filled(config.size, config.size, 3, 0.0);
        let colors = Colors::random(config.contrast as f32, &mut rng("colours"));
        add_background(&mut image, colors.background, config.clutter as f32, &mut rng("clutter"));
        if let Some(class) = cues.shape {
            add_shape(&mut image, class, colors.difference(), &mut rng("shape"));
        }
        if let Some(class) = cues.texture {
            add_texture(&mut image, class, config.amplitude as f32, &mut rng("texture"));
        }
        add_noise(&mut image, config.noise as f32, &mut rng("noise"));
        Image::from_bytes(config.size, config.size, 3, &image.to_bytes())
    }
}

impl Dataset for SyntheticDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        match self.split {
            CueSplit::Train => self.config.count,
            _ => self.config.test_count,
        }
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let label = self.label(index)?;
        Ok((self.render(index), label))
    }

    fn label(&self, index: usize) -> Result<u32> {
        match index < self.len() {
            true => Ok(self.cues(index).label),
            false => Err(index_error(&self.name, index, self.len())),
        }
    }

    fn texture_label(&self, index: usize) -> Option<u32> {
        self.cues(index).texture.filter(|_| self.split == CueSplit::Conflict)
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        Some([self.config.size, self.config.size, 3])
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// A number between `low` and `high`.
fn uniform(rng: &mut Stream, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// The two colors of an image.
struct Colors {
    background: [f32; 3],
    shape: [f32; 3],
}

impl Colors {
    /// Brightness differs by `contrast` (varied by a fifth), hue is free.
    fn random(contrast: f32, rng: &mut Stream) -> Self {
        let background = uniform(rng, 0.3, 0.7);
        let step = contrast * uniform(rng, 0.8, 1.2) * if rng.random() { 1.0 } else { -1.0 };
        // Turn round where the shape would leave the middle of the range.
        let inside = (0.12..=0.88).contains(&(background + step));
        let shape = if inside { background + step } else { background - step };
        let mut tint = |brightness: f32| {
            let tint: [f32; 3] = std::array::from_fn(|_| uniform(rng, -0.1, 0.1));
            let mean = tint.iter().sum::<f32>() / 3.0;
            tint.map(|t| brightness + t - mean)
        };
        Self { background: tint(background), shape: tint(shape) }
    }

    fn difference(&self) -> [f32; 3] {
        std::array::from_fn(|channel| self.shape[channel] - self.background[channel])
    }
}

/// The background color plus a few slow waves, different in each channel.
fn add_background(image: &mut Image, color: [f32; 3], strength: f32, rng: &mut Stream) {
    let size = image.width;
    // A wave of amplitude a in one channel has power a²/2.
    let amplitude = strength * (2.0 / CLUTTER_WAVES as f32).sqrt();
    image.pixels.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&color));
    for _ in 0..CLUTTER_WAVES {
        let per_pixel = TAU / size as f32;
        let vertical = per_pixel * uniform(rng, -CLUTTER_CYCLES, CLUTTER_CYCLES);
        let horizontal = per_pixel * uniform(rng, -CLUTTER_CYCLES, CLUTTER_CYCLES);
        let phase = uniform(rng, 0.0, TAU);
        let tint: [f32; 3] = std::array::from_fn(|_| amplitude * uniform(rng, 0.5, 1.5));
        for row in 0..size {
            for column in 0..size {
                let wave = (vertical * row as f32 + horizontal * column as f32 + phase).cos();
                let offset = image.offset(row, column, 0);
                let pixel = &mut image.pixels[offset..offset + 3];
                pixel.iter_mut().zip(tint).for_each(|(p, t)| *p += wave * t);
            }
        }
    }
}

/// A shape at a random place that lies wholly in the image.
fn add_shape(image: &mut Image, class: u32, difference: [f32; 3], rng: &mut Stream) {
    let size = image.width as f32;
    let radius = size * uniform(rng, 0.2, 0.34);
    let center = [uniform(rng, radius, size - radius), uniform(rng, radius, size - radius)];
    let (sin, cos) = uniform(rng, -15.0, 15.0).to_radians().sin_cos();
    let mirror = if rng.random() { 1.0 } else { -1.0 };
    // From inside to outside in this many pixels: soft, so that the shape has no high frequencies.
    let edge = 3.0 * size / 32.0;
    for row in 0..image.height {
        for column in 0..image.width {
            let y = (row as f32 + 0.5 - center[0]) / radius;
            let x = (column as f32 + 0.5 - center[1]) / radius;
            let outside = shapes::distance(class, mirror * (cos * x + sin * y), cos * y - sin * x);
            let cover = (0.5 - outside * radius / edge).clamp(0.0, 1.0);
            let cover = cover * cover * (3.0 - 2.0 * cover);
            let offset = image.offset(row, column, 0);
            let pixel = &mut image.pixels[offset..offset + 3];
            pixel.iter_mut().zip(difference).for_each(|(p, d)| *p += cover * d);
        }
    }
}

/// A texture over the whole image, the same in all channels.
fn add_texture(image: &mut Image, class: u32, amplitude: f32, rng: &mut Stream) {
    let root_mean_square = amplitude * std::f32::consts::FRAC_1_SQRT_2 * uniform(rng, 0.85, 1.15);
    let texture = textures::render(class, image.width, rng);
    for (pixel, value) in image.pixels.chunks_exact_mut(3).zip(texture) {
        pixel.iter_mut().for_each(|p| *p += root_mean_square * value);
    }
}

/// Independent noise, close to normal: the sum of four uniform numbers.
fn add_noise(image: &mut Image, deviation: f32, rng: &mut Stream) {
    // Four numbers of 16 bits from one of 64; the variance of their sum is 4/12.
    let unit = 3.0f32.sqrt() * deviation / 65_536.0;
    for pixel in &mut image.pixels {
        let bits: u64 = rng.random();
        let sum: u32 = (0..4).map(|part| ((bits >> (16 * part)) & 0xFFFF) as u32).sum();
        *pixel += unit * (sum as f32 - 131_070.0);
    }
}

#[cfg(test)]
mod tests;
