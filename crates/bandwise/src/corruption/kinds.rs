//! Names: which corruption, how severe, by whose constants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One of the common corruptions of Hendrycks and Dietterich (ICLR 2019).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corruption {
    /// Additive normal noise.
    GaussianNoise,
    /// Poisson noise: the light's own grain.
    ShotNoise,
    /// Salt and pepper.
    ImpulseNoise,
    /// Blur with a disk, as out of focus.
    DefocusBlur,
    /// Pixels copied from random neighbors between two Gaussian blurs.
    GlassBlur,
    /// Half-Gaussian streak in a random direction.
    MotionBlur,
    /// Mean over a range of magnifications.
    ZoomBlur,
    /// Streaks of snow over a whitened image.
    Snow,
    /// Photographs of frost, added.
    Frost,
    /// A fractal height map, added.
    Fog,
    /// Raised value in the HSV color model.
    Brightness,
    /// Contrast reduced around the mean of each channel.
    Contrast,
    /// A random affine map and a smooth random displacement field.
    ElasticTransform,
    /// Box down- and upsampling.
    Pixelate,
    /// JPEG compression with 4:2:0 chroma.
    JpegCompression,
    /// Multiplicative normal noise (extra).
    SpeckleNoise,
    /// Gaussian blur (extra).
    GaussianBlur,
    /// Drops of water or mud (extra).
    Spatter,
    /// Changed saturation in the HSV color model (extra).
    Saturate,
}

impl Corruption {
    /// The fifteen whose mean is the benchmark's number, in the published order.
    pub const MAIN: [Self; 15] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Frost,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::ElasticTransform,
        Self::Pixelate,
        Self::JpegCompression,
    ];

    /// The four held out for validation.
    pub const EXTRA: [Self; 4] = [Self::SpeckleNoise, Self::GaussianBlur, Self::Spatter, Self::Saturate];

    /// All nineteen, main ones first.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::MAIN.into_iter().chain(Self::EXTRA)
    }

    /// The published name, which is also the file name: `gaussian_noise`, …
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian_noise",
            Self::ShotNoise => "shot_noise",
            Self::ImpulseNoise => "impulse_noise",
            Self::DefocusBlur => "defocus_blur",
            Self::GlassBlur => "glass_blur",
            Self::MotionBlur => "motion_blur",
            Self::ZoomBlur => "zoom_blur",
            Self::Snow => "snow",
            Self::Frost => "frost",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::ElasticTransform => "elastic_transform",
            Self::Pixelate => "pixelate",
            Self::JpegCompression => "jpeg_compression",
            Self::SpeckleNoise => "speckle_noise",
            Self::GaussianBlur => "gaussian_blur",
            Self::Spatter => "spatter",
            Self::Saturate => "saturate",
        }
    }

    /// Which family the benchmark counts it to: `noise`, `blur`, `weather`, `digital` or `extra`.
    pub fn family(self) -> &'static str {
        match self {
            Self::GaussianNoise | Self::ShotNoise | Self::ImpulseNoise => "noise",
            Self::DefocusBlur | Self::GlassBlur | Self::MotionBlur | Self::ZoomBlur => "blur",
            Self::Snow | Self::Frost | Self::Fog | Self::Brightness => "weather",
            Self::Contrast | Self::ElasticTransform | Self::Pixelate | Self::JpegCompression => "digital",
            Self::SpeckleNoise | Self::GaussianBlur | Self::Spatter | Self::Saturate => "extra",
        }
    }

    /// Whether the result depends on nothing but the image, so that it can be compared with a published file.
    pub fn is_deterministic(self) -> bool {
        matches!(
            self,
            Self::DefocusBlur
                | Self::ZoomBlur
                | Self::Brightness
                | Self::Contrast
                | Self::Pixelate
                | Self::JpegCompression
                | Self::GaussianBlur
                | Self::Saturate
        )
    }

    /// Corruptions from names, `all` (nineteen), `main` (fifteen) or `extra` (four), in order and without repetition.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name.
    pub fn parse_list<S: AsRef<str>>(names: &[S]) -> Result<Vec<Self>> {
        let mut list = Vec::new();
        for name in names {
            let group: Vec<Self> = match name.as_ref() {
                "all" => Self::all().collect(),
                "main" => Self::MAIN.to_vec(),
                "extra" => Self::EXTRA.to_vec(),
                name => vec![name.parse()?],
            };
            group.into_iter().for_each(|corruption| {
                if !list.contains(&corruption) {
                    list.push(corruption);
                }
            });
        }
        Ok(list)
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Corruption {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let wanted = name.trim().to_ascii_lowercase().replace([' ', '-'], "_");
        Self::all().find(|corruption| corruption.name() == wanted).ok_or_else(|| {
            let known: Vec<_> = Self::all().map(Self::name).chain(["all", "main", "extra"]).collect();
            crate::suggest::unknown("corruption", name, &known)
        })
    }
}

/// How strong: 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Severity(u8);

impl Severity {
    /// A severity of 1 to 5.
    ///
    /// # Errors
    /// [`Error::Config`] outside that range.
    pub fn new(level: u8) -> Result<Self> {
        if (1..=5).contains(&level) {
            Ok(Self(level))
        } else {
            Err(Error::config(format!("a severity is 1, 2, 3, 4 or 5, got {level}")))
        }
    }

    /// 1, 2, 3, 4, 5.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=5).map(Self)
    }

    /// The number, 1 to 5.
    pub fn level(self) -> u8 {
        self.0
    }

    /// Position in a table of five.
    pub(super) fn index(self) -> usize {
        usize::from(self.0) - 1
    }

    /// Severities from texts such as `3`, `1-5` or `1,3,5`.
    ///
    /// # Errors
    /// [`Error::Config`] for anything else.
    pub fn parse_list(text: &str) -> Result<Vec<Self>> {
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (Self, Self) = (first.parse()?, last.parse()?);
            list.extend((first.0..=last.0).map(Self));
        }
        list.sort_unstable();
        list.dedup();
        if list.is_empty() {
            return Err(Error::config(format!("`{text}` names no severity; write for instance 1-5")));
        }
        Ok(list)
    }
}

impl TryFrom<u8> for Severity {
    type Error = Error;

    fn try_from(level: u8) -> Result<Self> {
        Self::new(level)
    }
}

impl From<Severity> for u8 {
    fn from(severity: Severity) -> Self {
        severity.0
    }
}

impl FromStr for Severity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let level = text.trim().parse().map_err(|_| {
            Error::config(format!("a severity is 1, 2, 3, 4 or 5 (or a range such as 1-5), got `{text}`"))
        })?;
        Self::new(level)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose constants: the published sets use three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// CIFAR-10-C and CIFAR-100-C, made for 32 pixels.
    #[serde(rename = "cifar")]
    Cifar,
    /// TinyImageNet-C and ImageNet-64x64-C, made for 64 pixels.
    #[serde(rename = "64")]
    Side64,
    /// ImageNet-C, made for 224 pixels.
    #[serde(rename = "224")]
    Side224,
}

impl Protocol {
    /// The image side the constants were made for, in pixels.
    pub fn side(self) -> usize {
        match self {
            Self::Cifar => 32,
            Self::Side64 => 64,
            Self::Side224 => 224,
        }
    }

    /// The protocol made for the size nearest to `height × width`.
    pub fn for_size(height: usize, width: usize) -> Self {
        match height.min(width) {
            0..48 => Self::Cifar,
            48..128 => Self::Side64,
            _ => Self::Side224,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cifar => "cifar",
            Self::Side64 => "64",
            Self::Side224 => "224",
        })
    }
}

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "cifar" | "32" => Ok(Self::Cifar),
            "64" | "tiny" => Ok(Self::Side64),
            "224" | "imagenet" => Ok(Self::Side224),
            _ => Err(Error::config(format!(
                "no corruption protocol is called `{text}`; choose cifar, 64 or 224"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for corruption in Corruption::all() {
            assert_eq!(corruption.name().parse::<Corruption>().unwrap(), corruption);
            assert_eq!(serde_json::to_value(corruption).unwrap(), corruption.name());
        }
        assert_eq!(Corruption::all().count(), 19);
        for protocol in [Protocol::Cifar, Protocol::Side64, Protocol::Side224] {
            assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
            assert_eq!(Protocol::for_size(protocol.side(), protocol.side()), protocol);
        }
    }

    #[test]
    fn misspelt_names_get_a_hint() {
        let message = "gausian-noise".parse::<Corruption>().unwrap_err().to_string();
        assert!(message.contains("did you mean `gaussian_noise`"), "{message}");
        assert!("6".parse::<Severity>().is_err());
        assert!(Severity::parse_list("2-").is_err());
    }

    #[test]
    fn lists() {
        assert_eq!(Corruption::parse_list(&["fog", "main"]).unwrap().len(), 15);
        let levels: Vec<u8> =
            Severity::parse_list("1,3-5").unwrap().into_iter().map(Severity::level).collect();
        assert_eq!(levels, [1, 3, 4, 5]);
    }
}
