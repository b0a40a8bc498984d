//! The corruptions: one row each. The enum, names, groups, families, help and documentation are made from this table.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::byte_image::ByteImage;
use super::constants::*;
use super::corruptor::Corruptor;
use super::elastic::elastic_transform;
use super::kinds::Severity;
use super::{blur, color, jpeg, noise, pixelate, plasma, spatter, weather, zoom};
use crate::random::Stream;
use crate::{Error, Result};

/// Which family the benchmark counts a corruption to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Noise,
    Blur,
    Weather,
    Digital,
    /// Held out for validation: the benchmark's number leaves these out.
    Extra,
}

impl Family {
    /// In the order of legends.
    pub(crate) const ALL: [Self; 5] = [Self::Noise, Self::Blur, Self::Weather, Self::Digital, Self::Extra];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Weather => "weather",
            Self::Digital => "digital",
            Self::Extra => "extra",
        }
    }

    const fn is_main(self) -> bool {
        match self {
            Self::Noise | Self::Blur | Self::Weather | Self::Digital => true,
            Self::Extra => false,
        }
    }
}

/// How much two draws of a corruption differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Draws {
    /// Nothing is random: pixels can be compared.
    Same,
    /// Randomness of single pixels, or small: mean changes agree within 5 %.
    Alike,
    /// Few large random shapes: mean changes agree within 15 %.
    Apart,
}

/// One row of the table.
struct Row {
    corruption: Corruption,
    name: &'static str,
    family: Family,
    draws: Draws,
    summary: &'static str,
    apply: fn(&Strength<'_>, &ByteImage, &mut Stream) -> Result<ByteImage>,
}

/// How strong, by whose constants.
pub(super) struct Strength<'a> {
    pub corruptor: &'a Corruptor,
    pub severity: Severity,
}

impl Strength<'_> {
    fn of<T: Copy>(&self, constants: &Table<T>) -> T {
        constants.at(self.corruptor.protocol(), self.severity)
    }
}

macro_rules! corruptions {
    ($($name:literal => $variant:ident, $family:ident, $draws:ident, $summary:literal, $apply:expr;)*) => {
        /// One of the common corruptions of Hendrycks and Dietterich (ICLR 2019).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Corruption {
            $(
                #[doc = concat!($summary, ".")]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        /// In the published order; a corruption's row has its variant's number.
        const TABLE: &[Row] = &[$(
            Row {
                corruption: Corruption::$variant,
                name: $name,
                family: Family::$family,
                draws: Draws::$draws,
                summary: $summary,
                apply: $apply,
            },
        )*];
    };
}

corruptions! {
    "gaussian_noise" => GaussianNoise, Noise, Alike, "Additive normal noise", |strength, input, random| {
        Ok(noise::gaussian_noise(input, strength.of(&GAUSSIAN_NOISE), || noise::normal(random)))
    };
    "shot_noise" => ShotNoise, Noise, Alike, "Poisson noise: the light's own grain", |strength, input, random| {
        Ok(noise::shot_noise(input, strength.of(&SHOT_NOISE), random))
    };
    "impulse_noise" => ImpulseNoise, Noise, Alike, "Salt and pepper", |strength, input, random| {
        Ok(noise::impulse_noise(input, strength.of(&IMPULSE_NOISE), random))
    };
    "defocus_blur" => DefocusBlur, Blur, Same, "Blur with a disk, as out of focus", |strength, input, _| {
        let (radius, alias_sigma) = strength.of(&DEFOCUS_BLUR);
        Ok(blur::defocus_blur(input, radius, alias_sigma))
    };
    "glass_blur" => GlassBlur, Blur, Alike, "Pixels copied from random neighbors between two Gaussian blurs",
    |strength, input, random| {
        let (sigma, step, passes) = strength.of(&GLASS_BLUR);
        Ok(blur::glass_blur(input, sigma, step, passes, random))
    };
    "motion_blur" => MotionBlur, Blur, Alike, "Half-Gaussian streak in a random direction", |strength, input, random| {
        let (radius, sigma) = strength.of(&MOTION_BLUR);
        Ok(blur::motion_blur(input, radius, sigma, random.random_range(-45.0..45.0)))
    };
    "zoom_blur" => ZoomBlur, Blur, Same, "Mean over a range of magnifications", |strength, input, _| {
        let (end, step) = strength.of(&ZOOM_BLUR);
        Ok(zoom::zoom_blur(input, end, step))
    };
    "snow" => Snow, Weather, Apart, "Streaks of snow over a whitened image", |strength, input, random| {
        Ok(weather::snow(input, strength.of(&SNOW), random))
    };
    "frost" => Frost, Weather, Apart, "Photographs of frost, added", |strength, input, random| {
        strength.corruptor.frost(input, strength.of(&FROST), random)
    };
    "fog" => Fog, Weather, Alike, "A fractal height map, added", |strength, input, random| {
        let (amount, decay) = strength.of(&FOG);
        let side = weather::fog_side(input.height, input.width);
        Ok(weather::fog(input, amount, &plasma::plasma_fractal(side, decay, random), side))
    };
    "brightness" => Brightness, Weather, Same, "Raised value in the HSV color model", |strength, input, _| {
        Ok(color::brightness(input, strength.of(&BRIGHTNESS)))
    };
    "contrast" => Contrast, Digital, Same, "Contrast reduced around the mean of each channel", |strength, input, _| {
        Ok(color::contrast(input, strength.of(&CONTRAST)))
    };
    "elastic_transform" => ElasticTransform, Digital, Alike,
    "A random affine map and a smooth random displacement field", |strength, input, random| {
        let constants = strength.of(&ELASTIC_TRANSFORM);
        Ok(elastic_transform(input, strength.corruptor.elastic(input, constants), random))
    };
    "pixelate" => Pixelate, Digital, Same, "Box down- and upsampling", |strength, input, _| {
        Ok(pixelate::pixelate(input, strength.of(&PIXELATE)))
    };
    "jpeg_compression" => JpegCompression, Digital, Same, "JPEG compression with 4:2:0 chroma", |strength, input, _| {
        Ok(jpeg::jpeg_compression(input, strength.of(&JPEG_COMPRESSION)))
    };
    "speckle_noise" => SpeckleNoise, Extra, Alike, "Multiplicative normal noise", |strength, input, random| {
        Ok(noise::speckle_noise(input, strength.of(&SPECKLE_NOISE), || noise::normal(random)))
    };
    "gaussian_blur" => GaussianBlur, Extra, Same, "Gaussian blur", |strength, input, _| {
        Ok(blur::gaussian_blur(input, strength.of(&GAUSSIAN_BLUR)))
    };
    "spatter" => Spatter, Extra, Apart, "Drops of water or mud", |strength, input, random| {
        Ok(spatter::spatter(input, strength.of(&SPATTER), random))
    };
    "saturate" => Saturate, Extra, Same, "Changed saturation in the HSV color model", |strength, input, _| {
        let (factor, offset) = strength.of(&SATURATE);
        Ok(color::saturate(input, factor, offset))
    };
}

/// Names of groups in lists of corruptions.
const GROUPS: [&str; 3] = ["main", "extra", "all"];

const fn count(main: bool) -> usize {
    let (mut row, mut count) = (0, 0);
    while row < TABLE.len() {
        count += (TABLE[row].family.is_main() == main) as usize;
        row += 1;
    }
    count
}

const fn group<const N: usize>(main: bool) -> [Corruption; N] {
    let mut list = [TABLE[0].corruption; N];
    let (mut row, mut found) = (0, 0);
    while row < TABLE.len() {
        if TABLE[row].family.is_main() == main {
            list[found] = TABLE[row].corruption;
            found += 1;
        }
        row += 1;
    }
    list
}

impl Corruption {
    /// Those whose mean is the benchmark's number, in the published order.
    pub const MAIN: [Self; count(true)] = group(true);

    /// Those held out for validation.
    pub const EXTRA: [Self; count(false)] = group(false);

    /// How many there are.
    pub const COUNT: usize = TABLE.len();

    /// All of them, main ones first.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::MAIN.into_iter().chain(Self::EXTRA)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The published name, which is also the file name: `gaussian_noise`, …
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it does, in a few words.
    pub fn summary(self) -> &'static str {
        self.row().summary
    }

    /// Which family the benchmark counts it to: `noise`, `blur`, `weather`, `digital` or `extra`.
    pub fn family(self) -> &'static str {
        self.row().family.name()
    }

    /// Whether the result depends on nothing but the image, so that it can be compared with a published file.
    pub fn is_deterministic(self) -> bool {
        self.draws() == Draws::Same
    }

    pub(crate) fn draws(self) -> Draws {
        self.row().draws
    }

    pub(super) fn apply(
        self,
        strength: &Strength<'_>,
        input: &ByteImage,
        random: &mut Stream,
    ) -> Result<ByteImage> {
        (self.row().apply)(strength, input, random)
    }

    /// Corruptions from names, `all`, `main` or `extra`, in order and without repetition.
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

    /// The groups that stand for several names, with their sizes.
    pub fn groups() -> String {
        format!("main ({}), extra ({}) or all ({})", Self::MAIN.len(), Self::EXTRA.len(), Self::COUNT)
    }

    /// One line per corruption: its name, family and what it does.
    pub fn help() -> String {
        let line = |c: Self| format!("  {:<17} {:<7} {}", c.name(), c.family(), c.summary());
        Self::all().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The corruptions as a Markdown table, as docs/corruptions.md has it.
    pub fn documentation() -> String {
        let line = |c: Self| format!("| `{}` | {} | {} |\n", c.name(), c.family(), c.summary());
        std::iter::once("| name | family | what |\n|---|---|---|\n".to_owned())
            .chain(Self::all().map(line))
            .collect()
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
            let known: Vec<_> = Self::all().map(Self::name).chain(GROUPS).collect();
            crate::suggest::unknown("corruption", name, &known)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corruption_has_its_own_row_and_name() {
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!(row.corruption as usize, number);
            assert_eq!(row.name.parse::<Corruption>().unwrap(), row.corruption);
            assert_eq!(serde_json::to_value(row.corruption).unwrap(), row.name);
            assert!(Family::ALL.contains(&row.family));
        }
        // The benchmark of Hendrycks and Dietterich: results are compared by the means over these.
        assert_eq!([Corruption::MAIN.len(), Corruption::EXTRA.len(), Corruption::COUNT], [15, 4, 19]);
        assert_eq!(Corruption::all().count(), Corruption::COUNT);
    }

    #[test]
    fn misspelt_names_get_a_hint() {
        let message = "gausian-noise".parse::<Corruption>().unwrap_err().to_string();
        assert!(message.contains("did you mean `gaussian_noise`"), "{message}");
        let known = |group: &&str| Corruption::parse_list(&[group]).is_ok_and(|list| list.len() > 1);
        assert!(GROUPS.iter().all(known));
    }

    #[test]
    fn the_documentation_lists_every_corruption() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/corruptions.md");
        let text = std::fs::read_to_string(&path).unwrap();
        let table = Corruption::documentation();
        assert!(text.contains(&table), "docs/corruptions.md should have this table:\n{table}");
    }
}
