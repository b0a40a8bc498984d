//! Damaged files by the thousand: no reader may panic or ask for absurd memory, whatever it is given.
//!
//! Each reader gets mutations of a valid file for a bounded time: `BANDWISE_FUZZ_SECONDS` per reader,
//! half a second by default. Mutations are seeded; a failure names its number.

use std::io::{Cursor, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::Rng;

use super::mat::writer;
use super::{DataSpec, Image, Split, idx, mat, npy, parquet, pickle};
use crate::random::{Stream, stream, tag};

/// Runs `read` on mutations of `samples` until the time is over.
fn survive(reader: &str, samples: &[Vec<u8>], read: impl Fn(&[u8])) {
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

const ORIGIN: &str = "damaged";

#[test]
fn idx_and_npy_and_npz() {
    let mut sample = vec![0, 0, 8, 3];
    [2u32, 2, 2].iter().for_each(|n| sample.extend(n.to_be_bytes()));
    sample.extend([9; 8]);
    survive("idx", &[sample], |bytes| drop(idx::parse(bytes.to_vec(), Path::new(ORIGIN))));

    let floats = npy::encode_floats(&[2, 3], &[0.5; 6]);
    let integers = npy::encode_integers(&[4], &[1, 2, 3, 4]);
    let arrays = [npy::encode_bytes(&[2, 2, 2, 3], &[7; 24]), floats, integers];
    survive("npy", &arrays, |bytes| {
        if let Ok(array) = npy::parse(bytes, Path::new(ORIGIN)) {
            drop(array.labels(Path::new(ORIGIN)));
            drop(npy::pixels(array, Path::new(ORIGIN)));
        }
    });

    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("images.npy", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(&arrays[0]).unwrap();
    let sample = archive.finish().unwrap().into_inner();
    survive("npz", &[sample], |bytes| {
        drop(npy::parse_npz(Cursor::new(bytes.to_vec()), Path::new(ORIGIN), |_| true));
    });
}

#[test]
fn matlab() {
    let plain = writer::matrix("X", &[2, 3], 9, 2, &[1, 2, 3, 4, 5, 6]);
    let samples =
        [[writer::header(), plain.clone()].concat(), [writer::header(), writer::compressed(&plain)].concat()];
    survive("mat", &samples, |bytes| {
        for matrix in mat::parse(bytes, Path::new(ORIGIN)).unwrap_or_default() {
            drop(matrix.values.to_indices());
        }
    });
}

#[test]
fn pickles() {
    let sample = pickle::writer::Writer::new().old_uint8_array(&[2, 3], &[1, 2, 3, 4, 5, 6]).stop();
    survive("pickle", &[sample], |bytes| {
        if let Ok(value) = pickle::read(bytes) {
            drop(value.as_ndarray());
            drop(value.describe());
        }
    });
}

#[test]
fn pictures() {
    let image = Image::from_bytes(8, 8, 3, &[77; 192]);
    let mut jpeg = Cursor::new(Vec::new());
    let rgb = ::image::RgbImage::from_raw(8, 8, image.to_bytes()).unwrap();
    rgb.write_to(&mut jpeg, ::image::ImageFormat::Jpeg).unwrap();
    let samples = [image.to_png().unwrap(), jpeg.into_inner()];
    survive("pictures", &samples, |bytes| drop(Image::decode(bytes, Path::new(ORIGIN))));
}

/// Formats that are read from files, opened as a user would.
#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let cifar = folder.path().join("cifar.bin");
    let spec: DataSpec = format!("cifar10-bin:{}", cifar.display()).parse().unwrap();
    survive("cifar10-bin", &[vec![3; 2 * 3073]], |bytes| {
        std::fs::write(&cifar, bytes).unwrap();
        drop(spec.open(Split::Test));
    });

    let parquet = folder.path().join("test.parquet");
    let png = Image::filled(2, 2, 3, 0.5).to_png().unwrap();
    parquet::tests::write(&parquet, &[png.clone(), png], &[0, 1], "{}");
    let sample = std::fs::read(&parquet).unwrap();
    let spec: DataSpec = format!("parquet:{}", parquet.display()).parse().unwrap();
    survive("parquet", &[sample], |bytes| {
        std::fs::write(&parquet, bytes).unwrap();
        drop(spec.open(Split::Test));
    });
}

#[test]
fn specifications() {
    let samples = ["synthetic:shape=0.9,amplitude=8/255,limit=50", "imagefolder:/a,b/c,size=9,classes=a|b"];
    let samples: Vec<Vec<u8>> = samples.iter().map(|text| text.as_bytes().to_vec()).collect();
    survive("specification", &samples, |bytes| {
        drop(String::from_utf8_lossy(bytes).parse::<DataSpec>());
    });
}
