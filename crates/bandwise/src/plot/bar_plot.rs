//! Grouped bars with interval whiskers.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::chart::{self, Entry, Width};
use super::figure::Figure;
use super::numbers;
use super::scale::{Axis, Scale};
use super::svg::{Anchor, Area, Svg, number, shorten, text_width, wrap};
use crate::formats::csv::{Csv, optional};

/// Bars in groups: one group per condition, one bar per series (model) in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BarPlot {
    /// What the plot shows.
    pub title: String,
    /// A sentence below the plot.
    #[serde(default)]
    pub caption: String,
    /// The vertical axis; without a fixed range it includes zero.
    pub y: Axis,
    /// The names of the groups.
    pub groups: Vec<String>,
    /// The series; each has one bar per group.
    pub series: Vec<BarSeries>,
    /// A dashed line with its name, for example chance level.
    #[serde(default)]
    pub reference: Option<(f64, String)>,
    /// Half or whole page width.
    #[serde(default)]
    pub width: Width,
}

/// The bars of one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BarSeries {
    /// Its name in the legend.
    pub label: String,
    /// One bar per group.
    pub bars: Vec<Bar>,
    /// Which palette color; the place in the plot when absent.
    #[serde(default, alias = "colour", skip_serializing_if = "Option::is_none")]
    pub color: Option<usize>,
}

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Its height; NaN leaves the place empty.
    #[serde(with = "numbers::value")]
    pub value: f64,
    /// The interval that its whisker spans.
    #[serde(default, with = "numbers::interval")]
    pub interval: Option<[f64; 2]>,
}

impl Bar {
    /// A bar without whisker.
    pub fn new(value: f64) -> Self {
        Self { value, interval: None }
    }

    /// A bar with a whisker.
    pub fn with_interval(value: f64, interval: [f64; 2]) -> Self {
        Self { value, interval: Some(interval) }
    }

    /// An empty place.
    pub fn missing() -> Self {
        Self::new(f64::NAN)
    }
}

impl BarSeries {
    /// The bars of one model, one per group.
    pub fn new(label: impl Into<String>, bars: Vec<Bar>) -> Self {
        Self { label: label.into(), bars, color: None }
    }

    /// Fixes the palette color, so that one model looks the same in all plots.
    pub fn color(mut self, color: usize) -> Self {
        self.color = Some(color);
        self
    }
}

impl BarPlot {
    /// A plot without bars.
    pub fn new(title: impl Into<String>, y: Axis, groups: Vec<String>) -> Self {
        let (title, caption) = (title.into(), String::new());
        Self { title, caption, y, groups, series: Vec::new(), reference: None, width: Width::default() }
    }

    /// Adds a model.
    pub fn series(mut self, series: BarSeries) -> Self {
        self.series.push(series);
        self
    }

    /// Draws a dashed line, for example at chance level.
    pub fn reference(mut self, value: f64, label: impl Into<String>) -> Self {
        self.reference = Some((value, label.into()));
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

    fn extremes(&self) -> impl Iterator<Item = f64> {
        let bars = self.series.iter().flat_map(|s| &s.bars);
        let ends = bars.flat_map(|b| [b.value].into_iter().chain(b.interval.into_iter().flatten()));
        ends.chain([0.0]).chain(self.reference.iter().map(|r| r.0))
    }

    fn legend(&self) -> Vec<Entry<'_>> {
        let entries = self.series.iter().enumerate().map(|(index, s)| Entry {
            label: &s.label,
            color: s.color.unwrap_or(index),
            dashed: false,
            marker: None,
        });
        entries.collect()
    }

    fn draw_bars(&self, svg: &mut Svg, area: Area, scale: &Scale) {
        let slot = area.width() / self.groups.len().max(1) as f64;
        let count = self.series.len().max(1) as f64;
        let pitch = (slot * 0.8 / count).min(54.0);
        let bar_width = pitch * if count > 1.0 { 0.9 } else { 1.0 };
        let zero = area.y(scale.position(0.0).unwrap_or(0.0).clamp(0.0, 1.0));
        let value_texts = self.value_texts(pitch);
        for (index, series) in self.series.iter().enumerate() {
            svg.open(&chart::series_class(series.color.unwrap_or(index)));
            for (group, bar) in series.bars.iter().take(self.groups.len()).enumerate() {
                let Some(position) = scale.position(bar.value) else { continue };
                let y = area.y(position.clamp(0.0, 1.0));
                let middle =
                    area.left + slot * (group as f64 + 0.5) + pitch * (index as f64 - (count - 1.0) / 2.0);
                let body = Area {
                    left: middle - bar_width / 2.0,
                    top: y.min(zero),
                    right: middle + bar_width / 2.0,
                    bottom: y.max(zero),
                };
                svg.rect("bar", body, "rx=\"1.5\"", &self.tooltip(series, group));
                let end = draw_whisker(svg, area, scale, middle, bar).unwrap_or(y).min(y);
                if value_texts {
                    let text = self.short_value(bar.value);
                    svg.text("value", [middle, end - 5.0], Anchor::Middle, &text);
                }
            }
            svg.close();
        }
    }

    /// Whether every value's text fits above its bar.
    fn value_texts(&self, pitch: f64) -> bool {
        let bars = self.series.iter().flat_map(|s| &s.bars).filter(|b| b.value.is_finite());
        let widest = bars.map(|b| text_width(&self.short_value(b.value), 10.5)).fold(0.0, f64::max);
        widest <= pitch - 1.0
    }

    fn short_value(&self, value: f64) -> String {
        self.y.format.write(value).replace(" %", "")
    }

    /// Room on the right for the name of the reference line.
    fn reference_room(&self) -> f64 {
        self.reference
            .as_ref()
            .map_or(8.0, |(_, label)| 8.0 + text_width(label, LABEL_SIZE).min(LONGEST_REFERENCE))
    }

    fn draw_reference(&self, svg: &mut Svg, area: Area, scale: &Scale) {
        let Some((value, label)) = &self.reference else { return };
        let Some(position) = scale.position(*value).filter(|p| (0.0..=1.0).contains(p)) else { return };
        let y = area.y(position);
        svg.line("reference", [area.left, y], [area.right, y]);
        svg.text(
            "tick",
            [area.right + 5.0, y + 4.0],
            Anchor::Start,
            &shorten(label, LONGEST_REFERENCE, LABEL_SIZE),
        );
    }

    fn tooltip(&self, series: &BarSeries, group: usize) -> String {
        let bar = series.bars[group];
        let mut text =
            format!("{}, {}: {}", series.label, self.groups[group], self.y.format.write(bar.value));
        if let Some([low, high]) = bar.interval {
            let _ =
                write!(text, "\n95 % interval [{}, {}]", self.y.format.write(low), self.y.format.write(high));
        }
        text
    }

    /// The plot as an SVG file of its own, in light colors.
    pub fn svg(&self) -> String {
        self.draw().standalone()
    }
}

impl Figure for BarPlot {
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
        let [width, base_height] = self.width.size();
        let scale = Scale::fit(&self.y, self.extremes(), 5, true);
        let left = chart::y_axis_room(&self.y, &scale) + 4.0;
        let right = width - self.reference_room();
        let labels = GroupLabels::fit(&self.groups, (right - left) / self.groups.len().max(1) as f64);
        let height = base_height + (labels.room() - 26.0).max(0.0);
        let mut svg = Svg::new(width, height, &self.title);
        let top = chart::header(&mut svg, &self.title, &self.legend());
        let area = Area { left, top: top + 10.0, right, bottom: height - labels.room() };
        chart::y_axis(&mut svg, area, &self.y, &scale);
        self.draw_bars(&mut svg, area, &scale);
        let zero = area.y(scale.position(0.0).unwrap_or(0.0).clamp(0.0, 1.0));
        svg.line("axis", [area.left, zero], [area.right, zero]);
        labels.draw(&mut svg, area);
        self.draw_reference(&mut svg, area, &scale);
        svg
    }

    /// The data: `group,series,value,low,high`.
    fn csv(&self) -> String {
        let mut csv = Csv::new(&["group", "series", "value", "low", "high"]);
        for (index, group) in self.groups.iter().enumerate() {
            for series in &self.series {
                let Some(bar) = series.bars.get(index) else { continue };
                let bound = |end: usize| optional(bar.interval.map(|interval| interval[end]));
                csv.row(&[group, &series.label, &bar.value, &bound(0), &bound(1)]);
            }
        }
        csv.into_text()
    }
}

/// Draws the whisker of a bar and returns its upper end.
fn draw_whisker(svg: &mut Svg, area: Area, scale: &Scale, x: f64, bar: &Bar) -> Option<f64> {
    let [low, high] = bar.interval?;
    let [bottom, top] = [scale.position(low)?, scale.position(high)?].map(|p| area.y(p.clamp(0.0, 1.0)));
    let [x, left, right] = [x, x - 3.5, x + 3.5].map(number);
    let [low, high] = [bottom, top].map(number);
    svg.path("whisker", &format!("M{left} {high}H{right}M{x} {high}V{low}M{left} {low}H{right}"));
    Some(top)
}

/// The names below the groups: upright on up to three lines, or slanted where there is no room.
struct GroupLabels {
    lines: Vec<Vec<String>>,
    slanted: bool,
}

const LABEL_SIZE: f64 = 12.0;
const LONGEST_REFERENCE: f64 = 90.0;
const SLANTED_LENGTH: f64 = 110.0;
const SLANTED_PITCH: f64 = 16.0;

impl GroupLabels {
    fn fit(groups: &[String], slot: f64) -> Self {
        let upright: Vec<_> = groups.iter().map(|g| wrap(g, slot - 4.0, LABEL_SIZE, 3)).collect();
        let slanted = upright.iter().flatten().any(|line| line.ends_with('…'));
        let short = |g: &String| vec![shorten(g, SLANTED_LENGTH, LABEL_SIZE)];
        Self { lines: if slanted { groups.iter().map(short).collect() } else { upright }, slanted }
    }

    fn room(&self) -> f64 {
        if self.slanted {
            let longest = self.lines.iter().flatten().map(|l| text_width(l, LABEL_SIZE)).fold(0.0, f64::max);
            return 20.0 + longest * 0.64;
        }
        12.0 + 14.0 * self.lines.iter().map(Vec::len).max().unwrap_or(0).max(1) as f64
    }

    fn draw(&self, svg: &mut Svg, area: Area) {
        let slot = area.width() / self.lines.len().max(1) as f64;
        // Slanted names need about a line's height each: of many groups every second or third is named.
        let every = if self.slanted { (SLANTED_PITCH / slot.max(0.1)).ceil().max(1.0) as usize } else { 1 };
        for (group, lines) in self.lines.iter().enumerate().step_by(every) {
            let middle = area.left + slot * (group as f64 + 0.5);
            for (row, line) in lines.iter().enumerate() {
                let y = area.bottom + 17.0 + 14.0 * row as f64;
                if self.slanted {
                    svg.turned_text("tick", [middle + 4.0, area.bottom + 14.0], Anchor::End, -38.0, line);
                } else {
                    svg.text("tick", [middle, y], Anchor::Middle, line);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> BarPlot {
        BarPlot::new("Cues", Axis::percent("accuracy"), vec!["shape".into(), "texture".into()])
            .series(BarSeries::new("plain", vec![Bar::with_interval(0.5, [0.4, 0.6]), Bar::missing()]))
            .reference(0.1, "chance")
    }

    #[test]
    fn bars_have_whiskers_and_missing_ones_are_left_out() {
        let svg = plot().svg();
        assert_eq!(svg.matches("class=\"bar\"").count(), 2, "one bar and the legend's swatch");
        assert_eq!(svg.matches("class=\"whisker\"").count(), 1);
        assert!(svg.contains("50.0 %") && svg.contains("chance") && !svg.contains("NaN"));
    }

    #[test]
    fn too_many_groups_get_slanted_names() {
        let groups: Vec<String> = (0..19).map(|i| format!("corruption {i} of nineteen")).collect();
        let bars = vec![Bar::new(0.5); 19];
        let plot = BarPlot::new("", Axis::percent(""), groups).series(BarSeries::new("", bars));
        assert!(plot.svg().contains("rotate(-38"));
        assert_eq!(plot.csv().lines().count(), 20);
    }

    #[test]
    fn empty_and_ragged_plots_are_drawn() {
        let mut plot = plot();
        plot.series[0].bars.truncate(1);
        assert_eq!(plot.csv().lines().count(), 2);
        plot.groups.clear();
        assert!(!plot.svg().contains("NaN"));
    }
}
