//! The parameters of the synthetic set, and how they are written on the command line.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which cues an image shows, and whether they agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CueSplit {
    /// Training images.
    Train,
    /// Test images of the training distribution.
    Iid,
    /// Only the shape; no texture.
    Shape,
    /// Only the texture; no shape.
    Texture,
    /// The shape of one class, the texture of another; the label is the shape's.
    Conflict,
}

impl CueSplit {
    /// The test splits, in the order of reports.
    pub const TEST: [Self; 4] = [Self::Iid, Self::Shape, Self::Texture, Self::Conflict];

    /// The name used in specifications and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Iid => "iid",
            Self::Shape => "shape",
            Self::Texture => "texture",
            Self::Conflict => "conflict",
        }
    }
}

impl fmt::Display for CueSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The parameters of the synthetic set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyntheticConfig {
    /// Probability that the shape is the label's (otherwise it is another class's).
    pub shape: f64,
    /// Probability that the texture is the label's.
    pub texture: f64,
    /// The texture's amplitude: that of one plane wave of the same power, in pixel units.
    pub amplitude: f64,
    /// Difference of brightness between shape and background, in pixel units.
    pub contrast: f64,
    /// Root mean square of the smooth background variation, in pixel units.
    pub clutter: f64,
    /// Standard deviation of the pixel noise, in pixel units.
    pub noise: f64,
    /// Height and width in pixels. Shapes grow with it, textures keep their period.
    pub size: usize,
    /// Training images.
    pub count: usize,
    /// Test images, the same number in every test split.
    pub test_count: usize,
    /// The kind of test images that [`Split::Test`](crate::data::Split::Test) opens.
    pub test: CueSplit,
    /// Of everything random.
    pub seed: u64,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self {
            shape: 0.95,
            texture: 0.95,
            amplitude: 10.0 / 255.0,
            contrast: 0.3,
            clutter: 0.04,
            noise: 4.0 / 255.0,
            size: 32,
            count: 10_000,
            test_count: 2_000,
            test: CueSplit::Iid,
            seed: 0,
        }
    }
}

impl SyntheticConfig {
    /// The keys that [`SyntheticConfig::set`] knows.
    pub const KEYS: [&str; 11] = [
        "shape",
        "texture",
        "amplitude",
        "contrast",
        "clutter",
        "noise",
        "size",
        "count",
        "test_count",
        "test",
        "seed",
    ];

    /// The parameters that differ from the default, as `(key, text)`.
    pub fn options(&self) -> Vec<(String, String)> {
        let text = |config: &Self| -> [String; 11] {
            [
                config.shape.to_string(),
                config.texture.to_string(),
                config.amplitude.to_string(),
                config.contrast.to_string(),
                config.clutter.to_string(),
                config.noise.to_string(),
                config.size.to_string(),
                config.count.to_string(),
                config.test_count.to_string(),
                config.test.to_string(),
                config.seed.to_string(),
            ]
        };
        let pairs = Self::KEYS.into_iter().zip(text(self)).zip(text(&Self::default()));
        pairs.filter(|((_, own), default)| own != default).map(|((k, v), _)| (k.to_owned(), v)).collect()
    }

    /// Sets one parameter from its text, as in `synthetic:shape=0.9,amplitude=8/255`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let bad = |expected: &str| {
            Error::config(format!("synthetic: {key}={value} is not valid; expected {expected}"))
        };
        let share = |low: f64, high: f64| {
            let expected = format!("a number between {low} and {high}");
            fraction(value).filter(|v| (low..=high).contains(v)).ok_or_else(|| bad(&expected))
        };
        let whole = |low: usize, high: usize| {
            let expected = format!("a whole number between {low} and {high}");
            value.parse().ok().filter(|v| (low..=high).contains(v)).ok_or_else(|| bad(&expected))
        };
        match key {
            "shape" => self.shape = share(0.0, 1.0)?,
            "texture" => self.texture = share(0.0, 1.0)?,
            "amplitude" => self.amplitude = share(0.0, 0.5)?,
            "contrast" => self.contrast = share(0.0, 0.5)?,
            "clutter" => self.clutter = share(0.0, 0.5)?,
            "noise" => self.noise = share(0.0, 0.5)?,
            "size" => self.size = whole(8, 1024)?,
            "count" => self.count = whole(1, 100_000_000)?,
            "test_count" => self.test_count = whole(1, 100_000_000)?,
            "seed" => self.seed = value.parse().map_err(|_| bad("a whole number"))?,
            "test" => {
                let named = CueSplit::TEST.into_iter().find(|split| split.name() == value);
                self.test = named.ok_or_else(|| bad("iid, shape, texture or conflict"))?;
            }
            _ => return Err(super::super::spec::unknown("synthetic: key", key, &Self::KEYS)),
        }
        Ok(())
    }
}

/// A number, or two with a slash between them (`8/255`).
fn fraction(text: &str) -> Option<f64> {
    let value = match text.split_once('/') {
        Some((above, below)) => above.trim().parse::<f64>().ok()? / below.trim().parse::<f64>().ok()?,
        None => text.trim().parse().ok()?,
    };
    value.is_finite().then_some(value)
}
