//! The data set named on the command line: `NAME:LOCATION,key=value,…`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use super::formats::Request;
pub use super::formats::{FORMATS, Format};
use super::synthetic::{CueSplit, SyntheticConfig, SyntheticDataset};
use super::{Dataset, Gray, Remapped, Resized, Subset, limits};
pub(crate) use crate::suggest::unknown;
use crate::{Error, Result};

/// Training or test images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The images to train on.
    Train,
    /// The images to evaluate on (a validation split, where no test labels are published).
    Test,
}

impl Split {
    /// The name used in messages: `train` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Options that every data set takes, with their meaning.
pub const COMMON_OPTIONS: [(&str, &str); 10] = [
    ("size", "bring all images to N×N: shorter side resized, middle cut out"),
    ("resize", "with size: length of the shorter side before the middle is cut out (default: size)"),
    (
        "size_of",
        "with size: all (default), or test: training images then stay as they are, for a random crop",
    ),
    ("fit", "with size: crop (default), or stretch: both sides brought to N, whatever the proportions"),
    ("classes", "only the images of these classes, a|b|c, which become 0, 1, 2"),
    ("map", "a text file with lines `own class, model class`"),
    ("limit", "only the first N images"),
    ("fraction", "a random share of the images, 0 to 1"),
    ("subset_seed", "which random share (default 0)"),
    ("gray", "true: one channel instead of red, green and blue"),
];

/// Where the images come from.
#[derive(Debug, Clone, PartialEq)]
enum Source {
    Files { format: &'static Format, path: PathBuf },
    Synthetic(Box<SyntheticConfig>),
}

/// A data set as named on the command line and in recipes; [`DataSpec::open`] gives the images.
///
/// Text form: `cifar10:DIR`, `imagefolder:DIR,size=64`, `synthetic`, `synthetic:texture=1.0,limit=500`.
/// A location may contain commas, unless what follows looks like `key=value`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DataSpec {
    source: Source,
    size: Option<usize>,
    resize: Option<usize>,
    /// Whether training images keep their size.
    train_whole: bool,
    /// Whether images are stretched to their size instead of cut.
    stretch: bool,
    classes: Option<String>,
    map: Option<PathBuf>,
    limit: Option<usize>,
    fraction: Option<f64>,
    subset_seed: u64,
    gray: bool,
    /// As written, in order, for display.
    options: Vec<(String, String)>,
}

impl Default for DataSpec {
    /// The built-in synthetic set.
    fn default() -> Self {
        Self::synthetic(SyntheticConfig::default())
    }
}

impl DataSpec {
    /// The synthetic set with these parameters.
    pub fn synthetic(config: SyntheticConfig) -> Self {
        let options = config.options();
        Self { options, ..Self::from_source(Source::Synthetic(Box::new(config))) }
    }

    fn from_source(source: Source) -> Self {
        Self {
            source,
            size: None,
            resize: None,
            train_whole: false,
            stretch: false,
            classes: None,
            map: None,
            limit: None,
            fraction: None,
            subset_seed: 0,
            gray: false,
            options: Vec::new(),
        }
    }

    /// The parameters of the synthetic set, if it is that.
    pub fn synthetic_config(&self) -> Option<&SyntheticConfig> {
        match &self.source {
            Source::Synthetic(config) => Some(config),
            Source::Files { .. } => None,
        }
    }

    /// The folder or file of the images; `None` for the synthetic set.
    pub fn location(&self) -> Option<&Path> {
        match &self.source {
            Source::Files { path, .. } => Some(path),
            Source::Synthetic(_) => None,
        }
    }

    /// An option's value, as written.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The corruptions that a published corrupted set holds, by name: all that are there, or the one that the options
    /// choose. `None` for other sets.
    ///
    /// # Errors
    /// If its folder cannot be read or holds none.
    pub fn published_corruptions(&self) -> Result<Option<Vec<String>>> {
        let Source::Files { format, path } = &self.source else { return Ok(None) };
        if !format.options.iter().any(|(key, _)| *key == "corruption") {
            return Ok(None);
        }
        match self.option("corruption") {
            Some(chosen) => Ok(Some(vec![chosen.to_owned()])),
            None => super::corrupted::present(format.name, path).map(Some),
        }
    }

    /// The same data set with one more option, or another value for it.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Result<Self> {
        let value = value.to_string();
        self.set(key, &value)?;
        self.options.retain(|(existing, _)| existing != key);
        self.options.push((key.to_owned(), value));
        Ok(self)
    }

    /// The same data set with the test images of one cue split; an error unless it is synthetic.
    pub fn with_cues(self, split: CueSplit) -> Result<Self> {
        self.with("test", split)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        if let Source::Synthetic(config) = &mut self.source
            && SyntheticConfig::KEYS.contains(&key)
        {
            return config.set(key, value);
        }
        if let Source::Files { format, .. } = &self.source
            && format.options.iter().any(|(name, _)| *name == key)
        {
            // Its value is judged where it is used: when the files are there to be asked.
            return Ok(());
        }
        let bad = |expected: &str| {
            Error::config(format!("data set option {key}={value} is not valid; expected {expected}"))
        };
        let positive = |value: &str| {
            let number = value.parse::<usize>().ok().filter(|&n| n > 0);
            number.ok_or_else(|| bad("a whole number above 0"))
        };
        match key {
            "size" | "resize" if positive(value)? > 10_000 => return Err(bad("at most 10000 pixels")),
            "size" => self.size = Some(positive(value)?),
            "resize" => self.resize = Some(positive(value)?),
            "size_of" => match value {
                "all" | "test" => self.train_whole = value == "test",
                _ => return Err(bad("all or test")),
            },
            "fit" => match value {
                "crop" | "stretch" => self.stretch = value == "stretch",
                _ => return Err(bad("crop or stretch")),
            },
            "classes" => self.classes = Some(value.to_owned()),
            "map" => self.map = Some(PathBuf::from(value)),
            "limit" => self.limit = Some(positive(value)?),
            "fraction" => {
                let fraction = value.parse().ok().filter(|f| *f > 0.0 && *f <= 1.0);
                self.fraction = Some(fraction.ok_or_else(|| bad("a number above 0, at most 1"))?);
            }
            "gray" => self.gray = value.parse().map_err(|_| bad("true or false"))?,
            "subset_seed" => self.subset_seed = value.parse().map_err(|_| bad("a whole number"))?,
            _ => {
                let mut known: Vec<&str> = COMMON_OPTIONS.iter().map(|(key, _)| *key).collect();
                match &self.source {
                    Source::Synthetic(_) => known.extend(SyntheticConfig::KEYS),
                    Source::Files { format, .. } => known.extend(format.options.iter().map(|(key, _)| key)),
                }
                return Err(unknown("data set option", key, &known));
            }
        }
        Ok(())
    }

    /// Judges options that each say what is possible, and together what is not.
    fn check(&self) -> Result<()> {
        self.synthetic_config().map_or(Ok(()), limits::check_synthetic)
    }

    /// Opens one split.
    ///
    /// # Errors
    /// If files are missing or do not hold what they should; the message names the file.
    pub fn open(&self, split: Split) -> Result<Arc<dyn Dataset>> {
        self.check()?;
        let mut dataset: Arc<dyn Dataset> = match &self.source {
            Source::Files { format, path } => {
                if !path.exists() {
                    return Err(Error::format(path, "there is no such file or folder"));
                }
                if format.location == "FILE" && path.is_dir() {
                    return Err(Error::format(
                        path,
                        format!("`{}` reads a file, but this is a folder", format.name),
                    ));
                }
                (format.open)(&Request { name: format.name, path, split, options: &self.options })?
            }
            Source::Synthetic(config) => Arc::new(SyntheticDataset::open((**config).clone(), split)),
        };
        if let Some(classes) = &self.classes {
            dataset = Arc::new(Remapped::keep(dataset, classes)?);
        }
        if let Some(path) = &self.map {
            dataset = Arc::new(Remapped::read(dataset, path)?);
        }
        if let Some(fraction) = self.fraction {
            dataset = Arc::new(Subset::fraction(dataset, fraction, self.subset_seed)?);
        }
        if let Some(limit) = self.limit {
            dataset = Arc::new(Subset::first(dataset, limit)?);
        }
        // The synthetic set draws its images in the size asked for.
        let whole = self.train_whole && split == Split::Train;
        if let (Some(size), Source::Files { .. }, false) = (self.size, &self.source, whole) {
            dataset = Arc::new(match self.stretch {
                true => Resized::stretched(dataset, size),
                false => Resized::new(dataset, self.resize.unwrap_or(size), size),
            });
        }
        if self.gray {
            dataset = Arc::new(Gray::new(dataset));
        }
        Ok(dataset)
    }
}

impl FromStr for DataSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        let synthetic = name == "synthetic";
        let (location, options) = split_options(rest, !synthetic);
        let source = if synthetic {
            if !location.is_empty() {
                return Err(Error::config(format!(
                    "data set `{text}`: expected `synthetic:key=value,…`, found `{location}`"
                )));
            }
            Source::Synthetic(Box::default())
        } else {
            let format =
                FORMATS.iter().find(|format| format.name == name).ok_or_else(|| unknown_set(name))?;
            if location.is_empty() {
                return Err(Error::config(format!(
                    "data set `{text}`: write `{name}:{}`, the place of its files",
                    format.location
                )));
            }
            Source::Files { format, path: PathBuf::from(location) }
        };
        let mut spec = Self::from_source(source);
        for (key, value) in options {
            spec = spec.with(key, value)?;
        }
        spec.check()?;
        Ok(spec)
    }
}

/// The error for a name that is no data set's; a name with options behind a comma gets a hint.
fn unknown_set(name: &str) -> Error {
    let names: Vec<&str> = FORMATS.iter().map(|f| f.name).chain(["synthetic"]).collect();
    let known = name.split_once(',').and_then(|(set, options)| {
        let place =
            FORMATS.iter().find(|format| format.name == set).map(|format| format!("{},", format.location));
        (set == "synthetic" || place.is_some())
            .then(|| format!("{set}:{}{options}", place.unwrap_or_default()))
    });
    match known {
        Some(meant) => Error::config(format!("data set `{name}`: options follow a colon; write `{meant}`")),
        None => unknown("data set", name, &names),
    }
}

/// Splits `LOCATION,key=value,key=value`; options are the trailing parts that look like one. With
/// `location_first`, the first part is none.
fn split_options(text: &str, location_first: bool) -> (&str, Vec<(&str, &str)>) {
    let mut location = text;
    let mut options = Vec::new();
    loop {
        let start = location.rfind(',').map_or(0, |comma| comma + 1);
        if start == 0 && location_first {
            break;
        }
        let option = location[start..]
            .split_once('=')
            .filter(|(key, _)| !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        let Some(option) = option else { break };
        options.push(option);
        location = &location[..start.saturating_sub(1)];
        if start == 0 {
            break;
        }
    }
    options.reverse();
    (location, options)
}

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match &self.source {
            Source::Files { format, path } => {
                write!(f, "{}:", format.name)?;
                parts.push(path.display().to_string());
            }
            Source::Synthetic(_) => {
                f.write_str(if self.options.is_empty() { "synthetic" } else { "synthetic:" })?
            }
        }
        parts.extend(self.options.iter().map(|(key, value)| format!("{key}={value}")));
        f.write_str(&parts.join(","))
    }
}

impl TryFrom<String> for DataSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DataSpec> for String {
    fn from(spec: DataSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_survive_a_round_trip() {
        for text in ["synthetic", "synthetic:shape=0.9,amplitude=8/255,limit=50"] {
            let spec: DataSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<DataSpec>(&json).unwrap(), spec);
        }
    }

    #[test]
    fn options_change_what_is_opened() {
        let spec: DataSpec = "synthetic:count=40,limit=7".parse().unwrap();
        assert_eq!(spec.open(Split::Train).unwrap().len(), 7);
        let spec: DataSpec = "synthetic:count=40,fraction=0.5,size=16".parse().unwrap();
        let set = spec.open(Split::Train).unwrap();
        assert_eq!((set.len(), set.image_shape()), (20, Some([16, 16, 3])));
        let conflict = DataSpec::default().with_cues(CueSplit::Conflict).unwrap();
        assert!(conflict.open(Split::Test).unwrap().texture_label(0).is_some());
    }

    #[test]
    fn mistakes_get_the_nearest_valid_name() {
        let message = |text: &str| text.parse::<DataSpec>().unwrap_err().to_string();
        assert!(message("sinthetic").contains("did you mean `synthetic`?"));
        assert!(message("synthetic:limt=5").contains("did you mean `limit`?"));
        assert!(message("synthetic:/tmp").contains("key=value"));
        assert!(message("synthetic,limit=200").contains("write `synthetic:limit=200`"));
        assert!(message("cifar10,limit=2").contains("write `cifar10:DIR,limit=2`"));
        assert!(message("synthetic:limit=0").contains("above 0"));
        assert!(message("synthetic:size=1024,count=100000000").contains("at most 16 GiB"));
        assert!(message("").contains("unknown data set"));
        let opened =
            |text: &str| text.parse::<DataSpec>().unwrap().open(Split::Test).unwrap_err().to_string();
        assert!(opened("cifar10:no/where").contains("no such file or folder"));
        assert!(opened("cifar10-bin:.").contains("reads a file"));
    }

    #[test]
    fn locations_may_hold_commas_and_colons() {
        let found = ("C:/a,b/c", vec![("size", "8"), ("limit", "2")]);
        assert_eq!(split_options("C:/a,b/c,size=8,limit=2", true), found);
        assert_eq!(split_options("size=8", false), ("", vec![("size", "8")]));
        assert_eq!(split_options("a=b/c,d=e/f", true), ("a=b/c", vec![("d", "e/f")]));
    }
}
