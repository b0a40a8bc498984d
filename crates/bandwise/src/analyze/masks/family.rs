//! Families of single-image masks: which network looks at which images, and the class that its masks keep.
//!
//! Of one network, masks of all images are learned, or of those that an attack breaks. Several networks are compared as
//! published: on images that all judge alike (right or wrong), and whose judgment the attack turns for the first. Every
//! network's masks keep what the *first* one predicts; the attacked images are the first network's, too.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;
use serde_json::json;

use super::images_file::ImagesFile;
use super::per_image::{ImageLine, ImageMasksConfig};
use crate::analyze::perturbations::perturb;
use crate::analyze::signed;
use crate::analyze::space::View;
use crate::attack::{Attack, Classifier};
use crate::evaluate::accuracy_record::attacked;
use crate::evaluate::record::Record;
use crate::evaluate::subject::{Subject, TestImages};
use crate::method::fourier_mask::{Baseline, ImageConfig, ImageLearner, Mask};
use crate::wording::counted;
use crate::{Error, Job, Result};

/// The images whose masks are learned.
pub(super) struct Chosen {
    /// As they are, pixels in [0, 1].
    pub clean: TestImages,
    /// Attacked.
    pub adversarial: Option<Tensor>,
    /// Their places in the data set.
    pub indices: Vec<usize>,
    /// How they were chosen, for the reader.
    pub line: Option<String>,
}

/// Masks of the same images, of one network.
pub(super) struct Family<'a> {
    /// The network, and the attack if there was one.
    pub label: String,
    /// The network.
    pub subject: &'a Subject,
    /// The network as masks see it.
    pub view: View<'a>,
    /// What made its images.
    pub attack: Option<Attack>,
    /// Pixels `[n, height, width, channels]`.
    pub pixels: Tensor,
    /// The class whose cross-entropy each mask keeps; `None`: the one that the network itself predicts.
    pub targets: Option<Vec<u32>>,
}

/// The masks of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// The network, and the attack if there was one.
    pub label: String,
    /// What is known of each mask, in the order of the images.
    pub lines: Vec<ImageLine>,
    /// The masks.
    pub masks: Vec<Mask>,
    /// Seconds that learning took in this call.
    pub seconds: f64,
}

/// Chooses the images.
///
/// # Errors
/// [`Error::Config`] if none are left.
pub(super) fn choose(
    subjects: &[Subject],
    images: &TestImages,
    config: &ImageMasksConfig,
    job: &Job,
) -> Result<Chosen> {
    let (first, others) = subjects.split_first().ok_or_else(|| Error::config("no network was named"))?;
    let count = images.label_values.len();
    let right = |subject: &Subject, pixels: &Tensor| -> Result<Vec<bool>> {
        let predicted = Baseline::measure(&subject.classifier, pixels, None, job.batch_size)?.predictions;
        Ok(predicted.iter().zip(&images.label_values).map(|(p, l)| p == l).collect())
    };
    if others.is_empty() && config.attack.is_none() {
        return Ok(Chosen {
            clean: images.clone(),
            adversarial: None,
            indices: (0..count).collect(),
            line: None,
        });
    }
    let before = right(first, &images.images)?;
    let mut agreed = vec![true; count];
    for other in others {
        let judged = right(other, &images.images)?;
        agreed.iter_mut().zip(before.iter().zip(judged)).for_each(|(all, (a, b))| *all &= *a == b);
    }
    let adversarial = match &config.attack {
        None => None,
        Some(attack) => {
            Some(perturb(&attack.to_string(), attack, &first.classifier, images, config.seed, job)?)
        }
    };
    let after = adversarial.as_ref().map(|pixels| right(first, pixels)).transpose()?;
    // Of one network those that break; of several, as published, also those that the attack happens to put right.
    let turned = |row: usize| match &after {
        None => true,
        Some(after) if others.is_empty() => before[row] && !after[row],
        Some(after) => before[row] != after[row],
    };
    let indices: Vec<usize> = (0..count).filter(|&row| agreed[row] && turned(row)).collect();
    let line = chosen_line(indices.len(), count, others.len(), config.attack.as_ref());
    if indices.is_empty() {
        return Err(Error::config(format!("{line}: there are no masks to learn")));
    }
    let rows: Vec<u32> = indices.iter().map(|&row| row as u32).collect();
    let rows = Tensor::from_vec(rows, indices.len(), images.images.device())?;
    let adversarial = adversarial.map(|pixels| pixels.index_select(&rows, 0)).transpose()?;
    Ok(Chosen { clean: images.select(&indices)?, adversarial, indices, line: Some(line) })
}

fn chosen_line(chosen: usize, count: usize, others: usize, attack: Option<&Attack>) -> String {
    let of = format!("{chosen} of {}", counted(count, "image"));
    match (others, attack) {
        (0, None) => of,
        (0, Some(attack)) => format!("{attack} breaks {of}"),
        (_, None) => format!("all networks judge {of} alike"),
        (_, Some(attack)) => {
            format!("all networks judge alike, and {attack} turns the first one's judgment, for {of}")
        }
    }
}

impl<'a> Family<'a> {
    /// The families of `subjects` on the chosen images.
    pub fn all(
        subjects: &'a [Subject],
        chosen: &Chosen,
        config: &ImageMasksConfig,
        batch_size: usize,
    ) -> Result<Vec<Self>> {
        let attacked = |subject: &'a Subject, attack: &Attack, pixels: &Tensor, label: String| {
            let view = View::of(subject, config.space)?;
            let (attack, pixels) = (Some(attack.clone()), pixels.clone());
            Ok::<_, Error>(Self { label, subject, view, attack, pixels, targets: None })
        };
        let under = config.attack.as_ref().zip(chosen.adversarial.as_ref());
        if let ([subject], Some((attack, pixels))) = (subjects, under) {
            return Ok(vec![attacked(subject, attack, pixels, subject.label.clone())?]);
        }
        let mut families = Vec::new();
        let mut targets = None;
        for (index, subject) in subjects.iter().enumerate() {
            let view = View::of(subject, config.space)?;
            let pixels = chosen.clean.images.clone();
            let label = subject.label.clone();
            if index == 0 && subjects.len() > 1 {
                targets =
                    Some(Baseline::measure(&subject.classifier, &pixels, None, batch_size)?.predictions);
            }
            families.push(Self { label, subject, view, attack: None, pixels, targets: targets.clone() });
        }
        if let Some((attack, pixels)) = under {
            let label = format!("{}, attacked", subjects[0].label);
            families.push(attacked(&subjects[0], attack, pixels, label)?);
        }
        Ok(families)
    }

    /// Learns what is not in `folder` yet.
    ///
    /// # Errors
    /// [`Error::Format`] if the folder holds masks of something else; [`Error::Interrupted`] after a stop.
    pub fn learn(
        &self,
        chosen: &Chosen,
        config: &ImageMasksConfig,
        folder: &Path,
        job: &Job,
    ) -> Result<Learned> {
        let learning = ImageConfig { batch_size: job.batch_size, ..config.learning.clone() };
        let (count, height, width, _) = self.pixels.dims4()?;
        let provenance = &self.subject.provenance;
        let mut belongs = json!({
            "weights": provenance.weights_sha256,
            "model": self.subject.provenance.configuration["model"],
            "data": provenance.data_sha256,
            "precision": provenance.precision,
            "images": count,
            "attack": self.attack,
            "space": config.space,
            // The batch size changes no mask.
            "config": ImageConfig { batch_size: 1, ..learning.clone() },
        });
        if self.attack.is_some() {
            belongs["seed"] = json!(config.seed);
        }
        if chosen.line.is_some() {
            belongs["rows"] = json!(chosen.indices);
        }
        if let Some(targets) = &self.targets {
            belongs["targets"] = json!(targets);
        }
        let mut file = ImagesFile::open(folder, [count, height, width], &belongs)?;
        let seconds = self.fill(chosen, &learning, &mut file, job)?;
        let masks = file.read()?;
        file.lines.sort_by_key(|line| line.row);
        Ok(Learned { label: self.label.clone(), lines: file.lines, masks, seconds })
    }

    /// A record of this family, on its own images or on those that `attack` made.
    pub fn sign(&self, record: Record, attack: Option<&Attack>, seed: u64) -> Record {
        let mut record = attacked(record, self.attack.as_ref().or(attack));
        record.extra.entry("label").or_insert_with(|| self.label.clone().into());
        signed(self.subject, record, seed)
    }

    /// Learns what the file does not have; returns the seconds it took.
    fn fill(&self, chosen: &Chosen, config: &ImageConfig, file: &mut ImagesFile, job: &Job) -> Result<f64> {
        let done: HashSet<usize> = file.lines.iter().map(|line| line.row).collect();
        let rows: Vec<usize> = (0..chosen.indices.len()).filter(|row| !done.contains(row)).collect();
        if rows.is_empty() {
            return Ok(0.0);
        }
        let began = Instant::now();
        let device = self.pixels.device();
        let index: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let index = Tensor::from_vec(index, rows.len(), device)?;
        let images = self.view.enter(&self.pixels.index_select(&index, 0)?)?;
        let targets = self.targets.as_ref().map(|targets| {
            let targets: Vec<u32> = rows.iter().map(|&row| targets[row]).collect();
            Tensor::from_vec(targets, rows.len(), device)
        });
        let model: &dyn Classifier = &self.view;
        let mut learner = ImageLearner::new(model, images, targets.transpose()?, config.clone())?;
        let total = chosen.indices.len();
        job.report(&self.label, file.lines.len(), total, "masks");
        while !learner.is_finished() {
            let finished = learner.step(Some(&job.interrupt)).map_err(|error| match error {
                Error::Interrupted(_) => Error::Interrupted(format!(
                    "saved so far: {} of {}; the same command goes on",
                    counted(file.lines.len(), "mask"),
                    self.label
                )),
                other => other,
            })?;
            for mask in finished {
                let row = rows[mask.index];
                let line = ImageLine {
                    row,
                    image: chosen.indices[row],
                    label: chosen.clean.label_values[row],
                    target: self.targets.as_ref().map(|targets| targets[row]),
                    clean_prediction: mask.clean_prediction,
                    prediction: mask.prediction,
                    steps: mask.steps,
                    converged: mask.converged,
                    invariance: mask.invariance,
                    relative_l1: mask.mask.relative_l1(),
                };
                file.add(&mask, line)?;
                job.report(&self.label, file.lines.len(), total, "masks");
            }
        }
        Ok(began.elapsed().as_secs_f64())
    }
}
