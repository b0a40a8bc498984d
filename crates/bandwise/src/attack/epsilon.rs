//! Distances in pixel units, written `8/255` or `0.031`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A perturbation size or step size for pixels in `[0, 1]`.
///
/// It remembers a fraction it was written as: `8/255` and `0.031` both occur in the literature and
/// are not the same, so records show what was asked for and the exact value.
#[derive(Clone, Copy, Debug)]
pub struct Epsilon {
    value: f64,
    fraction: Option<(f64, f64)>,
}

impl Epsilon {
    /// A plain value, for example `0.5` for an L2 radius.
    pub fn new(value: f64) -> Result<Self, Error> {
        Self::checked(value, None, &value.to_string())
    }

    /// `levels / 255`, for example `Epsilon::of_255(8.0)`; used for built-in defaults.
    pub const fn of_255(levels: f64) -> Self {
        Self { value: levels / 255.0, fraction: Some((levels, 255.0)) }
    }

    /// A plain value known to be a distance; used for built-in defaults.
    pub(crate) const fn constant(value: f64) -> Self {
        Self { value, fraction: None }
    }

    /// The exact value in pixel units.
    pub fn value(self) -> f64 {
        self.value
    }

    /// This distance times `factor`; a fraction stays a fraction.
    pub fn scaled(self, factor: f64) -> Self {
        let fraction = self.fraction.map(|(over, under)| (over * factor, under));
        let value = fraction.map_or(self.value * factor, |(over, under)| over / under);
        Self { value, fraction }
    }

    /// Whether it is this distance, however it was written: `1/255` and `0.00392156862745098`.
    pub fn is_about(self, other: Self) -> bool {
        let scale = self.value.max(other.value);
        (self.value - other.value).abs() <= SAME * scale
    }

    fn checked(value: f64, fraction: Option<(f64, f64)>, text: &str) -> Result<Self, Error> {
        if value.is_finite() && value >= 0.0 {
            return Ok(Self { value, fraction });
        }
        Err(Error::config(format!(
            "`{text}` is not a distance: write a number in pixel units such as 0.031, or a fraction such as 8/255"
        )))
    }
}

/// Relative difference of the same distance written in two ways.
const SAME: f64 = 1e-9;

impl PartialEq for Epsilon {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl FromStr for Epsilon {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = |part: &str| part.trim().parse::<f64>().unwrap_or(f64::NAN);
        match text.split_once('/') {
            Some((over, under)) => {
                let (over, under) = (number(over), number(under));
                Self::checked(if under > 0.0 { over / under } else { f64::NAN }, Some((over, under)), text)
            }
            None => Self::checked(number(text), None, text),
        }
    }
}

impl Epsilon {
    /// As [`Display`](fmt::Display).
    pub fn short(&self) -> String {
        self.to_string()
    }

    /// For distances that follow from others, to five digits: `1.6667/255`.
    pub(crate) fn rounded(&self) -> String {
        match self.fraction {
            Some((over, under)) => format!("{}/{under}", five_digits(over)),
            None => five_digits(self.value).to_string(),
        }
    }
}

fn five_digits(value: f64) -> f64 {
    format!("{value:.4e}").parse().unwrap_or(value)
}

impl fmt::Display for Epsilon {
    /// As it was written: `8/255`, or `0.031`. Records keep the exact value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fraction {
            Some((over, under)) => write!(f, "{over}/{under}"),
            None => write!(f, "{}", self.value),
        }
    }
}

impl Serialize for Epsilon {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.fraction {
            Some((over, under)) => serializer.serialize_str(&format!("{over}/{under}")),
            None => serializer.serialize_f64(self.value),
        }
    }
}

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Distance;
        impl Visitor<'_> for Distance {
            type Value = Epsilon;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a distance in pixel units: \"8/255\" or 0.031")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Epsilon, E> {
                text.parse().map_err(|error: Error| E::custom(error))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Epsilon, E> {
                Epsilon::new(value).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Epsilon, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Epsilon, E> {
                self.visit_f64(value as f64)
            }
        }
        deserializer.deserialize_any(Distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_decimals_keep_their_exact_value() {
        let fraction: Epsilon = "8/255".parse().unwrap();
        assert_eq!(fraction.value(), 8.0 / 255.0);
        assert_eq!(fraction.to_string(), "8/255");
        assert_eq!(fraction.scaled(0.25).to_string(), "2/255");
        assert_eq!(fraction.scaled(1.0 / 3.0).rounded(), "2.6667/255");
        let decimal: Epsilon = "0.031".parse().unwrap();
        assert_ne!(decimal, fraction);
        assert_eq!(decimal.to_string(), "0.031");
    }

    #[test]
    fn a_distance_is_the_same_however_it_is_written() {
        let parsed = |text: &str| text.parse::<Epsilon>().unwrap();
        for (one, other, same) in [
            ("1/255", "0.00392156862745098", true),
            ("1/255", "2/510", true),
            ("1/255", "0.0039216", false),
            ("0", "0", true),
        ] {
            assert_eq!(parsed(one).is_about(parsed(other)), same, "{one} and {other}");
        }
    }

    #[test]
    fn serialization_keeps_the_way_it_was_written() {
        for text in ["\"8/255\"", "0.031", "\"0.5/255\""] {
            let parsed: Epsilon = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&parsed).unwrap(), text);
        }
        assert_eq!(serde_json::from_str::<Epsilon>("1").unwrap().value(), 1.0);
    }

    #[test]
    fn impossible_distances_are_refused() {
        for text in ["", "eight", "-1/255", "8/0", "8/-255", "inf", "NaN"] {
            assert!(text.parse::<Epsilon>().is_err(), "{text}");
        }
    }
}
