//! Which band of the input's spectrum a classifier needs: accuracy on images of which only a disc, the
//! outside of a disc, a ring or a sector of the spectrum is left; accuracy through learned masks and
//! through what they leave out.

use std::fmt::Write;
use std::path::PathBuf;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::masks::{self, MaskProfile};
use super::space::{Space, View, in_space};
use super::{Analysis, Findings, NamedClassifier, advance, shared_images};
use crate::evaluate::record::Record;
use crate::evaluate::statistics::wilson_interval;
use crate::evaluate::subject::Subject;
use crate::formats::csv::Csv;
use crate::method::fourier_mask::{Mask, masked_predictions};
use crate::plot::{Axis, Cell, LinePlot, Section, Series, Table};
use crate::spectral::bands::{self, signed_frequency};
use crate::{Error, Job, Result};

/// Sections of its page, the first of which is always there.
pub const SECTIONS: [&str; 2] = ["bands", "masks"];

/// What is left of the spectrum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// Frequencies up to a radius.
    LowPass,
    /// Frequencies above a radius.
    HighPass,
    /// A ring between two radii.
    BandPass,
    /// A sector of directions (with its opposite).
    Sector,
    /// All but a sector.
    WithoutSector,
}

impl Window {
    /// All windows, in the order of the report.
    pub const ALL: [Self; 5] =
        [Self::LowPass, Self::HighPass, Self::BandPass, Self::Sector, Self::WithoutSector];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::LowPass => "low-pass",
            Self::HighPass => "high-pass",
            Self::BandPass => "band-pass",
            Self::Sector => "sector",
            Self::WithoutSector => "without sector",
        }
    }
}

/// Accuracy with one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BandAccuracy {
    /// The model.
    pub label: String,
    /// Kind of window.
    pub window: Window,
    /// Radius in cycles per image, or angle in degrees from the horizontal axis: where the window begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Right predictions.
    pub correct: u64,
    /// Images judged.
    pub images: u64,
}

/// What band curves are measured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BandConfig {
    /// Distance between neighboring radii, in cycles per image; also the width of rings.
    pub radius_step: f64,
    /// Number of sectors over 180°.
    pub sectors: usize,
    /// Whether the mean color (zero frequency) stays in every window. Without it, high-pass images have the mean color of
    /// the training images; in [`Space::Pixels`] they are black on average, and far from anything the model was
    /// trained on.
    pub keep_mean: bool,
    /// What windows and masks act on.
    pub space: Space,
    /// Files of learned masks ([`masks::one_for_each`]): accuracy is measured through them, too.
    pub masks: Vec<PathBuf>,
}

impl Default for BandConfig {
    fn default() -> Self {
        Self { radius_step: 1.0, sectors: 8, keep_mean: false, space: Space::Input, masks: Vec::new() }
    }
}

/// Measures the band curves of each network and, where masks are given, its accuracy through its mask and through what
/// the mask leaves out.
///
/// # Errors
/// [`Error::Config`] for settings that make no sense or masks that do not fit; [`Error::Interrupted`] after a stop; if
/// files cannot be read.
pub fn run(subjects: &[Subject], job: &Job, config: &BandConfig) -> Result<Analysis<BandAccuracy>> {
    let data = shared_images(subjects, job)?;
    let found = masks::one_for_each(&config.masks, subjects.len(), job)?;
    let mut findings = Findings::new("Bands of the spectrum");
    let (mut results, mut through, mut profiles) = (vec![], vec![], vec![]);
    for (index, subject) in subjects.iter().enumerate() {
        let view = View::of(subject, config.space)?;
        let named = [NamedClassifier { label: &subject.label, classifier: &view }];
        let images = view.enter(&data.images)?;
        let sign = |record| in_space(subject.sign(record), config.space);
        let curves = measure(&named, &images, &data.label_values, config, job)?;
        findings.records.extend(records(&curves).into_iter().map(sign));
        results.extend(curves);
        if let Some(mask) = found.get(index) {
            let accuracy = mask_accuracy(&named[0], &images, &data.label_values, mask, job.batch_size)?;
            findings.records.extend(accuracy.records().into_iter().map(sign));
            through.push(accuracy);
            profiles.push(MaskProfile::new(&*subject.label, mask)?);
        }
    }
    findings.lines.extend(subjects.iter().filter_map(|subject| headline(&results, &subject.label)));
    findings.lines.extend(through.iter().map(MaskAccuracy::summary));
    findings.lines.push(config.space.describe().into());
    findings = findings.table("bands", csv(&results)).section(SECTIONS[0], section(&results));
    if !profiles.is_empty() {
        let masks = masks::section(&profiles)?.table(accuracy_table(&through));
        findings = findings.section(SECTIONS[1], masks);
    }
    Ok(Analysis { results, findings })
}

/// The un-shifted windows of `config`, with kind and bounds.
fn windows(height: usize, width: usize, config: &BandConfig) -> Vec<(Window, f64, f64, Vec<f32>)> {
    let furthest = bands::radii(height, width).into_iter().fold(0.0, f64::max);
    let count = (furthest / config.radius_step).ceil() as usize;
    let mut all = Vec::new();
    for step in 0..=count {
        let radius = step as f64 * config.radius_step;
        let inner = radius - config.radius_step;
        all.push((Window::LowPass, 0.0, radius, bands::low_pass(height, width, radius)));
        all.push((Window::HighPass, radius, furthest, bands::high_pass(height, width, radius)));
        if step > 0 {
            all.push((Window::BandPass, inner, radius, bands::band_pass(height, width, inner, radius)));
        }
    }
    for sector in 0..config.sectors {
        let bound = |s: usize| s as f64 * 180.0 / config.sectors as f64;
        let (from, to) = (bound(sector), bound(sector + 1));
        let inside = directions(height, width, from, to);
        let outside = inside.iter().map(|v| 1.0 - v).collect();
        all.push((Window::Sector, from, to, inside));
        all.push((Window::WithoutSector, from, to, outside));
    }
    for (window, _, _, values) in &mut all {
        // A sector has no direction for zero frequency: it stays where most of the spectrum does.
        if config.keep_mean || *window == Window::WithoutSector {
            values[0] = 1.0;
        }
    }
    all
}

/// 1 where the direction of an un-shifted frequency, counter-clockwise from the horizontal axis and modulo
/// 180°, lies in `[from, to)`; an even window. Zero frequency is outside.
fn directions(height: usize, width: usize, from: f64, to: f64) -> Vec<f32> {
    let inside = |p: usize| {
        let row = signed_frequency(p / width, height);
        let column = signed_frequency(p % width, width);
        // A Nyquist row or column is its own opposite in one coordinate only: no single direction.
        let angle = (-row as f64).atan2(column as f64).to_degrees().rem_euclid(180.0);
        p != 0 && angle >= from && angle < to
    };
    (0..height * width).map(|p| if inside(p) { 1.0 } else { 0.0 }).collect()
}

/// Measures every window for every model; `images` `[n, height, width, channels]`.
pub fn measure(
    models: &[NamedClassifier],
    images: &Tensor,
    labels: &[u32],
    config: &BandConfig,
    job: &Job,
) -> Result<Vec<BandAccuracy>> {
    let (count, height, width, _) = images.dims4()?;
    if config.radius_step.is_nan() || config.radius_step < 0.1 {
        return Err(Error::config(format!(
            "radius step {}: expected at least 0.1 cycles",
            config.radius_step
        )));
    }
    if count != labels.len() || count == 0 {
        return Err(Error::config(format!("band curves of {count} images with {} labels", labels.len())));
    }
    let windows = windows(height, width, config);
    let mut found = Vec::new();
    for model in models {
        for (window, from, to, values) in &windows {
            advance(job, model.label, found.len(), windows.len() * models.len())?;
            let mask = Tensor::from_slice(values, (height, width), images.device())?;
            let predictions = masked_predictions(model.classifier, images, &mask, job.batch_size)?;
            let correct = predictions.iter().zip(labels).filter(|(p, l)| p == l).count() as u64;
            let (window, from, to, images) = (*window, *from, *to, count as u64);
            found.push(BandAccuracy { label: model.label.into(), window, from, to, correct, images });
        }
    }
    Ok(found)
}

/// `model,window,from,to,correct,images,accuracy,ci95_low,ci95_high`.
pub fn csv(results: &[BandAccuracy]) -> String {
    let columns = ["model", "window", "from", "to", "correct", "images", "accuracy", "ci95_low", "ci95_high"];
    let mut csv = Csv::new(&columns);
    for r in results {
        let [low, high] = wilson_interval(r.correct, r.images);
        let accuracy = r.correct as f64 / r.images as f64;
        let window = r.window.name();
        csv.row(&[&r.label, &window, &r.from, &r.to, &r.correct, &r.images, &accuracy, &low, &high]);
    }
    csv.into_text()
}

/// One record per window and model.
pub fn records(results: &[BandAccuracy]) -> Vec<Record> {
    let record = |r: &BandAccuracy| {
        let mut record = Record::proportion("band_accuracy", r.correct, r.images);
        record.extra.insert("label".into(), r.label.clone().into());
        record.extra.insert("window".into(), r.window.name().into());
        record.extra.insert("from".into(), r.from.into());
        record.extra.insert("to".into(), r.to.into());
        record
    };
    results.iter().map(record).collect()
}

/// Curves with Wilson intervals, all models in one plot per window.
pub fn section(results: &[BandAccuracy]) -> Section {
    let mut section = Section::new("Which band the models need").text(
        "Accuracy on images of which only a part of the spectrum is left. Directions run from the horizontal axis \
         counter-clockwise; bands span 95 % Wilson intervals.",
    );
    let mut labels: Vec<&str> = Vec::new();
    for r in results {
        if !labels.contains(&&*r.label) {
            labels.push(&r.label);
        }
    }
    for window in Window::ALL {
        let (title, axis) = match window {
            Window::LowPass => ("Low-pass", "largest radius that is left"),
            Window::HighPass => ("High-pass", "largest radius that is removed"),
            Window::BandPass => ("Band-pass", "middle of the ring that is left"),
            Window::Sector => ("One sector", "middle of the sector that is left"),
            Window::WithoutSector => ("Without one sector", "middle of the sector that is removed"),
        };
        let unit = match window {
            Window::LowPass | Window::HighPass | Window::BandPass => "cycles per image",
            Window::Sector | Window::WithoutSector => "°",
        };
        let axis = Axis::new(format!("{axis} ({unit})"));
        let plot = LinePlot::new(title, axis, Axis::percent("accuracy").range(0.0, 1.0));
        let plot = labels.iter().enumerate().fold(plot, |plot, (color, label)| {
            let mine = results.iter().filter(|r| r.label == **label && r.window == window);
            let x = |r: &BandAccuracy| match window {
                Window::LowPass => r.to,
                Window::HighPass => r.from,
                _ => 0.5 * (r.from + r.to),
            };
            let points = mine.clone().map(|r| [x(r), r.correct as f64 / r.images as f64]).collect();
            let band = mine.map(|r| wilson_interval(r.correct, r.images)).collect();
            plot.series(Series::new(*label, points).band(band).color(color))
        });
        section = section.line_plot(plot);
    }
    section
}

/// What a model's band curves amount to, in one line.
pub fn headline(results: &[BandAccuracy], label: &str) -> Option<String> {
    let of = |window: Window| -> Vec<&BandAccuracy> {
        results.iter().filter(|r| r.label == label && r.window == window).collect()
    };
    let accuracy = |r: &BandAccuracy| r.correct as f64 / (r.images as f64).max(1.0);
    let (low, high) = (of(Window::LowPass), of(Window::HighPass));
    let whole = accuracy(low.iter().max_by(|a, b| a.to.total_cmp(&b.to))?);
    let enough =
        low.iter().filter(|r| accuracy(r) >= 0.9 * whole).map(|r| r.to).fold(f64::INFINITY, f64::min);
    let lost =
        high.iter().filter(|r| accuracy(r) <= 0.5 * whole).map(|r| r.from).fold(f64::INFINITY, f64::min);
    let mut line = format!(
        "{label}: {:.1} % on the whole spectrum; frequencies up to {enough} cycles per image keep nine tenths of that",
        100.0 * whole
    );
    if lost.is_finite() {
        let _ = write!(line, ", removing those up to {lost} costs half");
    }
    let worst = of(Window::WithoutSector).into_iter().min_by_key(|r| r.correct);
    if let Some(worst) = worst {
        let accuracy = 100.0 * accuracy(worst);
        let _ = write!(line, "; without directions {}° to {}°: {accuracy:.1} %", worst.from, worst.to);
    }
    Some(line)
}

/// What a mask leaves of a model's accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskAccuracy {
    /// The model.
    pub label: String,
    /// Which images were right as they are.
    pub clean: Vec<bool>,
    /// Which were right through the mask.
    pub masked: Vec<bool>,
    /// Which were right with everything removed that the mask keeps (entries above 1e-8, as in the paper).
    pub complement: Vec<bool>,
    /// Whether the mask keeps every frequency: its complement then leaves images of one color.
    #[serde(default)]
    pub empty_complement: bool,
}

/// Entries of a mask above this count as kept.
pub const KEPT: f32 = 1e-8;

/// Measures accuracy with and through a mask, and with its complement.
pub fn mask_accuracy(
    model: &NamedClassifier,
    images: &Tensor,
    labels: &[u32],
    mask: &Mask,
    batch_size: usize,
) -> Result<MaskAccuracy> {
    let right = |mask: &Mask| -> Result<Vec<bool>> {
        let predictions =
            masked_predictions(model.classifier, images, &mask.tensor(images.device())?, batch_size)?;
        Ok(predictions.iter().zip(labels).map(|(p, l)| p == l).collect())
    };
    Ok(MaskAccuracy {
        label: model.label.into(),
        clean: right(&Mask::ones(mask.height, mask.width))?,
        masked: right(mask)?,
        complement: right(&mask.complement(KEPT))?,
        empty_complement: mask.complement(KEPT).values.iter().all(|value| *value == 0.0),
    })
}

impl MaskAccuracy {
    /// The three accuracies in one line.
    pub fn summary(&self) -> String {
        let share = |flags: &[bool]| 100.0 * flags.iter().filter(|f| **f).count() as f64 / flags.len() as f64;
        let black = if self.empty_complement { " (of nothing: the mask keeps every frequency)" } else { "" };
        format!(
            "{}: accuracy clean {:.2} %, through the mask {:.2} %, through its complement {:.2} %{black}",
            self.label,
            share(&self.clean),
            share(&self.masked),
            share(&self.complement)
        )
    }

    /// Clean, masked and complement accuracy as records.
    pub fn records(&self) -> Vec<Record> {
        let parts = [("none", &self.clean), ("masked", &self.masked), ("complement", &self.complement)];
        let record = |(name, flags): (&str, &Vec<bool>)| {
            let mut record = Record::accuracy(flags);
            record.extra.insert("label".into(), self.label.clone().into());
            record.extra.insert("fourier_mask".into(), name.into());
            if name == "complement" && self.empty_complement {
                record.extra.insert("empty_complement".into(), true.into());
            }
            record
        };
        parts.map(record).into()
    }
}

/// A table of clean, masked and complement accuracy.
pub fn accuracy_table(results: &[MaskAccuracy]) -> Table {
    let cell = |flags: &Vec<bool>| {
        let (correct, total) = (flags.iter().filter(|f| **f).count() as u64, flags.len() as u64);
        Cell::percent(correct as f64 / total as f64).with_interval(Some(wilson_interval(correct, total)))
    };
    let table = Table::new("Accuracy and the mask", &["model", "clean", "through the mask", "complement"]);
    let table = results.iter().fold(table, |table, r| {
        let mark = if r.empty_complement { "empty" } else { "" };
        let complement = cell(&r.complement).mark(mark.into());
        table.row(vec![Cell::text(&*r.label), cell(&r.clean), cell(&r.masked), complement])
    });
    if results.iter().any(|r| r.empty_complement) {
        return table
            .caption("empty: the mask keeps every frequency, so that its complement leaves nothing: images of the mean color or, where \
             masks act on pixels, black ones.");
    }
    table
}
