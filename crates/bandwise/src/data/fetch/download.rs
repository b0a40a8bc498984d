//! One file over HTTP, resumed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::{Error, Result};

/// Attempts before giving up; each goes on where the last one stopped.
const ATTEMPTS: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence of a server in the middle of a file.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Told the bytes that are there, and of how many.
type Report<'a> = &'a mut dyn FnMut(u64, Option<u64>) -> Result<()>;

/// Why an attempt ended.
enum Failure {
    /// Worth another attempt.
    Transient(String),
    /// Not worth one.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Downloads `url` to `part`, going on after the bytes that it already holds. `path` is where the user
/// may put the file by hand.
pub(super) fn download(url: &str, part: &Path, path: &Path, report: Report) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_read(Some(READ_TIMEOUT))
        .user_agent(concat!("bandwise/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(300 << attempt));
        }
        match attempt_download(&agent, url, part, report) {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Transient(reason)) => last = reason,
        }
    }
    Err(Error::config(format!(
        "could not download {url}: {last}. If this machine has no network, download the file elsewhere, \
         put it at {}, and run the same command again: it will be checked and unpacked",
        path.display()
    )))
}

fn attempt_download(agent: &ureq::Agent, url: &str, part: &Path, report: Report) -> Result<(), Failure> {
    let have = std::fs::metadata(part).map_or(0, |metadata| metadata.len());
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|error| match error {
        ureq::Error::BadUri(_) | ureq::Error::InvalidProxyUrl => {
            Failure::Final(Error::config(format!("{url}: not an address that can be fetched ({error})")))
        }
        error => Failure::Transient(error.to_string()),
    })?;
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (kind, length, range) = (header("content-type"), header("content-length"), header("content-range"));
    let start = match response.status().as_u16() {
        200 => 0,
        // A server that answers with another piece than asked for would leave a hole.
        206 if range.as_deref().is_some_and(|r| r.starts_with(&format!("bytes {have}-"))) => have,
        // Nothing lies after what is there: it is complete, as the checksum will tell.
        416 if have > 0 => return Ok(()),
        404 | 410 => return Err(gone(url).into()),
        status @ (408 | 429 | 500..) => {
            return Err(Failure::Transient(format!("the server answered {status}")));
        }
        status => {
            return Err(
                Error::config(format!("could not download {url}: the server answered {status}")).into()
            );
        }
    };
    if kind.is_some_and(|kind| kind.starts_with("text/html")) {
        return Err(html(url).into());
    }
    let total = length.and_then(|length| length.parse::<u64>().ok()).map(|length| start + length);
    let file = open(part, start)?;
    let done = copy(response.body_mut().as_reader(), file, [start, total.unwrap_or(0)], url, part, report)?;
    match total {
        Some(total) if done < total => {
            Err(Failure::Transient(format!("the connection ended after {done} bytes")))
        }
        _ => Ok(()),
    }
}

/// The part file, at its end if `start` is not 0, emptied otherwise.
fn open(part: &Path, start: u64) -> Result<File> {
    let mut options = OpenOptions::new();
    match start {
        0 => options.write(true).create(true).truncate(true),
        _ => options.append(true),
    };
    options.open(part).map_err(|e| Error::io(part, e))
}

/// Writes what arrives; returns the bytes that are then there.
fn copy(
    mut body: impl Read,
    mut file: File,
    [start, total]: [u64; 2],
    url: &str,
    part: &Path,
    report: Report,
) -> Result<u64, Failure> {
    let mut done = start;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => return Err(Failure::Transient(error.to_string())),
        };
        if done == 0 && looks_like_html(&buffer[..length]) {
            // Not even the beginning must stay: the next attempt would go on after it.
            let _ = std::fs::remove_file(part);
            return Err(html(url).into());
        }
        file.write_all(&buffer[..length]).map_err(|e| Error::io(part, e))?;
        done += length as u64;
        report(done, (total > 0).then_some(total))?;
    }
    file.sync_all().map_err(|e| Error::io(part, e))?;
    Ok(done)
}

/// Whether a file begins as web pages do.
fn looks_like_html(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim_start().to_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html") || start.starts_with("<head")
}

fn html(url: &str) -> Error {
    Error::config(format!(
        "{url} answered with a web page instead of the file: a login, a consent form or an error. Open the \
         address in a browser, or give a mirror"
    ))
}

fn gone(url: &str) -> Error {
    Error::config(format!("{url} is no longer there; look for the file elsewhere and give a mirror"))
}
