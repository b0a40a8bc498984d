//! One mask per image: many are learned side by side in one batch.
//!
//! Every image has its own mask, Adam moments and place in the schedule; the moment its mask has converged
//! it leaves, and the next image takes its row, so that the batch stays full to the end. Results do not
//! depend on which images share a batch.

use std::collections::VecDeque;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::mask::Mask;
use super::objective::{Baseline, Invariance, LARGEST_EXPONENT, Samples};
use super::optimizer::{Adam, Rate, Schedule, rearrange};
use crate::attack::Classifier;
use crate::spectral::fourier::ImageSpectra;
use crate::wording::counted;
use crate::{Error, Interrupt, Result};

/// How the learning rate of per-image masks moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSchedule {
    /// The published code's schedule spans 200 times as many steps as are taken: the rate stays at its
    /// start, `peak / 25`, and rises by a tenth over 20,000 steps.
    #[default]
    Published,
    /// One cycle over the steps that are taken: the peak is reached, and the rate falls to nothing. No peak made it better
    /// than the published one.
    WholeCycle,
}

/// How per-image masks are learned; the defaults are the published code's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// λ·‖M₀‖₁ (`single_img_mask_decay`).
    pub decay: f64,
    /// Peak of the one-cycle schedule (`single_img_mask_lr`).
    pub learning_rate: f64,
    /// Most steps of one image (`single_img_mask_epochs`).
    pub max_steps: usize,
    /// Share of the schedule in which the rate rises; 0 for a constant rate.
    pub warm_up: f64,
    /// Over which steps the schedule is laid.
    pub schedule: ImageSchedule,
    /// Changes of the invariance of at most this count as none.
    pub invariance_tolerance: f64,
    /// Changes of the relative L1 norm of at most this count as none.
    pub l1_tolerance: f64,
    /// Stop after this many steps in a row without change and with the prediction as it was.
    pub patience: usize,
    /// Images learned side by side.
    pub batch_size: usize,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            decay: 0.07,
            learning_rate: 0.2,
            max_steps: 20_000,
            warm_up: 0.1,
            schedule: ImageSchedule::Published,
            invariance_tolerance: 1e-6,
            l1_tolerance: 1e-5,
            patience: 300,
            batch_size: 128,
        }
    }
}

impl ImageConfig {
    fn schedule(&self) -> Schedule {
        let cycle = match self.schedule {
            ImageSchedule::Published => 200 * self.max_steps,
            ImageSchedule::WholeCycle => self.max_steps,
        };
        Schedule::new(self.learning_rate, cycle, self.warm_up)
    }

    fn check(&self) -> Result<()> {
        let positive = [("decay", self.decay), ("learning_rate", self.learning_rate)];
        if let Some((name, value)) = positive.iter().find(|(_, v)| !(v.is_finite() && *v > 0.0)) {
            return Err(Error::config(format!(
                "mask learning: {name} = {value}, expected a positive number"
            )));
        }
        if !(0.0..1.0).contains(&self.warm_up) || self.batch_size == 0 || self.max_steps == 0 {
            return Err(Error::config("mask learning: warm_up lies in [0, 1), batch size and steps above 0"));
        }
        Ok(())
    }
}

/// The mask of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageMask {
    /// Place of the image among those that were given.
    pub index: usize,
    /// The mask.
    pub mask: Mask,
    /// Class predicted without a mask.
    pub clean_prediction: u32,
    /// Class predicted through the mask.
    pub prediction: u32,
    /// Last invariance, before `exp`.
    pub invariance: f64,
    /// Steps taken.
    pub steps: usize,
    /// Whether it ended because it converged, rather than for lack of steps.
    pub converged: bool,
}

/// An image in the batch.
struct Slot {
    index: usize,
    steps: usize,
    /// Steps without change.
    quiet: usize,
    /// Invariance and L1 norm at the last two steps, newest first.
    past: [Option<(f64, f64)>; 2],
}

impl Slot {
    fn new(index: usize) -> Self {
        Self { index, steps: 0, quiet: 0, past: [None, None] }
    }

    /// Takes in what the mask gives after `self.steps` steps; whether its last step changed nothing is
    /// judged by the prediction that the step led to, as published.
    fn observe(&mut self, now: (f64, f64), same_prediction: bool, config: &ImageConfig) {
        if let [Some(last), Some(before)] = self.past
            && same_prediction
        {
            let quiet = (last.0 - before.0).abs() <= config.invariance_tolerance
                && (last.1 - before.1).abs() <= config.l1_tolerance;
            self.quiet = if quiet { self.quiet + 1 } else { 0 };
        }
        self.past = [Some(now), self.past[0]];
    }
}

/// Learns one mask per image, a batch of images at a time.
///
/// ```text
/// let mut learner = ImageLearner::new(&model, images, None, config)?;
/// while !learner.is_finished() {
///     for mask in learner.step(None)? { /* this image is done */ }
/// }
/// ```
pub struct ImageLearner<'a> {
    model: &'a dyn Classifier,
    config: ImageConfig,
    schedule: Schedule,
    images: Tensor,
    labels: Tensor,
    clean: Baseline,
    waiting: VecDeque<usize>,
    slots: Vec<Slot>,
    masks: Tensor,
    adam: Adam,
    samples: Option<Samples>,
    finished: usize,
}

impl<'a> ImageLearner<'a> {
    /// `images` `[n, height, width, channels]`; invariance is that of the cross-entropy of `labels` `[n]`
    /// (u32) or, without, of the class that the model predicts, as in the paper.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that make no sense.
    pub fn new(
        model: &'a dyn Classifier,
        images: Tensor,
        labels: Option<Tensor>,
        config: ImageConfig,
    ) -> Result<Self> {
        config.check()?;
        let (count, height, width, _) = images.dims4()?;
        let clean = Baseline::measure(model, &images, labels.as_ref(), config.batch_size)?;
        let labels = match labels {
            Some(labels) => labels,
            None => Tensor::new(clean.predictions.as_slice(), images.device())?,
        };
        let masks = Tensor::zeros((0, height, width), DType::F32, images.device())?;
        let adam = Adam { first: masks.clone(), second: masks.clone() };
        let schedule = config.schedule();
        let waiting = (0..count).collect();
        Ok(Self {
            model,
            config,
            schedule,
            images,
            labels,
            clean,
            waiting,
            slots: vec![],
            masks,
            adam,
            samples: None,
            finished: 0,
        })
    }

    /// What the model says without masks.
    pub fn clean(&self) -> &Baseline {
        &self.clean
    }

    /// Whether every image has its mask.
    pub fn is_finished(&self) -> bool {
        self.waiting.is_empty() && self.slots.is_empty()
    }

    /// Images done, in work, waiting.
    pub fn counts(&self) -> [usize; 3] {
        [self.finished, self.slots.len(), self.waiting.len()]
    }

    /// One step of every image in the batch; returns those that ended with it.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the flag was raised: masks returned so far stand.
    pub fn step(&mut self, interrupt: Option<&Interrupt>) -> Result<Vec<ImageMask>> {
        if interrupt.is_some_and(Interrupt::should_stop) {
            return Err(Error::Interrupted(format!("stopped after {}", counted(self.finished, "mask"))));
        }
        let samples = match self.samples.take() {
            Some(samples) => samples,
            None => {
                self.fill((0..self.slots.len() as u32).collect())?;
                if self.slots.is_empty() {
                    return Ok(vec![]);
                }
                self.transform()?
            }
        };
        // A single row is a shared mask to the objective, and a batch of one image: the same thing.
        let evaluation =
            samples.evaluate(self.model, &self.masks, Invariance::PerSample, LARGEST_EXPONENT)?;
        let area = (self.masks.dim(1)? * self.masks.dim(2)?) as f64;
        let norms: Vec<f32> = self.masks.sum((1, 2))?.to_vec1()?;
        let mut leaving = Vec::new();
        for (row, slot) in self.slots.iter_mut().enumerate() {
            let same = evaluation.predictions[row] == self.clean.predictions[slot.index];
            slot.observe((evaluation.invariance[row], f64::from(norms[row]) / area), same, &self.config);
            if slot.quiet >= self.config.patience || slot.steps >= self.config.max_steps {
                leaving.push(row);
            }
        }
        let ended = leaving
            .iter()
            .map(|&row| self.finish(row, evaluation.predictions[row], evaluation.invariance[row]))
            .collect::<Result<Vec<_>>>()?;
        self.descend(&evaluation.gradient, area)?;
        if leaving.is_empty() {
            self.samples = Some(samples);
        } else {
            let stay: Vec<u32> =
                (0..self.slots.len()).filter(|r| !leaving.contains(r)).map(|r| r as u32).collect();
            self.fill(stay)?;
            self.samples = if self.slots.is_empty() { None } else { Some(self.transform()?) };
            self.finished += ended.len();
        }
        Ok(ended)
    }

    /// One Adam step of all masks.
    fn descend(&mut self, gradient: &Tensor, area: f64) -> Result<()> {
        // The L1 norm's gradient is the sign: nothing pulls at entries that are already 0.
        let gradient = (gradient + self.masks.sign()?.affine(self.config.decay / area, 0.0)?)?;
        let steps: Vec<usize> = self.slots.iter().map(|slot| slot.steps).collect();
        let rates: Vec<Rate> = steps.iter().map(|&step| self.schedule.at(step)).collect();
        self.masks = self.adam.step(&self.masks, &gradient, &rates, &steps)?;
        self.slots.iter_mut().for_each(|slot| slot.steps += 1);
        Ok(())
    }

    fn finish(&self, row: usize, prediction: u32, invariance: f64) -> Result<ImageMask> {
        let slot = &self.slots[row];
        Ok(ImageMask {
            index: slot.index,
            mask: Mask::from_tensor(&self.masks.get(row)?)?,
            clean_prediction: self.clean.predictions[slot.index],
            prediction,
            invariance,
            steps: slot.steps,
            converged: slot.quiet >= self.config.patience,
        })
    }

    /// Keeps the rows `stay` and gives the free ones to waiting images.
    fn fill(&mut self, stay: Vec<u32>) -> Result<()> {
        let fresh = (self.config.batch_size - stay.len()).min(self.waiting.len());
        let rows = Tensor::from_vec(stay.clone(), stay.len(), self.images.device())?;
        self.masks = rearrange(&self.masks, &rows, fresh, 1.0)?;
        self.adam.rearrange(&rows, fresh)?;
        let mut slots: Vec<Option<Slot>> = std::mem::take(&mut self.slots).into_iter().map(Some).collect();
        self.slots = stay.iter().filter_map(|&row| slots[row as usize].take()).collect();
        self.slots.extend(self.waiting.drain(..fresh).map(Slot::new));
        Ok(())
    }

    /// Transforms the images that are in the batch.
    fn transform(&self) -> Result<Samples> {
        let rows: Vec<u32> = self.slots.iter().map(|slot| slot.index as u32).collect();
        let rows = Tensor::from_vec(rows, self.slots.len(), self.images.device())?;
        Ok(Samples {
            spectra: ImageSpectra::new(&self.images.index_select(&rows, 0)?)?,
            labels: self.labels.index_select(&rows, 0)?,
            clean_losses: self.clean.losses.index_select(&rows, 0)?,
        })
    }
}
