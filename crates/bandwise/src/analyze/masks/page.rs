//! What is told about the masks of single images of one network.

use std::path::{Path, PathBuf};

use super::family::{Chosen, Family, Learned};
use super::per_image::{ImageLine, ImageMasksConfig, SECTIONS};
use super::{ClassSimilarity, MaskProfile, histogram, mean, picture, section, write_image};
use crate::analyze::probe::{self, Probe, ProbeConfig};
use crate::analyze::{Findings, embedding};
use crate::evaluate::record::Record;
use crate::plot::{Block, ImageGrid, PngImage, Section, Table};
use crate::wording::counted;
use crate::{Error, Result};

/// Images of single masks that are written and shown.
pub(super) const SHOWN: usize = 24;
/// Fewer masks say nothing about classes.
const FEWEST_FOR_CLASSES: usize = 20;

/// All masks in one line, and the time that learning them took.
pub(super) fn summary(learned: &Learned) -> Vec<String> {
    let lines = &learned.lines;
    let mean =
        |value: &dyn Fn(&ImageLine) -> f64| lines.iter().map(value).sum::<f64>() / lines.len().max(1) as f64;
    let steps: usize = lines.iter().map(|l| l.steps).sum();
    let mut summary = vec![format!(
        "{}: {}, {:.2} % of the spectrum on average, {} predictions kept, {} converged, {:.0} steps each",
        learned.label,
        counted(lines.len(), "mask"),
        100.0 * mean(&|l| l.relative_l1),
        lines.iter().filter(|l| l.prediction == l.clean_prediction).count(),
        lines.iter().filter(|l| l.converged).count(),
        mean(&|l| l.steps as f64),
    )];
    if learned.seconds > 0.0 {
        let each = learned.seconds / lines.len().max(1) as f64;
        let step = 1e3 * learned.seconds / steps.max(1) as f64;
        summary.push(format!(
            "{:.1} s: {each:.4} s per image, {step:.4} ms per image and step",
            learned.seconds
        ));
    }
    summary
}

/// The sections and records of every family by itself.
pub(super) fn report(
    mut findings: Findings,
    config: &ImageMasksConfig,
    families: &[Family],
    all: &[Learned],
    chosen: &Chosen,
    folders: &[PathBuf],
) -> Result<Findings> {
    let classes = &chosen.clean.classes;
    let mut profiles = Vec::new();
    let mut blocks: Vec<Block> = Vec::new();
    let mut told = Section::new("Do masks tell the class?").text(
        "Every mask was learned for one image. If a linear classifier finds the class in masks of images it has not \
         seen, what a network looks at depends on the class.",
    );
    let several = families.len() > 1;
    for ((family, learned), folder) in families.iter().zip(all).zip(folders) {
        let Learned { label, lines, masks, seconds } = learned;
        let mean = mean(masks).ok_or_else(|| Error::config("there are no masks"))?;
        write_image(&folder.join("mean.png"), &mean)?;
        profiles
            .push(MaskProfile::new(if several { label.clone() } else { format!("mean of {label}") }, &mean)?);
        let of = if several { format!(": {label}") } else { String::new() };
        blocks.push(Block::Images(pictures(learned, &of, classes, folder)?));
        let values = |value: &dyn Fn(&ImageLine) -> f64| lines.iter().map(value).collect::<Vec<f64>>();
        let histograms = [
            histogram(
                &format!("Sparsity: ‖M‖₁ / ‖M₀‖₁ in %{of}"),
                "",
                &values(&|l| 100.0 * l.relative_l1),
                12,
            ),
            histogram(&format!("Steps until the mask converged{of}"), "", &values(&|l| l.steps as f64), 12),
        ];
        blocks.extend(histograms.into_iter().flatten().map(Block::BarPlot));
        let kept: Vec<bool> = lines.iter().map(|l| l.prediction == l.clean_prediction).collect();
        let mut records = vec![Record { metric: "masked_prediction_kept".into(), ..Record::accuracy(&kept) }];
        let mean_l1 = values(&|l| l.relative_l1).iter().sum::<f64>() / lines.len() as f64;
        let mut sparsity = Record::scalar("mask_relative_l1", mean_l1);
        sparsity.wall_seconds = (*seconds > 0.0).then_some(*seconds);
        records.push(sparsity);
        if lines.len() >= FEWEST_FOR_CLASSES {
            let (part, probes) = tell_classes(learned, &of, classes, config.seed)?;
            told.blocks.extend(part.blocks);
            findings.lines.extend(probes.iter().map(|probe| format!("{}{}", in_words(probe), of)));
            records.extend(probes.iter().flat_map(Probe::records));
        }
        findings.records.extend(records.into_iter().map(|record| family.sign(record, None, config.seed)));
    }
    let mut masks = section(&profiles)?;
    masks.blocks.extend(blocks);
    findings = findings.section(SECTIONS[0], masks);
    if chosen.indices.len() >= FEWEST_FOR_CLASSES {
        findings = findings.section(SECTIONS[3], told);
    }
    Ok(findings)
}

/// Writes images of the first masks, and sets them side by side.
fn pictures(learned: &Learned, of: &str, classes: &[String], folder: &Path) -> Result<ImageGrid> {
    let (lines, mut shown) = (&learned.lines, Vec::new());
    for (line, mask) in lines.iter().zip(&learned.masks).take(SHOWN) {
        write_image(&folder.join("pictures").join(format!("{:05}.png", line.image)), mask)?;
        let class = classes.get(line.prediction as usize).map_or("", |c| c);
        let mark = if line.converged { "" } else { " *" };
        let caption = format!("{} {class}: {:.1} %{mark}", line.image, 100.0 * line.relative_l1);
        shown.push(picture(&mask.centered(), mask.height, mask.width).caption(caption));
    }
    let grid = ImageGrid::new(format!("Masks of single images{of}"), &[]);
    let grid = shown.chunks(6).fold(grid, |grid, row| grid.row("", Vec::<PngImage>::from(row)));
    let open = lines.iter().filter(|line| !line.converged).count();
    let mut caption = String::from(
        "Even part, zero frequency in the center; black is 0, the brightest yellow 1; the share is ‖M‖₁ / ‖M₀‖₁.",
    );
    if open > 0 {
        caption += &format!(" * not converged when the steps ran out ({open} of {} masks).", lines.len());
    }
    Ok(grid.caption(caption))
}

/// Do masks tell the class?
fn tell_classes(learned: &Learned, of: &str, classes: &[String], seed: u64) -> Result<(Section, Vec<Probe>)> {
    let (lines, all) = (&learned.lines, &learned.masks);
    let predicted: Vec<u32> = lines.iter().map(|l| l.clean_prediction).collect();
    let truth: Vec<u32> = lines.iter().map(|l| l.label).collect();
    let config = ProbeConfig { seed, ..ProbeConfig::default() };
    let probes = vec![
        Probe::measure("predicted class", all, &predicted, &config)?,
        Probe::measure("true class", all, &truth, &config)?,
    ];
    let points: Vec<Vec<f32>> = all.iter().map(|m| m.even().values).collect();
    let places = embedding::t_sne(&points, 30.0, seed)?;
    let similarity = ClassSimilarity::new(all, &predicted, classes);
    let title = format!("Masks in the plane, by predicted class{of}");
    let section = Section::new("")
        .table(Table { title: format!("Linear classifier on masks{of}"), ..probe::table(&probes) })
        .line_plot(embedding::plot(&title, &places, &predicted, classes));
    let section = if classes.len() <= 20 { section.heat_map(similarity.heat_map()) } else { section };
    Ok((section, probes))
}

fn in_words(probe: &Probe) -> String {
    let share = |flags: &[bool]| 100.0 * flags.iter().filter(|f| **f).count() as f64 / flags.len() as f64;
    format!(
        "linear classifier on masks, {}: {:.1} % (scrambled labels {:.1} %)",
        probe.label,
        share(&probe.correct),
        share(&probe.scrambled)
    )
}
