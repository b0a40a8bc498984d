//! Arrays as color: spectra, DCT energies, Fourier heat maps, small annotated tables.

use serde::{Deserialize, Serialize};

use super::chart::{self, Width};
use super::color::{ColorMap, is_bright};
use super::figure::Figure;
use super::image::PngImage;
use super::numbers;
use super::scale::{Axis, NumberFormat, Scale};
use super::svg::{Anchor, Area, Svg, shorten, text_width};
use crate::formats::csv::Csv;

/// One or several arrays side by side, on one color scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatMap {
    /// What the arrays show.
    pub title: String,
    /// A sentence below them.
    #[serde(default)]
    pub caption: String,
    /// The arrays.
    pub panels: Vec<HeatPanel>,
    /// The colors.
    #[serde(default, alias = "colours")]
    pub colors: ColorMap,
    /// What the color means: label, scale, number format and range of the color bar.
    pub value: Axis,
    /// The horizontal axis of every panel; its range is that of the columns. Without a range, columns
    /// are named or numbered.
    #[serde(default)]
    pub x: Axis,
    /// The vertical axis of every panel; its range is that of the rows, from bottom to top. Without a
    /// range, rows are named or numbered from the top.
    #[serde(default)]
    pub y: Axis,
    /// Names of the columns, instead of numbers.
    #[serde(default)]
    pub column_names: Vec<String>,
    /// Names of the rows, instead of numbers.
    #[serde(default)]
    pub row_names: Vec<String>,
    /// Writes each value into its cell (small arrays).
    #[serde(default)]
    pub annotated: bool,
    /// Half or whole page width; several panels take the whole width in any case.
    #[serde(default)]
    pub width: Width,
}

/// One array.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeatPanel {
    /// Its name, for example a model.
    pub label: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Row after row, from the top; NaN is left blank.
    #[serde(with = "numbers::list")]
    pub values: Vec<f32>,
    /// Its own horizontal and vertical axis, where the panels' differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axes: Option<[Axis; 2]>,
}

impl HeatPanel {
    /// `values` row after row, from the top.
    pub fn new(label: impl Into<String>, rows: usize, columns: usize, values: Vec<f32>) -> Self {
        Self { label: label.into(), rows, columns, values, axes: None }
    }

    /// Gives the panel axes of its own, with ranges.
    pub fn axes(mut self, x: Axis, y: Axis) -> Self {
        self.axes = Some([x, y]);
        self
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.values.get(row * self.columns + column).map_or(f64::NAN, |v| f64::from(*v))
    }
}

/// Arrays with at most this many cells are drawn cell by cell, with tooltips; larger ones as pixels.
const DRAWN_CELLS: usize = 400;
const COLOR_BAR_ROOM: f64 = 86.0;
const PANELS_PER_ROW: usize = 4;
/// Cells with numbers are at most this wide, unless the panel would be too small for its axes.
const WIDEST_CELL: f64 = 76.0;
const SMALLEST_PANEL: f64 = 200.0;

impl HeatMap {
    /// A heat map without panels; `value` labels the color bar.
    pub fn new(title: impl Into<String>, value: Axis) -> Self {
        Self {
            title: title.into(),
            caption: String::new(),
            panels: Vec::new(),
            colors: ColorMap::default(),
            value,
            x: Axis::default(),
            y: Axis::default(),
            column_names: Vec::new(),
            row_names: Vec::new(),
            annotated: false,
            width: Width::default(),
        }
    }

    /// Adds an array.
    pub fn panel(mut self, panel: HeatPanel) -> Self {
        self.panels.push(panel);
        self
    }

    /// Chooses the colors.
    pub fn colors(mut self, colors: ColorMap) -> Self {
        self.colors = colors;
        self
    }

    /// Labels the panels' axes; their ranges are those of columns (left to right) and rows (bottom to top).
    pub fn axes(mut self, x: Axis, y: Axis) -> Self {
        (self.x, self.y) = (x, y);
        self
    }

    /// Names rows and columns, and writes the values into the cells.
    pub fn annotated(mut self, row_names: Vec<String>, column_names: Vec<String>) -> Self {
        (self.row_names, self.column_names, self.annotated) = (row_names, column_names, true);
        self
    }

    /// Says something below the arrays.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// Takes the whole page width.
    pub fn full_width(mut self) -> Self {
        self.width = Width::Full;
        self
    }

    /// The color scale; diverging colors are centered on zero.
    fn color_scale(&self) -> Scale {
        let values = self.panels.iter().flat_map(|p| &p.values).map(|v| f64::from(*v));
        let mut axis = self.value.clone();
        if self.colors == ColorMap::Diverging && axis.range.is_none() {
            let largest = values.clone().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
            axis.range = (largest > 0.0).then_some([-largest, largest]);
        }
        Scale::fit(&axis, values, 5, false)
    }

    fn color(&self, scale: &Scale, value: f64) -> Option<[u8; 3]> {
        if !value.is_finite() {
            return None;
        }
        // A zero on a logarithmic scale is the scale's dark end, not a hole.
        Some(self.colors.color(scale.position(value).unwrap_or(0.0) as f32))
    }

    fn draw_panel(&self, svg: &mut Svg, area: Area, panel: &HeatPanel, scale: &Scale) {
        if panel.rows * panel.columns == 0 {
            return;
        }
        if self.annotated || panel.rows * panel.columns <= DRAWN_CELLS {
            self.draw_cells(svg, area, panel, scale);
        } else {
            let pixels = (0..panel.rows * panel.columns).flat_map(|i| {
                let value = panel.at(i / panel.columns, i % panel.columns);
                self.color(scale, value).unwrap_or([128; 3])
            });
            let picture =
                PngImage::from_bytes(&pixels.collect::<Vec<_>>(), panel.rows, panel.columns, 3, 256);
            svg.png(area, &picture.png);
        }
        svg.rect("frame", area, "", "");
    }

    fn draw_cells(&self, svg: &mut Svg, area: Area, panel: &HeatPanel, scale: &Scale) {
        let [w, h] = [area.width() / panel.columns as f64, area.height() / panel.rows as f64];
        for row in 0..panel.rows {
            for column in 0..panel.columns {
                let value = panel.at(row, column);
                let [left, top] = [area.left + w * column as f64, area.top + h * row as f64];
                let cell = Area { left, top, right: left + w, bottom: top + h };
                let text = self.value.format.write(value);
                let tooltip = format!("{}: {text}", self.cell_name(row, column));
                let Some(color) = self.color(scale, value) else {
                    svg.rect("missing", cell, "", &tooltip);
                    continue;
                };
                let [r, g, b] = color;
                svg.rect("cell", cell, &format!("fill=\"#{r:02x}{g:02x}{b:02x}\""), &tooltip);
                let text =
                    if self.value.format == NumberFormat::Percent { text.replace(" %", "") } else { text };
                if self.annotated && text_width(&text, 11.0) < w && h > 12.0 {
                    let class = if is_bright(color) { "dark" } else { "light" };
                    svg.text(class, [left + w / 2.0, top + h / 2.0 + 4.0], Anchor::Middle, &text);
                }
            }
        }
    }

    fn cell_name(&self, row: usize, column: usize) -> String {
        let name = |names: &[String], index: usize| names.get(index).cloned().unwrap_or(index.to_string());
        format!("{}, {}", name(&self.row_names, row), name(&self.column_names, column))
    }

    fn draw_axes(&self, svg: &mut Svg, area: Area, panel: &HeatPanel, leftmost: bool) {
        let middle = [(area.left + area.right) / 2.0, (area.top + area.bottom) / 2.0];
        if let Some([x, y]) = &panel.axes {
            chart::x_axis(svg, area, area, x, &self.ruler(x));
            let y = if leftmost { y.clone() } else { Axis { label: String::new(), ..y.clone() } };
            chart::y_axis(svg, area, &y, &self.ruler(&y));
            return;
        }
        if self.x.range.is_some() && self.column_names.is_empty() {
            chart::x_axis(svg, area, area, &self.x, &self.ruler(&self.x));
        } else {
            let pitch = area.width() / panel.columns.max(1) as f64;
            let names = names(&self.x, &self.column_names, panel.columns);
            let slant = slant_of(&names, pitch);
            for (index, name) in spaced(&names, pitch, if slant > 0.0 { 14.0 } else { 24.0 }) {
                let x = area.left + pitch * (index as f64 + 0.5);
                if slant > 0.0 {
                    let name = shorten(name, LONGEST_NAME, 12.0);
                    svg.turned_text("tick", [x + 4.0, area.bottom + 13.0], Anchor::End, -38.0, &name);
                } else {
                    svg.text("tick", [x, area.bottom + 16.0], Anchor::Middle, name);
                }
            }
            svg.text("label", [middle[0], area.bottom + 35.0 + slant], Anchor::Middle, &self.x.label);
        }
        if leftmost {
            self.draw_row_axis(svg, area, panel, middle[1]);
        }
    }

    fn draw_row_axis(&self, svg: &mut Svg, area: Area, panel: &HeatPanel, middle: f64) {
        if self.y.range.is_some() && self.row_names.is_empty() {
            chart::y_axis(svg, area, &self.y, &self.ruler(&self.y));
            return;
        }
        let pitch = area.height() / panel.rows.max(1) as f64;
        for (index, name) in spaced(&names(&self.y, &self.row_names, panel.rows), pitch, 13.0) {
            let y = area.top + pitch * (index as f64 + 0.5) + 4.0;
            svg.text("tick", [area.left - 7.0, y], Anchor::End, name);
        }
        svg.turned_text("label", [12.0, middle], Anchor::Middle, -90.0, &self.y.label);
    }

    /// The scale of an axis with a range; panels side by side leave room for few ticks, but whole numbers are short.
    fn ruler(&self, axis: &Axis) -> Scale {
        let desired = if self.panels.len() > 1 && !axis.integers { 2 } else { 4 };
        Scale::fit(axis, std::iter::empty(), desired, false)
    }

    fn draw_color_bar(&self, svg: &mut Svg, area: Area, scale: &Scale) {
        const STEPS: usize = 256;
        let pixels: Vec<u8> =
            (0..STEPS).rev().flat_map(|i| self.colors.color(i as f32 / (STEPS - 1) as f32)).collect();
        svg.png(area, &PngImage::from_bytes(&pixels, STEPS, 1, 3, 1).png);
        svg.rect("frame", area, "", "");
        for (value, label) in &scale.ticks {
            let Some(y) = scale.position(*value).map(|p| area.y(p)) else { continue };
            svg.line("axis", [area.right, y], [area.right + 4.0, y]);
            svg.text("tick", [area.right + 7.0, y + 4.0], Anchor::Start, label);
        }
        let label = shorten(&self.value.label, area.height() + 20.0, 12.0);
        let x = area.right + 50.0;
        svg.turned_text("label", [x, (area.top + area.bottom) / 2.0], Anchor::Middle, -90.0, &label);
    }

    /// The heat map as an SVG file of its own, in light colors.
    pub fn svg(&self) -> String {
        self.draw().standalone()
    }
}

impl Figure for HeatMap {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption_text(&self) -> &str {
        &self.caption
    }

    fn is_wide(&self) -> bool {
        self.width == Width::Full || self.panels.len() > 1
    }

    fn draw(&self) -> Svg {
        let scale = self.color_scale();
        let [width, _] = if self.is_wide() { Width::Full } else { Width::Half }.size();
        let layout = Layout::new(self, width);
        let mut probe = Svg::new(width, 0.0, "");
        let top = chart::header(&mut probe, &self.title, &[]);
        let mut svg = Svg::new(width, top + layout.rows as f64 * layout.pitch_y, &self.title);
        chart::header(&mut svg, &self.title, &[]);
        for (index, panel) in self.panels.iter().enumerate() {
            let area = layout.area(index, top);
            if !panel.label.is_empty() {
                let label = shorten(&panel.label, area.width(), 12.0);
                svg.text("legend", [area.left, area.top - 7.0], Anchor::Start, &label);
            }
            // The axes' grid lines lie below the panel.
            self.draw_axes(&mut svg, area, panel, index % layout.columns == 0);
            self.draw_panel(&mut svg, area, panel, &scale);
        }
        let first = layout.area(0, top);
        let bar = Area { left: layout.right + 16.0, right: layout.right + 30.0, ..first };
        self.draw_color_bar(&mut svg, bar, &scale);
        svg
    }

    /// The data: `panel,row,column,value`.
    fn csv(&self) -> String {
        let mut csv = Csv::new(&["panel", "row", "column", "value"]);
        for panel in &self.panels {
            for (index, value) in panel.values.iter().enumerate() {
                let (row, column) = (index / panel.columns.max(1), index % panel.columns.max(1));
                csv.row(&[&panel.label, &row, &column, value]);
            }
        }
        csv.into_text()
    }
}

/// Where the panels stand.
struct Layout {
    columns: usize,
    gap: f64,
    rows: usize,
    left: f64,
    right: f64,
    panel_width: f64,
    panel_height: f64,
    label_room: f64,
    pitch_y: f64,
}

impl Layout {
    fn new(map: &HeatMap, width: f64) -> Self {
        let count = map.panels.len().max(1);
        let rows = count.div_ceil(PANELS_PER_ROW);
        let columns = count.div_ceil(rows);
        let left = left_room(map);
        let right_limit = width - COLOR_BAR_ROOM;
        let gap = match map.x.range {
            _ if map.panels.iter().any(|panel| panel.axes.is_some()) => 54.0,
            Some(_) => 38.0,
            None => 18.0,
        };
        let gaps = gap * (columns - 1) as f64;
        let (cells_high, cells_wide) =
            map.panels.first().map_or((1, 1), |p| (p.rows.max(1), p.columns.max(1)));
        let aspect = if map.annotated { None } else { Some(cells_high as f64 / cells_wide as f64) };
        let tallest = if map.is_wide() { 420.0 } else { 320.0 };
        let mut panel_width = (right_limit - left - gaps) / columns as f64;
        let panel_height = match aspect {
            Some(aspect) => (panel_width * aspect).min(tallest),
            None => {
                // Room for a number in every cell, and cells that are not much wider than tall.
                panel_width =
                    panel_width.min(cells_wide as f64 * WIDEST_CELL).max(panel_width.min(SMALLEST_PANEL));
                let cell = (panel_width / cells_wide as f64 * 0.62).clamp(22.0, 60.0);
                (cells_high as f64 * cell)
                    .max(SMALLEST_PANEL * 0.62)
                    .min(tallest.max(cells_high as f64 * 18.0))
            }
        };
        if let Some(aspect) = aspect {
            // Cells stay square unless the array is very long.
            panel_width = (panel_height / aspect).min(panel_width);
        }
        let label_room = if map.panels.iter().all(|p| p.label.is_empty()) { 4.0 } else { 24.0 };
        let axis_room = if map.x == Axis::default() && map.column_names.is_empty() {
            14.0
        } else {
            let cells = map.panels.first().map_or(0, |p| p.columns);
            let names = names(&map.x, &map.column_names, cells);
            let slanted = map.x.range.is_none() || !map.column_names.is_empty();
            let slant = if slanted { slant_of(&names, panel_width / cells_wide as f64) } else { 0.0 };
            chart::x_axis_room(&map.x) + slant
        };
        let right = left + panel_width * columns as f64 + gaps;
        let pitch_y = label_room + panel_height + axis_room;
        Self { columns, gap, rows, left, right, panel_width, panel_height, label_room, pitch_y }
    }

    fn area(&self, index: usize, top: f64) -> Area {
        let left = self.left + (index % self.columns) as f64 * (self.panel_width + self.gap);
        let top = top + (index / self.columns) as f64 * self.pitch_y + self.label_room;
        Area { left, top, right: left + self.panel_width, bottom: top + self.panel_height }
    }
}

fn left_room(map: &HeatMap) -> f64 {
    if map.y.range.is_some() && map.row_names.is_empty() {
        return chart::y_axis_room(&map.y, &map.ruler(&map.y)) + 4.0;
    }
    let rows = map.panels.first().map_or(0, |p| p.rows);
    let names = names(&map.y, &map.row_names, rows);
    let widest = names.iter().map(|n| text_width(n, 12.0)).fold(-8.0, f64::max);
    widest + 12.0 + if map.y.label.is_empty() { 0.0 } else { 16.0 }
}

/// The names of cells along one side: those given, or their numbers where the axis has a label.
fn names(axis: &Axis, given: &[String], count: usize) -> Vec<String> {
    match (given.is_empty(), axis.label.is_empty()) {
        (false, _) => given.to_vec(),
        (true, true) => Vec::new(),
        (true, false) => (0..count).map(|i| i.to_string()).collect(),
    }
}

/// The longest column name that is shown whole.
const LONGEST_NAME: f64 = 110.0;

/// How much deeper than one line names reach that do not fit side by side and are slanted; 0 if they fit.
fn slant_of(names: &[String], pitch: f64) -> f64 {
    let longest = names.iter().map(|name| text_width(name, 12.0)).fold(0.0, f64::max);
    // Numbers are thinned out instead.
    let numbers = names.iter().all(|name| name.parse::<f64>().is_ok());
    if numbers || longest <= pitch - 4.0 { 0.0 } else { longest.min(LONGEST_NAME) * 0.62 }
}

/// Every n-th name, so that neighbors are at least `room` apart.
fn spaced(names: &[String], pitch: f64, room: f64) -> impl Iterator<Item = (usize, &String)> {
    let every = (room / pitch.max(0.01)).ceil().max(1.0) as usize;
    names.iter().enumerate().step_by(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: usize, columns: usize) -> HeatMap {
        let values = (0..rows * columns).map(|i| i as f32).collect();
        HeatMap::new("Energy", Axis::new("energy")).panel(HeatPanel::new("plain", rows, columns, values))
    }

    #[test]
    fn small_arrays_are_cells_and_large_ones_pixels() {
        assert_eq!(map(3, 3).svg().matches("class=\"cell\"").count(), 9);
        let large = map(32, 32).svg();
        assert_eq!(large.matches("class=\"cell\"").count(), 0);
        assert_eq!(large.matches("<image").count(), 2, "the array and its color bar");
    }

    #[test]
    fn diverging_colors_center_on_zero() {
        let map = HeatMap::new("", Axis::new("")).colors(ColorMap::Diverging).panel(HeatPanel::new(
            "",
            1,
            2,
            vec![-1.0, 4.0],
        ));
        let scale = map.color_scale();
        assert_eq!(scale.position(0.0), Some(0.5));
        assert_eq!(map.color(&scale, 0.0), Some([0xf7, 0xf6, 0xf6]));
    }

    #[test]
    fn missing_and_non_positive_values_are_drawn() {
        let mut map = map(2, 2);
        map.value = Axis::new("").log();
        map.panels[0].values = vec![f32::NAN, 0.0, 1.0, 100.0];
        let svg = map.svg();
        assert_eq!(svg.matches("class=\"missing\"").count(), 1);
        assert_eq!(svg.matches("class=\"cell\"").count(), 3);
    }

    #[test]
    fn panels_side_by_side_name_more_than_zero() {
        let axis = || Axis::integers("frequency").range(-16.5, 15.5);
        let svg =
            map(32, 32).panel(HeatPanel::new("robust", 32, 32, vec![0.5; 1024])).axes(axis(), axis()).svg();
        assert!(svg.matches(">−10</text>").count() >= 3 && svg.matches(">10</text>").count() >= 3, "{svg}");
    }

    #[test]
    fn odd_inputs_do_not_break_the_layout() {
        for map in [map(0, 0), map(1, 900), map(900, 1), HeatMap::new("none", Axis::new(""))] {
            let svg = map.svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        let mut short = map(4, 4);
        short.panels[0].values.truncate(3);
        assert_eq!(short.svg().matches("class=\"missing\"").count(), 13);
    }
}
