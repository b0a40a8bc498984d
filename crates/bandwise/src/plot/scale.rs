//! Axes: how values become positions, where the ticks stand and what they say.

use serde::{Deserialize, Serialize};

/// Linear or logarithmic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleKind {
    /// Equal differences are equal distances.
    #[default]
    Linear,
    /// Equal ratios are equal distances; values that are not positive are not drawn.
    Log,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberFormat {
    /// As many digits as the value needs, up to four significant ones.
    #[default]
    Plain,
    /// A fraction of one, as per cent with one decimal.
    Percent,
    /// A fixed number of decimals.
    Fixed(u8),
}

impl NumberFormat {
    /// The number as text; `–` for what is not a number.
    pub fn write(self, value: f64) -> String {
        if value.is_nan() {
            return "–".into();
        }
        if value.is_infinite() {
            return if value > 0.0 { "∞".into() } else { "−∞".into() };
        }
        match self {
            Self::Percent => minus(&format!("{:.1} %", value * 100.0)),
            Self::Fixed(decimals) => minus(&format!("{value:.*}", usize::from(decimals))),
            Self::Plain => plain(value),
        }
    }
}

/// Four significant digits; powers of ten for very large and very small values.
fn plain(value: f64) -> String {
    let magnitude = value.abs();
    if value == value.trunc() && magnitude < 1e7 {
        return minus(&format!("{value:.0}"));
    }
    if !(1e-4..1e7).contains(&magnitude) {
        let (mantissa, exponent) = split_power(&format!("{value:.2e}"));
        return minus(&format!("{}·10{}", trim_zeros(&mantissa), superscript(exponent)));
    }
    let decimals = (3 - magnitude.log10().floor() as i32).clamp(0, 8) as usize;
    minus(&trim_zeros(&format!("{value:.decimals$}")))
}

fn split_power(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (mantissa.to_owned(), exponent.parse().unwrap_or(0))
}

fn trim_zeros(text: &str) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.to_owned()
    }
}

/// A true minus sign, and no negative zero.
fn minus(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.' | ' ' | '%')) => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text.to_owned(),
    }
}

fn superscript(exponent: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digits = exponent.abs().to_string();
    let digits = digits.bytes().map(|d| DIGITS[usize::from(d - b'0')]);
    if exponent < 0 { std::iter::once('⁻').chain(digits).collect() } else { digits.collect() }
}

/// What one axis of a plot says and how it is divided.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Axis {
    /// What is measured, with its unit.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: ScaleKind,
    /// How tick labels are written.
    pub format: NumberFormat,
    /// The range shown; from the data when absent.
    pub range: Option<[f64; 2]>,
    /// Whether the axis counts: its ticks are whole numbers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub integers: bool,
}

impl Axis {
    /// A linear axis whose range follows the data.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// An axis of fractions, labeled in per cent.
    pub fn percent(label: impl Into<String>) -> Self {
        Self { format: NumberFormat::Percent, ..Self::new(label) }
    }

    /// An axis that counts: epochs, radii. Its ticks are whole numbers.
    pub fn integers(label: impl Into<String>) -> Self {
        Self { integers: true, ..Self::new(label) }
    }

    /// Makes the axis logarithmic.
    pub fn log(mut self) -> Self {
        self.scale = ScaleKind::Log;
        self
    }

    /// Fixes the range shown.
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = Some([low, high]);
        self
    }
}

/// A resolved axis: data range, ticks, and positions in `[0, 1]`.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    kind: ScaleKind,
    low: f64,
    high: f64,
    /// Tick values and their labels.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Scale {
    /// Fits an axis to its data. With `rounded`, a free range grows to whole ticks; `desired` is the
    /// number of ticks aimed at.
    pub(super) fn fit(axis: &Axis, data: impl Iterator<Item = f64>, desired: usize, rounded: bool) -> Self {
        let usable = |v: &f64| v.is_finite() && (axis.scale == ScaleKind::Linear || *v > 0.0);
        let (mut low, mut high) =
            data.filter(usable).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let fixed = axis.range.filter(|[a, b]| usable(a) && usable(b) && a < b);
        if let Some([a, b]) = fixed {
            (low, high) = (a, b);
        }
        if low > high {
            (low, high) = if axis.scale == ScaleKind::Log { (0.1, 10.0) } else { (0.0, 1.0) };
        }
        let rounded = rounded && fixed.is_none();
        match axis.scale {
            ScaleKind::Linear => Self::linear([low, high], axis, desired, rounded),
            ScaleKind::Log => Self::log(low, high, desired, rounded),
        }
    }

    fn linear([mut low, mut high]: [f64; 2], axis: &Axis, desired: usize, rounded: bool) -> Self {
        if high - low <= 1e-12 * high.abs().max(low.abs()) {
            let half = match (axis.integers, low == 0.0) {
                (true, _) => 1.0,
                (false, true) => 0.5,
                (false, false) => low.abs() * 0.1,
            };
            (low, high) = (low - half, high + half);
        }
        let step = nice_step((high - low) / desired.max(2) as f64, axis.integers);
        if rounded {
            (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        }
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        let label = |v: f64| linear_label(v, step, high.abs().max(low.abs()), axis.format);
        let ticks = (first..=last.min(first + 50)).map(|i| i as f64 * step).map(|v| (v, label(v))).collect();
        Self { kind: ScaleKind::Linear, low, high, ticks }
    }

    fn log(mut low: f64, mut high: f64, desired: usize, rounded: bool) -> Self {
        if rounded {
            (low, high) = (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()));
        }
        if high / low < 1.001 {
            (low, high) = (low / 10f64.sqrt(), high * 10f64.sqrt());
        }
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let decades = (last - first).max(1) as usize;
        let every = decades.div_ceil(desired.max(2)).max(1) as i32;
        let digits: &[f64] = if decades <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let inside = |v: &f64| *v >= low * 0.9999 && *v <= high * 1.0001;
        let exponents = (first..=last).filter(|e| e.rem_euclid(every) == 0);
        let ticks = exponents.flat_map(|e| digits.iter().map(move |d| d * 10f64.powi(e))).filter(inside);
        let decimal = low >= 0.9e-3 && high <= 1.1e4;
        let ticks = ticks.map(|v| (v, log_label(v, decimal))).collect();
        Self { kind: ScaleKind::Log, low, high, ticks }
    }

    /// The position of a value, 0 at the low and 1 at the high end; `None` for what cannot be drawn.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        let position = match self.kind {
            ScaleKind::Linear => (value - self.low) / (self.high - self.low),
            ScaleKind::Log if value <= 0.0 => return None,
            ScaleKind::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        position.is_finite().then_some(position)
    }

    /// The low end of the axis.
    pub(super) fn low(&self) -> f64 {
        self.low
    }
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `raw`, or of 1, 2, 5 where whole numbers count.
fn nice_step(raw: f64, integers: bool) -> f64 {
    let raw = if integers { raw.max(1.0) } else { raw };
    let power = 10f64.powf(raw.log10().floor());
    let fits = |m: &f64| m * power >= raw * 0.999_999 && !(integers && *m == 2.5);
    [1.0, 2.0, 2.5, 5.0].into_iter().find(fits).unwrap_or(10.0) * power
}

fn linear_label(value: f64, step: f64, largest: f64, format: NumberFormat) -> String {
    let (value, step) =
        if format == NumberFormat::Percent { (value * 100.0, step * 100.0) } else { (value, step) };
    // Enough decimals to tell neighboring ticks apart: 2.5 needs one more than 2 or 5.
    let mut decimals = (-step.log10().floor()).max(0.0) as usize;
    if (step * 10f64.powi(decimals as i32)).fract().abs() > 1e-6 {
        decimals += 1;
    }
    match format {
        NumberFormat::Percent => minus(&format!("{value:.decimals$} %")),
        NumberFormat::Fixed(fixed) => minus(&format!("{value:.*}", usize::from(fixed))),
        NumberFormat::Plain if decimals > 5 || largest >= 1e6 => plain(value),
        NumberFormat::Plain => minus(&format!("{value:.decimals$}")),
    }
}

fn log_label(value: f64, decimal: bool) -> String {
    if decimal {
        return trim_zeros(&format!("{value:.3}"));
    }
    let (mantissa, exponent) = split_power(&format!("{value:.0e}"));
    match (mantissa.as_str(), exponent) {
        (_, 0) => mantissa,
        ("1", _) => format!("10{}", superscript(exponent)),
        _ => format!("{mantissa}·10{}", superscript(exponent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, data: &[f64]) -> Vec<String> {
        Scale::fit(axis, data.iter().copied(), 5, true).ticks.into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&Axis::new(""), &[0.0, 10.0]), ["0", "2", "4", "6", "8", "10"]);
        assert_eq!(labels(&Axis::percent(""), &[0.3, 0.88]), ["20 %", "40 %", "60 %", "80 %", "100 %"]);
        assert_eq!(labels(&Axis::new("").log(), &[1e-6, 0.5]), ["10⁻⁶", "10⁻⁴", "10⁻²", "1"]);
        assert_eq!(labels(&Axis::new(""), &[-0.02, 0.02]), ["−0.02", "−0.01", "0.00", "0.01", "0.02"]);
        assert_eq!(
            labels(&Axis::new("").range(0.0, 1.0), &[9.0]),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
    }

    #[test]
    fn what_is_counted_has_whole_ticks() {
        let of = |low: f64, high: f64| {
            let scale = Scale::fit(&Axis::integers("epoch"), [low, high].into_iter(), 6, false);
            scale.ticks.into_iter().map(|t| t.1).collect::<Vec<_>>()
        };
        assert_eq!(of(1.0, 1.0), ["0", "1", "2"]);
        assert_eq!(of(1.0, 2.0), ["1", "2"]);
        assert_eq!(of(1.0, 15.0), ["5", "10", "15"]);
        assert_eq!(of(1.0, 4.0), ["1", "2", "3", "4"]);
    }

    #[test]
    fn degenerate_data_still_gives_an_axis() {
        for data in [&[][..], &[f64::NAN], &[3.0], &[0.0, 0.0], &[f64::INFINITY, 1.0], &[-1.0, 1e300]] {
            for axis in [Axis::new(""), Axis::new("").log(), Axis::new("").range(1.0, 1.0)] {
                let scale = Scale::fit(&axis, data.iter().copied(), 5, true);
                assert!(scale.low < scale.high && !scale.ticks.is_empty(), "{axis:?} {data:?} {scale:?}");
            }
        }
    }

    #[test]
    fn logarithmic_positions_follow_ratios() {
        let log = Scale::fit(&Axis::new("").log().range(1.0, 100.0), std::iter::empty(), 5, false);
        assert_eq!(
            (log.position(1.0), log.position(10.0), log.position(100.0)),
            (Some(0.0), Some(0.5), Some(1.0))
        );
        assert_eq!(log.position(0.0), None);
    }

    #[test]
    fn numbers_are_written_for_readers() {
        for (format, value, text) in [
            (NumberFormat::Plain, 0.123_456, "0.1235"),
            (NumberFormat::Plain, 12_345.0, "12345"),
            (NumberFormat::Plain, 0.000_012, "1.2·10⁻⁵"),
            (NumberFormat::Plain, -3.5, "−3.5"),
            (NumberFormat::Percent, 0.8768, "87.7 %"),
            (NumberFormat::Percent, -0.0001, "0.0 %"),
            (NumberFormat::Fixed(2), 1.005, "1.00"),
            (NumberFormat::Plain, f64::NAN, "–"),
        ] {
            assert_eq!(format.write(value), text);
        }
    }
}
