//! `npy:DIR`: images and labels as NumPy arrays.
//!
//! In a folder: `train_images.npy` and `train_labels.npy`, `test_images.npy` and `test_labels.npy`
//! (or `x_train.npy`, `y_train.npy`, `x_test.npy`, `y_test.npy`); or `images.npy` and `labels.npy`,
//! which then serve as both splits. In one `.npz` file, or a folder with one: arrays of those names.
//!
//! Images: `uint8`, or floats in `[0, 1]`; `[n, height, width, channels]`, `[n, channels, height,
//! width]` or `[n, height, width]`. Where both readings of four axes are possible (first and last
//! are 1 or 3), channels are last. Labels: whole numbers from 0 on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::array::{ArrayDataset, Pixels, numbered_classes};
use super::spec::Request;
use super::{Dataset, Split};
use crate::formats::npy::{Array, Data, read, read_npz};
use crate::{Error, Result};

/// Names of the two arrays, best first.
fn names(split: Split) -> [(&'static str, &'static str); 4] {
    match split {
        Split::Train => {
            [("train_images", "train_labels"), ("x_train", "y_train"), ("images", "labels"), ("x", "y")]
        }
        Split::Test => {
            [("test_images", "test_labels"), ("x_test", "y_test"), ("images", "labels"), ("x", "y")]
        }
    }
}

/// `npy:DIR`
pub(super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let (path, split) = (request.path, request.split);
    let Found { images, labels, image_file: origin, label_file } = find(path, split)?;
    let labels = labels.labels(&label_file)?;
    let (shape, pixels) = pixels(images, &origin)?;
    let classes = labels.iter().max().map_or(1, |&max| max as usize + 1);
    if classes > 1_000_000 {
        return Err(Error::format(
            &label_file,
            format!("a label is {}, which cannot be a class", classes - 1),
        ));
    }
    let name = format!("npy ({split})");
    Ok(Arc::new(ArrayDataset::new(name, &origin, pixels, shape, labels, numbered_classes(classes))?))
}

/// Two arrays and where they were.
struct Found {
    images: Array,
    labels: Array,
    image_file: PathBuf,
    label_file: PathBuf,
}

fn find(path: &Path, split: Split) -> Result<Found> {
    let archive = if path.is_file() { Some(path.to_path_buf()) } else { only_npz(path)? };
    if path.is_dir() {
        for (images, labels) in names(split) {
            let file = |name: &str| path.join(format!("{name}.npy"));
            if file(images).is_file() && file(labels).is_file() {
                let (image_file, label_file) = (file(images), file(labels));
                return Ok(Found {
                    images: read(&image_file)?,
                    labels: read(&label_file)?,
                    image_file,
                    label_file,
                });
            }
        }
    }
    let names = names(split);
    if let Some(archive) = archive {
        let wanted = |name: &str| names.iter().any(|(images, labels)| [*images, *labels].contains(&name));
        let mut arrays = read_npz(&archive, wanted)?;
        let mut take = |name: &str| {
            let at = arrays.iter().position(|(found, _)| found == name)?;
            Some(arrays.swap_remove(at).1)
        };
        for (image_name, label_name) in names {
            if let (Some(images), Some(labels)) = (take(image_name), take(label_name)) {
                let label_file = archive.join(label_name);
                return Ok(Found { images, labels, image_file: archive, label_file });
            }
        }
    }
    let [(images, labels), ..] = names;
    Err(Error::format(
        path,
        format!(
            "expected `{images}.npy` and `{labels}.npy` (or `images.npy` and `labels.npy`) or one .npz file \
             with arrays of those names"
        ),
    ))
}

/// The folder's `.npz` file, if there is just one.
fn only_npz(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut archives: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "npz"))
        .collect();
    Ok(if archives.len() == 1 { archives.pop() } else { None })
}

/// The image shape `[height, width, channels]` and all pixels with channels last.
pub(crate) fn pixels(images: Array, origin: &Path) -> Result<([usize; 3], Pixels)> {
    let color = |channels: usize| channels == 1 || channels == 3;
    let (shape, channels_first) = match images.shape[..] {
        [_, height, width] => ([height, width, 1], false),
        [_, height, width, channels] if color(channels) => ([height, width, channels], false),
        [_, channels, height, width] if color(channels) => ([height, width, channels], true),
        _ => {
            return Err(Error::format(
                origin,
                format!(
                    "images must be [n, height, width], [n, height, width, 1 or 3] or \
                     [n, 1 or 3, height, width], found {:?}",
                    images.shape
                ),
            ));
        }
    };
    let pixels = match images.data {
        Data::Bytes(values) if channels_first => Pixels::Bytes(channels_last(&values, shape)),
        Data::Bytes(values) => Pixels::Bytes(values),
        Data::Floats(values) if channels_first => Pixels::Floats(channels_last(&values, shape)),
        Data::Floats(values) => Pixels::Floats(values),
        Data::Integers(_) => {
            return Err(Error::format(
                origin,
                "images must be uint8 or floats in [0, 1], not wider integers",
            ));
        }
    };
    Ok((shape, pixels))
}

fn channels_last<T: Copy>(values: &[T], [height, width, channels]: [usize; 3]) -> Vec<T> {
    let plane = height * width;
    let mut result = Vec::with_capacity(values.len());
    for image in values.chunks_exact((plane * channels).max(1)) {
        for pixel in 0..plane {
            result.extend((0..channels).map(|channel| image[channel * plane + pixel]));
        }
    }
    result
}

#[cfg(test)]
mod tests;
