//! The library's one error type.

use std::path::{Path, PathBuf};

/// Everything that can go wrong, grouped by what the user can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, and what to do.
        reason: String,
    },
    /// A setting, recipe or argument is not valid.
    #[error("{0}")]
    Config(String),
    /// A model and its weights or its input do not fit together.
    #[error("{0}")]
    Model(String),
    /// The user asked the run to stop; everything reported as saved is saved.
    #[error("interrupted; {0}")]
    Interrupted(String),
    /// A tensor operation failed (shape or device trouble inside the library).
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Shorthand for results of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An operating-system error on `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// The content of `path` is not what it should be.
    pub fn format(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    /// A setting is not valid.
    pub fn config(reason: impl Into<String>) -> Self {
        Self::Config(reason.into())
    }

    /// A model does not fit its weights or input.
    pub fn model(reason: impl Into<String>) -> Self {
        Self::Model(reason.into())
    }
}
