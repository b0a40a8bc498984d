//! Published corrupted test sets, and CIFAR-10.1.
//!
//! * CIFAR-10-C, CIFAR-100-C: `gaussian_noise.npy`, …: `uint8` `[5·n, 32, 32, 3]`, severity 1 first,
//!   and `labels.npy`, either for all severities or for one.
//!   `corruptions.json`, which `bandwise corrupt` writes beside them, may name fewer severities.
//! * TinyImageNet-C, ImageNet-C: `gaussian_noise/3/n01443537/….JPEG`, also with a folder per family in
//!   between (`noise/gaussian_noise/3/…`).
//! * CIFAR-10.1: `cifar10.1_v6_data.npy`, `cifar10.1_v6_labels.npy`.
//!
//! `corruption=NAME` chooses the corruption, `severity=1` to `5` one severity; without it all five
//! follow each other. There are no training images: both splits are the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::array::{ArrayDataset, Pixels, check_labels, numbered_classes};
use super::cifar::CIFAR10_CLASSES;
use super::folder::{file_name, subfolders};
use super::spec::{Request, unknown};
use super::{Dataset, FileDataset, numpy};
use crate::formats::npy;
use crate::{Error, Result, files};

/// Severities in every published set.
const SEVERITIES: usize = 5;

/// Where the corruptions of `root` lie, in either layout, by name.
fn places(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut places = BTreeMap::new();
    let has_severities =
        |folder: &Path| (1..=SEVERITIES).any(|severity| folder.join(severity.to_string()).is_dir());
    for folder in subfolders(root)? {
        if has_severities(&folder) {
            places.insert(file_name(&folder), folder);
        } else {
            let nested = subfolders(&folder)?.into_iter().filter(|folder| has_severities(folder));
            places.extend(nested.map(|folder| (file_name(&folder), folder)));
        }
    }
    for entry in std::fs::read_dir(root).map_err(|e| Error::io(root, e))? {
        let path = entry.map_err(|e| Error::io(root, e))?.path();
        let is_array = path.extension().is_some_and(|extension| extension == "npy");
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        places.extend(stem.filter(|stem| is_array && stem != "labels").map(|stem| (stem, path)));
    }
    Ok(places)
}

/// The corruptions that are present at the location of a format that takes `corruption=NAME`, by name.
pub(super) fn present(format: &str, path: &Path) -> Result<Vec<String>> {
    let root = match format {
        "cifar10c" => root(path, "CIFAR-10-C", "labels.npy"),
        "cifar100c" => root(path, "CIFAR-100-C", "labels.npy"),
        _ => folder_root(path),
    };
    let names: Vec<String> = places(&root)?.into_keys().collect();
    if names.is_empty() { Err(nothing_here(&root)) } else { Ok(names) }
}

fn nothing_here(root: &Path) -> Error {
    Error::format(root, "no corruptions here: expected `gaussian_noise.npy` … or `gaussian_noise/1` …")
}

/// `cifar10c:DIR`
pub(super) fn open_cifar10c(request: &Request) -> Result<Arc<dyn Dataset>> {
    open_arrays(request, "CIFAR-10-C", CIFAR10_CLASSES.map(str::to_owned).to_vec())
}

/// `cifar100c:DIR`
pub(super) fn open_cifar100c(request: &Request) -> Result<Arc<dyn Dataset>> {
    open_arrays(request, "CIFAR-100-C", numbered_classes(100))
}

fn open_arrays(request: &Request, folder: &str, classes: Vec<String>) -> Result<Arc<dyn Dataset>> {
    let root = root(request.path, folder, "labels.npy");
    let (corruption, path) = chosen_corruption(request, &root)?;
    if !path.is_file() {
        return Err(Error::format(&path, "expected a NumPy array, as in gaussian_noise.npy"));
    }
    let severities = severities(&root)?;
    let shape = npy::read_shape(&path)?;
    let count = severities.len();
    let per_severity = shape.first().filter(|&&total| total > 0 && total % count == 0).map(|n| n / count);
    let (&[total, height, width, channels], Some(per_severity)) = (&shape[..], per_severity) else {
        return Err(Error::format(
            &path,
            format!("expected an array of [{count}·n, height, width, channels], found {shape:?}"),
        ));
    };
    let severity = severity(request)?;
    let rows = match severity {
        Some(severity) => {
            let position = severities.iter().position(|held| *held == severity).ok_or_else(|| {
                Error::format(&path, format!("holds severities {severities:?} only, not {severity}"))
            })?;
            position * per_severity..(position + 1) * per_severity
        }
        None => 0..total,
    };
    let label_path = root.join("labels.npy");
    let labels = labels(&label_path, total, per_severity)?[rows.clone()].to_vec();
    check_labels(&label_path, &labels, classes.len())?;
    let npy::Data::Bytes(pixels) = npy::read_rows(&path, rows)?.data else {
        return Err(Error::format(&path, "expected pixels of type uint8"));
    };
    let name = describe(request, &corruption, severity);
    let shape = [height, width, channels];
    Ok(Arc::new(ArrayDataset::new(name, &path, Pixels::Bytes(pixels), shape, labels, classes)?))
}

/// The severities that arrays hold, in order: five, unless `corruptions.json` says otherwise.
fn severities(root: &Path) -> Result<Vec<usize>> {
    let path = root.join("corruptions.json");
    if !path.is_file() {
        return Ok((1..=SEVERITIES).collect());
    }
    #[derive(serde::Deserialize)]
    struct Held {
        severities: Vec<usize>,
    }
    let held: Held = serde_json::from_slice(&files::read(&path)?)
        .map_err(|e| Error::format(&path, format!("expected what `bandwise corrupt` writes: {e}")))?;
    if held.severities.is_empty() {
        Err(Error::format(&path, "names no severity"))
    } else {
        Ok(held.severities)
    }
}

/// The labels of all images; those of one severity are repeated.
fn labels(path: &Path, total: usize, per_severity: usize) -> Result<Vec<u32>> {
    let labels = npy::read(path)?.labels(path)?;
    match labels.len() {
        length if length == total => Ok(labels),
        length if length == per_severity => Ok(labels.repeat(total / per_severity)),
        length => Err(Error::format(
            path,
            format!("{length} labels fit neither {total} images nor {per_severity} per severity"),
        )),
    }
}

/// `imagenetc:DIR`, `tinyimagenetc:DIR`
pub(super) fn open_folders(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = folder_root(request.path);
    let (corruption, folder) = chosen_corruption(request, &root)?;
    let severity = severity(request)?;
    let name = describe(request, &corruption, severity);
    let severities = severity.map_or(1..=SEVERITIES, |severity| severity..=severity);
    let mut files = Vec::new();
    let mut class_names = Vec::new();
    for severity in severities {
        let part = FileDataset::scan(name.clone(), &folder.join(severity.to_string()))?;
        if class_names.is_empty() {
            class_names = part.class_names().to_vec();
        } else if class_names != part.class_names() {
            return Err(Error::format(&folder, "the severities do not have the same classes"));
        }
        files.extend(part.files().iter().cloned());
    }
    Ok(Arc::new(FileDataset::new(name, &folder, files, class_names)?))
}

/// `cifar10.1:DIR`
pub(super) fn open_cifar10_1(request: &Request) -> Result<Arc<dyn Dataset>> {
    let version = request.option("version").unwrap_or("v6");
    if !["v4", "v6"].contains(&version) {
        return Err(Error::config(format!("version={version}: expected v4 or v6")));
    }
    let data = format!("cifar10.1_{version}_data.npy");
    let root = root(request.path, "datasets", &data);
    let label_path = root.join(format!("cifar10.1_{version}_labels.npy"));
    let path = root.join(&data);
    if !path.is_file() {
        return Err(Error::format(request.path, format!("expected `{data}` here or in `datasets`")));
    }
    let (shape, pixels) = numpy::pixels(npy::read(&path)?, &path)?;
    let labels = npy::read(&label_path)?.labels(&label_path)?;
    let classes = CIFAR10_CLASSES.map(str::to_owned).to_vec();
    check_labels(&label_path, &labels, classes.len())?;
    Ok(Arc::new(ArrayDataset::new(format!("CIFAR-10.1 {version}"), &path, pixels, shape, labels, classes)?))
}

/// `path`, or `folder` in it if the landmark is there.
fn root(path: &Path, folder: &str, landmark: &str) -> PathBuf {
    let nested = path.join(folder);
    if nested.join(landmark).is_file() { nested } else { path.to_path_buf() }
}

fn folder_root(path: &Path) -> PathBuf {
    let nested = path.join("Tiny-ImageNet-C");
    if nested.is_dir() { nested } else { path.to_path_buf() }
}

fn chosen_corruption(request: &Request, root: &Path) -> Result<(String, PathBuf)> {
    let mut places = places(root)?;
    let Some(first) = places.keys().next() else { return Err(nothing_here(root)) };
    let names: Vec<&str> = places.keys().map(String::as_str).collect();
    match request.option("corruption") {
        Some(name) if places.contains_key(name) => {
            let place = places.remove(name).unwrap_or_default();
            Ok((name.to_owned(), place))
        }
        Some(name) => Err(unknown("corruption", name, &names)),
        None => Err(Error::config(format!(
            "{}: say which corruption, as in `,corruption={first},severity=3`, or evaluate with --corruption all; \
             present: {}",
            root.display(),
            names.join(", ")
        ))),
    }
}

fn severity(request: &Request) -> Result<Option<usize>> {
    let Some(text) = request.option("severity") else { return Ok(None) };
    let severity = text.parse().ok().filter(|severity| (1..=SEVERITIES).contains(severity));
    severity.map(Some).ok_or_else(|| Error::config(format!("severity={text}: expected 1, 2, 3, 4 or 5")))
}

fn describe(request: &Request, corruption: &str, severity: Option<usize>) -> String {
    let severity = severity.map_or("1-5".to_owned(), |severity| severity.to_string());
    format!("{} {corruption} {severity}", request.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSpec, Image, Split};

    fn open(spec: String) -> Result<Arc<dyn Dataset>> {
        spec.parse::<DataSpec>()?.open(Split::Test)
    }

    #[test]
    fn severities_are_slices_of_an_array() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("CIFAR-10-C");
        std::fs::create_dir(&root).unwrap();
        let pixels: Vec<u8> = (0..10 * 12).collect();
        std::fs::write(root.join("fog.npy"), npy::encode_bytes(&[10, 2, 2, 3], &pixels)).unwrap();
        std::fs::write(root.join("labels.npy"), npy::encode_bytes(&[2], &[4, 9])).unwrap();
        let spec = format!("cifar10c:{}", folder.path().display());
        let all = open(format!("{spec},corruption=fog")).unwrap();
        let third = open(format!("{spec},corruption=fog,severity=3")).unwrap();
        assert_eq!((all.len(), third.len(), third.name()), (10, 2, "cifar10c fog 3"));
        assert_eq!(all.get(5).unwrap(), third.get(1).unwrap());
        assert_eq!(third.get(1).unwrap().0.to_bytes()[0], 60);
        assert_eq!(third.label(1).unwrap(), 9);
        let message = |options: &str| open(format!("{spec}{options}")).unwrap_err().to_string();
        assert!(message("").contains("present: fog"));
        assert!(message(",corruption=fogg").contains("did you mean `fog`"));
        assert!(message(",corruption=fog,severity=6").contains("severity=6"));
        std::fs::write(root.join("labels.npy"), npy::encode_bytes(&[3], &[4, 9, 1])).unwrap();
        assert!(message(",corruption=fog").contains("3 labels"));
        std::fs::write(root.join("fog.npy"), &npy::encode_bytes(&[10, 2, 2, 3], &pixels)[..200]).unwrap();
        std::fs::write(root.join("labels.npy"), npy::encode_bytes(&[2], &[4, 9])).unwrap();
        assert!(message(",corruption=fog,severity=5").contains("cut off"));
    }

    #[test]
    fn folders_of_severities_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for severity in 1..=5 {
            let png = Image::from_bytes(2, 2, 3, &[severity; 12]).to_png().unwrap();
            let path = folder.path().join(format!("snow/{severity}/n01/a.png"));
            crate::files::write_atomic(&path, &png).unwrap();
        }
        let spec = format!("imagenetc:{},corruption=snow", folder.path().display());
        assert_eq!(open(spec.clone()).unwrap().len(), 5);
        let fourth = open(format!("{spec},severity=4")).unwrap();
        assert_eq!((fourth.len(), fourth.get(0).unwrap().0.to_bytes()[0]), (1, 4));
        let family = folder.path().join("weather");
        std::fs::create_dir(&family).unwrap();
        std::fs::rename(folder.path().join("snow"), family.join("snow")).unwrap();
        assert_eq!(open(spec).unwrap().len(), 5);
    }

    #[test]
    fn fewer_severities_are_known_from_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("fog.npy", &npy::encode_bytes(&[10, 1, 1, 3], &(0..30).collect::<Vec<u8>>()));
        write("labels.npy", &npy::encode_bytes(&[10], &[1; 10]));
        write("corruptions.json", br#"{"severities": [2, 4]}"#);
        let spec = format!("cifar10c:{},corruption=fog", folder.path().display());
        let fourth = open(format!("{spec},severity=4")).unwrap();
        assert_eq!((fourth.len(), fourth.get(0).unwrap().0.to_bytes()[0]), (5, 15));
        let message = open(format!("{spec},severity=3")).unwrap_err().to_string();
        assert!(message.contains("severities [2, 4] only"), "{message}");
        write("corruptions.json", b"{}");
        assert!(open(spec).unwrap_err().to_string().contains("corruptions.json"));
    }

    #[test]
    fn cifar10_1_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("cifar10.1_v4_data.npy", npy::encode_bytes(&[1, 2, 2, 3], &[7; 12]));
        write("cifar10.1_v4_labels.npy", npy::encode_integers(&[1], &[3]));
        let set = open(format!("cifar10.1:{},version=v4", folder.path().display())).unwrap();
        assert_eq!((set.len(), set.class_names()[set.label(0).unwrap() as usize].as_str()), (1, "cat"));
    }
}
