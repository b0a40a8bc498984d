//! What happens between two epochs: measuring, keeping the best, judging whether to go on, saving.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::DType;

use super::Trainer;
use crate::analyze::filters::FilterSpectrum;
use crate::analyze::gradients::GradientSummary;
use crate::attack::FrozenModel;
use crate::data::{Batch, load_all};
use crate::evaluate::accuracy;
use crate::network::Network;
use crate::nn::{ForwardContext, Recorder};
use crate::train::epoch_metrics::Sums;
use crate::train::overfitting::Action;
use crate::train::run_folder::MetricsLine;
use crate::wording::counted;
use crate::{Error, Job, Result};

/// The file of the best weights by robust accuracy (clean accuracy, if no attack is given).
const BEST: &str = "best";
/// The file of the best weights by the sum of clean and robust accuracy.
const BEST_SUM: &str = "best_sum";

/// Robust accuracy on the images of `evaluation.select`.
const SELECTED: &str = "train/robust_accuracy";

type Values = BTreeMap<String, f64>;

impl Trainer<'_> {
    /// Measures, keeps the best, records metrics, checkpoints. The position moves on only when all is
    /// measured, so that an interrupted measurement is simply done again.
    pub(super) fn finish_epoch(&mut self, began: Instant) -> Result<()> {
        let epoch = self.position.epoch + 1;
        let mut values = self.training_values();
        self.look_at_filters(&mut values);
        let alarm = self.watch(epoch, &mut values)?;
        let stop = alarm.is_some() && self.action() == Action::Stop;
        let mut notes = Vec::new();
        let evaluation = &self.recipe.evaluation;
        if evaluation.is_due(epoch, self.recipe.epochs) || (stop && evaluation.every > 0) {
            self.evaluate(epoch, &mut values)?;
            notes.extend(self.stop_early(epoch));
        }
        let healthy = alarm.is_none() && values.contains_key("overfitting/pgd");
        self.move_on(epoch, values.get("overfitting/pgd").copied(), healthy);
        if let Some(warning) = &alarm {
            notes.extend(self.react(warning)?);
        }
        let line = MetricsLine::epoch(epoch, self.position.step, values);
        self.record(&line, alarm.as_deref(), &notes)?;
        self.observer.epoch(&line, self.recipe.epochs, began.elapsed().as_secs_f64());
        alarm.iter().chain(&notes).for_each(|text| {
            self.observer.message(&format!("{}: epoch {epoch}: {text}", self.recipe.name));
        });
        Ok(())
    }

    /// The position at the end of `epoch`.
    fn move_on(&mut self, epoch: u64, watched: Option<f64>, healthy: bool) {
        let position = &mut self.position;
        (position.epoch, position.batch, position.sums) = (epoch, 0, Sums::default());
        position.selected = None;
        position.best_watched = position.best_watched.max(watched.unwrap_or(0.0));
        if healthy && self.recipe.overfitting.as_ref().is_some_and(|config| config.action == Action::Restore)
        {
            position.last_healthy_epoch = Some(epoch);
        }
    }

    /// Writes metrics and, where one is due, a checkpoint.
    fn record(&mut self, line: &MetricsLine, alarm: Option<&str>, notes: &[String]) -> Result<()> {
        // Metrics first: a resumed run drops and writes again what its checkpoint does not cover.
        self.folder.append_metrics(line)?;
        let notes = notes.iter().map(|text| ("note", text.as_str()));
        for (kind, text) in alarm.iter().map(|text| ("warning", *text)).chain(notes) {
            self.folder.append_metrics(&MetricsLine::message(kind, line.epoch, line.step, text))?;
        }
        let over = line.epoch == self.recipe.epochs || self.position.stopped.is_some();
        let regular = line.epoch.is_multiple_of(self.recipe.checkpoint.every);
        if over || regular || self.position.last_healthy_epoch == Some(line.epoch) {
            self.save_checkpoint()?;
            self.mark_healthy()?;
        }
        for (name, value) in &line.values {
            self.events.scalar(name, line.step, *value as f32);
        }
        self.events.flush()
    }

    fn action(&self) -> Action {
        self.recipe.overfitting.as_ref().map_or(Action::Warn, |config| config.action)
    }

    /// What the epoch itself has shown.
    fn training_values(&self) -> Values {
        let sums = &self.position.sums;
        let replays = self.recipe.objective.replays();
        let last = self.schedule_position(self.loader.batches_per_epoch() - 1, replays - 1);
        let rate = self.recipe.schedule.rate(self.recipe.learning_rate, last);
        let mut values = Values::from([
            ("train/loss".to_string(), sums.mean_loss()),
            ("train/accuracy".to_string(), sums.accuracy()),
            ("learning_rate".to_string(), rate),
        ]);
        values.extend(sums.mean_terms().map(|(name, mean)| (format!("train/{name}"), mean)));
        if let Some(accuracy) = self.position.selected {
            values.insert(SELECTED.into(), accuracy);
        }
        if let Some(loss) = sums.mean_unperturbed_loss() {
            values.insert("unperturbed/loss".into(), loss);
        }
        values
    }

    /// The share of the filters' energy at high frequencies.
    fn look_at_filters(&self, values: &mut Values) {
        // Decomposed 2×2 kernels have a penalty, but no high frequencies.
        if self.recipe.regularizers.tracks_filters()
            && let Ok(spectrum) = FilterSpectrum::measure("", &self.network.model)
        {
            values.insert("high_frequency_filter_share".into(), spectrum.high_share());
        }
    }

    /// ω of every FPCM block on the evaluated images, clean: the mean over them of each channel, and of these the
    /// mean and the standard deviation.
    fn measure_omega(&self, network: &Network, indices: &[usize], values: &mut Values) -> Result<()> {
        let model = network.model.frozen();
        let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for part in indices.chunks(self.recipe.evaluation.batch_size) {
            self.interrupt.check("the evaluation was not finished")?;
            let images = Batch::of(self.test.as_ref(), part)?.images.to_device(&self.device)?;
            let recorder = Recorder::new();
            model.logits(&images, &ForwardContext { recorder: Some(&recorder), ..ForwardContext::eval() })?;
            for (name, omega) in recorder.take() {
                let Some(stage) = name.strip_suffix(".omega").and_then(|name| name.strip_prefix("attn"))
                else {
                    continue;
                };
                let channels: Vec<f64> = omega.to_dtype(DType::F64)?.sum(0)?.flatten_all()?.to_vec1()?;
                let sum = sums.entry(stage.to_owned()).or_insert_with(|| vec![0.0; channels.len()]);
                sum.iter_mut().zip(channels).for_each(|(sum, channel)| *sum += channel);
            }
        }
        for (stage, sums) in sums {
            let channels: Vec<f64> = sums.iter().map(|sum| sum / indices.len() as f64).collect();
            let count = channels.len() as f64;
            let mean = channels.iter().sum::<f64>() / count;
            let variance = channels.iter().map(|omega| (omega - mean).powi(2)).sum::<f64>() / count;
            values.insert(format!("omega/stage{stage}"), mean);
            values.insert(format!("omega_spread/stage{stage}"), variance.sqrt());
        }
        Ok(())
    }

    /// Looks for catastrophic overfitting; the warning, if there is any.
    fn watch(&self, epoch: u64, values: &mut Values) -> Result<Option<String>> {
        let Some(detector) = &self.detector else { return Ok(None) };
        if !epoch.is_multiple_of(detector.config().every) {
            return Ok(None);
        }
        let model = FrozenModel::folded(&self.network.model)?;
        let accuracy = self.position.sums.accuracy();
        let observation = detector.observe(&model, accuracy, &self.device, self.interrupt)?;
        values.insert("overfitting/training_attack".into(), observation.training_attack);
        values.insert("overfitting/pgd".into(), observation.pgd);
        Ok(observation.warning(detector.config().threshold, self.position.best_watched))
    }

    /// Stops or restores after catastrophic overfitting, as the recipe says; what was done about it.
    fn react(&mut self, warning: &str) -> Result<Option<String>> {
        let note = match self.action() {
            Action::Warn => return Ok(None),
            Action::Stop => "training was stopped".to_string(),
            Action::Restore => match self.restore_healthy()? {
                Some(epoch) => format!("training was stopped, and the state of epoch {epoch} restored"),
                None => "training was stopped; no epoch before was without it".to_string(),
            },
        };
        self.position.stopped.get_or_insert(warning.to_string());
        Ok(Some(note))
    }

    /// Ends training that has not got better for long enough; a note that says so.
    fn stop_early(&mut self, epoch: u64) -> Option<String> {
        let patience = self.recipe.early_stopping?.patience;
        let (best, at) = *self.position.best.get(BEST)?;
        if epoch < at + patience || epoch == self.recipe.epochs {
            return None;
        }
        let measure = if self.recipe.evaluation.attack.is_some() { "robust accuracy" } else { "accuracy" };
        let reason = format!(
            "early stopping: no {measure} above the {:.1} % of epoch {at} for {}",
            100.0 * best,
            counted((epoch - at) as usize, "epoch")
        );
        self.position.stopped = Some(reason.clone());
        Some(reason)
    }

    /// Where training starts from weights: what these can do, as the metrics of epoch 0.
    pub(super) fn measure_start(&mut self) -> Result<()> {
        let given = self.position.history.initial_weights.is_some() && self.position.step == 0;
        if !given || self.recipe.evaluation.every == 0 || !self.folder.metrics()?.is_empty() {
            return Ok(());
        }
        let mut values = Values::new();
        let network = self.evaluated_network()?;
        match self.measure(&network, &mut values) {
            Err(Error::Interrupted(_)) => return Err(self.interrupted()),
            other => drop(other?),
        }
        let line = MetricsLine::epoch(0, 0, values);
        self.folder.append_metrics(&line)?;
        for (name, value) in &line.values {
            self.events.scalar(name, 0, *value as f32);
        }
        self.observer.epoch(&line, self.recipe.epochs, 0.0);
        Ok(())
    }

    /// Accuracy on the test split, clean and (if asked for) under attack; keeps the best weights of each.
    fn evaluate(&mut self, epoch: u64, values: &mut Values) -> Result<()> {
        let network = self.evaluated_network()?;
        let mut criteria = self.measure(&network, values)?;
        criteria.retain(|(name, _)| *name != BEST || self.selector.is_none());
        criteria.into_iter().try_for_each(|(name, value)| self.keep_best(&network, name, value, epoch))
    }

    /// Saves the weights if none was better by the criterion `name`.
    fn keep_best(&mut self, network: &Network, name: &str, value: f64, epoch: u64) -> Result<()> {
        if self.position.best.get(name).is_none_or(|(best, _)| value > *best) {
            network.save(&self.folder.file(&format!("{name}.safetensors")))?;
            self.position.best.insert(name.into(), (value, epoch));
        }
        Ok(())
    }

    /// Where it is time for it, judges the present weights by training images.
    pub(super) fn select(&mut self) -> Result<()> {
        let step = self.position.step;
        let Some(selector) = self.selector.as_ref().filter(|selector| selector.is_due(step)) else {
            return Ok(());
        };
        let network = self.evaluated_network()?;
        let accuracy = selector.accuracy(&FrozenModel::folded(&network.model)?, &self.device)?;
        self.position.selected = Some(accuracy);
        let epoch = if step == 0 { 0 } else { self.position.epoch + 1 };
        self.keep_best(&network, BEST, accuracy, epoch)
    }

    /// What `network` does on the test split; the values by which the best weights are chosen.
    fn measure(&self, network: &Network, values: &mut Values) -> Result<Vec<(&'static str, f64)>> {
        let batch_size = self.recipe.evaluation.batch_size;
        let job = Job { batch_size, interrupt: self.interrupt.clone(), ..Job::on(&self.device) };
        let model = FrozenModel::folded(&network.model)?;
        let count = self.recipe.evaluation.limit.unwrap_or(usize::MAX).min(self.test.len());
        let indices: Vec<usize> = (0..count).collect();
        let share = |flags: &[bool]| flags.iter().filter(|hit| **hit).count() as f64 / count.max(1) as f64;
        let clean = accuracy::correct(&model, self.test.as_ref(), &indices, &job)?;
        values.insert("test/accuracy".into(), share(&clean));
        let mut criteria = vec![(BEST, share(&clean))];
        if let Some(attack) = &self.recipe.evaluation.attack {
            let robust =
                accuracy::robust(&model, self.test.as_ref(), &clean, attack, self.recipe.seed, &job)?;
            values.insert("test/robust_accuracy".into(), share(&robust));
            criteria = vec![(BEST, share(&robust)), (BEST_SUM, share(&clean) + share(&robust))];
        }
        if network.config.fpcm.is_some() {
            self.measure_omega(network, &indices, values)?;
        }
        if self.recipe.evaluation.track_gradients > 0 {
            self.track_gradients(network, values)?;
        }
        Ok(criteria)
    }

    /// What the input gradients of the first test images look like.
    fn track_gradients(&self, network: &Network, values: &mut Values) -> Result<()> {
        let batch = load_all(self.test.as_ref(), Some(self.recipe.evaluation.track_gradients))?;
        let (images, labels) = (batch.images.to_device(&self.device)?, batch.labels.to_device(&self.device)?);
        let (size, seed) = (self.recipe.evaluation.batch_size, self.recipe.seed);
        let found = GradientSummary::measure(&network.model, &images, &labels, size, seed)?;
        if let Some(bias) = found.low_frequency_bias {
            values.insert("test/low_frequency_bias".into(), bias);
        }
        values.insert("test/gradient_norm".into(), found.norm);
        values.insert("test/gradient_alignment".into(), found.alignment);
        Ok(())
    }
}
