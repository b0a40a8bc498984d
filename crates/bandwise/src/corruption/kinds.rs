//! How severe, and by whose constants.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

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
    use crate::corruption::Corruption;

    #[test]
    fn names_round_trip() {
        for protocol in [Protocol::Cifar, Protocol::Side64, Protocol::Side224] {
            assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
            assert_eq!(Protocol::for_size(protocol.side(), protocol.side()), protocol);
        }
    }

    #[test]
    fn lists() {
        assert!("6".parse::<Severity>().is_err());
        assert!(Severity::parse_list("2-").is_err());
        assert_eq!(Corruption::parse_list(&["fog", "main"]).unwrap().len(), 15);
        let levels: Vec<u8> =
            Severity::parse_list("1,3-5").unwrap().into_iter().map(Severity::level).collect();
        assert_eq!(levels, [1, 3, 4, 5]);
    }
}
