//! Progress: a bar with the time left on a terminal, plain lines otherwise.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bandwise::job::{Progress, Stage};
use bandwise::train::epoch_metrics::Sums;
use bandwise::train::recipe::Recipe;
use bandwise::train::run_folder::MetricsLine;
use bandwise::train::trainer::Observer;
use bandwise::wording::{counted, visible};
use bandwise::{Interrupt, Job};
use candle_core::Device;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` pieces of work; invisible where output does not go to a terminal.
pub fn bar(label: &str, total: usize) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    let style = ProgressStyle::with_template("{prefix:>24} {bar:28} {pos}/{len} {elapsed} +{eta}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(visible(label).into_owned());
    bar
}

/// Shows the stages of a job one after the other, each with a bar of its own.
#[derive(Default)]
pub struct StageBar {
    current: Mutex<Option<(String, ProgressBar)>>,
}

impl StageBar {
    /// Takes the bar away; the next stage gets a new one.
    pub fn clear(&self) {
        if let Some((_, bar)) = self.current.lock().unwrap_or_else(|e| e.into_inner()).take() {
            bar.finish_and_clear();
        }
    }
}

/// Does work under a bar, which is gone afterwards.
pub fn shown<T>(
    device: &Device,
    batch_size: usize,
    interrupt: &Interrupt,
    work: impl FnOnce(&Job) -> T,
) -> T {
    let bar = Arc::new(StageBar::default());
    let job = Job { device: device.clone(), batch_size, interrupt: interrupt.clone(), progress: bar.clone() };
    let result = work(&job);
    bar.clear();
    result
}

impl Progress for StageBar {
    fn note(&self, line: &str) {
        match self.current.lock().unwrap_or_else(|e| e.into_inner()).as_ref() {
            Some((_, bar)) => bar.suspend(|| note!("{line}")),
            None => note!("{line}"),
        }
    }

    fn update(&self, stage: &Stage<'_>) {
        let mut current = self.current.lock().unwrap_or_else(|e| e.into_inner());
        if current.as_ref().is_none_or(|(name, _)| name != stage.name) {
            if let Some((_, finished)) = current.take() {
                finished.finish_and_clear();
            }
            let bar = bar(stage.name, stage.total);
            // The time goes on where the next message is far.
            bar.enable_steady_tick(Duration::from_millis(500));
            *current = Some((stage.name.to_string(), bar));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_length(stage.total as u64);
            bar.set_position(stage.done as u64);
            bar.set_message(visible(stage.message).into_owned());
        }
    }
}

/// Shows a training run.
pub struct TrainingProgress {
    label: String,
    bar: Mutex<ProgressBar>,
}

impl TrainingProgress {
    /// `label` stands in front of every line.
    pub fn new(label: &str) -> Self {
        Self { label: label.to_string(), bar: Mutex::new(ProgressBar::hidden()) }
    }

    fn with_bar(&self, act: impl FnOnce(&mut ProgressBar)) {
        act(&mut self.bar.lock().unwrap_or_else(|e| e.into_inner()));
    }

    fn print(&self, text: &str) {
        self.with_bar(|bar| bar.suspend(|| note!("{text}")));
    }
}

impl Observer for TrainingProgress {
    fn started(&self, recipe: &Recipe, parameters: usize, epoch: u64) {
        let from = if epoch > 0 { format!(", going on after epoch {epoch}") } else { String::new() };
        self.print(&format!(
            "{}: {} with {parameters} parameters on {}, {} of batch {}{from}",
            self.label,
            recipe.model.architecture,
            recipe.data.source,
            counted(recipe.epochs as usize, "epoch"),
            recipe.batch_size
        ));
    }

    fn step(&self, epoch: u64, done: usize, batches: usize, sums: &Sums) {
        self.with_bar(|current| {
            if done <= 1 || current.length() != Some(batches as u64) {
                *current = bar(&format!("{} epoch {}", self.label, epoch + 1), batches);
            }
            current.set_position(done as u64);
            current.set_message(format!(
                "loss {:.3}, accuracy {:.1} %",
                sums.mean_loss(),
                100.0 * sums.accuracy()
            ));
        });
    }

    fn epoch(&self, line: &MetricsLine, epochs: u64, seconds: f64) {
        self.with_bar(|bar| bar.finish_and_clear());
        let value = |name: &str| line.values.get(name).copied();
        let percent = |name: &str, label: &str| {
            value(name).map_or(String::new(), |v| format!(", {label} {:.1} %", 100.0 * v))
        };
        if line.epoch == 0 {
            let robust = percent("test/robust_accuracy", "robust");
            self.print(&format!(
                "{}: before training{}{robust}",
                self.label,
                percent("test/accuracy", "test")
            ));
            return;
        }
        self.print(&format!(
            "{}: epoch {}/{epochs}: loss {:.4}{}{}{}{} ({seconds:.1} s)",
            self.label,
            line.epoch,
            value("train/loss").unwrap_or(f64::NAN),
            percent("train/accuracy", "train"),
            percent("test/accuracy", "test"),
            percent("test/robust_accuracy", "robust"),
            percent("overfitting/pgd", "watched under PGD"),
        ));
    }

    fn message(&self, text: &str) {
        self.print(text);
    }
}
