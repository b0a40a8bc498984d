//! The shape of one convolution, and the walks over it that forward and data gradient share.

use candle_core::{Result, bail};

use crate::conv::ConvConfig;

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

    /// The walk of the forward pass: every output pixel gathers its taps from the input.
    pub(crate) fn forward_walk(&self) -> Walk {
        let ConvConfig { stride, padding, dilation, .. } = self.config;
        let offset = |k: usize| (k * dilation) as isize - padding as isize;
        let taps = (0..self.kernel_height)
            .flat_map(|ky| {
                let width = self.kernel_width;
                (0..width).map(move |kx| Tap { dy: offset(ky), dx: offset(kx), kernel: ky * width + kx })
            })
            .collect();
        Walk {
            batch: self.batch,
            source: [self.in_height, self.in_width],
            target: [self.out_height, self.out_width],
            grid: [self.out_height, self.out_width],
            origin: [0, 0],
            target_step: 1,
            source_step: stride,
            taps,
        }
    }

    /// The walks of the data gradient, one per sub-pixel phase of the stride: every input pixel gathers from
    /// those output pixels that it went into. A phase without taps has gradient zero.
    pub(crate) fn data_walks(&self) -> Vec<Walk> {
        let ConvConfig { stride, .. } = self.config;
        let mut walks = Vec::with_capacity(stride.min(self.in_height) * stride.min(self.in_width));
        for phase_y in 0..stride.min(self.in_height) {
            for phase_x in 0..stride.min(self.in_width) {
                let rows = self.phase_taps(phase_y, self.kernel_height);
                let columns = self.phase_taps(phase_x, self.kernel_width);
                let taps = rows
                    .iter()
                    .flat_map(|&(ky, dy)| {
                        let width = self.kernel_width;
                        columns.iter().map(move |&(kx, dx)| Tap { dy, dx, kernel: ky * width + kx })
                    })
                    .collect();
                walks.push(Walk {
                    batch: self.batch,
                    source: [self.out_height, self.out_width],
                    target: [self.in_height, self.in_width],
                    grid: [
                        (self.in_height - phase_y).div_ceil(stride),
                        (self.in_width - phase_x).div_ceil(stride),
                    ],
                    origin: [phase_y, phase_x],
                    target_step: stride,
                    source_step: 1,
                    taps,
                });
            }
        }
        walks
    }

    /// Kernel positions that reach input coordinates `phase + stride * t`, with the output offset from `t`.
    fn phase_taps(&self, phase: usize, kernel: usize) -> Vec<(usize, isize)> {
        let ConvConfig { stride, padding, dilation, .. } = self.config;
        (0..kernel)
            .filter_map(|k| {
                let distance = (phase + padding) as isize - (k * dilation) as isize;
                (distance.rem_euclid(stride as isize) == 0).then(|| (k, distance.div_euclid(stride as isize)))
            })
            .collect()
    }
}

/// One position of the kernel, relative to the source pixel at the walk's own coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tap {
    pub dy: isize,
    pub dx: isize,
    /// Index of the kernel position, `ky * kernel_width + kx`.
    pub kernel: usize,
}

/// Target pixels `origin + target_step * t` for `t` in `grid`, each gathering source pixels
/// `source_step * t + tap`; source pixels outside count as zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walk {
    pub batch: usize,
    pub source: [usize; 2],
    pub target: [usize; 2],
    pub grid: [usize; 2],
    pub origin: [usize; 2],
    pub target_step: usize,
    pub source_step: usize,
    pub taps: Vec<Tap>,
}

impl Walk {
    /// Number of target pixels over the whole batch.
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.grid[0] * self.grid[1]
    }

    /// Image, and coordinates in the grid, of target pixel `row`.
    pub(crate) fn position(&self, row: usize) -> Position {
        let [height, width] = self.grid;
        Position { image: row / (height * width), y: row / width % height, x: row % width }
    }

    /// Moves to the next target pixel.
    pub(crate) fn advance(&self, position: &mut Position) {
        position.x += 1;
        if position.x == self.grid[1] {
            position.x = 0;
            position.y += 1;
            if position.y == self.grid[0] {
                position.y = 0;
                position.image += 1;
            }
        }
    }

    /// Index of the target pixel in the target tensor.
    pub(crate) fn target_pixel(&self, position: &Position) -> usize {
        let y = self.origin[0] + self.target_step * position.y;
        let x = self.origin[1] + self.target_step * position.x;
        (position.image * self.target[0] + y) * self.target[1] + x
    }

    /// Where every tap lies relative to the pixel under the walk's own coordinate, in pixels.
    pub(crate) fn offsets(&self) -> Offsets {
        let of = |coordinate: fn(&Tap) -> isize| {
            let values = || self.taps.iter().map(coordinate);
            [values().min().unwrap_or(0), values().max().unwrap_or(0)]
        };
        let pixels = self.taps.iter().map(|tap| tap.dy * self.source[1] as isize + tap.dx).collect();
        Offsets { pixels, rows: of(|tap| tap.dy), columns: of(|tap| tap.dx) }
    }

    /// Index of the source pixel under the walk's own coordinate, if no tap reaches into the padding.
    #[inline(always)]
    pub(crate) fn inner_pixel(&self, position: &Position, offsets: &Offsets) -> Option<usize> {
        let inside = |own: usize, [first, last]: [isize; 2], size: usize| {
            own as isize + first >= 0 && own as isize + last < size as isize
        };
        let (y, x) = (self.source_step * position.y, self.source_step * position.x);
        let all = inside(y, offsets.rows, self.source[0]) && inside(x, offsets.columns, self.source[1]);
        all.then(|| (position.image * self.source[0] + y) * self.source[1] + x)
    }

    /// Index of the source pixel under `tap`, or `None` in the padding.
    #[inline(always)]
    pub(crate) fn source_pixel(&self, position: &Position, tap: &Tap) -> Option<usize> {
        let y = (self.source_step * position.y) as isize + tap.dy;
        let x = (self.source_step * position.x) as isize + tap.dx;
        let inside = (y as usize) < self.source[0] && (x as usize) < self.source[1];
        inside.then(|| (position.image * self.source[0] + y as usize) * self.source[1] + x as usize)
    }
}

/// The taps of a [`Walk`] as distances, see [`Walk::offsets`].
#[derive(Debug, Clone)]
pub(crate) struct Offsets {
    pub pixels: Vec<isize>,
    /// Least and greatest distance in rows.
    rows: [isize; 2],
    columns: [isize; 2],
}

/// A target pixel of a [`Walk`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub image: usize,
    pub y: usize,
    pub x: usize,
}
