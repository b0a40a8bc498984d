//! How many threads compute.

use bandwise::{Error, Result};

const VARIABLE: &str = "RAYON_NUM_THREADS";
/// Threads per core beyond which more only cost memory and time.
const MOST_PER_CORE: usize = 4;

/// Keeps `RAYON_NUM_THREADS` within reason: starting tens of thousands of threads takes minutes, in which the process
/// does not even hear signals.
///
/// # Errors
/// The variable holds no number, or the process cannot be started again with fewer threads.
pub fn limit() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Some(asked) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let asked = asked.to_string_lossy();
    match judged(&asked, cores)? {
        Threads::AsAsked => Ok(()),
        Threads::Spelled(threads) => restart(threads),
        Threads::TooMany(most) => {
            note!(
                "bandwise: {VARIABLE}={} is more than {MOST_PER_CORE} threads for each of {cores} cores; {most} are used",
                asked.trim()
            );
            restart(most)
        }
    }
}

/// What the variable asks for.
#[derive(Debug, PartialEq)]
enum Threads {
    /// What rayon will make of it, too; 0 are as many as there are cores.
    AsAsked,
    /// This number, but with spaces around it, for which rayon would not see it.
    Spelled(usize),
    /// Too many: so many at most.
    TooMany(usize),
}

fn judged(asked: &str, cores: usize) -> Result<Threads> {
    let (text, most) = (asked.trim(), cores * MOST_PER_CORE);
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match text.parse::<usize>() {
        Ok(number) if number > most => Ok(Threads::TooMany(most)),
        Ok(number) if text != asked => Ok(Threads::Spelled(number)),
        Ok(_) => Ok(Threads::AsAsked),
        Err(_) if text.is_empty() => Ok(Threads::AsAsked),
        // More digits than fit are too many threads, too.
        Err(_) if digits => Ok(Threads::TooMany(most)),
        Err(_) => Err(Error::config(format!(
            "{VARIABLE}={text} is no number of threads; set it to a whole number (0: one for each core), or unset it"
        ))),
    }
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
    fn numbers_are_taken_and_nonsense_is_refused() {
        for asked in ["", "0", "1", "8", "+2"] {
            assert_eq!(judged(asked, 2).unwrap(), Threads::AsAsked, "{asked:?}");
        }
        for asked in ["9", "99999", " 99999 ", "99999999999999999999999999"] {
            assert_eq!(judged(asked, 2).unwrap(), Threads::TooMany(8), "{asked}");
        }
        assert_eq!(judged(" 3 ", 2).unwrap(), Threads::Spelled(3));
        for asked in ["many", "-3", "-1", "2.5", "1 2"] {
            let message = judged(asked, 2).unwrap_err().to_string();
            assert!(message.contains(&format!("RAYON_NUM_THREADS={asked} is no number")), "{message}");
        }
    }
}
