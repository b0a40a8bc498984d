//! Random changes of training images: pure functions of an image and a random stream.
//!
//! In a recipe, augmentation is a list, applied in order:
//! `augment = [{ random_crop = { padding = 4 } }, "horizontal_flip"]`.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Image, limits};
use crate::random::Stream;
use crate::{Error, Result};

/// One step of augmentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Augment {
    /// Pads with black on all sides, then cuts out a random window.
    RandomCrop {
        /// Added on each side, in pixels (4 for CIFAR).
        #[serde(default)]
        padding: usize,
        /// Height and width of the window, in pixels; those of the image if not given. What a smaller image does
        /// not cover is black.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<usize>,
    },
    /// Mirrors left to right, half of the time.
    HorizontalFlip,
    /// Mirrors top to bottom, half of the time.
    VerticalFlip,
    /// A random part of the image, resized (torchvision's `RandomResizedCrop`, bilinear).
    RandomResizedCrop {
        /// Height and width of the result, in pixels.
        size: usize,
        /// The part's share of the image's area, from and to.
        #[serde(default = "default_scale")]
        scale: (f64, f64),
        /// The part's width over height, from and to.
        #[serde(default = "default_ratio")]
        ratio: (f64, f64),
    },
    /// The middle of the image.
    CenterCrop {
        /// Height and width of the result, in pixels.
        size: usize,
    },
    /// Shorter side brought to a length, proportions kept.
    Resize {
        /// The new shorter side, in pixels.
        size: usize,
    },
    /// Random rotation, shift and scale about the center, bilinear, black outside
    /// (torchvision's `RandomAffine`).
    Affine {
        /// Largest rotation either way, in degrees.
        #[serde(default)]
        degrees: f64,
        /// Largest shift either way, as a share of width and height.
        #[serde(default)]
        translate: f64,
        /// Smallest and largest scale.
        #[serde(default = "unit_range")]
        scale: (f64, f64),
    },
}

fn default_scale() -> (f64, f64) {
    (0.08, 1.0)
}

fn default_ratio() -> (f64, f64) {
    (3.0 / 4.0, 4.0 / 3.0)
}

fn unit_range() -> (f64, f64) {
    (1.0, 1.0)
}

impl Augment {
    /// The usual CIFAR augmentation: crop with 4 pixels of padding, flip.
    pub fn standard() -> Vec<Self> {
        vec![Self::RandomCrop { padding: 4, size: None }, Self::HorizontalFlip]
    }

    /// Checks the numbers, so that nothing can go wrong later.
    pub fn validate(&self) -> Result<()> {
        let range = |name: &str, (low, high): (f64, f64)| {
            if low.is_finite() && high.is_finite() && low > 0.0 && low <= high {
                return Ok(());
            }
            Err(Error::config(format!(
                "augment: {name} must be two positive numbers in order, not {low}, {high}"
            )))
        };
        let length = |name: &str, size: usize| match size {
            1..=10_000 => Ok(()),
            _ => Err(Error::config(format!("augment: {name} must lie between 1 and 10000, not {size}"))),
        };
        match *self {
            Self::HorizontalFlip | Self::VerticalFlip => Ok(()),
            Self::RandomCrop { padding, size } => {
                length("padding", padding.saturating_add(1))?;
                length("size", size.unwrap_or(1))
            }
            Self::CenterCrop { size } | Self::Resize { size } => length("size", size),
            Self::RandomResizedCrop { size, scale, ratio } => {
                length("size", size)?;
                range("scale", scale)?;
                range("ratio", ratio)
            }
            Self::Affine { degrees, translate, scale } => {
                range("scale", scale)?;
                if degrees.is_finite() && degrees >= 0.0 && (0.0..=1.0).contains(&translate) {
                    return Ok(());
                }
                Err(Error::config("augment: affine needs degrees ≥ 0 and translate between 0 and 1"))
            }
        }
    }

    /// The shape `[height, width, channels]` that an image of this shape is brought to.
    fn output_shape(&self, [height, width, channels]: [usize; 3]) -> [usize; 3] {
        match *self {
            Self::RandomCrop { size: Some(size), .. }
            | Self::CenterCrop { size }
            | Self::RandomResizedCrop { size, .. } => [size, size, channels],
            Self::Resize { size } => {
                let [height, width] = Image::shorter_side_scaled([height, width], size);
                [height, width, channels]
            }
            Self::RandomCrop { size: None, .. }
            | Self::HorizontalFlip
            | Self::VerticalFlip
            | Self::Affine { .. } => [height, width, channels],
        }
    }

    /// As in a recipe.
    fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The changed image; draws from `rng` what it needs.
    pub fn apply(&self, image: Image, rng: &mut Stream) -> Image {
        match *self {
            Self::RandomCrop { padding, size } => {
                let (height, width) = (size.unwrap_or(image.height), size.unwrap_or(image.width));
                let mut start = |have: usize, want: usize| {
                    rng.random_range(0..=(have + 2 * padding).saturating_sub(want)) as isize
                        - padding as isize
                };
                let (top, left) = (start(image.height, height), start(image.width, width));
                image.crop(top, left, height, width)
            }
            Self::HorizontalFlip => match rng.random::<bool>() {
                true => image.flipped(),
                false => image,
            },
            Self::VerticalFlip => match rng.random::<bool>() {
                true => image.upside_down(),
                false => image,
            },
            Self::RandomResizedCrop { size, scale, ratio } => {
                let (top, left, height, width) = random_part(&image, scale, ratio, rng);
                image.crop(top as isize, left as isize, height, width).resized(size, size)
            }
            Self::CenterCrop { size } => image.center_crop(size, size),
            Self::Resize { size } => image.shorter_side_resized(size),
            Self::Affine { degrees, translate, scale } => {
                let angle = uniform(rng, -degrees, degrees).to_radians();
                let right = uniform(rng, -translate, translate) * image.width as f64;
                let down = uniform(rng, -translate, translate) * image.height as f64;
                affine(&image, angle, [down.round(), right.round()], uniform(rng, scale.0, scale.1))
            }
        }
    }
}

/// Applies all steps in order.
pub fn apply_all(steps: &[Augment], image: Image, rng: &mut Stream) -> Image {
    steps.iter().fold(image, |image, step| step.apply(image, rng))
}

/// Refuses steps that would make images of this shape, or batches of them, larger than memory.
///
/// # Errors
/// [`Error::Config`] naming the step, the size and the limit ([`limits::MAX_BATCH_BYTES`]).
pub(super) fn check_memory(steps: &[Augment], shape: [usize; 3], batch: usize) -> Result<()> {
    let mut shape = shape;
    for step in steps {
        shape = step.output_shape(shape);
        limits::check_batch(&format!("data.augment={}", step.text()), 1, shape, "choose a smaller size")?;
    }
    let what = steps.iter().map(Augment::text).collect::<Vec<_>>().join(", ");
    let what = if what.is_empty() { "batch_size".into() } else { format!("data.augment={what}") };
    limits::check_batch(&what, batch, shape, "choose a smaller batch_size or size")
}

fn uniform(rng: &mut Stream, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// `(top, left, height, width)` as torchvision draws them: ten attempts, then the largest part in
/// the middle whose proportions are allowed.
fn random_part(
    image: &Image,
    scale: (f64, f64),
    ratio: (f64, f64),
    rng: &mut Stream,
) -> (usize, usize, usize, usize) {
    let (full_height, full_width) = (image.height, image.width);
    let area = (full_height * full_width) as f64;
    for _ in 0..10 {
        let target = area * uniform(rng, scale.0, scale.1);
        let proportion = uniform(rng, ratio.0.ln(), ratio.1.ln()).exp();
        let width = (target * proportion).sqrt().round() as usize;
        let height = (target / proportion).sqrt().round() as usize;
        if (1..=full_width).contains(&width) && (1..=full_height).contains(&height) {
            let top = rng.random_range(0..=full_height - height);
            let left = rng.random_range(0..=full_width - width);
            return (top, left, height, width);
        }
    }
    let whole = full_width as f64 / full_height as f64;
    let (mut height, mut width) = (full_height, full_width);
    if whole < ratio.0 {
        height = ((full_width as f64 / ratio.0).round() as usize).clamp(1, full_height);
    } else if whole > ratio.1 {
        width = ((full_height as f64 * ratio.1).round() as usize).clamp(1, full_width);
    }
    ((full_height - height) / 2, (full_width - width) / 2, height, width)
}

/// Rotates by `angle` (counter-clockwise), scales and shifts by `[down, right]` pixels.
fn affine(image: &Image, angle: f64, [down, right]: [f64; 2], scale: f64) -> Image {
    let (sin, cos) = angle.sin_cos();
    let middle = [(image.height as f64 - 1.0) / 2.0, (image.width as f64 - 1.0) / 2.0];
    let mut result = Image::filled(image.height, image.width, image.channels, 0.0);
    for row in 0..image.height {
        for column in 0..image.width {
            let y = row as f64 - middle[0] - down;
            let x = column as f64 - middle[1] - right;
            let source_row = (cos * y + sin * x) / scale + middle[0];
            let source_column = (cos * x - sin * y) / scale + middle[1];
            let target = result.offset(row, column, 0);
            let pixel = &mut result.pixels[target..target + image.channels];
            sample_bilinear(image, source_row, source_column, pixel);
        }
    }
    result
}

/// The image between its pixels; black outside.
fn sample_bilinear(image: &Image, row: f64, column: f64, pixel: &mut [f32]) {
    let (top, left) = (row.floor(), column.floor());
    for (y, row_weight) in [(top, 1.0 - (row - top)), (top + 1.0, row - top)] {
        for (x, column_weight) in [(left, 1.0 - (column - left)), (left + 1.0, column - left)] {
            let inside = y >= 0.0 && x >= 0.0 && y < image.height as f64 && x < image.width as f64;
            if inside {
                let source = image.offset(y as usize, x as usize, 0);
                let weight = (row_weight * column_weight) as f32;
                pixel.iter_mut().zip(&image.pixels[source..]).for_each(|(p, s)| *p += weight * s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;
    use proptest::prelude::*;

    fn ramp(height: usize, width: usize) -> Image {
        let bytes: Vec<u8> = (0..height * width * 3).map(|i| (i * 7 % 251) as u8).collect();
        Image::from_bytes(height, width, 3, &bytes)
    }

    #[test]
    fn recipes_spell_it_as_documented() {
        #[derive(Deserialize)]
        struct Recipe {
            augment: Vec<Augment>,
        }
        let text = r#"augment = [{ random_crop = { padding = 4 } }, "horizontal_flip"]"#;
        assert_eq!(toml::from_str::<Recipe>(text).unwrap().augment, Augment::standard());
        let text = r#"augment = [{ random_crop = { pading = 4 } }]"#;
        assert!(toml::from_str::<Recipe>(text).is_err());
        let text = r#"augment = [{ random_resized_crop = { size = 8 } }]"#;
        let crop = toml::from_str::<Recipe>(text).unwrap().augment.remove(0);
        assert_eq!(
            crop,
            Augment::RandomResizedCrop { size: 8, scale: (0.08, 1.0), ratio: (0.75, 4.0 / 3.0) }
        );
    }

    #[test]
    fn random_crop_reaches_every_shift_and_nothing_else() {
        // One bright pixel shows where the window lay.
        let mut image = Image::filled(5, 5, 1, 0.0);
        image.pixels[12] = 1.0;
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..200 {
            let crop =
                Augment::RandomCrop { padding: 1, size: None }.apply(image.clone(), &mut stream(0, &[index]));
            seen.insert(crop.pixels.iter().position(|&p| p == 1.0).unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [6, 7, 8, 11, 12, 13, 16, 17, 18]);
    }

    /// torchvision's `RandomCrop(4)`: every window inside the image, along the longer side and the shorter.
    #[test]
    fn random_crop_of_a_given_size() {
        let crop = Augment::RandomCrop { padding: 0, size: Some(4) };
        let image = ramp(4, 6);
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..50 {
            let window = crop.apply(image.clone(), &mut stream(0, &[index]));
            let left = (0..3).find(|&left| window == image.crop(0, left, 4, 4));
            seen.insert(left.expect("the window lies inside the image"));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(crop.apply(ramp(2, 3), &mut stream(0, &[])).shape(), [4, 4, 3]);
    }

    #[test]
    fn flips_mirror_along_their_axis_half_of_the_time() {
        let image = ramp(3, 2);
        for (flip, mirrored) in [
            (Augment::HorizontalFlip, image.clone().flipped()),
            (Augment::VerticalFlip, image.clone().upside_down()),
        ] {
            assert_ne!(mirrored, image);
            let results = (0..200).map(|index| flip.apply(image.clone(), &mut stream(0, &[index])));
            let (same, other): (Vec<_>, Vec<_>) = results.partition(|result| *result == image);
            assert!(other.iter().all(|result| *result == mirrored));
            assert!(same.len() > 60 && other.len() > 60, "{}", same.len());
        }
        assert_eq!(image.clone().upside_down().pixels[..6], image.pixels[12..]);
    }

    #[test]
    fn affine_by_nothing_is_nothing_and_a_quarter_turn_moves_corners() {
        let image = ramp(6, 6);
        assert_eq!(affine(&image, 0.0, [0.0, 0.0], 1.0), image);
        let turned = affine(&image, std::f64::consts::FRAC_PI_2, [0.0, 0.0], 1.0);
        let (from, to) = (image.offset(0, 5, 0), turned.offset(0, 0, 0));
        assert!((turned.pixels[to] - image.pixels[from]).abs() < 1e-4);
        let shifted = affine(&image, 0.0, [2.0, 0.0], 1.0);
        assert_eq!(shifted, image.crop(-2, 0, 6, 6));
    }

    proptest! {
        #[test]
        fn every_step_keeps_pixels_in_range(height in 1usize..20, width in 1usize..20, seed: u64) {
            let steps = [
                Augment::RandomCrop { padding: 3, size: None },
                Augment::RandomCrop { padding: 0, size: Some(11) },
                Augment::HorizontalFlip,
                Augment::VerticalFlip,
                Augment::RandomResizedCrop { size: 8, scale: (0.08, 1.0), ratio: default_ratio() },
                Augment::CenterCrop { size: 7 },
                Augment::Resize { size: 9 },
                Augment::Affine { degrees: 30.0, translate: 0.2, scale: (0.8, 1.2) },
            ];
            for step in steps {
                step.validate().unwrap();
                let image = step.apply(ramp(height, width), &mut stream(seed, &[]));
                prop_assert_eq!(image.shape(), step.output_shape([height, width, 3]));
                prop_assert_eq!(image.pixels.len(), image.height * image.width * image.channels);
                prop_assert!(image.pixels.iter().all(|p| (-1e-5..=1.00001).contains(p)));
            }
        }
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for step in [
            Augment::Resize { size: 0 },
            Augment::RandomResizedCrop { size: 8, scale: (1.0, 0.5), ratio: default_ratio() },
            Augment::Affine { degrees: f64::NAN, translate: 0.0, scale: (1.0, 1.0) },
        ] {
            assert!(step.validate().is_err(), "{step:?}");
        }
    }
}
