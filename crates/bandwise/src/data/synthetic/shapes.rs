//! The low-frequency cue: ten global shapes.

/// The shapes' names, by class. All stay what they are when mirrored or tilted a little.
pub const SHAPES: [&str; 10] =
    ["disc", "ring", "square", "triangle", "plus", "cross", "bar", "pillar", "corner", "pair"];

/// How far (`x`, `y`) lies outside the outline of a shape of radius 1 (negative inside).
///
/// # Panics
/// If `class` is not below 10.
pub(super) fn distance(class: u32, x: f32, y: f32) -> f32 {
    let disc = |cx: f32, cy: f32, radius: f32| (x - cx).hypot(y - cy) - radius;
    let rectangle =
        |x: f32, y: f32, half_width: f32, half_height: f32| (x.abs() - half_width).max(y.abs() - half_height);
    match class {
        0 => disc(0.0, 0.0, 0.9),
        1 => disc(0.0, 0.0, 0.72).abs() - 0.22,
        2 => rectangle(x, y, 0.76, 0.76),
        3 => (y - 0.6).max(0.866 * x.abs() - 0.5 * y - 0.5),
        4 => rectangle(x, y, 1.0, 0.3).min(rectangle(x, y, 0.3, 1.0)),
        5 => {
            let (u, v) =
                ((x + y) * std::f32::consts::FRAC_1_SQRT_2, (x - y) * std::f32::consts::FRAC_1_SQRT_2);
            rectangle(u, v, 1.1, 0.28).min(rectangle(u, v, 0.28, 1.1))
        }
        6 => rectangle(x, y, 1.0, 0.38),
        7 => rectangle(x, y, 0.38, 1.0),
        8 => rectangle(x + 0.55, y, 0.3, 0.85).min(rectangle(x, y - 0.55, 0.85, 0.3)),
        9 => disc(-0.6, 0.0, 0.42).min(disc(0.6, 0.0, 0.42)),
        _ => unreachable!("there are ten shapes"),
    }
}
