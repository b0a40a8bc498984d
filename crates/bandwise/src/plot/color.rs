//! Colors: a categorical palette that color-blind readers can tell apart, and perceptual color maps.

use serde::{Deserialize, Serialize};

/// Number of distinct series colors; further series start again.
pub const SERIES_COLORS: usize = 8;

/// Okabe and Ito's palette (2008), ordered so that the first colors differ most, for a light page.
const SERIES_ON_LIGHT: [&str; SERIES_COLORS] =
    ["#0072b2", "#d55e00", "#009e73", "#b4588f", "#c08500", "#3a9fd6", "#6b6f76", "#7a5195"];

/// The same hues, lighter, for a dark page.
const SERIES_ON_DARK: [&str; SERIES_COLORS] =
    ["#4ba3e3", "#ff8f4d", "#2fc79a", "#e08fc0", "#f0bc42", "#86ccf5", "#a7adb8", "#b794d6"];

/// Colors of page and figures that are not data: name, light, dark.
const SURFACES: [(&str, &str, &str); 9] = [
    ("page", "#f6f7f9", "#101318"),
    ("surface", "#ffffff", "#181c23"),
    ("ink", "#1b1f26", "#e8eaee"),
    ("muted", "#5d6672", "#9aa4b2"),
    ("rule", "#dfe3e8", "#2c323c"),
    ("grid", "#e9ecf0", "#272d37"),
    ("accent", "#0072b2", "#6db8f0"),
    ("note", "#eef5fb", "#16242f"),
    ("warning", "#fdf3e7", "#2e2416"),
];

/// Declarations of all custom properties, `--name: color;`, for one theme.
pub(crate) fn css_variables(dark: bool) -> String {
    let series = if dark { SERIES_ON_DARK } else { SERIES_ON_LIGHT };
    let surfaces = SURFACES.iter().map(|(name, light, night)| (*name, if dark { *night } else { *light }));
    let mut css: String = surfaces.map(|(name, color)| format!("--{name}:{color};")).collect();
    for (index, color) in series.iter().enumerate() {
        css.push_str(&format!("--series-{index}:{color};"));
    }
    css
}

/// Replaces `var(--name)` by the light theme's color: many SVG readers know no custom properties.
pub(super) fn resolve_variables(css: &str) -> String {
    let mut css = css.to_owned();
    for (name, light, _) in SURFACES {
        css = css.replace(&format!("var(--{name})"), light);
    }
    for (index, color) in SERIES_ON_LIGHT.iter().enumerate() {
        css = css.replace(&format!("var(--series-{index})"), color);
    }
    css
}

/// How a value in `[0, 1]` becomes a color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColorMap {
    /// Perceptually uniform, dark blue to yellow: energies, accuracies.
    #[default]
    Viridis,
    /// Perceptually uniform, black to cream: amplitude spectra.
    Magma,
    /// Blue, white, red: signed values around zero.
    Diverging,
    /// Black to white.
    #[serde(alias = "grey")]
    Gray,
}

impl ColorMap {
    /// The sRGB color of `t` in `[0, 1]` (clamped); NaN gives middle gray.
    pub fn color(self, t: f32) -> [u8; 3] {
        if t.is_nan() {
            return [128, 128, 128];
        }
        let t = t.clamp(0.0, 1.0);
        let anchors: &[u32] = match self {
            Self::Viridis => &VIRIDIS,
            Self::Magma => &MAGMA,
            Self::Diverging => &DIVERGING,
            Self::Gray => &[0x000000, 0xffffff],
        };
        let position = t * (anchors.len() - 1) as f32;
        let index = (position as usize).min(anchors.len() - 2);
        let fraction = position - index as f32;
        let channel = |shift: u32| {
            let byte = |anchor: u32| (anchor >> shift & 0xff) as f32;
            (byte(anchors[index]) * (1.0 - fraction) + byte(anchors[index + 1]) * fraction).round() as u8
        };
        [channel(16), channel(8), channel(0)]
    }

    /// `#rrggbb` of [`ColorMap::color`].
    pub fn hex(self, t: f32) -> String {
        let [r, g, b] = self.color(t);
        format!("#{r:02x}{g:02x}{b:02x}")
    }
}

/// Whether dark text reads better than light text on this color (relative luminance of WCAG 2).
pub(super) fn is_bright(color: [u8; 3]) -> bool {
    let linear = |c: u8| (f32::from(c) / 255.0).powf(2.2);
    0.2126 * linear(color[0]) + 0.7152 * linear(color[1]) + 0.0722 * linear(color[2]) > 0.25
}

// Matplotlib's viridis and magma (CC0) and ColorBrewer's RdBu, at 33 equal steps.
#[rustfmt::skip]
const VIRIDIS: [u32; 33] = [
    0x440154, 0x470d60, 0x48186a, 0x482374, 0x472d7b, 0x453781, 0x424086, 0x3e4989, 0x3b528b, 0x375b8d,
    0x33638d, 0x2f6b8e, 0x2c728e, 0x297a8e, 0x26828e, 0x23898e, 0x21918c, 0x1f988b, 0x1fa088, 0x22a785,
    0x28ae80, 0x32b67a, 0x3fbc73, 0x4ec36b, 0x5ec962, 0x70cf57, 0x84d44b, 0x98d83e, 0xaddc30, 0xc2df23,
    0xd8e219, 0xece51b, 0xfde725,
];
#[rustfmt::skip]
const MAGMA: [u32; 33] = [
    0x000004, 0x030312, 0x0a0822, 0x130d34, 0x1d1147, 0x29115a, 0x36106b, 0x440f76, 0x51127c, 0x5d177f,
    0x6a1c81, 0x762181, 0x832681, 0x902a81, 0x9c2e7f, 0xaa337d, 0xb73779, 0xc43c75, 0xd0416f, 0xdc4869,
    0xe75263, 0xef5d5e, 0xf56b5c, 0xf9795d, 0xfc8961, 0xfd9869, 0xfea772, 0xfeb67c, 0xfec488, 0xfed395,
    0xfde2a3, 0xfcf0b2, 0xfcfdbf,
];
#[rustfmt::skip]
const DIVERGING: [u32; 33] = [
    0x053061, 0x0e4179, 0x175290, 0x1f63a8, 0x2a71b2, 0x3480b9, 0x3f8ec0, 0x529dc8, 0x6bacd1, 0x84bcd9,
    0x9bc9e0, 0xaed3e6, 0xc2ddec, 0xd4e6f1, 0xe0ecf3, 0xecf2f5, 0xf7f6f6, 0xf9eee7, 0xfbe5d8, 0xfddcc9,
    0xfbccb4, 0xf8bb9e, 0xf5aa89, 0xee9677, 0xe48066, 0xdb6b55, 0xd05548, 0xc53e3d, 0xba2832, 0xab162a,
    0x930e26, 0x7c0722, 0x67001f,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_maps_hit_their_ends_and_center() {
        assert_eq!(ColorMap::Viridis.hex(0.0), "#440154");
        assert_eq!(ColorMap::Magma.hex(7.0), "#fcfdbf");
        assert_eq!(ColorMap::Diverging.color(0.5), [0xf7, 0xf6, 0xf6]);
        assert_eq!(ColorMap::Gray.color(0.5), [128, 128, 128]);
    }

    #[test]
    fn perceptual_maps_grow_steadily_brighter() {
        for map in [ColorMap::Viridis, ColorMap::Magma] {
            let luma = |t: f32| {
                let [r, g, b] = map.color(t).map(f32::from);
                0.2126 * r + 0.7152 * g + 0.0722 * b
            };
            assert!((0..100).all(|i| luma((i + 1) as f32 / 100.0) > luma(i as f32 / 100.0)), "{map:?}");
        }
    }

    #[test]
    fn no_variable_is_left_after_resolving() {
        let css: String = css_variables(false)
            .split(';')
            .filter_map(|d| d.split_once(':'))
            .map(|(n, _)| format!("var({n})"))
            .collect();
        assert!(css.contains("var(--series-0)"));
        assert!(!resolve_variables(&css).contains("var("));
    }
}
