//! Numbers in section files: JSON knows no NaN, so what is not finite is written as null and read
//! back as NaN.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// For one number.
pub(super) mod value {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

/// For lists of pairs.
pub(super) mod pairs {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(pairs: &[[f64; 2]], serializer: S) -> Result<S::Ok, S::Error> {
        pairs.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<[f64; 2]>, D::Error> {
        let pairs = Vec::<[Option<f64>; 2]>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|pair| pair.map(|v| v.unwrap_or(f64::NAN))).collect())
    }
}

/// For an optional pair.
pub(super) mod interval {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        pair: &Option<[f64; 2]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        pair.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[f64; 2]>, D::Error> {
        let pair = Option::<[Option<f64>; 2]>::deserialize(deserializer)?;
        Ok(pair.map(|pair| pair.map(|v| v.unwrap_or(f64::NAN))))
    }
}

/// For lists of single-precision numbers.
pub(super) mod list {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(values: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
        values.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
        let values = Vec::<Option<f32>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|v| v.unwrap_or(f32::NAN)).collect())
    }
}
