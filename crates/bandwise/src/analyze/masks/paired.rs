//! Masks of the same images compared, pair by pair: where one network's hold more energy than another's, how alike they
//! are, and how alike each is to the spectrum of the perturbation, with the images shuffled for a control.

use candle_core::Tensor;
use rand::Rng;

use super::family::{Chosen, Family, Learned};
use super::per_image::{ImageMasksConfig, SECTIONS};
use super::{BANDS, MaskProfile, cosine};
use crate::analyze::Findings;
use crate::analyze::perturbations::correlation;
use crate::evaluate::record::Record;
use crate::evaluate::statistics::{MeanInterval, mean_interval, wilson_interval};
use crate::formats::csv::Csv;
use crate::plot::{Axis, Cell, LinePlot, NumberFormat, Section, Series, Table};
use crate::spectral::statistics::SpectrumStatistics;
use crate::{Result, random};

/// Rings or sectors.
#[derive(Clone, Copy)]
enum Bands {
    Rings,
    Sectors,
}

/// The section, if there is something to compare, and its records.
pub(super) fn report(
    findings: Findings,
    config: &ImageMasksConfig,
    families: &[Family],
    all: &[Learned],
    chosen: &Chosen,
) -> Result<Findings> {
    let perturbations = perturbations(chosen)?;
    if (families.len() < 2 && perturbations.is_none()) || chosen.indices.len() < 2 {
        return Ok(findings);
    }
    let mut findings = findings;
    let mut section = Section::new("Masks compared image by image");
    if let [first, others @ ..] = all
        && !others.is_empty()
    {
        let (plots, csv) = energies(first, others)?;
        section = plots.into_iter().fold(section, Section::line_plot);
        findings = findings.table("energy_differences", csv);
    }
    let likeness = likeness(all, perturbations.as_deref(), config.seed);
    let rows = likeness.iter().map(Likeness::row);
    let table =
        Table::new("How alike", &["pair", "correlation", "of other images", "cosine", "of other images"]);
    let table = rows.fold(table, Table::row).caption(
        "Means over images with 95 % t-intervals. Correlation is Pearson's, over frequencies; masks of one value everywhere \
         have none, and are left out. The controls pair each mask with another image's: what they reach, any two masks \
         share. Perturbation: the amplitude spectrum of x_A − x.",
    );
    for pair in &likeness {
        for (metric, values) in
            [("mask_correlation", &pair.correlation), ("mask_correlation_shuffled", &pair.shuffled)]
        {
            let Some(mean) = mean_interval(values) else { continue };
            let mut record = Record::scalar(metric, mean.mean);
            record.ci95 = mean.low.is_finite().then_some(bounded(&mean));
            record.extra.insert("pair".into(), pair.name.clone().into());
            let attack = config.attack.as_ref().filter(|_| pair.attacked);
            findings.records.push(families[0].sign(record, attack, config.seed));
        }
    }
    Ok(findings.section(SECTIONS[2], section.table(table)))
}

/// Differences of energy between each family and the first, and the share of images in which it has more.
fn energies(first: &Learned, others: &[Learned]) -> Result<(Vec<LinePlot>, String)> {
    let profiles = |learned: &Learned| -> Result<Vec<MaskProfile>> {
        learned.masks.iter().map(|mask| MaskProfile::new("", mask)).collect()
    };
    let base = profiles(first)?;
    let reach = base.first().map_or(1.0, |p| (p.height as f64 / 2.0).hypot(p.width as f64 / 2.0));
    let mut csv = Csv::new(&["pair", "kind", "band", "difference", "low", "high", "more", "images"]);
    let mut plots = Vec::new();
    for (bands, name, axis, scale) in [
        (Bands::Rings, "radial", "frequency (cycles per image)", reach),
        (Bands::Sectors, "angular", "direction (°)", 360.0),
    ] {
        let mut differences = LinePlot::new(
            format!("Difference of {name} energy"),
            Axis::new(axis),
            Axis::new("mean difference"),
        )
        .caption(format!(
            "Of ‖M in the band‖₂ / ‖M‖₂, {BANDS} bands. Above 0: masks hold more there than those of {}. Bands span 95 % t-intervals over images.",
            first.label
        ));
        let mut shares = LinePlot::new(
            format!("Images with more {name} energy"),
            Axis::new(axis),
            Axis::percent("share of images").range(0.0, 1.0),
        )
        .caption(format!(
            "Share of images whose mask holds more in the band than the same image's mask of {}; bands span 95 % Wilson \
             intervals.",
            first.label
        ));
        for (color, other) in others.iter().enumerate() {
            let pair = format!("{} − {}", other.label, first.label);
            let theirs = profiles(other)?;
            let energy = |profile: &MaskProfile, band: usize| match bands {
                Bands::Rings => profile.radial[band],
                Bands::Sectors => profile.angular[band],
            };
            let (mut means, mut spread, mut more, mut sure) = (vec![], vec![], vec![], vec![]);
            for band in 0..BANDS {
                let values: Vec<f64> =
                    theirs.iter().zip(&base).map(|(b, a)| energy(b, band) - energy(a, band)).collect();
                let Some(mean) = mean_interval(&values) else { continue };
                let count = values.iter().filter(|value| **value > 0.0).count() as u64;
                let images = values.len() as u64;
                let x = (band as f64 + 0.5) * scale / BANDS as f64;
                means.push([x, mean.mean]);
                spread.push([mean.low, mean.high]);
                more.push([x, count as f64 / images as f64]);
                sure.push(wilson_interval(count, images));
                csv.row(&[&pair, &name, &band, &mean.mean, &mean.low, &mean.high, &count, &images]);
            }
            differences = differences.series(Series::new(&*pair, means).band(spread).color(color));
            shares = shares.series(Series::new(&*other.label, more).band(sure).color(color));
        }
        plots.extend([differences, shares]);
    }
    Ok((plots, csv.into_text()))
}

/// How alike two spectra are, where that can be said.
type Measure = fn(&[f32], &[f32]) -> Option<f64>;

/// How alike two spectra of the same image are, image by image.
struct Likeness {
    name: String,
    /// The attack has a part in it.
    attacked: bool,
    correlation: Vec<f64>,
    shuffled: Vec<f64>,
    cosine: Vec<f64>,
    cosine_shuffled: Vec<f64>,
}

impl Likeness {
    /// Sets each spectrum of `first` beside the same row of `second`, and beside another one.
    fn new(name: String, attacked: bool, [first, second]: [&[Vec<f32>]; 2], seed: u64) -> Self {
        let count = first.len();
        // A rotation leaves no image with itself.
        let by = random::stream(seed, &[count as u64]).random_range(1..count.max(2));
        let with = |like: Measure, by: usize| {
            (0..count).filter_map(|row| like(&first[row], &second[(row + by) % count])).collect()
        };
        Self {
            name,
            attacked,
            correlation: with(pearson, 0),
            shuffled: with(pearson, by),
            cosine: with(angle, 0),
            cosine_shuffled: with(angle, by),
        }
    }

    fn row(&self) -> Vec<Cell> {
        let cell = |values: &[f64]| match mean_interval(values) {
            Some(mean) => {
                Cell::formatted(mean.mean, NumberFormat::Fixed(3)).with_interval(Some([mean.low, mean.high]))
            }
            None => Cell::text("–"),
        };
        vec![
            Cell::text(&*self.name),
            cell(&self.correlation),
            cell(&self.shuffled),
            cell(&self.cosine),
            cell(&self.cosine_shuffled),
        ]
    }
}

fn likeness(all: &[Learned], perturbations: Option<&[Vec<f32>]>, seed: u64) -> Vec<Likeness> {
    let spectra: Vec<Vec<Vec<f32>>> =
        all.iter().map(|learned| learned.masks.iter().map(|mask| mask.even().values).collect()).collect();
    let mut pairs = Vec::new();
    for (index, first) in spectra.iter().enumerate() {
        for (other, second) in spectra.iter().enumerate().skip(index + 1) {
            let name = format!("{} and {}", all[index].label, all[other].label);
            // The attacked family is the last one.
            let attacked = perturbations.is_some() && other + 1 == spectra.len();
            pairs.push(Likeness::new(name, attacked, [first, second], seed));
        }
    }
    for (learned, first) in all.iter().zip(&spectra) {
        if let Some(perturbations) = perturbations {
            let name = format!("{} and perturbation", learned.label);
            pairs.push(Likeness::new(name, true, [first, perturbations], seed));
        }
    }
    pairs
}

/// The amplitude spectrum of each perturbation, averaged over channels, un-shifted.
fn perturbations(chosen: &Chosen) -> Result<Option<Vec<Vec<f32>>>> {
    let Some(adversarial) = &chosen.adversarial else { return Ok(None) };
    let difference = (adversarial - &chosen.clean.images)?;
    let spectrum = |row: usize| -> Result<Vec<f32>> {
        let one: Tensor = difference.narrow(0, row, 1)?;
        let values = SpectrumStatistics::of_tensor(&one)?.mean_amplitude();
        Ok(values.into_iter().map(|value| value as f32).collect())
    };
    (0..chosen.indices.len()).map(spectrum).collect::<Result<_>>().map(Some)
}

/// Pearson's correlation; `None` where one of the two is constant.
fn pearson(first: &[f32], second: &[f32]) -> Option<f64> {
    let varies = |values: &[f32]| values.iter().any(|value| *value != values[0]);
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|value| f64::from(*value)).collect() };
    (varies(first) && varies(second)).then(|| correlation(&wide(first), &wide(second)))
}

/// The cosine; `None` where one of the two is zero.
fn angle(first: &[f32], second: &[f32]) -> Option<f64> {
    let is_zero = |values: &[f32]| values.iter().all(|value| *value == 0.0);
    (!is_zero(first) && !is_zero(second)).then(|| cosine(first, second))
}

/// The interval of a mean of correlations, which none can leave.
fn bounded(mean: &MeanInterval) -> [f64; 2] {
    [mean.low.max(-1.0), mean.high.min(1.0)]
}
