//! The workflow: one mask per image.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::images_file::ImagesFile;
use super::{ClassSimilarity, MaskProfile, histogram, mean, picture, prepare, section, write_picture};
use crate::analyze::perturbations::{announce, check, perturb};
use crate::analyze::probe::{self, Probe, ProbeConfig};
use crate::analyze::{Analysis, Findings, embedding, shared_images, signed};
use crate::attack::Attack;
use crate::evaluate::record::Record;
use crate::evaluate::subject::{Subject, TestImages, with_warnings};
use crate::evaluate::suite::attacked;
use crate::lock::Lock;
use crate::method::fourier_mask::{Clean, ImageConfig, ImageLearner, Mask};
use crate::plot::{ImageGrid, Picture, Section};
use crate::wording::counted;
use crate::{Error, Job, Result};

/// Sections of its page, the first of which is always there.
pub const SECTIONS: [&str; 2] = ["masks", "classes"];
/// Images of single masks that are written and shown.
const SHOWN: usize = 24;
/// Fewer masks say nothing about classes.
const FEWEST_FOR_CLASSES: usize = 20;

/// Which masks are learned for single images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageMasksConfig {
    /// How each is learned. As many are learned side by side as the job's batch size says, whatever
    /// [`batch_size`](ImageConfig::batch_size) is: it changes no mask.
    pub learning: ImageConfig,
    /// Learn masks of adversarial images instead: of those that this attack breaks, with their wrong classes.
    pub attack: Option<Attack>,
    /// Seed of the attack, and of whatever is measured on the masks.
    pub seed: u64,
}

/// What is known of one image's mask: a line of `images.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageLine {
    /// Row of masks.npy.
    pub row: usize,
    /// Index of the image in the data set.
    pub image: usize,
    /// Its class.
    pub label: u32,
    /// The class whose cross-entropy the mask keeps: the one predicted without a mask.
    pub clean_prediction: u32,
    /// The class predicted through the mask.
    pub prediction: u32,
    /// Steps taken.
    pub steps: usize,
    /// Whether the mask stood still in the end.
    pub converged: bool,
    /// Last invariance.
    pub invariance: f64,
    /// ‖M‖₁ / ‖M₀‖₁.
    pub relative_l1: f64,
}

/// The images whose masks are learned, with their places in the data set.
struct Chosen {
    images: TestImages,
    indices: Vec<usize>,
}

/// Learns a mask for each image, or for each one that an attack breaks.
///
/// `folder` keeps `masks.npy` `[n, height, width]`, `images.jsonl`, from which the same call resumes, and images of
/// some masks. Results are masks with what is known of them, in the order of images.
///
/// # Errors
/// [`Error::Config`] for settings that make no sense, an attack that breaks no image, or a folder that another process
/// writes; [`Error::Format`] if the folder
/// holds masks of something else; [`Error::Interrupted`] after a stop; if files cannot be read or written.
pub fn run(
    subjects: &[Subject],
    job: &Job,
    config: &ImageMasksConfig,
    folder: &Path,
) -> Result<Analysis<(ImageLine, Mask)>> {
    let [subject] = subjects else { return Err(Error::config(super::ONE_MODEL)) };
    let images = shared_images(subjects, job)?;
    let _lock = Lock::folder(folder)?;
    prepare(folder)?;
    let mut findings = Findings::new("Fourier masks of single images");
    let mut warnings = Vec::new();
    let chosen = match &config.attack {
        Some(attack) => {
            announce(attack, config.seed, job);
            warnings = check(subject, attack, &images, job)?;
            broken(subject, &images, attack, config.seed, job, &mut findings)?
        }
        None => Chosen { indices: (0..images.label_values.len()).collect(), images },
    };
    let learning = ImageConfig { batch_size: job.batch_size, ..config.learning.clone() };
    let (count, height, width, _) = chosen.images.images.dims4()?;
    let belongs = json!({
        "weights": subject.provenance.weights_sha256,
        "model": subject.network.config,
        "data": subject.provenance.data_sha256,
        "precision": subject.provenance.precision,
        "images": count,
        "attack": config.attack,
        // The batch size changes no mask.
        "config": ImageConfig { batch_size: 1, ..learning.clone() },
    });
    let mut file = ImagesFile::open(folder, [count, height, width], &belongs)?;
    let seconds = learn(subject, &chosen, &learning, &mut file, job)?;
    let masks = file.read()?;
    file.lines.sort_by_key(|line| line.row);
    let lines = file.lines;
    findings.lines.extend(summary(&lines, seconds));
    let mut findings =
        report(findings, config, subject, &chosen.images.classes, (&lines, &masks), seconds, folder)?;
    findings.warn(&subject.label, &warnings);
    findings.records = findings.records.into_iter().map(|r| with_warnings(r, &warnings)).collect();
    Ok(Analysis { results: lines.into_iter().zip(masks).collect(), findings })
}

/// The adversarial versions of those images that the attack turns from right to wrong.
fn broken(
    subject: &Subject,
    images: &TestImages,
    attack: &Attack,
    seed: u64,
    job: &Job,
    findings: &mut Findings,
) -> Result<Chosen> {
    let adversarial = perturb(&attack.to_string(), attack, &subject.classifier, images, seed, job)?;
    let predictions = |images| {
        Ok::<_, Error>(Clean::measure(&subject.classifier, images, None, job.batch_size)?.predictions)
    };
    let (before, after) = (predictions(&images.images)?, predictions(&adversarial)?);
    let labels = &images.label_values;
    let indices: Vec<usize> =
        (0..before.len()).filter(|i| before[*i] == labels[*i] && after[*i] != labels[*i]).collect();
    findings.lines.push(format!(
        "{attack} breaks {} of {}; their masks are learned",
        indices.len(),
        counted(before.len(), "image")
    ));
    if indices.is_empty() {
        return Err(Error::config("the attack breaks no image: there are no adversarial masks to learn"));
    }
    let images = TestImages { images: adversarial, ..images.clone() }.select(&indices)?;
    Ok(Chosen { images, indices })
}

/// Learns what is not there yet; returns the seconds it took.
fn learn(
    subject: &Subject,
    Chosen { images, indices }: &Chosen,
    config: &ImageConfig,
    file: &mut ImagesFile,
    job: &Job,
) -> Result<f64> {
    let done: HashSet<usize> = file.lines.iter().map(|line| line.row).collect();
    let rows: Vec<usize> = (0..indices.len()).filter(|row| !done.contains(row)).collect();
    if rows.is_empty() {
        return Ok(0.0);
    }
    let began = Instant::now();
    let pixels = images.select(&rows)?.images;
    let mut learner = ImageLearner::new(&subject.classifier, pixels, None, config.clone())?;
    job.report("masks", file.lines.len(), indices.len(), "");
    while !learner.is_finished() {
        let finished = learner.step(Some(&job.interrupt)).map_err(|error| match error {
            Error::Interrupted(_) => Error::Interrupted(format!(
                "saved so far: {}; the same command goes on",
                counted(file.lines.len(), "mask")
            )),
            other => other,
        })?;
        for mask in finished {
            let row = rows[mask.index];
            let line = ImageLine {
                row,
                image: indices[row],
                label: images.label_values[row],
                clean_prediction: mask.clean_prediction,
                prediction: mask.prediction,
                steps: mask.steps,
                converged: mask.converged,
                invariance: mask.invariance,
                relative_l1: mask.mask.relative_l1(),
            };
            file.add(&mask, line)?;
            job.report("masks", file.lines.len(), indices.len(), "");
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

/// All masks in one line, and the time that learning them took.
fn summary(lines: &[ImageLine], seconds: f64) -> Vec<String> {
    let mean =
        |value: &dyn Fn(&ImageLine) -> f64| lines.iter().map(value).sum::<f64>() / lines.len().max(1) as f64;
    let same = lines.iter().filter(|l| l.prediction == l.clean_prediction).count();
    let steps: usize = lines.iter().map(|l| l.steps).sum();
    let mut summary = vec![format!(
        "{}: {:.2} % of the spectrum on average, {same} predictions kept, {} stood still, {:.0} steps each",
        counted(lines.len(), "mask"),
        100.0 * mean(&|l| l.relative_l1),
        lines.iter().filter(|l| l.converged).count(),
        mean(&|l| l.steps as f64),
    )];
    if seconds > 0.0 {
        let (each, step) = (seconds / lines.len().max(1) as f64, 1e3 * seconds / steps.max(1) as f64);
        summary.push(format!("{seconds:.1} s: {each:.4} s per image, {step:.4} ms per image and step"));
    }
    summary
}

fn report(
    mut findings: Findings,
    config: &ImageMasksConfig,
    subject: &Subject,
    classes: &[String],
    (lines, all): (&[ImageLine], &[Mask]),
    seconds: f64,
    folder: &Path,
) -> Result<Findings> {
    let mean = mean(all).ok_or_else(|| Error::config("there are no masks"))?;
    write_picture(&folder.join("mean.png"), &mean)?;
    let grid = pictures(lines, all, classes, folder)?;
    let values = |value: &dyn Fn(&ImageLine) -> f64| lines.iter().map(value).collect::<Vec<f64>>();
    let profile = MaskProfile::new(format!("mean of {}", subject.label), &mean)?;
    let histograms = [
        histogram("Sparsity: ‖M‖₁ / ‖M₀‖₁ in %", "", &values(&|l| 100.0 * l.relative_l1), 12),
        histogram("Steps until the mask converged", "", &values(&|l| l.steps as f64), 12),
    ];
    let masks = section(&[profile])?.images(grid);
    let masks = histograms.into_iter().flatten().fold(masks, Section::bar_plot);
    findings = findings.section(SECTIONS[0], masks);
    let kept: Vec<bool> = lines.iter().map(|l| l.prediction == l.clean_prediction).collect();
    let mut records = vec![Record { metric: "masked_prediction_kept".into(), ..Record::accuracy(&kept) }];
    let mean_l1 = values(&|l| l.relative_l1).iter().sum::<f64>() / lines.len() as f64;
    let mut sparsity = Record::scalar("mask_relative_l1", mean_l1);
    sparsity.wall_seconds = (seconds > 0.0).then_some(seconds);
    records.push(sparsity);
    if lines.len() >= FEWEST_FOR_CLASSES {
        let (section, probes) = tell_classes(lines, all, classes, config.seed)?;
        findings = findings.section(SECTIONS[1], section);
        findings.lines.extend(probes.iter().map(in_words));
        records.extend(probes.iter().flat_map(Probe::records));
    }
    let sign = |record| signed(subject, attacked(record, config.attack.as_ref()), config.seed);
    findings.records = records.into_iter().map(sign).collect();
    Ok(findings)
}

/// Writes images of the first masks, and sets them side by side.
fn pictures(lines: &[ImageLine], all: &[Mask], classes: &[String], folder: &Path) -> Result<ImageGrid> {
    let mut shown = Vec::new();
    for (line, mask) in lines.iter().zip(all).take(SHOWN) {
        write_picture(&folder.join("pictures").join(format!("{:05}.png", line.image)), mask)?;
        let class = classes.get(line.prediction as usize).map_or("", |c| c);
        let mark = if line.converged { "" } else { " *" };
        let caption = format!("{} {class}: {:.1} %{mark}", line.image, 100.0 * line.relative_l1);
        shown.push(picture(&mask.centered(), mask.height, mask.width).caption(caption));
    }
    let grid = ImageGrid::new("Masks of single images", &[]);
    let grid = shown.chunks(6).fold(grid, |grid, row| grid.row("", Vec::<Picture>::from(row)));
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
fn tell_classes(
    lines: &[ImageLine],
    all: &[Mask],
    classes: &[String],
    seed: u64,
) -> Result<(Section, Vec<Probe>)> {
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
    let section = Section::new("Do masks tell the class?")
        .text("Every mask was learned for one image. If a linear classifier finds the class in masks of images it has not seen, what a network looks at depends on the class.")
        .table(probe::table(&probes))
        .line_plot(embedding::plot("Masks in the plane, by predicted class", &places, &predicted, classes));
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
