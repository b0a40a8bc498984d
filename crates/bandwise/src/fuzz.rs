//! Damaged files by the thousand: no reader may panic or ask for absurd memory, whatever it is given.
//!
//! Each reader gets mutations of a valid file for a bounded time: `BANDWISE_FUZZ_SECONDS` per reader,
//! half a second by default. Mutations are seeded; a failure names its number. Continuous integration
//! runs these tests in a bounded address space, so that an absurd allocation ends them.

use std::time::{Duration, Instant};

use rand::Rng;

use crate::random::{Stream, stream, tag};

/// Runs `read` on mutations of `samples` until the time is over.
pub fn survive(reader: &str, samples: &[Vec<u8>], read: impl Fn(&[u8])) {
    let seconds =
        std::env::var("BANDWISE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0.5);
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let mut number = 0;
    while Instant::now() < deadline {
        let rng = &mut stream(0, &[tag(reader), number]);
        let mut bytes = samples[rng.random_range(0..samples.len())].clone();
        for _ in 0..rng.random_range(1..4) {
            mutate(&mut bytes, rng);
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&bytes)));
        assert!(outcome.is_ok(), "{reader}: mutation {number} made the reader panic");
        number += 1;
    }
    eprintln!("{reader}: {number} mutations");
}

/// One of: changed byte, changed word, cut, repeated or inserted piece.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Stream) {
    if bytes.is_empty() {
        return;
    }
    // Headers matter most.
    let reach = if rng.random() { bytes.len().min(64) } else { bytes.len() };
    let at = rng.random_range(0..reach);
    match rng.random_range(0..6) {
        0 => bytes[at] = rng.random(),
        1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => {
            let extreme = [0u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][rng.random_range(0..5)];
            let end = (at + 4).min(bytes.len());
            bytes[at..end].copy_from_slice(&extreme.to_le_bytes()[..end - at]);
        }
        3 => bytes.truncate(at),
        4 => {
            let piece = bytes[at..(at + rng.random_range(1..32)).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let piece: Vec<u8> = (0..rng.random_range(1..9)).map(|_| rng.random()).collect();
            bytes.splice(at..at, piece);
        }
    }
}
