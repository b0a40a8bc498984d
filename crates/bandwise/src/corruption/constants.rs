//! The published constants of each corruption: five severities under each of three protocols.
//!
//! Sources: `make_cifar_c.py`, `make_tinyimagenet_c.py` and `imagenet_c/corruptions.py` of hendrycks/robustness.

use super::kinds::{Protocol, Severity};

/// A corruption's constants.
pub(super) struct Table<T> {
    pub cifar: [T; 5],
    pub side64: [T; 5],
    pub side224: [T; 5],
}

impl<T: Copy> Table<T> {
    pub fn at(&self, protocol: Protocol, severity: Severity) -> T {
        let row = match protocol {
            Protocol::Cifar => &self.cifar,
            Protocol::Side64 => &self.side64,
            Protocol::Side224 => &self.side224,
        };
        row[severity.index()]
    }
}

/// Standard deviation.
pub(super) const GAUSSIAN_NOISE: Table<f64> = Table {
    cifar: [0.04, 0.06, 0.08, 0.09, 0.10],
    side64: [0.04, 0.08, 0.12, 0.15, 0.18],
    side224: [0.08, 0.12, 0.18, 0.26, 0.38],
};

/// Photons of a white pixel.
pub(super) const SHOT_NOISE: Table<f64> = Table {
    cifar: [500.0, 250.0, 100.0, 75.0, 50.0],
    side64: [250.0, 100.0, 50.0, 30.0, 15.0],
    side224: [60.0, 25.0, 12.0, 5.0, 3.0],
};

/// Fraction of values replaced.
pub(super) const IMPULSE_NOISE: Table<f64> = Table {
    cifar: [0.01, 0.02, 0.03, 0.05, 0.07],
    side64: [0.01, 0.02, 0.05, 0.08, 0.14],
    side224: [0.03, 0.06, 0.09, 0.17, 0.27],
};

/// Standard deviation relative to the pixel.
pub(super) const SPECKLE_NOISE: Table<f64> = Table {
    cifar: [0.06, 0.10, 0.12, 0.16, 0.20],
    side64: [0.15, 0.20, 0.25, 0.30, 0.35],
    side224: [0.15, 0.20, 0.35, 0.45, 0.60],
};

/// Standard deviation in pixels.
pub(super) const GAUSSIAN_BLUR: Table<f64> = Table {
    cifar: [0.4, 0.6, 0.7, 0.8, 1.0],
    side64: [0.5, 0.75, 1.0, 1.25, 1.5],
    side224: [1.0, 2.0, 3.0, 4.0, 6.0],
};

/// (blur sigma, largest step, passes).
pub(super) const GLASS_BLUR: Table<(f64, usize, usize)> = Table {
    cifar: [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    side64: [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)],
    side224: [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
};

/// (disk radius, sigma of the blur that smooths its edge).
pub(super) const DEFOCUS_BLUR: Table<(f64, f64)> = Table {
    cifar: [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)],
    side64: [(0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)],
    side224: [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)],
};

/// (radius, sigma) of the streak.
pub(super) const MOTION_BLUR: Table<(f64, f64)> = Table {
    cifar: [(6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5)],
    side64: [(10.0, 1.0), (10.0, 1.5), (10.0, 2.0), (10.0, 2.5), (12.0, 3.0)],
    side224: [(10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)],
};

/// (end, step) of the magnifications, which start at 1; the end counts where rounding lets it in.
pub(super) const ZOOM_BLUR: Table<(f64, f64)> = Table {
    cifar: [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    side64: [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
    side224: [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
};

/// (amount, roughness decay per octave).
pub(super) const FOG: Table<(f64, f64)> = Table {
    cifar: [(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)],
    side64: [(0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)],
    side224: [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)],
};

/// (weight of the image, weight of the frost).
pub(super) const FROST: Table<(f64, f64)> = Table {
    cifar: [(1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
    side64: [(1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)],
    side224: [(1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
};

/// What a snowfall is made of.
#[derive(Clone, Copy)]
pub(super) struct SnowSettings {
    pub mean: f64,
    pub deviation: f64,
    pub zoom: f64,
    pub threshold: f64,
    pub radius: f64,
    pub sigma: f64,
    /// Weight of the image against its whitened version.
    pub keep: f32,
}

const fn snow(c: (f64, f64, f64, f64, f64, f64, f32)) -> SnowSettings {
    SnowSettings { mean: c.0, deviation: c.1, zoom: c.2, threshold: c.3, radius: c.4, sigma: c.5, keep: c.6 }
}

pub(super) const SNOW: Table<SnowSettings> = Table {
    cifar: [
        snow((0.1, 0.2, 1.0, 0.6, 8.0, 3.0, 0.95)),
        snow((0.1, 0.2, 1.0, 0.5, 10.0, 4.0, 0.9)),
        snow((0.15, 0.3, 1.75, 0.55, 10.0, 4.0, 0.9)),
        snow((0.25, 0.3, 2.25, 0.6, 12.0, 6.0, 0.85)),
        snow((0.3, 0.3, 1.25, 0.65, 14.0, 12.0, 0.8)),
    ],
    side64: [
        snow((0.1, 0.2, 1.0, 0.6, 8.0, 3.0, 0.8)),
        snow((0.1, 0.2, 1.0, 0.5, 10.0, 4.0, 0.8)),
        snow((0.15, 0.3, 1.75, 0.55, 10.0, 4.0, 0.7)),
        snow((0.25, 0.3, 2.25, 0.6, 12.0, 6.0, 0.65)),
        snow((0.3, 0.3, 1.25, 0.65, 14.0, 12.0, 0.6)),
    ],
    side224: [
        snow((0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8)),
        snow((0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7)),
        snow((0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7)),
        snow((0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65)),
        snow((0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55)),
    ],
};

/// What a splash is made of.
#[derive(Clone, Copy)]
pub(super) struct SpatterSettings {
    pub mean: f64,
    pub deviation: f64,
    pub sigma: f64,
    pub threshold: f64,
    /// Strength of water, or smoothing of mud in pixels.
    pub amount: f64,
    pub mud: bool,
}

const fn spatter(c: (f64, f64, f64, f64, f64), mud: bool) -> SpatterSettings {
    SpatterSettings { mean: c.0, deviation: c.1, sigma: c.2, threshold: c.3, amount: c.4, mud }
}

pub(super) const SPATTER: Table<SpatterSettings> = Table {
    cifar: [
        spatter((0.62, 0.1, 0.7, 0.7, 0.5), false),
        spatter((0.65, 0.1, 0.8, 0.7, 0.5), false),
        spatter((0.65, 0.3, 1.0, 0.69, 0.5), false),
        spatter((0.65, 0.1, 0.7, 0.69, 0.6), true),
        spatter((0.65, 0.1, 0.5, 0.68, 0.6), true),
    ],
    side64: [
        spatter((0.62, 0.1, 0.7, 0.7, 0.6), false),
        spatter((0.65, 0.1, 0.8, 0.7, 0.6), false),
        spatter((0.65, 0.3, 1.0, 0.69, 0.6), false),
        spatter((0.65, 0.1, 0.7, 0.68, 0.6), true),
        spatter((0.65, 0.1, 0.5, 0.67, 0.6), true),
    ],
    side224: [
        spatter((0.65, 0.3, 4.0, 0.69, 0.6), false),
        spatter((0.65, 0.3, 3.0, 0.68, 0.6), false),
        spatter((0.65, 0.3, 2.0, 0.68, 0.5), false),
        spatter((0.65, 0.3, 1.0, 0.65, 1.5), true),
        spatter((0.67, 0.4, 1.0, 0.65, 1.5), true),
    ],
};

/// What remains of the contrast.
pub(super) const CONTRAST: Table<f64> = Table {
    cifar: [0.75, 0.5, 0.4, 0.3, 0.15],
    side64: [0.4, 0.3, 0.2, 0.1, 0.05],
    side224: [0.4, 0.3, 0.2, 0.1, 0.05],
};

/// Added to the value.
pub(super) const BRIGHTNESS: Table<f64> = Table {
    cifar: [0.05, 0.1, 0.15, 0.2, 0.3],
    side64: [0.1, 0.2, 0.3, 0.4, 0.5],
    side224: [0.1, 0.2, 0.3, 0.4, 0.5],
};

/// (factor, offset) of the saturation.
pub(super) const SATURATE: Table<(f64, f64)> = Table {
    cifar: [(0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)],
    side64: [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)],
    side224: [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)],
};

/// JPEG quality.
pub(super) const JPEG_COMPRESSION: Table<u32> =
    Table { cifar: [80, 65, 58, 50, 40], side64: [65, 58, 50, 40, 25], side224: [25, 18, 15, 10, 7] };

/// Size of the small image relative to the large one.
pub(super) const PIXELATE: Table<f64> = Table {
    cifar: [0.95, 0.9, 0.85, 0.75, 0.65],
    side64: [0.9, 0.8, 0.7, 0.6, 0.5],
    side224: [0.6, 0.5, 0.4, 0.3, 0.25],
};

/// (displacement, its smoothing, corner movement of the affine map), all relative to the image side.
pub(super) const ELASTIC_TRANSFORM: Table<(f64, f64, f64)> = Table {
    cifar: [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
    side64: [(0.0, 0.0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)],
    side224: [(2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)],
};

/// The side that [`ELASTIC_TRANSFORM`] is relative to: the ImageNet script says 244 where it means 224.
pub(super) fn elastic_side(protocol: Protocol) -> f64 {
    match protocol {
        Protocol::Side224 => 244.0,
        other => other.side() as f64,
    }
}
