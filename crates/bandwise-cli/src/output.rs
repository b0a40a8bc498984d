//! The one place that writes to standard output and standard error.
//!
//! Results are files, written before anything is said about them; what is said may get lost. A reader that has seen
//! enough (`| head`) or a closed terminal ends nothing. A full disk behind standard output is an error at the end.
//!
//! Names come from data sets, checkpoints and recipes of others: their control characters are shown, never sent.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bandwise::analyze::Findings;
use bandwise::evaluate::record;
use bandwise::wording::visible;
use bandwise::{Error, Result, outputs};

/// One line to standard output. What is between the braces may hold anything: it stays on the line.
macro_rules! say {
    () => { $crate::output::say_line(format_args!("")) };
    ($($what:tt)+) => { $crate::output::say_line(format_args!($($what)+)) };
}

/// One line to standard error, for progress and warnings.
macro_rules! note {
    ($($what:tt)+) => { $crate::output::note_line(format_args!($($what)+)) };
}

/// The first thing that went wrong on standard output; nothing is written there afterwards.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);
/// Standard output carries a file; what is said goes to standard error.
static CARRIES_FILE: AtomicBool = AtomicBool::new(false);

/// Behind [`say!`].
pub fn say_line(line: Arguments) {
    if CARRIES_FILE.load(Ordering::Relaxed) {
        return note_line(line);
    }
    write(|out| writeln!(out, "{}", visible(&line.to_string())));
}

/// Behind [`note!`].
pub fn note_line(line: Arguments) {
    let line = line.to_string();
    // Nobody may be listening, and there is no one else to tell.
    let _ = writeln!(io::stderr(), "{}", visible(&line));
}

/// A text that may have several lines, to standard error; the later ones are indented.
pub fn explain(text: impl Display) {
    let text = text.to_string();
    let lines: Vec<_> = text.lines().map(visible).collect();
    let _ = writeln!(io::stderr(), "{}", lines.join("\n  "));
}

/// Makes way for a file on standard output if that is what one of the paths asks for.
pub fn reserve<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) {
    CARRIES_FILE.store(paths.into_iter().any(|path| is_stdout(path)), Ordering::Relaxed);
}

/// Refuses files that records must not replace, before anything is computed.
///
/// # Errors
/// See [`record::check_replaceable`].
pub fn check_records<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    paths.into_iter().filter(|path| !is_stdout(path)).try_for_each(|path| record::check_replaceable(path))
}

/// Writes a text file, or standard output if it is called `-`.
///
/// # Errors
/// If the file cannot be written, or something else is there.
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    if !is_stdout(path) {
        return outputs::replace(path, text.as_bytes());
    }
    if io::stdout().is_terminal() {
        text.lines().for_each(|line| write(|out| writeln!(out, "{}", visible(line))));
    } else {
        write(|out| out.write_all(text.as_bytes()));
    }
    Ok(())
}

/// Says what an analysis found, and where its page was written.
pub fn say_findings(findings: &Findings, page: &Path) {
    findings.lines.iter().for_each(|line| say!("{line}"));
    say!("Open the report: {}", page.display());
}

/// Says which file was written, unless it went to standard output.
pub fn say_written(path: &Path) {
    if !is_stdout(path) {
        say!("wrote {}", path.display());
    }
}

fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path.as_os_str() == *name)
}

/// Help, version, or what is wrong with the arguments.
pub fn usage(message: &clap::Error) -> ExitCode {
    let written = message.print();
    if message.use_stderr() {
        return ExitCode::from(crate::USAGE);
    }
    written.unwrap_or_else(remember);
    match finish() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(format_args!("bandwise: {error}"));
            ExitCode::from(crate::USAGE)
        }
    }
}

/// Flushes standard output.
///
/// # Errors
/// If not everything could be written there, unless its reader closed it.
pub fn finish() -> Result<()> {
    write(|out| out.flush());
    match FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", error)),
        _ => Ok(()),
    }
}

fn write(act: impl FnOnce(&mut io::StdoutLock) -> io::Result<()>) {
    if FAILURE.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
        act(&mut io::stdout().lock()).unwrap_or_else(remember);
    }
}

fn remember(error: io::Error) {
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

/// Standard error for log lines; whether anybody listens does not matter.
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
