//! Published data sets with a layout of their own: images in folders, labels and splits in lists.
//!
//! Each file reads one set as its authors (or torchvision) unpack it. Where a set has training,
//! validation and test images, `train` is the published training part and `test` the test part,
//! unless an option says otherwise.

mod dtd;
mod flowers;
mod grocery;
mod imagenette;
mod pets;
mod sun397;
mod svhn;
#[cfg(test)]
mod tests;
mod tiny_imagenet;

pub(super) use dtd::open as open_dtd;
pub(super) use flowers::open as open_flowers;
pub(super) use grocery::open as open_grocery;
pub(super) use imagenette::open as open_imagenette;
pub(super) use pets::open as open_pets;
pub(super) use sun397::open as open_sun397;
pub(super) use svhn::open as open_svhn;
pub(super) use tiny_imagenet::open as open_tiny_imagenet;

use std::path::{Path, PathBuf};

use crate::{Error, Result, files};

/// `root`, or the folder `name` in it: whichever holds `landmark`.
fn locate(root: &Path, name: &str, landmark: &str) -> Result<PathBuf> {
    [root.to_path_buf(), root.join(name)]
        .into_iter()
        .find(|folder| folder.join(landmark).exists())
        .ok_or_else(|| {
            Error::format(root, format!("expected `{landmark}` here or in `{name}`, found neither"))
        })
}

/// A text file's lines with their numbers, without empty ones and without comments (`#`).
fn lines(path: &Path) -> Result<Vec<(usize, String)>> {
    let bytes = files::read(path)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::format(path, "expected a text file"))?;
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect())
}

/// The error for a line that is not what it should be.
fn bad_line(path: &Path, number: usize, expected: &str) -> Error {
    Error::format(path, format!("line {number}: expected {expected}"))
}

/// A path below `root` as written in a list; one that leaves `root` is refused.
fn below(root: &Path, relative: &str) -> Option<PathBuf> {
    use std::path::Component;
    let relative = Path::new(relative.trim_start_matches('/'));
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| root.join(relative))
}

/// The option `test_part` of sets that are published with a validation and a test part: whether the first is tested.
fn tests_validation(request: &super::spec::Request) -> Result<bool> {
    match request.option("test_part") {
        None | Some("test") => Ok(false),
        Some("val") => Ok(true),
        Some(other) => Err(Error::config(format!("test_part={other}: expected `test` or `val`"))),
    }
}

/// The option `partition` of sets that are published with several: a number from 1 to 10.
fn partition(request: &super::spec::Request) -> Result<usize> {
    let text = request.option("partition").unwrap_or("1");
    let number = text.parse().ok().filter(|number| (1..=10).contains(number));
    number.ok_or_else(|| Error::config(format!("partition={text}: expected a number from 1 to 10")))
}
