//! The evaluation engine: fills a journal, working only on what is missing and still alive.
//!
//! Images are judged clean first; each attack then sees the correctly classified ones. AutoAttack is run
//! part by part, each on all survivors of the parts before. An attack works on a wave of images, within
//! which it refills its batches with survivors; after every wave the judgments are on the disk. The
//! waves are as long as takes about `WAVE_SECONDS`. One that a process was stopped in is halved by the
//! next process, and what the model answers about a single image is kept beside the journal
//! ([`Recall`]): however short the time that a job gets, it comes to an end, as long as it is enough to begin and
//! for a pass.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use candle_core::Tensor;

use super::adversarial::SavedImages;
use super::journal::{CLEAN, Entry, Journal, Noted};
use crate::attack::{
    Attack, AttackContext, Classifier, Outcome, Recall, Warning, check_model, judge_logits, pick,
};
use crate::data::Dataset;
use crate::wording::counted;
use crate::{Error, Job, Result};

/// The most batches that an attack refills its batch from.
const BATCHES_PER_WAVE: usize = 4;
/// Time after which judgments should be on the disk.
const WAVE_SECONDS: f64 = 10.0;
/// On the CPU, fewer images than these do not fill the machine.
const FEWEST_ON_CPU: usize = 16;
/// Images on which AutoAttack's check of the model looks: the first of the data set, whatever the share.
const CHECKED_IMAGES: usize = 16;
/// What a pass forward and backward costs, in forward passes.
const COST_OF_GRADIENT: f64 = 3.0;
/// What a stop leaves behind.
const KEPT: &str = "the journal holds what was judged; run again to continue";

/// What a run added to a journal.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// What a reader of the results must know, whenever it was found.
    pub warnings: Vec<Noted>,
    /// Seconds spent on clean images and on each attack, in the order of the table; the time of
    /// earlier runs is not known.
    pub seconds: Vec<f64>,
}

/// Judges everything that the journal's header asks for and its entries lack. `save_adversarial` is a
/// folder for the attacked images: `FOLDER/ATTACK/FIRST-LAST.safetensors`, one file per wave with
/// `images` `[n, height, width, channels]`, `labels` and `indices`, and in the metadata what made them.
///
/// # Errors
/// [`Error::Interrupted`] after a stop: what is journalled stays, and the same call continues.
pub fn run(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    journal: &mut Journal,
    job: &Job,
    save_adversarial: Option<&Path>,
) -> Result<Finished> {
    let header = journal.header().clone();
    header.validate()?;
    if header.images > dataset.len() {
        return Err(Error::config(format!(
            "the evaluation asks for {}, {} has {}",
            counted(header.images, "image"),
            dataset.name(),
            dataset.len()
        )));
    }
    let saved = save_adversarial.map(|folder| SavedImages::open(folder, journal)).transpose()?;
    let mut engine = Engine { model, dataset, job, saved, seed: header.seed, forward: None };
    let mut began = Instant::now();
    engine.judge_clean(journal)?;
    let mut seconds = vec![began.elapsed().as_secs_f64()];
    let asked: Vec<(String, Attack)> =
        journal.attacks().into_iter().map(|(label, attack)| (label, attack.clone())).collect();
    for (label, attack) in &asked {
        began = Instant::now();
        engine.attack(journal, attack, label)?;
        seconds.push(began.elapsed().as_secs_f64());
    }
    journal.finish()?;
    Ok(Finished { warnings: journal.warnings(), seconds })
}

struct Engine<'a> {
    model: &'a dyn Classifier,
    dataset: &'a dyn Dataset,
    job: &'a Job,
    saved: Option<SavedImages>,
    seed: u64,
    /// Seconds of a forward pass of one image, once known.
    forward: Option<f64>,
}

/// An attack, or one part of AutoAttack.
struct Piece<'a> {
    attack: &'a Attack,
    label: &'a str,
    part: Option<&'a str>,
    /// The last part: its survivors withstood the whole attack.
    last: bool,
}

impl Piece<'_> {
    /// For progress: `pgd 8/255`, `autoattack 8/255, apgd-t`.
    fn name(&self) -> String {
        self.part.map_or(self.label.to_string(), |part| format!("{}, {part}", self.label))
    }
}

impl Engine<'_> {
    fn judge_clean(&mut self, journal: &mut Journal) -> Result<()> {
        let missing = journal.missing(CLEAN);
        let mut right = count_right(journal, CLEAN);
        let total = journal.header().image_numbers().count();
        let mut done = total - missing.len();
        let stopped = journal.stopped_in(CLEAN, None);
        let size = stopped.map_or(self.job.batch_size, |images| images / 2).max(1);
        let began = Instant::now();
        for batch in missing.chunks(size) {
            self.job.interrupt.check(KEPT)?;
            journal.begin(CLEAN, None, batch.len())?;
            let (images, labels) = self.read(batch)?;
            let judged = judge_logits(&self.model.logits_no_graph(&images)?, &labels.to_vec1()?)?;
            let outcomes = judged.iter().map(|verdict| Outcome {
                broken: verdict.wrong,
                margin: verdict.margin,
                queries: 1,
                ..Outcome::default()
            });
            let entries = batch.iter().zip(outcomes).map(|(&image, o)| Entry::of(image, CLEAN, None, o));
            journal.append(entries.collect(), Vec::new())?;
            right += judged.iter().filter(|verdict| !verdict.wrong).count();
            done += batch.len();
            self.job.report("clean", done, total, &format!("{right} right"));
        }
        if !missing.is_empty() {
            self.forward = Some(began.elapsed().as_secs_f64() / missing.len() as f64);
        }
        Ok(())
    }

    fn attack(&mut self, journal: &mut Journal, attack: &Attack, label: &str) -> Result<()> {
        let Attack::AutoAttack(auto) = attack else {
            return self.run_piece(journal, &Piece { attack, label, part: None, last: true });
        };
        if !journal.missing(label).is_empty() {
            journal.note(Some(label), &self.check(journal.header().images)?)?;
            journal.note(Some(label), &auto.few_classes(self.model.num_classes())?)?;
        }
        let parts = auto.part_names();
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            self.run_piece(journal, &Piece { attack, label, part: Some(part), last })?;
        }
        Ok(())
    }

    /// AutoAttack's check of the model, on images that do not depend on the share or on what is missing.
    fn check(&self, images: usize) -> Result<Vec<Warning>> {
        let first: Vec<usize> = (0..images.min(CHECKED_IMAGES)).collect();
        let ids: Vec<u64> = first.iter().map(|&image| image as u64).collect();
        let context = AttackContext::evaluation(self.seed, &ids, CHECKED_IMAGES);
        check_model(self.model, &self.read(&first)?.0, &context)
    }

    fn run_piece(&mut self, journal: &mut Journal, piece: &Piece) -> Result<()> {
        let missing = journal.missing_part(piece.label, piece.part);
        if missing.is_empty() {
            return Ok(());
        }
        let stopped = journal.stopped_in(piece.label, piece.part);
        let mut size = match stopped {
            Some(images) => (images / 2).clamp(1, self.most()),
            None => self.first_wave(piece, &missing)?,
        };
        // Where the time of a job was too short before, waves do not grow beyond it to fill the machine.
        let fewest = if stopped.is_some() { 1 } else { self.fewest() };
        let (mut done, mut right) = journal.known(piece.label, piece.part);
        let total = done + missing.len();
        let mut left = &missing[..];
        while !left.is_empty() {
            // Equal shares of what is left, so that the last wave is no small rest.
            let count = left.len().div_ceil(left.len().div_ceil(size));
            let (wave, rest) = left.split_at(count);
            journal.begin(piece.label, piece.part, wave.len())?;
            let began = Instant::now();
            let recall = Self::recall(journal, piece, wave)?;
            right += self.run_wave(journal, piece, wave, [done, total, right], recall.as_ref())?;
            done += wave.len();
            self.job.report(&piece.name(), done, total, &format!("{right} right"));
            // What was recalled took no time.
            if recall.as_ref().is_none_or(|recall| recall.given() == 0) {
                let fitting = WAVE_SECONDS / began.elapsed().as_secs_f64().max(1e-9) * wave.len() as f64;
                size = (fitting as usize).min(2 * size).clamp(fewest.min(2 * size), self.most());
            }
            recall.into_iter().for_each(Recall::forget);
            left = rest;
        }
        Ok(())
    }

    /// The model's answers about an image that is alone in its wave: kept beside the journal until it is judged.
    fn recall(journal: &Journal, piece: &Piece, wave: &[usize]) -> Result<Option<Recall>> {
        match (journal.answers_path(), wave) {
            (Some(path), [image]) => {
                let key = journal.header().key_of(piece.attack, piece.part, *image)?;
                Ok(Recall::open(&path, &key))
            }
            _ => Ok(None),
        }
    }

    /// Images of the first wave, from the time of a pass.
    fn first_wave(&mut self, piece: &Piece, missing: &[usize]) -> Result<usize> {
        let forward = match self.forward {
            Some(seconds) => seconds,
            None => {
                let few = &missing[..missing.len().min(self.fewest())];
                let (images, labels) = self.read(few)?;
                let began = Instant::now();
                judge_logits(&self.model.logits_no_graph(&images)?, &labels.to_vec1()?)?;
                *self.forward.insert(began.elapsed().as_secs_f64() / few.len() as f64)
            }
        };
        let classes = self.model.num_classes();
        let passes = piece.attack.passes_of(piece.part, classes);
        let cost = forward * (passes.forward as f64 + COST_OF_GRADIENT * passes.gradient as f64);
        Ok(((WAVE_SECONDS / cost.max(1e-9)) as usize).clamp(self.fewest(), self.most()))
    }

    fn most(&self) -> usize {
        (self.job.batch_size * BATCHES_PER_WAVE).max(1)
    }

    fn fewest(&self) -> usize {
        let fewest = if self.job.device.is_cpu() { FEWEST_ON_CPU } else { usize::MAX };
        fewest.min(self.job.batch_size).max(1)
    }

    /// Attacks a wave of images and journals it; returns how many of them are still right.
    fn run_wave(
        &self,
        journal: &mut Journal,
        piece: &Piece,
        wave: &[usize],
        [done, total, right]: [usize; 3],
        recall: Option<&Recall>,
    ) -> Result<usize> {
        let (images, labels) = self.read(wave)?;
        let ids: Vec<u64> = wave.iter().map(|&image| image as u64).collect();
        let (name, passes) = (piece.name(), Mutex::new(0.0));
        let most = piece.attack.passes_of(piece.part, self.model.num_classes());
        let most = most.forward + most.gradient;
        let wave_of = counted(wave.len(), "image");
        let watch = |share: f64| {
            let mut passes = passes.lock().unwrap_or_else(|e| e.into_inner());
            *passes += share;
            let message = format!("{right} right; {wave_of}: pass {:.0} of at most {most}", *passes);
            self.job.report(&name, done, total, &message);
        };
        let context = AttackContext {
            interrupt: Some(&self.job.interrupt),
            watch: Some(&watch),
            recall,
            ..AttackContext::evaluation(self.seed, &ids, self.job.batch_size)
        };
        let result = match (piece.attack, piece.part) {
            (Attack::AutoAttack(auto), Some(part)) => {
                auto.run_part(part, self.model, &images, &labels, &context)?
            }
            (attack, _) => attack.run(self.model, &images, &labels, &context)?,
        };
        if let Some(saved) = &self.saved {
            // What a part of AutoAttack did not break goes on to the next part, and remains, as the clean image.
            let broken: Vec<bool> = result.outcomes.iter().map(|outcome| outcome.broken).collect();
            let rows: Vec<usize> = (0..wave.len()).filter(|&row| piece.last || broken[row]).collect();
            let attacked = match piece.part {
                Some(_) => pick(&broken, &result.images, &images)?,
                None => result.images.clone(),
            };
            saved.save((piece.label, piece.attack, piece.part), (&attacked, &labels), wave, &rows)?;
        }
        let noted = |warning| Noted { attack: Some(piece.label.to_string()), warning };
        let warnings = result.warnings.into_iter().filter(|warning| !warning.counts_images());
        let warnings = warnings.map(noted).collect();
        let survivors = result.outcomes.iter().filter(|outcome| !outcome.broken).count();
        let entries = wave.iter().zip(result.outcomes);
        let entries = entries.map(|(&image, o)| Entry::of(image, piece.label, piece.part, o)).collect();
        journal.append(entries, warnings)?;
        Ok(survivors)
    }

    fn read(&self, indices: &[usize]) -> Result<(Tensor, Tensor)> {
        let (mut pixels, mut labels, mut shape) = (Vec::new(), Vec::with_capacity(indices.len()), None);
        for &index in indices {
            let (image, label) = self.dataset.get(index)?;
            if *shape.get_or_insert(image.shape()) != image.shape() {
                return Err(Error::config(format!(
                    "{}: images of different sizes cannot be attacked together; bring them to one size with `size=N`",
                    self.dataset.name()
                )));
            }
            pixels.extend_from_slice(&image.pixels);
            labels.push(label);
        }
        let [height, width, channels] = shape.unwrap_or_default();
        let device = &self.job.device;
        let images = Tensor::from_vec(pixels, (indices.len(), height, width, channels), device)?;
        Ok((images, Tensor::from_vec(labels, indices.len(), device)?))
    }
}

fn count_right(journal: &Journal, attack: &str) -> usize {
    journal.header().image_numbers().filter(|&image| journal.correct(attack, image) == Some(true)).count()
}
