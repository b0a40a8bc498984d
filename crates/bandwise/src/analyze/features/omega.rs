//! ω of FPCM's blocks, channel by channel: how much each prefers low frequencies.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::FeatureSpectra;
use crate::Result;
use crate::evaluate::record::Record;
use crate::formats::csv::Csv;
use crate::plot::{Axis, Cell, LinePlot, Section, Series, Table};

/// ω of one block over the measured images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageOmega {
    /// The stage that the block stands behind: `stage1`, …
    pub stage: String,
    /// Mean over images of each channel.
    pub means: Vec<f64>,
    /// Standard deviation over images of each channel.
    pub deviations: Vec<f64>,
}

impl StageOmega {
    /// The mean over channels.
    pub fn mean(&self) -> f64 {
        average(&self.means)
    }

    /// The standard deviation over channels of their means.
    pub fn spread(&self) -> f64 {
        let mean = self.mean();
        average(&self.means.iter().map(|omega| (omega - mean).powi(2)).collect::<Vec<_>>()).sqrt()
    }

    /// The mean over channels of the standard deviation over images.
    pub fn deviation(&self) -> f64 {
        average(&self.deviations)
    }
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Running sums of ω by stage.
#[derive(Default)]
pub(super) struct Omegas(BTreeMap<usize, Sums>);

#[derive(Default)]
struct Sums {
    images: usize,
    omega: Vec<f64>,
    squares: Vec<f64>,
}

impl Omegas {
    /// Takes what a recorder calls `attnN.omega`, `[batch, channels]`; anything else is passed over.
    pub(super) fn add(&mut self, name: &str, omega: &Tensor) -> Result<()> {
        let stage = name.strip_suffix(".omega").and_then(|name| name.strip_prefix("attn")?.parse().ok());
        let Some(stage) = stage else { return Ok(()) };
        let omega = omega.flatten_from(1)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let (images, channels) = omega.dims2()?;
        let sums = self.0.entry(stage).or_insert_with(|| Sums {
            images: 0,
            omega: vec![0.0; channels],
            squares: vec![0.0; channels],
        });
        sums.images += images;
        for row in omega.to_vec2::<f64>()? {
            for (channel, omega) in row.into_iter().enumerate() {
                sums.omega[channel] += omega;
                sums.squares[channel] += omega * omega;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<StageOmega> {
        let stage = |(stage, sums): (usize, Sums)| {
            let images = sums.images.max(1) as f64;
            let means: Vec<f64> = sums.omega.iter().map(|sum| sum / images).collect();
            let variances = sums.squares.iter().zip(&means).map(|(sum, mean)| sum / images - mean * mean);
            // Rounding can take the variance of a constant below zero.
            let deviations = variances.map(|variance| variance.max(0.0).sqrt()).collect();
            StageOmega { stage: format!("stage{stage}"), means, deviations }
        };
        self.0.into_iter().map(stage).collect()
    }
}

/// `model,stage,channel,mean,deviation`; `None` where no network has such blocks.
pub(super) fn csv(models: &[FeatureSpectra]) -> Option<String> {
    let mut csv = Csv::new(&["model", "stage", "channel", "mean", "deviation"]);
    for model in models {
        for stage in &model.omega {
            for (channel, (mean, deviation)) in stage.means.iter().zip(&stage.deviations).enumerate() {
                csv.row(&[&model.label, &stage.stage, &channel, mean, deviation]);
            }
        }
    }
    models.iter().any(|model| !model.omega.is_empty()).then(|| csv.into_text())
}

/// Mean and spread of each block.
pub(super) fn records(model: &FeatureSpectra) -> Vec<Record> {
    let record = |metric: &str, value: f64, stage: &StageOmega| {
        let mut record = Record::scalar(metric, value);
        record.extra.insert("label".into(), model.label.clone().into());
        record.extra.insert("stage".into(), stage.stage.clone().into());
        record
    };
    let of = |stage: &StageOmega| {
        [
            record("omega", stage.mean(), stage),
            record("omega_spread_over_channels", stage.spread(), stage),
            record("omega_spread_over_images", stage.deviation(), stage),
        ]
    };
    model.omega.iter().flat_map(of).collect()
}

/// Adds table and curves to the page, where there are blocks.
pub(super) fn add_to(mut section: Section, models: &[FeatureSpectra]) -> Section {
    for model in models.iter().filter(|model| !model.omega.is_empty()) {
        let title = format!("{}: ω of the frequency preference control modules", model.label);
        let columns = ["block behind", "channels", "mean ω", "spread over channels", "spread over images"];
        let mut table = Table::new(&*title, &columns).caption(format!(
            "ω is the weight of the low frequencies, one for each image and channel. Spreads are standard deviations: \
             of the channels\u{2019} means, and over the {} images, averaged over channels.",
            model.images
        ));
        let mut plot = LinePlot::new(
            format!("{}: ω by channel", model.label),
            Axis::percent("channels, from the smallest ω to the largest"),
            Axis::new("mean ω over images"),
        );
        for stage in &model.omega {
            let mut means = stage.means.clone();
            means.sort_by(f64::total_cmp);
            let last = means.len().saturating_sub(1).max(1) as f64;
            let points = means.iter().enumerate().map(|(rank, omega)| [rank as f64 / last, *omega]).collect();
            plot = plot.series(Series::new(&*stage.stage, points));
            table = table.row(vec![
                Cell::text(&stage.stage),
                Cell::number(stage.means.len() as f64),
                Cell::number(stage.mean()),
                Cell::number(stage.spread()),
                Cell::number(stage.deviation()),
            ]);
        }
        section = section.table(table).line_plot(plot);
    }
    section
}
