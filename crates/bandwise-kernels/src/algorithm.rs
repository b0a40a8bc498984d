//! The names of what convolutions run as.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a convolution runs as. It depends on the machine, the weights' shape, the number type and the
/// [`ConvConfig`](crate::ConvConfig), never on the image or the batch; see [`algorithm`](crate::algorithm()).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Algorithm {
    /// The sum of the definition.
    #[serde(rename = "direct")]
    Direct,
    /// One sum per channel.
    #[serde(rename = "depthwise")]
    Depthwise,
    /// Winograd's filtering of 3 × 3 kernels with tiles of 2 × 2.
    #[serde(rename = "winograd-f2x3")]
    WinogradF2x3,
    /// Winograd's filtering of 3 × 3 kernels with tiles of 4 × 4.
    #[serde(rename = "winograd-f4x3")]
    WinogradF4x3,
    /// Factors rounded to bf16, multiplied by AVX-512.
    #[serde(rename = "avx512-bf16")]
    Avx512Bf16,
    /// Factors rounded to bf16, multiplied by AMX.
    #[serde(rename = "amx-bf16")]
    AmxBf16,
    /// Factors split into two bf16 each, three products by AMX.
    #[serde(rename = "amx-bf16x3")]
    AmxBf16x3,
    /// cuDNN's choice.
    #[serde(rename = "cudnn")]
    Cudnn,
    /// The convolution of candle.
    #[serde(rename = "candle")]
    Candle,
}

impl Algorithm {
    /// The name in records and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Depthwise => "depthwise",
            Self::WinogradF2x3 => "winograd-f2x3",
            Self::WinogradF4x3 => "winograd-f4x3",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::AmxBf16 => "amx-bf16",
            Self::AmxBf16x3 => "amx-bf16x3",
            Self::Cudnn => "cudnn",
            Self::Candle => "candle",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
