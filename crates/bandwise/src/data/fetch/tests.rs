//! Against a small server of our own: no test needs the network.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// How the server treats a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Serves ranges.
    Proper,
    /// Closes the connection in the middle of the first answer.
    Interrupting,
    /// Has never heard of ranges.
    WithoutRanges,
    /// Calls everything HTML.
    WebPage,
    /// Sends HTML as a binary file.
    DisguisedWebPage,
    /// Knows no file.
    Empty,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

fn serve(content: Vec<u8>, manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (log, answers) = (requests.clone(), AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answers.fetch_add(1, Ordering::Relaxed);
            // A client that has what it wants may hang up.
            let _ = answer_request(stream.unwrap(), &content, manner, answer, &log);
        }
    });
    Server { address, requests }
}

fn answer_request(
    mut stream: TcpStream,
    content: &[u8],
    manner: Manner,
    answer: usize,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut start = 0;
    let mut request = String::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            start = range.trim_end_matches('-').parse().unwrap_or(0);
        }
        request.push_str(&line);
        request.push('\n');
    }
    log.lock().unwrap().push(request);
    if manner == Manner::WithoutRanges {
        start = 0;
    }
    let body = &content[start.min(content.len())..];
    let status = match (manner, start) {
        (Manner::Empty, _) => "404 Not Found".to_owned(),
        (_, 0) => "200 OK".to_owned(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/*", content.len() - 1),
    };
    let kind = if manner == Manner::WebPage { "text/html; charset=utf-8" } else { "application/gzip" };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    let sent = if manner == Manner::Interrupting && answer == 0 { length / 2 } else { length };
    stream.write_all(&body[..sent])?;
    stream.flush()
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn source(content: &[u8], md5_of: Option<&[u8]>, unpack: bool) -> (Source, Vec<u8>) {
    let md5 = md5_of.map(|bytes| &**leak(files::hex(&Md5::digest(bytes))));
    let files = leak([Remote { base: "http://127.0.0.1:1/", file: "set.bin", md5, unpack }]);
    let source = Source { name: "set", description: "", homepage: "", format: "npy", files };
    (source, content.to_vec())
}

fn run(source: &Source, root: &Path, mirror: &str) -> (Result<String>, Vec<Progress>) {
    let mut seen = Vec::new();
    let options = FetchOptions { mirror: Some(mirror.to_owned()), keep_archives: false };
    let result = fetch(source, root, &options, &mut |progress| {
        seen.push(progress);
        Ok(())
    });
    (result, seen)
}

fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * i % 251) as u8).collect()
}

#[test]
fn a_file_is_downloaded_once() {
    let root = tempfile::tempdir().unwrap();
    let (source, content) = source(&noise(300_000), Some(&noise(300_000)), false);
    let server = serve(content.clone(), Manner::Proper);
    let (result, _) = run(&source, root.path(), &server.address);
    assert_eq!(result.unwrap(), format!("npy:{}", root.path().join("set").display()));
    assert_eq!(std::fs::read(root.path().join("set/set.bin")).unwrap(), content);
    let (_, seen) = run(&source, root.path(), &server.address);
    assert_eq!(seen, [Progress::Present { file: "set.bin".into() }]);
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[test]
fn an_interrupted_download_goes_on() {
    for manner in [Manner::Interrupting, Manner::Proper, Manner::WithoutRanges] {
        let root = tempfile::tempdir().unwrap();
        let (source, content) = source(&noise(300_000), Some(&noise(300_000)), false);
        if manner != Manner::Interrupting {
            // The beginning from an earlier run.
            files::write_atomic(&root.path().join("set/set.bin.part"), &content[..1000]).unwrap();
        }
        let server = serve(content.clone(), manner);
        run(&source, root.path(), &server.address).0.unwrap();
        assert_eq!(std::fs::read(root.path().join("set/set.bin")).unwrap(), content);
        assert!(server.requests.lock().unwrap().last().unwrap().contains("range: bytes="));
    }
}

#[test]
fn web_pages_are_refused() {
    let page = b"\n<!DOCTYPE html><html><body>Please log in</body></html>";
    for manner in [Manner::WebPage, Manner::DisguisedWebPage] {
        let root = tempfile::tempdir().unwrap();
        let (source, content) = source(page, None, false);
        let server = serve(content, manner);
        let message = run(&source, root.path(), &server.address).0.unwrap_err().to_string();
        assert!(message.contains("web page"), "{message}");
        assert_eq!(std::fs::read_dir(root.path().join("set")).unwrap().count(), 0);
    }
}

#[test]
fn wrong_checksums_and_missing_files_are_explained() {
    let root = tempfile::tempdir().unwrap();
    let (source, content) = source(&noise(100), Some(b"other"), false);
    let server = serve(content.clone(), Manner::Proper);
    let message = run(&source, root.path(), &server.address).0.unwrap_err().to_string();
    assert!(message.contains("MD5 sum"), "{message}");
    assert!(!root.path().join("set/set.bin").exists());
    let server = serve(content, Manner::Empty);
    let message = run(&source, root.path(), &server.address).0.unwrap_err().to_string();
    assert!(message.contains("no longer there"), "{message}");
}

#[test]
fn without_a_network_files_may_be_put_in_place_by_hand() {
    let root = tempfile::tempdir().unwrap();
    let (source, content) = source(&noise(100), Some(&noise(100)), false);
    // A port at which nobody listens.
    let message = run(&source, root.path(), "http://127.0.0.1:1").0.unwrap_err().to_string();
    let place = root.path().join("set/set.bin");
    assert!(message.contains("no network") && message.contains(&place.display().to_string()), "{message}");
    std::fs::write(&place, content).unwrap();
    run(&source, root.path(), "http://127.0.0.1:1").0.unwrap();
}

#[test]
fn archives_are_unpacked_and_cannot_leave_their_folder() {
    let tar = |name: &str| {
        let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), Default::default()));
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, &b"abc"[..]).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    };
    let root = tempfile::tempdir().unwrap();
    let (good, content) = source(&tar("inner/a.txt"), None, true);
    let server = serve(content, Manner::Proper);
    let (result, seen) = run(&good, root.path(), &server.address);
    result.unwrap();
    assert!(seen.iter().any(|p| matches!(p, Progress::Unverified { sha256, .. } if sha256.len() == 64)));
    assert_eq!(std::fs::read(root.path().join("set/inner/a.txt")).unwrap(), b"abc");
    assert!(!root.path().join("set/set.bin").exists());

    let root = tempfile::tempdir().unwrap();
    let (evil, content) = source(&tar("../evil.txt"), None, true);
    let server = serve(content, Manner::Proper);
    assert!(run(&evil, root.path(), &server.address).0.unwrap_err().to_string().contains("outside"));
    assert!(!root.path().join("evil.txt").exists());
}

#[test]
fn the_table_is_sound() {
    for source in SOURCES {
        assert!(
            crate::data::spec::FORMATS.iter().any(|format| format.name == source.format),
            "{}",
            source.name
        );
        for remote in source.files {
            assert!(
                remote.md5.is_none_or(|md5| md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit()))
            );
            assert!(remote.base.ends_with('/') && !remote.file.contains('/'));
        }
    }
    assert!(find("cifr10").unwrap_err().to_string().contains("did you mean `cifar10`"));
}
