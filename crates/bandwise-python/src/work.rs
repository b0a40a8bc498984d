//! How calls of the library look from Python: without the interpreter's lock, stopped by Ctrl-C, with Python's
//! exceptions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bandwise::job::{Progress, Stage};
use bandwise::{Error, Interrupt, Job};
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde::de::DeserializeOwned;

use crate::models::Model;

/// Shortest time between two looks at signals and two calls of the progress function.
const PAUSE: Duration = Duration::from_millis(50);

/// An exception on its way through the library, which knows errors of its own only.
#[derive(Clone, Default)]
pub struct Failure(Arc<Mutex<Option<PyErr>>>);

impl Failure {
    /// Keeps the first.
    pub fn keep(&self, error: PyErr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn take(&self) -> Option<PyErr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Python's exception with the library's sentence.
pub fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Io { source, .. } => std::io::Error::new(source.kind(), text).into(),
        Error::Format { .. } | Error::Config(_) | Error::Model(_) => PyValueError::new_err(text),
        Error::Interrupted(_) => PyKeyboardInterrupt::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

/// A configuration of the library out of JSON.
pub fn settings<T: DeserializeOwned>(json: &str) -> PyResult<T> {
    serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// JSON of something of the library's.
pub fn json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

/// Tells Python how far the work is, and looks for Ctrl-C.
struct Teller {
    function: Option<Py<PyAny>>,
    interrupt: Interrupt,
    failure: Failure,
    last: Mutex<Option<Instant>>,
}

impl Teller {
    fn call(&self, name: &str, done: usize, total: usize, message: &str) {
        Python::attach(|py| {
            let told = py.check_signals().and_then(|()| match &self.function {
                Some(function) => function.call1(py, (name, done, total, message)).map(drop),
                None => Ok(()),
            });
            if let Err(error) = told {
                self.failure.keep(error);
                self.interrupt.raise();
            }
        });
    }
}

impl Progress for Teller {
    fn update(&self, stage: &Stage<'_>) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if stage.done < stage.total && last.is_some_and(|last| last.elapsed() < PAUSE) {
                return;
            }
            *last = Some(Instant::now());
        }
        self.call(stage.name, stage.done, stage.total, stage.message);
    }

    /// A line that is to stay: a stage without a total.
    fn note(&self, line: &str) {
        self.call("", 0, 0, line);
    }
}

/// Calls the library without the interpreter's lock. An exception of a model or of the progress function comes out as
/// it went in.
pub fn run<T: Send>(
    py: Python<'_>,
    models: &[&Model],
    (batch_size, progress): (usize, Option<Py<PyAny>>),
    work: impl FnOnce(&Job) -> bandwise::Result<T> + Send,
) -> PyResult<T> {
    if batch_size == 0 {
        return Err(PyValueError::new_err("batch_size must be at least 1"));
    }
    let mut job = Job { batch_size, ..Job::default() };
    let failure = Failure::default();
    let (interrupt, last) = (job.interrupt.clone(), Mutex::new(None));
    job.progress = Arc::new(Teller { function: progress, interrupt, failure: failure.clone(), last });
    for model in models {
        model.failure.take();
    }
    let result = py.detach(|| work(&job));
    result.map_err(|error| {
        let raised = models.iter().find_map(|model| model.failure.take()).or_else(|| failure.take());
        match raised {
            // Ctrl-C says what is kept.
            Some(raised) if raised.is_instance_of::<PyKeyboardInterrupt>(py) => match error {
                Error::Interrupted(_) => exception(error),
                _ => raised,
            },
            Some(raised) => raised,
            None => exception(error),
        }
    })
}
