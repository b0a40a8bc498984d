//! Spectra of feature maps, stage by stage: how much fine detail each stage of a network passes on.

mod omega;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

pub use omega::StageOmega;

use super::{Analysis, Findings, advance, frequency_axes, radius_axis, shared_images};
use crate::evaluate::record::Record;
use crate::evaluate::subject::Subject;
use crate::formats::csv::Csv;
use crate::nn::{ForwardContext, Model, Recorder};
use crate::plot::{Axis, Bar, BarPlot, BarSeries, ColorMap, HeatMap, HeatPanel, LinePlot, Section, Series};
use crate::spectral::bands;
use crate::spectral::statistics::SpectrumStatistics;
use crate::{Error, Job, Result};

/// Sections of its page.
pub const SECTIONS: [&str; 1] = ["features"];

/// Measures the feature maps of each network.
///
/// # Errors
/// [`Error::Model`] for a network without stages; [`Error::Interrupted`] after a stop; if images cannot be read.
pub fn run(subjects: &[Subject], job: &Job) -> Result<Analysis<FeatureSpectra>> {
    let data = shared_images(subjects, job)?;
    let mut findings = Findings::new("Feature maps");
    let mut spectra = Vec::new();
    for subject in subjects {
        let network = subject.network.as_ref().ok_or_else(|| {
            Error::model(format!("{}: only networks of ours show their feature maps", subject.label))
        })?;
        let found = FeatureSpectra::measure(&subject.label, &network.model, &data.images, job)?;
        for stage in &found.stages {
            let (name, share) = (&stage.stage, stage.high_share());
            let percent = 100.0 * share;
            let line = format!("{} {name}: {percent:.1} % of the power above half of Nyquist", found.label);
            findings.lines.push(line);
            let mut record = Record::scalar("feature_high_frequency_share", share);
            record.extra.insert("label".into(), found.label.clone().into());
            record.extra.insert("stage".into(), name.clone().into());
            findings.records.push(subject.sign(record));
        }
        findings.records.extend(omega::records(&found).into_iter().map(|record| subject.sign(record)));
        for stage in &found.omega {
            let (name, mean, spread) = (&stage.stage, stage.mean(), stage.spread());
            let line = format!("{} {name}: mean ω {mean:.4}, spread over channels {spread:.4}", found.label);
            findings.lines.push(line);
        }
        spectra.push(found);
    }
    findings.tables.extend(omega::csv(&spectra).map(|csv| ("omega".to_owned(), csv)));
    let findings = findings.table("features", csv(&spectra)).section(SECTIONS[0], section(&spectra));
    Ok(Analysis { results: spectra, findings })
}

/// The spectrum of one stage's feature maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSpectrum {
    /// PyTorch's name of the stage.
    pub stage: String,
    /// Rows of the maps.
    pub height: usize,
    /// Columns of the maps.
    pub width: usize,
    /// Channels of the maps.
    pub channels: usize,
    /// Mean `|F|²` over images and channels, un-shifted.
    pub power: Vec<f64>,
    /// Mean power in each ring of radius 0, 1, 2, …
    pub radial: Vec<f64>,
}

impl StageSpectrum {
    /// Share of the power, zero frequency left out, at radii above half of Nyquist.
    pub fn high_share(&self) -> f64 {
        let limit = self.height.min(self.width) as f64 / 4.0;
        let radii = bands::radii(self.height, self.width);
        let sum = |inside: &dyn Fn(f64) -> bool| -> f64 {
            radii.iter().zip(&self.power).filter(|(r, _)| inside(**r)).map(|(_, p)| p).sum()
        };
        sum(&|r| r > limit) / sum(&|r| r > 0.0).max(f64::MIN_POSITIVE)
    }
}

/// The feature spectra of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureSpectra {
    /// The model.
    pub label: String,
    /// Its stages, in order.
    pub stages: Vec<StageSpectrum>,
    /// Images measured.
    pub images: usize,
    /// ω of its FPCM blocks, if it has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omega: Vec<StageOmega>,
}

impl FeatureSpectra {
    /// Runs `images` `[n, height, width, channels]` through the model in evaluation mode.
    ///
    /// # Errors
    /// [`Error::Model`] for a network without stages.
    pub fn measure(label: &str, model: &Model, images: &Tensor, job: &Job) -> Result<Self> {
        let batch_size = job.batch_size.max(1);
        let model = model.folded()?;
        let count = images.dim(0)?;
        let mut found: Vec<(String, usize, SpectrumStatistics)> = Vec::new();
        let mut omegas = omega::Omegas::default();
        for start in (0..count).step_by(batch_size) {
            advance(job, label, start, count)?;
            let part = images.narrow(0, start, batch_size.min(count - start))?.contiguous()?;
            let recorder = Recorder::new();
            model.logits(&part, &ForwardContext { recorder: Some(&recorder), ..ForwardContext::eval() })?;
            // Maps without extent have no spectrum.
            let recorded = recorder.take();
            recorded.iter().try_for_each(|(name, tensor)| omegas.add(name, tensor))?;
            let maps =
                recorded.into_iter().filter(|(name, map)| map.rank() == 4 && !name.ends_with(".omega"));
            for (index, (name, map)) in maps.enumerate() {
                let (_, height, width, channels) = map.dims4()?;
                if found.len() <= index {
                    found.push((name, channels, SpectrumStatistics::new(height, width, channels)));
                }
                found[index].2.add_tensor(&map.to_device(&Device::Cpu)?)?;
            }
        }
        advance(job, label, count, count)?;
        if found.is_empty() {
            return Err(Error::model(format!("{label}: this architecture has no named stages to record")));
        }
        let stage = |(stage, channels, statistics): (String, usize, SpectrumStatistics)| {
            let (height, width) = statistics.size();
            let power = statistics.mean_power();
            let radial = bands::radial_mean(&power, height, width);
            StageSpectrum { stage, height, width, channels, power, radial }
        };
        let stages = found.into_iter().map(stage).collect();
        Ok(Self { label: label.into(), stages, images: count, omega: omegas.finish() })
    }
}

/// `model,stage,radius,power`.
pub fn csv(spectra: &[FeatureSpectra]) -> String {
    let mut csv = Csv::new(&["model", "stage", "radius", "power"]);
    for spectrum in spectra {
        for stage in &spectrum.stages {
            for (radius, power) in stage.radial.iter().enumerate() {
                csv.row(&[&spectrum.label, &stage.stage, &radius, power]);
            }
        }
    }
    csv.into_text()
}

/// Spectra of all stages of several models.
pub fn section(spectra: &[FeatureSpectra]) -> Section {
    let mut section = Section::new("Feature maps")
        .text("Power spectra of the maps that leave each stage, mean over images and channels.");
    let longest = spectra.iter().max_by_key(|s| s.stages.len());
    let names: Vec<String> =
        longest.iter().flat_map(|s| s.stages.iter().map(|stage| stage.stage.clone())).collect();
    let shares = BarPlot::new("Power above half of Nyquist", Axis::percent("share of the power"), names)
        .caption("Without the mean of each map (zero frequency), which would outweigh everything else.");
    let shares = spectra.iter().fold(shares, |plot, s| {
        plot.series(BarSeries::new(
            &*s.label,
            s.stages.iter().map(|stage| Bar::new(stage.high_share())).collect(),
        ))
    });
    section = section.bar_plot(shares);
    for spectrum in spectra {
        let radial = LinePlot::new(
            format!("{}: power by radius", spectrum.label),
            radius_axis(),
            Axis::new("mean |F|² / (height · width)").log(),
        );
        let mut maps = HeatMap::new(format!("{}: stages", spectrum.label), Axis::new("mean |F|²").log())
            .colors(ColorMap::Magma)
            .caption(
                "Zero frequency in the middle; every panel reaches to its stage's own Nyquist frequency.",
            );
        if let Some(first) = spectrum.stages.first() {
            let (x, y) = frequency_axes(first.height, first.width);
            maps = maps.axes(x, y);
        }
        let mut plot = radial;
        for stage in &spectrum.stages {
            let area = (stage.height * stage.width) as f64;
            let points = stage.radial.iter().enumerate().map(|(r, p)| [r as f64, p / area]).collect();
            plot = plot.series(Series::new(&*stage.stage, points));
            let centered = bands::shift(&stage.power, stage.height, stage.width);
            let centered = centered.iter().map(|p| *p as f32).collect();
            let (x, y) = frequency_axes(stage.height, stage.width);
            maps = maps.panel(HeatPanel::new(&*stage.stage, stage.height, stage.width, centered).axes(x, y));
        }
        section = section.line_plot(plot).heat_map(maps);
    }
    omega::add_to(section, spectra)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::fpcm::{self, FpcmConfig};
    use crate::nn::ModelShape;
    use candle_core::DType;

    /// Against all values of one pass; a plain network has none.
    #[test]
    fn omega_is_measured_by_channel() {
        let shape = ModelShape { channels: 3, classes: 4, width: Some(4) };
        let build = || Model::new("resnet20", shape, None, 1, DType::F32, &Device::Cpu).unwrap();
        let images = crate::nn::tests::noise(&[5, 16, 16, 3], DType::F32, 2);
        let job = Job { batch_size: 2, ..Job::default() };
        let plain = FeatureSpectra::measure("plain", &build(), &images, &job).unwrap();
        assert!(plain.omega.is_empty() && omega::csv(std::slice::from_ref(&plain)).is_none());
        let mut model = build();
        fpcm::install(&mut model, &FpcmConfig::default(), 1).unwrap();
        let found = FeatureSpectra::measure("fpcm", &model, &images, &job).unwrap();
        let names: Vec<&str> = found.omega.iter().map(|stage| stage.stage.as_str()).collect();
        assert_eq!(names, ["stage1", "stage2", "stage3"]);
        assert_eq!(found.stages.len(), plain.stages.len());
        let recorder = Recorder::new();
        let pass = ForwardContext { recorder: Some(&recorder), ..ForwardContext::eval() };
        model.frozen().logits(&images, &pass).unwrap();
        let all: std::collections::BTreeMap<_, _> = recorder.take().into_iter().collect();
        let second = all["attn2.omega"].flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        let stage = &found.omega[1];
        assert_eq!(stage.means.len(), second[0].len());
        for channel in 0..stage.means.len() {
            let values: Vec<f64> = second.iter().map(|row| f64::from(row[channel])).collect();
            let mean = values.iter().sum::<f64>() / 5.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 5.0;
            assert!((stage.means[channel] - mean).abs() < 1e-5, "{channel}");
            assert!((stage.deviations[channel] - variance.sqrt()).abs() < 1e-4, "{channel}");
        }
        assert!(stage.spread() > 0.0 && (0.5..1.0).contains(&stage.mean()));
        assert_eq!(omega::records(&found).len(), 9);
        let csv = omega::csv(&[plain, found.clone()]).unwrap();
        assert_eq!(csv.lines().count(), 1 + 4 + 8 + 16);
        let page = section(&[found]);
        let drawn = page.blocks.iter().filter(|b| matches!(b, crate::plot::Block::LinePlot(_))).count();
        assert_eq!(drawn, 2);
    }

    #[test]
    fn every_stage_is_measured_and_batches_change_nothing() {
        let shape = ModelShape { channels: 3, classes: 4, width: Some(4) };
        let model = Model::new("resnet20", shape, None, 1, DType::F32, &Device::Cpu).unwrap();
        let images = Tensor::rand(0f32, 1.0, (5, 16, 12, 3), &Device::Cpu).unwrap();
        let measure = |batch_size| {
            FeatureSpectra::measure("a", &model, &images, &Job { batch_size, ..Job::default() }).unwrap()
        };
        let (one, other) = (measure(2), measure(5));
        let sizes: Vec<_> = one.stages.iter().map(|s| (&*s.stage, s.height, s.width, s.channels)).collect();
        assert_eq!(sizes, [("layer1", 16, 12, 4), ("layer2", 8, 6, 8), ("layer3", 4, 3, 16)]);
        for (a, b) in one.stages.iter().zip(&other.stages) {
            assert!(a.power.iter().zip(&b.power).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1e-3)));
            assert!((0.0..=1.0).contains(&a.high_share()));
        }
    }
}
