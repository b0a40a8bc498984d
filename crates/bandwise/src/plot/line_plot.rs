//! Curves with optional confidence bands.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::chart::{self, Entry, Width};
use super::figure::Figure;
use super::numbers;
use super::scale::{Axis, Scale, ScaleKind};
use super::svg::{Area, Svg, number};
use crate::formats::csv::{Csv, optional};

/// A plot of one or several curves over a common axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinePlot {
    /// What the plot shows.
    pub title: String,
    /// A sentence below the plot.
    #[serde(default)]
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Series>,
    /// Half or whole page width.
    #[serde(default)]
    pub width: Width,
}

/// One curve.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Series {
    /// Its name in the legend.
    pub label: String,
    /// `[x, y]` in drawing order; points that are not finite interrupt the curve.
    #[serde(with = "numbers::pairs")]
    pub points: Vec<[f64; 2]>,
    /// Lower and upper bound at each point, or empty.
    #[serde(default, with = "numbers::pairs", skip_serializing_if = "Vec::is_empty")]
    pub band: Vec<[f64; 2]>,
    /// Which palette color; the place in the plot when absent.
    #[serde(default, alias = "colour", skip_serializing_if = "Option::is_none")]
    pub color: Option<usize>,
    /// Whether the line is dashed.
    #[serde(default)]
    pub dashed: bool,
    /// Whether only the points are drawn, without a line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scatter: bool,
}

impl Series {
    /// A solid curve through `[x, y]` points.
    pub fn new(label: impl Into<String>, points: Vec<[f64; 2]>) -> Self {
        Self { label: label.into(), points, ..Self::default() }
    }

    /// Adds lower and upper bounds, one pair per point.
    pub fn band(mut self, band: Vec<[f64; 2]>) -> Self {
        self.band = band;
        self
    }

    /// Fixes the palette color, so that one model looks the same in all plots.
    pub fn color(mut self, color: usize) -> Self {
        self.color = Some(color);
        self
    }

    /// Draws the curve dashed.
    pub fn dashed(mut self) -> Self {
        self.dashed = true;
        self
    }

    /// Draws the points only, without a line.
    pub fn scatter(mut self) -> Self {
        self.scatter = true;
        self
    }
}

/// Curves with at most this many points show a marker at each.
const MARKED_POINTS: usize = 14;
/// Curves with at most this many points show a tooltip at each.
const TOUCHABLE_POINTS: usize = 80;
/// Distance between the frame and the outermost points.
const EDGE: f64 = 8.0;
/// Longer curves are thinned to their extremes for drawing.
const DRAWN_POINTS: usize = 800;

impl LinePlot {
    /// An empty plot.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        let (title, caption) = (title.into(), String::new());
        Self { title, caption, x, y, series: Vec::new(), width: Width::default() }
    }

    /// Adds a curve.
    pub fn series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Says something below the plot.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// Takes the whole page width.
    pub fn full_width(mut self) -> Self {
        self.width = Width::Full;
        self
    }

    fn legend(&self) -> Vec<Entry<'_>> {
        let entries = self.series.iter().enumerate().map(|(index, s)| {
            let color = s.color.unwrap_or(index);
            Entry { label: &s.label, color, dashed: s.dashed, marker: Some(color) }
        });
        entries.collect()
    }

    fn draw_series(&self, svg: &mut Svg, area: Area, scales: [&Scale; 2], index: usize, series: &Series) {
        let place =
            |[a, b]: [f64; 2]| Some([area.x(scales[0].position(a)?), area.y(clip(scales[1].position(b)?))]);
        if series.band.len() == series.points.len() && !series.band.is_empty() {
            let outline = band_outline(series, self.y.scale, scales[1], place);
            svg.path("band", &outline);
        }
        if series.scatter {
            for (point_index, place) in series.points.iter().map(|p| place(*p)).enumerate() {
                let Some(place) = place else { continue };
                svg.marker(series.color.unwrap_or(index), place, &self.tooltip(series, point_index));
            }
            return;
        }
        let thinned = thin(&series.points);
        let line = polyline(thinned.iter().map(|p| place(*p)));
        svg.path(if series.dashed { "line dashed" } else { "line" }, &line);
        if series.points.len() > TOUCHABLE_POINTS {
            return;
        }
        for (point_index, point) in series.points.iter().enumerate() {
            let Some(place) = place(*point) else { continue };
            let tooltip = self.tooltip(series, point_index);
            if series.points.len() <= MARKED_POINTS && !series.dashed || series.points.len() == 1 {
                svg.marker(series.color.unwrap_or(index), place, &tooltip);
            } else {
                svg.hot_spot(place, &tooltip);
            }
        }
    }

    fn tooltip(&self, series: &Series, index: usize) -> String {
        let [x, y] = series.points[index];
        let mut text = format!("{}\n{} at {}", series.label, self.y.format.write(y), self.x.format.write(x));
        if let Some([low, high]) = series.band.get(index) {
            let _ = write!(text, "\n[{}, {}]", self.y.format.write(*low), self.y.format.write(*high));
        }
        text
    }

    /// The plot as an SVG file of its own, in light colors.
    pub fn svg(&self) -> String {
        self.draw().standalone()
    }
}

impl Figure for LinePlot {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption_text(&self) -> &str {
        &self.caption
    }

    fn is_wide(&self) -> bool {
        self.width == Width::Full
    }

    fn draw(&self) -> Svg {
        let [width, height] = self.width.size();
        let mut svg = Svg::new(width, height, &self.title);
        let top = chart::header(&mut svg, &self.title, &self.legend());
        let bounds = |i: usize| {
            let series = self.series.iter();
            series.flat_map(move |s| s.points.iter().map(move |p| p[i])).collect::<Vec<_>>()
        };
        let bands = self.series.iter().flat_map(|s| s.band.iter().flatten().copied());
        let x =
            Scale::fit(&self.x, bounds(0).into_iter(), if self.width == Width::Full { 10 } else { 6 }, false);
        let y = Scale::fit(&self.y, bounds(1).into_iter().chain(bands), 5, true);
        let frame = Area {
            left: chart::y_axis_room(&self.y, &y) + 4.0,
            top: top + 6.0,
            right: width - 8.0,
            bottom: height - chart::x_axis_room(&self.x),
        };
        chart::y_axis(&mut svg, frame, &self.y, &y);
        // The first and the last point stand within the frame, not on it.
        let area = Area { left: frame.left + EDGE, right: frame.right - EDGE, ..frame };
        chart::x_axis(&mut svg, area, frame, &self.x, &x);
        for (index, series) in self.series.iter().enumerate() {
            svg.open(&chart::series_class(series.color.unwrap_or(index)));
            self.draw_series(&mut svg, area, [&x, &y], index, series);
            svg.close();
        }
        svg
    }

    /// The data: `series,x,y,low,high`.
    fn csv(&self) -> String {
        let mut csv = Csv::new(&["series", "x", "y", "low", "high"]);
        for series in &self.series {
            for (index, [x, y]) in series.points.iter().enumerate() {
                let bound = |end: usize| optional(series.band.get(index).map(|band| band[end]));
                csv.row(&[&series.label, x, y, &bound(0), &bound(1)]);
            }
        }
        csv.into_text()
    }
}

/// Keeps a curve that leaves a fixed range at its edge.
fn clip(position: f64) -> f64 {
    position.clamp(-0.02, 1.02)
}

/// A path through points, lifted where one is missing.
fn polyline(points: impl Iterator<Item = Option<[f64; 2]>>) -> String {
    let mut data = String::new();
    let mut drawing = false;
    for point in points {
        if let Some([x, y]) = point {
            let _ = write!(data, "{}{} {}", if drawing { "L" } else { "M" }, number(x), number(y));
        }
        drawing = point.is_some();
    }
    data
}

fn band_outline(
    series: &Series,
    kind: ScaleKind,
    y: &Scale,
    place: impl Fn([f64; 2]) -> Option<[f64; 2]>,
) -> String {
    // On a logarithmic axis a bound that is not positive lies below the plot, not nowhere.
    let floor = |v: f64| if kind == ScaleKind::Log && v <= 0.0 { y.low() } else { v };
    let corners = series.points.iter().zip(&series.band);
    let upper = corners.clone().filter_map(|(p, b)| place([p[0], floor(b[1])]));
    let lower = corners.rev().filter_map(|(p, b)| place([p[0], floor(b[0])]));
    let data = polyline(upper.chain(lower).map(Some));
    if data.is_empty() { data } else { data + "Z" }
}

/// Thins a long curve: of each stretch, its lowest and highest point remain, in order.
fn thin(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    if points.len() <= DRAWN_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(DRAWN_POINTS / 2);
    let extremes = points.chunks(stretch).flat_map(|chunk| {
        let by_height = |a: &&[f64; 2], b: &&[f64; 2]| a[1].total_cmp(&b[1]);
        let low = chunk.iter().min_by(by_height).expect("chunks are not empty");
        let high = chunk.iter().max_by(by_height).expect("chunks are not empty");
        if low[0] <= high[0] { [*low, *high] } else { [*high, *low] }
    });
    extremes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<[f64; 2]>) -> LinePlot {
        LinePlot::new("Loss", Axis::new("epoch"), Axis::new("loss").log()).series(Series::new("a,b", points))
    }

    #[test]
    fn a_gap_lifts_the_pen() {
        let path = polyline([Some([0.0, 1.0]), None, Some([2.0, 3.0]), Some([4.0, 5.5])].into_iter());
        assert_eq!(path, "M0 1M2 3L4 5.5");
    }

    #[test]
    fn thinning_keeps_extremes() {
        let mut points: Vec<[f64; 2]> = (0..50_000).map(|i| [f64::from(i), 0.0]).collect();
        points[31_234][1] = 9.0;
        points[777][1] = -9.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= DRAWN_POINTS + 2);
        assert!(thinned.contains(&[31_234.0, 9.0]) && thinned.contains(&[777.0, -9.0]));
        assert!(thinned.is_sorted_by(|a, b| a[0] <= b[0]));
    }

    #[test]
    fn anything_can_be_drawn() {
        for points in [vec![], vec![[1.0, f64::NAN]], vec![[0.0, -1.0], [1.0, 1.0]], vec![[3.0, 3.0]]] {
            let mut plot = plot(points);
            plot.series[0].band = vec![[0.0, 1.0]; plot.series[0].points.len()];
            assert!(!plot.svg().contains("NaN") && !plot.svg().contains("inf"));
        }
    }

    #[test]
    fn csv_holds_every_point() {
        assert_eq!(
            plot(vec![[1.0, 0.5], [2.0, 0.25]]).csv(),
            "series,x,y,low,high\n\"a,b\",1,0.5,,\n\"a,b\",2,0.25,,\n"
        );
    }

    #[test]
    fn not_a_number_survives_json() {
        let json = serde_json::to_string(&plot(vec![[1.0, f64::NAN]])).unwrap();
        let back: LinePlot = serde_json::from_str(&json).unwrap();
        assert!(back.series[0].points[0][1].is_nan());
    }
}
