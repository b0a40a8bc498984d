//! Spectra of adversarial perturbations, and whether they lie where a learned mask says that the network
//! looks.

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::masks::one_for_each;
use super::{
    Analysis, Findings, NOTHING_WRITTEN, advance, frequency_axes, radius_axis, shared_images, signed,
};
use crate::attack::{Attack, AttackContext, Classifier, Pgd};
use crate::evaluate::accuracy_record::attacked;
use crate::evaluate::preflight;
use crate::evaluate::record::Record;
use crate::evaluate::subject::{Subject, TestImages, with_warnings};
use crate::formats::csv::Csv;
use crate::method::fourier_mask::Mask;
use crate::plot::{Axis, Cell, ColorMap, HeatMap, HeatPanel, LinePlot, Section, Series, Table};
use crate::spectral::bands;
use crate::spectral::statistics::SpectrumStatistics;
use crate::wording::counted;
use crate::{Error, Job, Result};

/// Sections of its page.
pub const SECTIONS: [&str; 1] = ["perturbations"];

/// Which perturbations are looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerturbationConfig {
    /// What makes them.
    pub attack: Attack,
    /// Seed of the attack.
    pub seed: u64,
    /// Files of learned masks ([`one_for_each`]): the power within them is measured, too.
    pub masks: Vec<PathBuf>,
}

impl Default for PerturbationConfig {
    /// PGD, without masks.
    fn default() -> Self {
        Self { attack: Attack::Pgd(Pgd::default()), seed: 0, masks: Vec::new() }
    }
}

/// Attacks each network and measures the spectrum of the perturbations.
///
/// # Errors
/// [`Error::Config`] for masks that do not fit; [`Error::Interrupted`] after a stop; if files cannot be read.
pub fn run(
    subjects: &[Subject],
    job: &Job,
    config: &PerturbationConfig,
) -> Result<Analysis<PerturbationSpectrum>> {
    let data = shared_images(subjects, job)?;
    let masks = one_for_each(&config.masks, subjects.len(), job)?;
    let attack = &config.attack;
    let mut findings = Findings::new("Adversarial perturbations");
    let mut spectra = Vec::new();
    let mut doubts = Vec::new();
    announce(attack, config.seed, job);
    for (index, subject) in subjects.iter().enumerate() {
        let warnings = check(subject, attack, &data, job)?;
        let adversarial = perturb(&subject.label, attack, &subject.classifier, &data, config.seed, job)?;
        let found =
            PerturbationSpectrum::measure(&subject.label, &data.images, &adversarial, masks.get(index))?;
        findings.lines.extend(found.lines());
        let sign = |record| signed(subject, attacked(record, Some(attack)), config.seed);
        findings.records.extend(found.records().into_iter().map(|r| with_warnings(sign(r), &warnings)));
        spectra.push(found);
        doubts.push(warnings);
    }
    let mut findings = findings
        .table("perturbations", csv(&spectra))
        .section(SECTIONS[0], section(&spectra, &attack.to_string()));
    for (subject, warnings) in subjects.iter().zip(&doubts).rev() {
        findings.warn(&subject.label, warnings);
    }
    Ok(Analysis { results: spectra, findings })
}

/// Says which attack runs, in all its parameters.
pub(super) fn announce(attack: &Attack, seed: u64, job: &Job) {
    job.note(&format!("attack: {}, seed {seed}", attack.protocol_with_defaults()));
}

/// Checks on a few images that the network keeps the contract, and that the attack sees a gradient. What is doubtful is
/// said, and returned for records and pages.
pub(super) fn check(subject: &Subject, attack: &Attack, data: &TestImages, job: &Job) -> Result<Vec<String>> {
    let few: Vec<usize> = (0..data.label_values.len().min(preflight::CHECKED_IMAGES)).collect();
    let few = data.select(&few)?;
    let attacks = std::slice::from_ref(attack);
    let found = preflight::check(&subject.classifier, &few.images, &few.labels, attacks)?;
    let warnings: Vec<String> = found.warnings.iter().map(ToString::to_string).collect();
    warnings.iter().for_each(|warning| job.note(&format!("warning: {}: {warning}", subject.label)));
    Ok(warnings)
}

/// Attacks all images with all steps, a batch at a time, and reports the stage `name`.
///
/// # Errors
/// [`Error::Interrupted`] after a stop; if the images do not fit the network.
pub fn perturb(
    name: &str,
    attack: &Attack,
    model: &dyn Classifier,
    data: &TestImages,
    seed: u64,
    job: &Job,
) -> Result<Tensor> {
    let (count, batch_size) = (data.label_values.len(), job.batch_size.max(1));
    let mut parts = Vec::new();
    for start in (0..count).step_by(batch_size) {
        advance(job, name, start, count)?;
        let length = batch_size.min(count - start);
        let ids: Vec<u64> = (start as u64..(start + length) as u64).collect();
        let interrupt = Some(&job.interrupt);
        let context = AttackContext { batch_size, interrupt, ..AttackContext::training(seed, &ids) };
        let images = data.images.narrow(0, start, length)?.contiguous()?;
        let labels = data.labels.narrow(0, start, length)?.contiguous()?;
        let adversarial = attack.perturb(model, &images, &labels, &context).map_err(|error| match error {
            Error::Interrupted(_) => Error::Interrupted(NOTHING_WRITTEN.into()),
            other => other,
        })?;
        parts.push(adversarial);
    }
    advance(job, name, count, count)?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// The spectrum of what an attack added to many images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerturbationSpectrum {
    /// The model that was attacked.
    pub label: String,
    /// Rows of the spectrum.
    pub height: usize,
    /// Columns of the spectrum.
    pub width: usize,
    /// Mean `|F|²` over images and channels, un-shifted.
    pub power: Vec<f64>,
    /// Share of the whole power in each ring of radius 0, 1, 2, …
    pub radial_share: Vec<f64>,
    /// Images with a perturbation.
    pub images: usize,
    /// How the power lies to the model's mask, if there is one.
    pub mask: Option<MaskOverlap>,
}

/// How a spectrum lies to a mask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskOverlap {
    /// Share of the power that passes the mask, `Σ M²·P / Σ P`.
    pub passing: f64,
    /// What would pass if the power were spread evenly, mean of `M²`.
    pub evenly: f64,
    /// Correlation of mask and log-power over all frequencies but zero.
    pub correlation: f64,
}

impl PerturbationSpectrum {
    /// Measures `adversarial − clean`, both `[n, height, width, channels]`; images that the attack left
    /// alone are not counted.
    pub fn measure(label: &str, clean: &Tensor, adversarial: &Tensor, mask: Option<&Mask>) -> Result<Self> {
        let (count, height, width, channels) = clean.dims4()?;
        if adversarial.dims() != clean.dims() {
            return Err(Error::config(format!(
                "clean images {:?} and adversarial ones {:?} do not belong together",
                clean.dims(),
                adversarial.dims()
            )));
        }
        let difference = (adversarial - clean)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let mut statistics = SpectrumStatistics::new(height, width, channels);
        for row in 0..count {
            let values: Vec<f64> = difference.get(row)?.flatten_all()?.to_vec1()?;
            if values.iter().any(|v| *v != 0.0) {
                statistics.add(&values)?;
            }
        }
        let power = statistics.mean_power();
        let total: f64 = power.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let radial_share = bands::radial_sum(&power, height, width).iter().map(|p| p / total).collect();
        let mask = match mask {
            Some(mask) if (mask.height, mask.width) != (height, width) => {
                return Err(Error::config(format!(
                    "the mask is {}x{}, the images are {height}x{width}",
                    mask.height, mask.width
                )));
            }
            Some(mask) => Some(overlap(&mask.even(), &power)),
            None => None,
        };
        Ok(Self {
            label: label.into(),
            height,
            width,
            power,
            radial_share,
            images: statistics.images(),
            mask,
        })
    }
}

impl PerturbationSpectrum {
    /// The smallest radius, in cycles per image, within which half of the power lies.
    pub fn median_frequency(&self) -> usize {
        let mut sum = 0.0;
        self.radial_share
            .iter()
            .position(|share| {
                sum += share;
                sum >= 0.5
            })
            .unwrap_or_default()
    }

    /// Share of the power above half of Nyquist.
    pub fn high_share(&self) -> f64 {
        let limit = self.height.min(self.width) / 4;
        self.radial_share.iter().skip(limit + 1).sum()
    }

    /// Where the power lies, in words.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: half of the perturbations' power lies within {} cycles per image, {:.1} % above half of Nyquist ({})",
            self.label,
            self.median_frequency(),
            100.0 * self.high_share(),
            counted(self.images, "image")
        )];
        lines.extend(self.mask.map(|overlap| {
            let [passing, evenly] = [overlap.passing, overlap.evenly].map(|v| 100.0 * v);
            format!(
                "{}: {passing:.1} % of the perturbations' power passes the mask ({evenly:.1} % if spread evenly)",
                self.label
            )
        }));
        lines
    }

    /// Where the power lies, and how much of it within the mask, as records.
    pub fn records(&self) -> Vec<Record> {
        let numbers = [
            ("perturbation_median_frequency", self.median_frequency() as f64),
            ("perturbation_high_frequency_share", self.high_share()),
        ];
        let record = |(metric, value)| {
            let mut record = Record { total: Some(self.images as u64), ..Record::scalar(metric, value) };
            record.extra.insert("label".into(), self.label.clone().into());
            record
        };
        let mut records: Vec<Record> = numbers.map(record).into();
        records.extend(self.mask.map(|overlap| {
            let mut record = Record::scalar("perturbation_power_in_mask", overlap.passing);
            record.extra.insert("label".into(), self.label.clone().into());
            record.extra.insert("correlation".into(), overlap.correlation.into());
            record
        }));
        records
    }
}

fn overlap(mask: &Mask, power: &[f64]) -> MaskOverlap {
    let gains: Vec<f64> = mask.values.iter().map(|v| f64::from(*v)).collect();
    let passing: f64 = gains.iter().zip(power).map(|(m, p)| m * m * p).sum();
    let total: f64 = power.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let evenly = gains.iter().map(|m| m * m).sum::<f64>() / gains.len() as f64;
    let logs: Vec<f64> = power.iter().map(|p| (p + 1e-30).ln()).collect();
    MaskOverlap { passing: passing / total, evenly, correlation: correlation(&gains[1..], &logs[1..]) }
}

/// Pearson's correlation; 0 where one of the two is constant.
pub(super) fn correlation(first: &[f64], second: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (a, b) = (mean(first), mean(second));
    let (mut product, mut square_a, mut square_b) = (0.0, 0.0, 0.0);
    for (x, y) in first.iter().zip(second) {
        product += (x - a) * (y - b);
        square_a += (x - a).powi(2);
        square_b += (y - b).powi(2);
    }
    let norm = (square_a * square_b).sqrt();
    if norm > 0.0 { product / norm } else { 0.0 }
}

/// `model,radius,power_share`.
pub fn csv(spectra: &[PerturbationSpectrum]) -> String {
    let mut csv = Csv::new(&["model", "radius", "power_share"]);
    for spectrum in spectra {
        for (radius, share) in spectrum.radial_share.iter().enumerate() {
            csv.row(&[&spectrum.label, &radius, share]);
        }
    }
    csv.into_text()
}

/// Power of the perturbations of several models side by side. `attack` names what made them.
pub fn section(spectra: &[PerturbationSpectrum], attack: &str) -> Section {
    let mut map = HeatMap::new("Power of perturbations", Axis::new("mean |F|²").log())
        .colors(ColorMap::Magma)
        .full_width()
        .caption("Zero frequency in the center.");
    if let Some(first) = spectra.first() {
        let (x, y) = frequency_axes(first.height, first.width);
        map = map.axes(x, y);
    }
    let mut radial =
        LinePlot::new("Power by radius", radius_axis(), Axis::percent("share of the whole power"));
    let mut places =
        Table::new("Where the power lies", &["model", "half of the power within", "above half of Nyquist"])
            .caption("Radius of the disc that holds half of the power, in cycles per image.");
    let mut table = Table::new(
        "Perturbations and masks",
        &["model", "images", "power within the mask", "if spread evenly", "correlation with log-power"],
    );
    for (color, s) in spectra.iter().enumerate() {
        let centered: Vec<f32> =
            bands::shift(&s.power, s.height, s.width).iter().map(|p| *p as f32).collect();
        map = map.panel(HeatPanel::new(&*s.label, s.height, s.width, centered));
        let points = s.radial_share.iter().enumerate().map(|(r, share)| [r as f64, *share]).collect();
        radial = radial.series(Series::new(&*s.label, points).color(color));
        places = places.row(vec![
            Cell::text(&*s.label),
            Cell::text(format!("{} cycles per image", s.median_frequency())),
            Cell::percent(s.high_share()),
        ]);
        if let Some(mask) = s.mask {
            table = table.row(vec![
                Cell::text(&*s.label),
                Cell::number(s.images as f64),
                Cell::percent(mask.passing),
                Cell::percent(mask.evenly),
                Cell::number(mask.correlation),
            ]);
        }
    }
    let section = Section::new("Adversarial perturbations")
        .text(format!("Spectra of what {attack} adds to the images, mean over images and channels."))
        .table(places)
        .heat_map(map)
        .line_plot(radial);
    if spectra.iter().any(|s| s.mask.is_some()) { section.table(table) } else { section }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectral::noise::fourier_basis;

    #[test]
    fn a_single_wave_lies_where_it_lies() {
        let clean = Tensor::full(0.5f32, (3, 8, 8, 1), &Device::Cpu).unwrap();
        let wave: Vec<f32> = fourier_basis(8, 8, 0, 3).iter().map(|v| *v as f32).collect();
        let wave = Tensor::from_vec(wave, (1, 8, 8, 1), &Device::Cpu).unwrap();
        // The first image is left alone.
        let scale = Tensor::new(&[0f32, 0.1, 0.2], &Device::Cpu).unwrap().reshape((3, 1, 1, 1)).unwrap();
        let adversarial = clean.broadcast_add(&wave.broadcast_mul(&scale).unwrap()).unwrap();
        let mut mask = Mask::new(8, 8, vec![0.0; 64]);
        (mask.values[3], mask.values[5]) = (1.0, 1.0);
        let found = PerturbationSpectrum::measure("a", &clean, &adversarial, Some(&mask)).unwrap();
        assert_eq!(found.images, 2);
        assert!((found.radial_share[3] - 1.0).abs() < 1e-6);
        assert_eq!((found.median_frequency(), found.high_share().round()), (3, 1.0));
        let overlap = found.mask.unwrap();
        assert!((overlap.passing - 1.0).abs() < 1e-6 && (overlap.evenly - 2.0 / 64.0).abs() < 1e-12);
        assert!(overlap.correlation > 0.5);
        let wrong = Mask::ones(4, 4);
        assert!(PerturbationSpectrum::measure("a", &clean, &adversarial, Some(&wrong)).is_err());
    }
}
