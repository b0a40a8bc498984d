//! How the products of convolutions are computed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the products of convolutions are computed. Tensors of type f64 are always computed in f64.
///
/// Its names are `f32`, `f32-fast`, `tf32` and `bf16`, in recipes, on the command line and in records:
///
/// ```
/// use bandwise_kernels::Precision;
/// let precision: Precision = "f32-fast".parse().unwrap();
/// assert_eq!(precision, Precision::F32Fast);
/// assert_eq!(precision.to_string(), "f32-fast");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Precision {
    /// Single precision throughout. 3×3 convolutions of stride 1 go through Winograd's filtering with tiles of
    /// 2 × 2, whose rounding error is no larger than that of the direct sum.
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// Near single precision, by what is fastest: three bf16 products on matrix units, or larger tiles of
    /// Winograd's filtering where there are none (about four times the rounding error of [`Precision::F32`]).
    /// Convolutions that neither serves are computed as [`Precision::F32`].
    #[serde(rename = "f32-fast", alias = "f32x3")]
    F32Fast,
    /// Factors rounded to ten bits of mantissa on CUDA's tensor cores, sums in f32; on the CPU the same as
    /// [`Precision::F32`].
    #[serde(rename = "tf32")]
    Tf32,
    /// Factors rounded to bf16, sums in f32, where the machine has bf16 products; elsewhere the same as
    /// [`Precision::F32`].
    #[serde(rename = "bf16")]
    Bf16,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 4] = [Self::F32, Self::F32Fast, Self::Tf32, Self::Bf16];

    /// The name in recipes, on the command line and in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F32Fast => "f32-fast",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is not one of a [`Precision`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownPrecision(String);

impl fmt::Display for UnknownPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Precision::ALL.map(Precision::name).join(", ");
        write!(f, "unknown precision `{}`; expected one of {known}", self.0)
    }
}

impl std::error::Error for UnknownPrecision {}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        // the former name of `f32-fast`
        let name = if name == "f32x3" { Self::F32Fast.name() } else { name };
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == name)
            .ok_or_else(|| UnknownPrecision(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            let json = serde_json::to_string(&precision).unwrap();
            assert_eq!(json, format!("\"{precision}\""));
            assert_eq!(serde_json::from_str::<Precision>(&json).unwrap(), precision);
        }
        assert_eq!("f32x3".parse(), Ok(Precision::F32Fast));
        assert_eq!(serde_json::from_str::<Precision>("\"f32x3\"").unwrap(), Precision::F32Fast);
        let error = "fp8".parse::<Precision>().unwrap_err().to_string();
        assert_eq!(error, "unknown precision `fp8`; expected one of f32, f32-fast, tf32, bf16");
    }
}
