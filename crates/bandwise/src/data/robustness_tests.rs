//! The readers of data sets against damaged files; see [`crate::fuzz`].

use std::io::{Cursor, Write};
use std::path::Path;

use super::{DataSpec, Image, Split, idx, numpy};
use crate::formats::mat::writer;
use crate::formats::{mat, npy, pickle};
use crate::fuzz::survive;

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
            drop(numpy::pixels(array, Path::new(ORIGIN)));
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
fn images() {
    let image = Image::from_bytes(8, 8, 3, &[77; 192]);
    let mut jpeg = Cursor::new(Vec::new());
    let rgb = ::image::RgbImage::from_raw(8, 8, image.to_bytes()).unwrap();
    rgb.write_to(&mut jpeg, ::image::ImageFormat::Jpeg).unwrap();
    let samples = [image.to_png().unwrap(), jpeg.into_inner()];
    survive("images", &samples, |bytes| drop(Image::decode(bytes, Path::new(ORIGIN))));
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

    let python = folder.path().join("test_batch");
    let writer =
        pickle::writer::Writer::new().op(b'}').op(b'(').text("data").old_uint8_array(&[1, 3072], &[5; 3072]);
    let sample = writer.text("labels").op(b']').op(b'(').int(4).op(b'e').op(b'u').stop();
    std::fs::write(&python, &sample).unwrap();
    let spec: DataSpec = format!("cifar10:{}", folder.path().display()).parse().unwrap();
    assert!(spec.open(Split::Test).is_ok_and(|set| set.len() == 1));
    survive("cifar10 python", &[sample], |bytes| {
        std::fs::write(&python, bytes).unwrap();
        drop(spec.open(Split::Test));
    });

    let array = folder.path().join("fog.npy");
    let labels = npy::encode_bytes(&[5], &[0, 1, 2, 3, 4]);
    std::fs::write(folder.path().join("labels.npy"), labels).unwrap();
    let spec: DataSpec =
        format!("cifar10c:{},corruption=fog,severity=5", folder.path().display()).parse().unwrap();
    survive("cifar10c", &[npy::encode_bytes(&[5, 2, 2, 3], &[7; 60])], |bytes| {
        std::fs::write(&array, bytes).unwrap();
        drop(spec.open(Split::Test));
    });
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_files() {
    let folder = tempfile::tempdir().unwrap();
    let parquet = folder.path().join("test.parquet");
    let png = Image::filled(2, 2, 3, 0.5).to_png().unwrap();
    super::parquet::tests::write(&parquet, &[png.clone(), png], &[0, 1], "{}");
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
