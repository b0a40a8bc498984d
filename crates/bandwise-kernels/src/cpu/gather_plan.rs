//! Which source pixels a target pixel of a convolution sums over: the same for forward pass and data gradient.

use crate::geometry::{ConvConfig, Geometry};

/// Which side of the weight is summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Columns are output channels, the sum runs over input channels.
    Forward,
    /// Columns are input channels, the sum runs over output channels.
    Data,
}

/// One position of the kernel, relative to the source pixel at the plan's own coordinate.
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
pub(crate) struct GatherPlan {
    pub batch: usize,
    pub source: [usize; 2],
    pub target: [usize; 2],
    pub grid: [usize; 2],
    pub origin: [usize; 2],
    pub target_step: usize,
    pub source_step: usize,
    pub taps: Vec<Tap>,
}

impl GatherPlan {
    /// The plan of the forward pass: every output pixel gathers its taps from the input.
    pub(crate) fn forward(geometry: &Geometry) -> Self {
        let ConvConfig { stride, padding, dilation, .. } = geometry.config;
        let offset = |k: usize| (k * dilation) as isize - padding as isize;
        let taps = (0..geometry.kernel_height)
            .flat_map(|ky| {
                let width = geometry.kernel_width;
                (0..width).map(move |kx| Tap { dy: offset(ky), dx: offset(kx), kernel: ky * width + kx })
            })
            .collect();
        Self {
            batch: geometry.batch,
            source: [geometry.in_height, geometry.in_width],
            target: [geometry.out_height, geometry.out_width],
            grid: [geometry.out_height, geometry.out_width],
            origin: [0, 0],
            target_step: 1,
            source_step: stride,
            taps,
        }
    }

    /// The plans that together visit every pixel of a direction's target.
    pub(crate) fn of(geometry: &Geometry, direction: Direction) -> Vec<Self> {
        match direction {
            Direction::Forward => vec![Self::forward(geometry)],
            Direction::Data => Self::data(geometry),
        }
    }

    /// The plans of the data gradient, one per sub-pixel phase of the stride: every input pixel gathers from
    /// those output pixels that it went into. A phase without taps has gradient zero.
    pub(crate) fn data(geometry: &Geometry) -> Vec<Self> {
        let ConvConfig { stride, .. } = geometry.config;
        let mut plans = Vec::with_capacity(stride.min(geometry.in_height) * stride.min(geometry.in_width));
        for phase_y in 0..stride.min(geometry.in_height) {
            for phase_x in 0..stride.min(geometry.in_width) {
                let rows = phase_taps(geometry, phase_y, geometry.kernel_height);
                let columns = phase_taps(geometry, phase_x, geometry.kernel_width);
                let taps = rows
                    .iter()
                    .flat_map(|&(ky, dy)| {
                        let width = geometry.kernel_width;
                        columns.iter().map(move |&(kx, dx)| Tap { dy, dx, kernel: ky * width + kx })
                    })
                    .collect();
                plans.push(Self {
                    batch: geometry.batch,
                    source: [geometry.out_height, geometry.out_width],
                    target: [geometry.in_height, geometry.in_width],
                    grid: [
                        (geometry.in_height - phase_y).div_ceil(stride),
                        (geometry.in_width - phase_x).div_ceil(stride),
                    ],
                    origin: [phase_y, phase_x],
                    target_step: stride,
                    source_step: 1,
                    taps,
                });
            }
        }
        plans
    }

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

    /// Where every tap lies relative to the pixel under the plan's own coordinate, in pixels.
    pub(crate) fn offsets(&self) -> TapOffsets {
        let of = |coordinate: fn(&Tap) -> isize| {
            let values = || self.taps.iter().map(coordinate);
            [values().min().unwrap_or(0), values().max().unwrap_or(0)]
        };
        let pixels = self.taps.iter().map(|tap| tap.dy * self.source[1] as isize + tap.dx).collect();
        TapOffsets { pixels, rows: of(|tap| tap.dy), columns: of(|tap| tap.dx) }
    }

    /// Index of the source pixel under the plan's own coordinate, if no tap reaches into the padding.
    #[inline(always)]
    pub(crate) fn inner_pixel(&self, position: &Position, offsets: &TapOffsets) -> Option<usize> {
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

/// The taps of a [`GatherPlan`] as distances, see [`GatherPlan::offsets`].
#[derive(Debug, Clone)]
pub(crate) struct TapOffsets {
    pub pixels: Vec<isize>,
    /// Least and greatest distance in rows.
    rows: [isize; 2],
    columns: [isize; 2],
}

/// A target pixel of a [`GatherPlan`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub image: usize,
    pub y: usize,
    pub x: usize,
}

/// Kernel positions that reach input coordinates `phase + stride * t`, with the output offset from `t`.
fn phase_taps(geometry: &Geometry, phase: usize, kernel: usize) -> Vec<(usize, isize)> {
    let ConvConfig { stride, padding, dilation, .. } = geometry.config;
    (0..kernel)
        .filter_map(|k| {
            let distance = (phase + padding) as isize - (k * dilation) as isize;
            (distance.rem_euclid(stride as isize) == 0).then(|| (k, distance.div_euclid(stride as isize)))
        })
        .collect()
}
