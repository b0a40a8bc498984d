//! How many threads compute.

use bandwise::{Error, Result};

const VARIABLE: &str = "RAYON_NUM_THREADS";
/// Threads per core beyond which more only cost memory and time.
const MOST_PER_CORE: usize = 4;

/// Keeps `RAYON_NUM_THREADS` within reason: starting tens of thousands of threads takes minutes, in which the process
/// does not even hear signals.
///
/// # Errors
/// The process cannot be started again with fewer threads.
pub fn limit() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = std::env::var(VARIABLE).ok();
    let Some(threads) = excessive(asked.as_deref(), cores) else { return Ok(()) };
    note!(
        "bandwise: {VARIABLE}={} is more than {MOST_PER_CORE} threads for each of {cores} cores; {threads} are used",
        asked.as_deref().unwrap_or_default().trim()
    );
    restart(threads)
}

/// The number of threads to use instead, if too many are asked for.
fn excessive(asked: Option<&str>, cores: usize) -> Option<usize> {
    let asked = asked?.trim();
    let most = cores * MOST_PER_CORE;
    let number = asked.chars().all(|c| c.is_ascii_digit()) && !asked.is_empty();
    // More digits than fit are too many threads, too.
    let too_many = number && asked.parse::<usize>().map_or(true, |asked| asked > most);
    too_many.then_some(most)
}

/// The same command in the same process, with the variable changed: every library that reads it then sees the same.
#[cfg(unix)]
fn restart(threads: usize) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let program = std::env::current_exe().map_err(|e| Error::io("bandwise", e))?;
    let error = std::process::Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, threads.to_string())
        .exec();
    Err(Error::io(program, error))
}

#[cfg(not(unix))]
fn restart(threads: usize) -> Result<()> {
    Err(Error::config(format!("set {VARIABLE} to at most {threads}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_too_many_are_too_many() {
        for asked in [None, Some(""), Some("1"), Some("8"), Some("many"), Some("-3"), Some("0")] {
            assert_eq!(excessive(asked, 2), None, "{asked:?}");
        }
        for asked in ["9", "99999", " 99999 ", "99999999999999999999999999"] {
            assert_eq!(excessive(Some(asked), 2), Some(8), "{asked}");
        }
    }
}
