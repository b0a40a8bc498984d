//! The parameters and the shape of one convolution.

use candle_core::{Result, bail};

use crate::precision::Precision;

/// The parameters of a convolution, the same in both spatial directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvConfig {
    /// Step between output pixels, in input pixels.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Distance between kernel positions, in input pixels.
    pub dilation: usize,
    /// Channel groups that are convolved separately.
    pub groups: usize,
    /// How products are computed.
    pub precision: Precision,
}

impl Default for ConvConfig {
    /// Stride 1, no padding, dilation 1, one group, f32.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1, precision: Precision::F32 }
    }
}

/// All sizes of one convolution call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub batch: usize,
    pub in_height: usize,
    pub in_width: usize,
    pub in_channels: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub out_channels: usize,
    pub kernel_height: usize,
    pub kernel_width: usize,
    pub config: ConvConfig,
}

impl Geometry {
    /// Checks that input `[b, h, w, c]` and weight `[out, in / groups, kh, kw]` fit together.
    pub(crate) fn new(input: &[usize], weight: &[usize], config: &ConvConfig) -> Result<Self> {
        let (&[batch, in_height, in_width, in_channels], &[out_channels, depth, kernel_height, kernel_width]) =
            (input, weight)
        else {
            bail!(
                "conv2d: expected an input [batch, height, width, channels] and a weight [out, in / groups, \
                 kernel height, kernel width], got {input:?} and {weight:?}"
            )
        };
        let ConvConfig { stride, padding, dilation, groups, .. } = *config;
        if stride == 0 || dilation == 0 || groups == 0 {
            bail!("conv2d: stride, dilation and groups must be at least 1, got {config:?}");
        }
        let taken = depth.saturating_mul(groups);
        if in_channels != taken || !out_channels.is_multiple_of(groups) {
            bail!(
                "conv2d: the input has {in_channels} channels, but weight {weight:?} with {groups} groups takes \
                 {taken} (and the output channels must be a multiple of the groups)"
            );
        }
        let extent = |size: usize, kernel: usize| -> Option<usize> {
            let covered = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
            let padded = padding.checked_mul(2)?.checked_add(size)?;
            Some(padded.checked_sub(covered)? / stride + 1)
        };
        let (Some(out_height), Some(out_width)) =
            (extent(in_height, kernel_height), extent(in_width, kernel_width))
        else {
            bail!("conv2d: the kernel {weight:?} does not fit into the input {input:?} with {config:?}")
        };
        let values = [batch, out_height, out_width, out_channels]
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        if values.is_none_or(|values| values > isize::MAX as usize / size_of::<f64>()) {
            bail!("conv2d: the result of {input:?} and {weight:?} with {config:?} would be too large");
        }
        Ok(Self {
            batch,
            in_height,
            in_width,
            in_channels,
            out_height,
            out_width,
            out_channels,
            kernel_height,
            kernel_width,
            config: *config,
        })
    }

    pub(crate) fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.in_height, self.in_width, self.in_channels]
    }

    pub(crate) fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.out_height, self.out_width, self.out_channels]
    }

    pub(crate) fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.config.groups, self.kernel_height, self.kernel_width]
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel_height * self.kernel_width
    }
}
