//! The choice of how a convolution is computed: made here, and nowhere else.

use super::bf16::{Bf16Kernels, paired};
use super::kernel::Kernels;
use super::winograd_product::Products;
use super::winograd_tile::Transforms;
use crate::algorithm::Algorithm;
use crate::geometry::{ConvConfig, Geometry};
use crate::precision::Precision;

/// How a convolution is computed on the CPU, with the kernels to use. Fixed by the weights' shape and the configuration:
/// the image may change between runs.
pub(crate) enum Strategy<T: 'static> {
    /// A sum over the taps of the kernel; pairs of bf16, where the summed channels can be read as such.
    Direct(Option<&'static Bf16Kernels<T>>),
    /// Every channel alone.
    Depthwise,
    Winograd(Winograd<T>),
}

/// Winograd's filtering, and the arithmetic of its products.
pub(crate) struct Winograd<T: 'static> {
    pub transforms: &'static Transforms<T>,
    pub products: Products<T>,
}

impl<T> Clone for Winograd<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Winograd<T> {}

/// Fewer channels than this do not pay for Winograd's transforms.
const LEAST_CHANNELS: usize = 16;
/// Most pairs of channels for tiles of 4 × 4: their transformed kernel (four times the weights) must fit into the
/// caches.
const LARGEST_FOR_F4X3: usize = 320 * 320;

impl<T> Strategy<T> {
    /// The strategy for weights `[out, in / groups, kernel height, kernel width]`.
    pub(crate) fn choose(kernels: &'static Kernels<T>, weight: [usize; 4], config: &ConvConfig) -> Self {
        let [out_channels, depth, ..] = weight;
        let in_channels = depth * config.groups;
        if let Some(winograd) = Winograd::choose(kernels, weight, config) {
            return Self::Winograd(winograd);
        }
        if config.groups == in_channels && out_channels == in_channels {
            return Self::Depthwise;
        }
        let bf16 = kernels.bf16.as_ref();
        Self::Direct(bf16.filter(|_| config.precision == Precision::Bf16 && config.groups == 1))
    }

    /// The strategy for one call.
    pub(crate) fn of(kernels: &'static Kernels<T>, geometry: &Geometry) -> Self {
        Self::choose(kernels, geometry.weight_shape(), &geometry.config)
    }

    /// What this is called in records, for weights with that many channels.
    pub(crate) fn algorithm(&self, in_channels: usize) -> Algorithm {
        match self {
            Self::Direct(Some(_)) if paired(in_channels) => Algorithm::Avx512Bf16,
            Self::Direct(_) => Algorithm::Direct,
            Self::Depthwise => Algorithm::Depthwise,
            Self::Winograd(Winograd { transforms, products }) => match products {
                Products::Plain => transforms.algorithm,
                Products::Bf16(bf16) if bf16.matrix_unit => Algorithm::AmxBf16,
                Products::Bf16(_) => Algorithm::Avx512Bf16,
                Products::Bf16x3(_) => Algorithm::AmxBf16x3,
            },
        }
    }
}

impl<T> Winograd<T> {
    /// Winograd's filtering, if the convolution can be done this way.
    fn choose(kernels: &'static Kernels<T>, weight: [usize; 4], config: &ConvConfig) -> Option<Self> {
        let [out_channels, in_channels, height, width] = weight;
        let plain = config.stride == 1 && config.dilation == 1 && config.groups == 1 && config.padding <= 2;
        if !plain || [height, width] != [3, 3] {
            return None;
        }
        let bf16 = kernels.bf16.as_ref().filter(|_| paired(in_channels) && paired(out_channels));
        let (transforms, products) = match (config.precision, bf16) {
            (Precision::F32 | Precision::Tf32, _) | (Precision::Bf16, None) => {
                (&kernels.f2x3, Products::Plain)
            }
            (Precision::Bf16, Some(bf16)) => (&kernels.f2x3, Products::Bf16(bf16)),
            (Precision::F32Fast, Some(bf16)) if bf16.matrix_unit => (&kernels.f2x3, Products::Bf16x3(bf16)),
            // Without matrix units, the larger tile gives near-f32 accuracy fastest.
            (Precision::F32Fast, _) if in_channels * out_channels <= LARGEST_FOR_F4X3 => {
                (&kernels.f4x3, Products::Plain)
            }
            (Precision::F32Fast, _) => (&kernels.f2x3, Products::Plain),
        };
        let transforms = transforms.as_ref()?;
        let fits = |channels: usize| channels.is_multiple_of(transforms.lanes) && channels >= LEAST_CHANNELS;
        (fits(in_channels) && fits(out_channels)).then_some(Self { transforms, products })
    }
}
