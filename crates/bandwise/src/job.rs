//! How work is run: where, in what portions, who may stop it and who is told. Nothing here changes a
//! result.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;

use crate::wording::counted;
use crate::{Error, Result};

/// Images per pass unless something else is asked for.
pub const BATCH_SIZE: usize = 250;

/// How a workflow runs.
#[derive(Clone)]
pub struct Job {
    /// Where the model's tensors live.
    pub device: Device,
    /// Most images in one pass through the model.
    pub batch_size: usize,
    /// Raised from outside to stop.
    pub interrupt: Interrupt,
    /// Callback for progress.
    pub progress: Arc<dyn Progress>,
}

impl Default for Job {
    /// On the CPU, silent, never stopped.
    fn default() -> Self {
        Self::on(&Device::Cpu)
    }
}

impl Job {
    /// On a device, with everything else as by default.
    pub fn on(device: &Device) -> Self {
        Self {
            device: device.clone(),
            batch_size: BATCH_SIZE,
            interrupt: Interrupt::default(),
            progress: Arc::new(Silent),
        }
    }

    /// Says how far the work is.
    pub fn report(&self, stage: &str, done: usize, total: usize, message: &str) {
        self.progress.update(&Stage { name: stage, done, total, message });
    }

    /// Says something that is worth a line of its own.
    pub fn note(&self, line: &str) {
        self.progress.note(line);
    }

    /// The same job as a part of a longer stage: whatever it reports moves that stage on from `done` pieces of `total`.
    pub fn part_of(&self, stage: &str, done: usize, total: usize, message: &str) -> Self {
        let (whole, name, message) = (self.progress.clone(), stage.to_owned(), message.to_owned());
        Self { progress: Arc::new(Part { whole, name, done, total, message }), ..self.clone() }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job on {:?}, {} per pass", self.device, counted(self.batch_size, "image"))
    }
}

/// A flag that stops work from outside; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks everyone who holds this flag to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to stop.
    pub fn should_stop(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`Error::Interrupted`] with `kept`, what of the work remains, after a stop was asked for.
    pub fn check(&self, kept: &str) -> Result<()> {
        if self.should_stop() { Err(Error::Interrupted(kept.into())) } else { Ok(()) }
    }

    /// The flag itself, for signal handlers.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }
}

impl From<Arc<AtomicBool>> for Interrupt {
    fn from(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }
}

/// How far one stage of the work is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage<'a> {
    /// What is going on, for example `clean`; another name begins another stage.
    pub name: &'a str,
    /// Pieces done, those of earlier runs included.
    pub done: usize,
    /// Pieces in all.
    pub total: usize,
    /// What else is known, for example `82 right`.
    pub message: &'a str,
}

/// Is told how far work is: from any thread, often, and sometimes twice the same.
pub trait Progress: Send + Sync {
    /// The work stands at `stage`.
    fn update(&self, stage: &Stage<'_>);

    /// A line that is to stay, such as the numbers of an epoch.
    fn note(&self, _line: &str) {}
}

impl<F: Fn(&Stage<'_>) + Send + Sync> Progress for F {
    fn update(&self, stage: &Stage<'_>) {
        self(stage)
    }
}

/// Ignores progress.
pub struct Silent;

impl Progress for Silent {
    fn update(&self, _: &Stage<'_>) {}
}

/// Work that counts towards a longer stage.
struct Part {
    whole: Arc<dyn Progress>,
    name: String,
    done: usize,
    total: usize,
    message: String,
}

impl Progress for Part {
    fn update(&self, part: &Stage<'_>) {
        let done = (self.done + part.done).min(self.total);
        self.whole.update(&Stage { name: &self.name, done, total: self.total, message: &self.message });
    }

    fn note(&self, line: &str) {
        self.whole.note(line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn clones_share_the_flag_and_the_listener() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = heard.clone();
        let progress = move |stage: &Stage<'_>| {
            listener.lock().unwrap().push(format!("{} {}/{}", stage.name, stage.done, stage.total));
        };
        let job = Job { progress: Arc::new(progress), ..Job::default() };
        job.clone().report("clean", 3, 4, "2 right");
        job.part_of("corruptions", 10, 20, "fog").report("clean", 3, 4, "2 right");
        assert_eq!(*heard.lock().unwrap(), ["clean 3/4", "corruptions 13/20"]);
        assert!(job.interrupt.check("nothing").is_ok());
        job.clone().interrupt.raise();
        assert!(matches!(job.interrupt.check("nothing"), Err(Error::Interrupted(kept)) if kept == "nothing"));
    }
}
