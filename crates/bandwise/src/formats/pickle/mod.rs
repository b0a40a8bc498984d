//! Python pickles, read without executing anything.
//!
//! A pickle is a program for a small stack machine. Python runs it, including any call it asks for,
//! which is why opening a stranger's checkpoint can run a stranger's code. The machine here knows
//! the same opcodes (protocols 0 to 5) but only *records* calls: `f(x)` becomes an [`Object`] that
//! says "`f` was called with `x`", and the reader of a data set or a checkpoint decides which few
//! callables it understands.
//!
//! Any bytes are safe to read: the number of values, the depth of nesting and the expansion of
//! shared values are bounded, cycles become [`Value::Recursive`], and whatever is wrong is an error.

mod expand;
mod literal;
mod machine;
mod ndarray;
#[cfg(test)]
mod tests;
mod value;
#[cfg(test)]
pub(crate) mod writer;

pub use ndarray::NdArray;
pub use value::{Object, Value};

/// Most values that one pickle may hold, counted after shared values are copied out.
pub const MAX_VALUES: usize = 4_000_000;
/// Deepest nesting of containers.
pub const MAX_DEPTH: usize = 200;

/// Why a pickle could not be read, or does not hold what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// The bytes are not a pickle, or one beyond the limits.
    #[error("not a readable Python pickle: {reason} (at byte {offset})")]
    Malformed {
        /// Where the machine stopped.
        offset: usize,
        /// What it found there.
        reason: String,
    },
    /// The pickle is sound, but holds something else than expected.
    #[error("{0}")]
    Unexpected(String),
}

/// Reads the pickle at the start of `bytes`; what follows its end is ignored, as Python does.
pub fn read(bytes: &[u8]) -> Result<Value, PickleError> {
    read_prefix(bytes).map(|(value, _)| value)
}

/// Reads the pickle at the start of `bytes` and tells how many bytes it took, for files that hold
/// several pickles one after another.
pub fn read_prefix(bytes: &[u8]) -> Result<(Value, usize), PickleError> {
    machine::Machine::new(bytes).run()
}
