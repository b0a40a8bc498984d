//! What all plots share: their size, title, legend and axes.

use serde::{Deserialize, Serialize};

use super::scale::{Axis, Scale};
use super::svg::{Anchor, Area, Svg, text_width, wrap};

/// How much of the page's width a plot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    /// Half of a wide page; two stand side by side, and alone on a phone.
    #[default]
    Half,
    /// The whole page; on a phone it scrolls sideways.
    Full,
}

impl Width {
    /// Width and height of the drawing in user units.
    pub(super) fn size(self) -> [f64; 2] {
        match self {
            Self::Half => [424.0, 300.0],
            Self::Full => [940.0, 360.0],
        }
    }
}

const TITLE_SIZE: f64 = 14.0;
const LEGEND_SIZE: f64 = 12.0;
const TICK_SIZE: f64 = 12.0;

/// One entry of a legend: text, color, and whether its line is dashed.
pub(super) struct Entry<'a> {
    pub(super) label: &'a str,
    pub(super) color: usize,
    pub(super) dashed: bool,
    /// A line with this marker, or (for bars) a swatch.
    pub(super) marker: Option<usize>,
}

/// Draws title and legend; returns the y coordinate below them.
pub(super) fn header(svg: &mut Svg, title: &str, legend: &[Entry]) -> f64 {
    let right = svg.width();
    let mut y = 4.0;
    if !title.is_empty() {
        for line in wrap(title, right, TITLE_SIZE, 2) {
            y += 17.0;
            svg.text("title", [0.0, y - 3.0], Anchor::Start, &line);
        }
        y += 4.0;
    }
    if legend.len() < 2 && legend.iter().all(|e| e.label.is_empty()) {
        return y + 8.0;
    }
    let mut x = 0.0;
    y += 14.0;
    for entry in legend {
        let label = super::svg::shorten(entry.label, right - 50.0, LEGEND_SIZE);
        let width = 30.0 + text_width(&label, LEGEND_SIZE) + 12.0;
        if x + width > right + 12.0 && x > 0.0 {
            (x, y) = (0.0, y + 18.0);
        }
        svg.open(&series_class(entry.color));
        match entry.marker {
            Some(marker) => {
                let class = if entry.dashed { "line dashed" } else { "line" };
                svg.line(class, [x, y - 4.0], [x + 22.0, y - 4.0]);
                if !entry.dashed {
                    svg.marker(marker, [x + 11.0, y - 4.0], "");
                }
            }
            None => {
                let swatch = Area { left: x + 1.0, top: y - 10.0, right: x + 14.0, bottom: y + 1.0 };
                svg.rect("bar", swatch, "rx=\"2\"", "");
            }
        }
        svg.close();
        let indent = if entry.marker.is_some() { 28.0 } else { 19.0 };
        svg.text("legend", [x + indent, y], Anchor::Start, &label);
        x += width;
    }
    y + 12.0
}

/// The class that sets the color of a series.
pub(super) fn series_class(color: usize) -> String {
    format!("series-{}", color % super::color::SERIES_COLORS)
}

/// Room for the labels of a vertical axis, in user units.
pub(super) fn y_axis_room(axis: &Axis, scale: &Scale) -> f64 {
    let labels = scale.ticks.iter().map(|(_, label)| text_width(label, TICK_SIZE)).fold(0.0, f64::max);
    labels + 16.0 + if axis.label.is_empty() { 0.0 } else { 18.0 }
}

/// Draws grid lines, tick labels and label of the vertical axis.
pub(super) fn y_axis(svg: &mut Svg, area: Area, axis: &Axis, scale: &Scale) {
    for (value, label) in &scale.ticks {
        let Some(position) = scale.position(*value) else { continue };
        let y = area.y(position);
        svg.line("grid", [area.left, y], [area.right, y]);
        svg.text("tick", [area.left - 7.0, y + 4.0], Anchor::End, label);
    }
    if !axis.label.is_empty() {
        let label = super::svg::shorten(&axis.label, area.height() + 30.0, 12.0);
        let middle = (area.top + area.bottom) / 2.0;
        let room = y_axis_room(axis, scale);
        svg.turned_text("label", [area.left - room + 12.0, middle], Anchor::Middle, -90.0, &label);
    }
}

/// Draws base line, tick labels and label of the horizontal axis. Values run over `area`; the base line reaches over
/// `frame`, which is at least as wide.
pub(super) fn x_axis(svg: &mut Svg, area: Area, frame: Area, axis: &Axis, scale: &Scale) {
    svg.line("axis", [frame.left, area.bottom], [frame.right, area.bottom]);
    let mut free_from = f64::NEG_INFINITY;
    for (value, label) in &scale.ticks {
        let Some(position) = scale.position(*value) else { continue };
        let x = area.x(position);
        svg.line("axis", [x, area.bottom], [x, area.bottom + 4.0]);
        let half = text_width(label, TICK_SIZE) / 2.0;
        // A label at the very edge moves inwards instead of being cut.
        let middle = x.min(svg.width() - half - 1.0);
        if middle - half >= free_from {
            svg.text("tick", [middle, area.bottom + 17.0], Anchor::Middle, label);
            free_from = middle + half + 6.0;
        }
    }
    if !axis.label.is_empty() {
        let middle = (area.left + area.right) / 2.0;
        svg.text("label", [middle, area.bottom + 35.0], Anchor::Middle, &axis.label);
    }
}

/// Room below the plot for the horizontal axis.
pub(super) fn x_axis_room(axis: &Axis) -> f64 {
    if axis.label.is_empty() { 26.0 } else { 44.0 }
}
