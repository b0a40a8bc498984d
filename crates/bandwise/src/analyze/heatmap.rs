//! The Fourier heat map (Yin et al. 2019): how often a classifier is wrong when one Fourier wave is added
//! to every image.
//!
//! For every frequency `(i, j)` the image gets `norm · s · U(i, j)`, where `U` is the wave of unit L2 norm
//! and `s` a random sign per image and channel (the same for all frequencies). `(i, j)` and `(−i, −j)`
//! are the same wave: each is measured once.

use std::collections::BTreeMap;

use candle_core::{D, Tensor};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{Analysis, Findings, NamedClassifier, advance, shared_images, signed};
use crate::attack::Classifier;
use crate::evaluate::record::{Record, WAVE_NORM};
use crate::evaluate::subject::Subject;
use crate::formats::csv::Csv;
use crate::plot::{Axis, ColorMap, Facts, HeatMap, HeatPanel, Section};
use crate::spectral::noise::fourier_basis;
use crate::{Error, Job, Result, random};

/// Sections of its page.
pub const SECTIONS: [&str; 1] = ["heatmap"];

/// Measures the heat map of each network.
///
/// # Errors
/// [`Error::Interrupted`] after a stop; if images cannot be read or do not fit a network.
pub fn run(subjects: &[Subject], job: &Job, config: &HeatMapConfig) -> Result<Analysis<FourierHeatMap>> {
    let data = shared_images(subjects, job)?;
    let mut findings = Findings::new("Fourier heat map");
    let mut maps = Vec::new();
    for subject in subjects {
        let named = NamedClassifier::of(subject);
        let map = FourierHeatMap::full(&named, &data.images, &data.label_values, config, job)?;
        let clean = 100.0 * f64::from(map.clean_wrong) / map.images as f64;
        findings.lines.push(format!(
            "{}: clean error {clean:.1} %, mean over all waves {:.1} %",
            map.label,
            100.0 * map.mean_error()
        ));
        findings.records.extend(map.records().map(|record| signed(subject, record, config.seed)));
        maps.push(map);
    }
    let findings = findings.table("heatmap", csv(&maps)).section(SECTIONS[0], section(&maps));
    Ok(Analysis { results: maps, findings })
}

/// What a heat map is measured with; the defaults are those of Yin et al. for CIFAR-10.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeatMapConfig {
    /// L2 norm of the wave in each channel, pixels in [0, 1]. Yin et al. use 4 on CIFAR-10 and 15.7 on ImageNet.
    pub norm: f64,
    /// Whether perturbed pixels are clamped to [0, 1].
    pub clip: bool,
    /// Largest frequency of the grid along each axis; `None` for all below Nyquist.
    pub largest_frequency: Option<usize>,
    /// Seed of the signs.
    pub seed: u64,
}

impl Default for HeatMapConfig {
    fn default() -> Self {
        Self { norm: 4.0, clip: true, largest_frequency: None, seed: 0 }
    }
}

/// Wrong predictions per frequency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FourierHeatMap {
    /// The model.
    pub label: String,
    /// Vertical frequencies, one per row of the map.
    pub rows: Vec<i64>,
    /// Horizontal frequencies, one per column.
    pub columns: Vec<i64>,
    /// Wrong predictions, row after row.
    pub wrong: Vec<u32>,
    /// Wrong predictions without a wave.
    pub clean_wrong: u32,
    /// Images judged.
    pub images: usize,
    /// What it was measured with.
    pub config: HeatMapConfig,
}

/// The images that a heat map perturbs, and the signs with which it does.
pub struct HeatMapData<'a> {
    /// `[n, height, width, channels]`.
    pub images: &'a Tensor,
    /// `[n]`.
    pub labels: &'a [u32],
    /// `±1` per image and channel, `[n · channels]`.
    pub signs: Vec<f32>,
}

impl<'a> HeatMapData<'a> {
    /// Signs drawn from `seed`, one stream per image.
    pub fn new(images: &'a Tensor, labels: &'a [u32], seed: u64) -> Result<Self> {
        let (count, _, _, channels) = images.dims4()?;
        if count == 0 || labels.len() != count {
            return Err(Error::config(format!("a heat map of {count} images with {} labels", labels.len())));
        }
        let tag = random::tag("fourier heat map");
        let signs = (0..count as u64).flat_map(|image| {
            let mut stream = random::stream(seed, &[tag, image]);
            (0..channels).map(move |_| if stream.random::<bool>() { 1.0 } else { -1.0 })
        });
        Ok(Self { images, labels, signs: signs.collect() })
    }
}

impl FourierHeatMap {
    /// Measures the frequencies `rows` × `columns`.
    pub fn measure(
        model: &NamedClassifier,
        data: &HeatMapData,
        [rows, columns]: [&[i64]; 2],
        config: &HeatMapConfig,
        job: &Job,
    ) -> Result<Self> {
        let (_, height, width, _) = data.images.dims4()?;
        let cells: Vec<(i64, i64)> =
            rows.iter().flat_map(|i| columns.iter().map(move |j| (*i, *j))).collect();
        let wave = |&(i, j): &(i64, i64)| same_wave(i, j, height, width);
        let mut measured: BTreeMap<(i64, i64), u32> = cells.iter().map(|c| (wave(c), 0)).collect();
        let waves: Vec<(i64, i64)> = measured.keys().copied().collect();
        let batch_size = job.batch_size.max(1);
        let tester = Tester { model: model.classifier, data, config, batch_size };
        let clean_wrong = tester.wrong(&[None])?[0];
        // Few images: several waves fill one pass.
        let together = (batch_size / data.labels.len()).max(1);
        for (done, group) in waves.chunks(together).enumerate() {
            advance(job, model.label, (done * together).min(waves.len()), waves.len())?;
            let group: Vec<_> = group.iter().copied().map(Some).collect();
            for (wave, wrong) in group.iter().zip(tester.wrong(&group)?) {
                measured.extend(wave.map(|wave| (wave, wrong)));
            }
        }
        advance(job, model.label, waves.len(), waves.len())?;
        Ok(Self {
            label: model.label.into(),
            rows: rows.to_vec(),
            columns: columns.to_vec(),
            wrong: cells.iter().map(|c| measured[&wave(c)]).collect(),
            clean_wrong,
            images: data.labels.len(),
            config: config.clone(),
        })
    }

    /// Measures the whole grid of `config`, in rows from the highest vertical frequency down.
    pub fn full(
        model: &NamedClassifier,
        images: &Tensor,
        labels: &[u32],
        config: &HeatMapConfig,
        job: &Job,
    ) -> Result<Self> {
        let (_, height, width, _) = images.dims4()?;
        let data = HeatMapData::new(images, labels, config.seed)?;
        let grid = |side: usize| -> Vec<i64> {
            let largest =
                (side.saturating_sub(1) / 2).min(config.largest_frequency.unwrap_or(usize::MAX)) as i64;
            (-largest..=largest).collect()
        };
        Self::measure(model, &data, [&grid(height), &grid(width)], config, job)
    }

    /// Share of wrong predictions, row after row.
    pub fn error_rates(&self) -> Vec<f64> {
        self.wrong.iter().map(|w| f64::from(*w) / self.images as f64).collect()
    }

    /// Accuracy without a wave and mean error rate over all waves, as records.
    pub fn records(&self) -> [Record; 2] {
        let judged = self.images as u64;
        let clean = Record::proportion("accuracy", judged - u64::from(self.clean_wrong), judged);
        let mut error = Record::scalar("fourier_heat_map_error", self.mean_error());
        error.extra.insert(WAVE_NORM.into(), self.config.norm.into());
        error.extra.insert("clipped".into(), self.config.clip.into());
        [clean, error].map(|mut record| {
            record.extra.insert("label".into(), self.label.clone().into());
            record
        })
    }

    /// Mean error rate over all frequencies.
    pub fn mean_error(&self) -> f64 {
        self.error_rates().iter().sum::<f64>() / self.wrong.len().max(1) as f64
    }
}

struct Tester<'a> {
    model: &'a dyn Classifier,
    data: &'a HeatMapData<'a>,
    config: &'a HeatMapConfig,
    batch_size: usize,
}

impl Tester<'_> {
    /// Wrong predictions under each wave; `None` stands for no wave.
    fn wrong(&self, waves: &[Option<(i64, i64)>]) -> Result<Vec<u32>> {
        let HeatMapData { images, labels, signs } = self.data;
        let (count, height, width, channels) = images.dims4()?;
        let device = images.device();
        let patterns: Vec<f32> = waves
            .iter()
            .flat_map(|wave| match wave {
                Some((i, j)) => fourier_basis(height, width, *i, *j),
                None => vec![0.0; height * width],
            })
            .map(|v| (v * self.config.norm) as f32)
            .collect();
        let patterns = Tensor::from_vec(patterns, (waves.len(), 1, height, width, 1), device)?;
        let signs = Tensor::from_slice(signs, (1, count, 1, 1, channels), device)?;
        let per_pass = (self.batch_size / waves.len()).clamp(1, count);
        let mut wrong = vec![0; waves.len()];
        for start in (0..count).step_by(per_pass) {
            let length = per_pass.min(count - start);
            let noise = patterns.broadcast_mul(&signs.narrow(1, start, length)?)?;
            let mut seen = images.narrow(0, start, length)?.unsqueeze(0)?.broadcast_add(&noise)?;
            if self.config.clip {
                seen = seen.clamp(0f32, 1f32)?;
            }
            let seen = seen.reshape((waves.len() * length, height, width, channels))?;
            let predictions: Vec<u32> = self.model.logits_no_graph(&seen)?.argmax(D::Minus1)?.to_vec1()?;
            for (wrong, predictions) in wrong.iter_mut().zip(predictions.chunks(length)) {
                *wrong += predictions.iter().zip(&labels[start..]).filter(|(p, l)| p != l).count() as u32;
            }
        }
        Ok(wrong)
    }
}

/// One name for all frequencies that are the same wave on the grid.
fn same_wave(i: i64, j: i64, height: usize, width: usize) -> (i64, i64) {
    let (height, width) = (height as i64, width as i64);
    let one = (i.rem_euclid(height), j.rem_euclid(width));
    let other = ((-i).rem_euclid(height), (-j).rem_euclid(width));
    one.min(other)
}

/// `model,i,j,wrong,images,error`: one line per cell.
pub fn csv(maps: &[FourierHeatMap]) -> String {
    let mut csv = Csv::new(&["model", "i", "j", "wrong", "images", "error"]);
    for map in maps {
        let cells = map.rows.iter().flat_map(|i| map.columns.iter().map(move |j| (i, j)));
        for ((i, j), wrong) in cells.zip(&map.wrong) {
            let error = f64::from(*wrong) / map.images as f64;
            csv.row(&[&map.label, i, j, wrong, &map.images, &error]);
        }
    }
    csv.into_text()
}

/// The maps of several models side by side.
pub fn section(maps: &[FourierHeatMap]) -> Section {
    let mut plot = HeatMap::new("Fourier heat map", Axis::percent("error rate").range(0.0, 1.0))
        .colors(ColorMap::Viridis)
        .full_width()
        .caption(
            "Zero frequency in the center, low frequencies around it. A wave and its opposite are the same.",
        );
    let mut facts = Facts::new();
    for map in maps {
        // Rows count downwards, the axis upwards: the first row, −N, stands at the top as N cycles upwards.
        let values = map.error_rates().into_iter().map(|v| v as f32).collect();
        plot = plot.panel(HeatPanel::new(&*map.label, map.rows.len(), map.columns.len(), values));
        let clean = 100.0 * f64::from(map.clean_wrong) / map.images as f64;
        let mean = 100.0 * map.mean_error();
        facts = facts.fact(&*map.label, format!("clean error {clean:.1} %, mean over all waves {mean:.1} %"));
    }
    let Some(first) = maps.first() else { return Section::new("Fourier heat map") };
    let range = |frequencies: &[i64]| {
        let edge = |f: Option<&i64>| f.map_or(0.0, |f| *f as f64);
        (edge(frequencies.first()) - 0.5, edge(frequencies.last()) + 0.5)
    };
    let (x, y) = (range(&first.columns), range(&first.rows));
    plot = plot.axes(
        Axis::integers("horizontal frequency (cycles per image)").range(x.0, x.1),
        Axis::integers("vertical frequency (cycles per image)").range(-y.1, -y.0),
    );
    let pixels = if first.config.clip { "clamped to [0, 1]" } else { "not clamped" };
    Section::new("Fourier heat map")
        .text(format!(
            "How often each model is wrong when one Fourier wave of L2 norm {} per channel, with a random sign per \
             image and channel, is added to each of {} images (pixels {pixels}).",
            first.config.norm, first.images
        ))
        .heat_map(plot)
        .facts(facts)
}
