//! The high-frequency cue: ten fine textures of equal power, all sums of plane waves.

use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, PI, TAU};

use rand::Rng;

use crate::random::Stream;

/// The textures' names, by class. All stay what they are when mirrored: a diagonal leans either way.
pub const TEXTURES: [&str; 10] = [
    "fine columns",
    "wide columns",
    "fine rows",
    "wide rows",
    "fine diagonals",
    "wide diagonals",
    "dots",
    "checks",
    "honeycomb",
    "grain",
];

/// Cycles per pixel of the fine and the wide stripes; Nyquist is 0.5.
const FINE: f32 = 0.36;
const WIDE: f32 = 0.22;
/// Cycles per pixel of the other textures.
const MIDDLE: f32 = 0.28;
/// Waves that make up the grain.
const GRAIN_WAVES: usize = 12;

/// A plane wave: cycles per pixel, direction in radians (0 = across columns), phase.
struct Wave {
    frequency: f32,
    direction: f32,
    phase: f32,
}

/// A texture of `size` by `size` pixels with mean 0 and root mean square 1 (up to the sampling of
/// the waves), with random phases, and frequency and direction varied by a few percent.
///
/// # Panics
/// If `class` is not below 10.
pub(super) fn render(class: u32, size: usize, rng: &mut Stream) -> Vec<f32> {
    let waves = waves(class, rng);
    let amplitude = (2.0 / waves.len() as f32).sqrt();
    let mut texture = vec![0.0f32; size * size];
    for wave in &waves {
        let (sin, cos) = wave.direction.sin_cos();
        let turn = |step: f32, offset: f32| -> Vec<(f32, f32)> {
            (0..size).map(|i| (TAU * wave.frequency * step * i as f32 + offset).sin_cos()).collect()
        };
        // cos(a + b) from the sines and cosines of a (columns) and b (rows).
        let (columns, rows) = (turn(cos, wave.phase), turn(sin, 0.0));
        for (line, (row_sin, row_cos)) in texture.chunks_exact_mut(size).zip(rows) {
            for (value, (column_sin, column_cos)) in line.iter_mut().zip(&columns) {
                *value += amplitude * (row_cos * column_cos - row_sin * column_sin);
            }
        }
    }
    texture
}

fn waves(class: u32, rng: &mut Stream) -> Vec<Wave> {
    let mut vary = |spread: f32| spread * (2.0 * rng.random::<f32>() - 1.0);
    let stretch = 1.0 + vary(0.04);
    let tilt = vary(4.0f32.to_radians());
    let side = vary(1.0).signum();
    // Where the whole pattern lies; shared by its waves, so that dots stay dots.
    let shift = [vary(4.0), vary(4.0)];
    let wave = |frequency: f32, direction: f32| {
        let (frequency, direction) = (frequency * stretch, direction + tilt);
        let along = shift[0] * direction.cos() + shift[1] * direction.sin();
        Wave { frequency, direction, phase: TAU * frequency * along }
    };
    match class {
        0 => vec![wave(FINE, 0.0)],
        1 => vec![wave(WIDE, 0.0)],
        2 => vec![wave(FINE, FRAC_PI_2)],
        3 => vec![wave(WIDE, FRAC_PI_2)],
        4 => vec![wave(FINE, side * FRAC_PI_4)],
        5 => vec![wave(WIDE, side * FRAC_PI_4)],
        6 => vec![wave(MIDDLE, 0.0), wave(MIDDLE, FRAC_PI_2)],
        7 => vec![wave(MIDDLE, FRAC_PI_4), wave(MIDDLE, -FRAC_PI_4)],
        8 => (0..3).map(|third| wave(MIDDLE, third as f32 * PI / 3.0)).collect(),
        9 => (0..GRAIN_WAVES)
            .map(|_| Wave {
                frequency: WIDE + (FINE - WIDE) * rng.random::<f32>(),
                direction: PI * rng.random::<f32>(),
                phase: TAU * rng.random::<f32>(),
            })
            .collect(),
        _ => unreachable!("there are ten textures"),
    }
}
