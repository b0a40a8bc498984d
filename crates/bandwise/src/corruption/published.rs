//! Published corrupted sets: CIFAR-10-C and its like as NumPy arrays, TinyImageNet-C and ImageNet-C as folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Corruption, Severity};
use crate::data::array::Pixels;
use crate::data::{ArrayDataset, Dataset, FileDataset, npy};
use crate::{Error, Result};

/// A corrupted set on disk.
///
/// Either `NAME.npy` and `labels.npy` (CIFAR-10-C, CIFAR-100-C, and what [`super::export`] writes), or
/// `NAME/SEVERITY/CLASS/picture` (TinyImageNet-C, ImageNet-C), also with a folder per family in between
/// (`noise/gaussian_noise/1/…`).
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedSet {
    name: String,
    entries: Vec<(Corruption, Place)>,
    labels: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
enum Place {
    Array(PathBuf),
    Folder(PathBuf),
}

impl PublishedSet {
    /// The set in `folder`.
    ///
    /// # Errors
    /// [`Error::Format`] if no corruption is found there.
    pub fn open(folder: &Path) -> Result<Self> {
        let entries: Vec<_> = Corruption::all().filter_map(|c| Some((c, find(folder, c)?))).collect();
        if entries.is_empty() {
            return Err(Error::format(
                folder,
                "no corrupted set here: expected files such as gaussian_noise.npy with labels.npy (CIFAR-10-C), or folders \
                 such as gaussian_noise/1/CLASS (TinyImageNet-C, ImageNet-C)",
            ));
        }
        let name =
            folder.file_name().map_or_else(|| "corrupted".into(), |n| n.to_string_lossy().into_owned());
        Ok(Self { name, entries, labels: folder.join("labels.npy") })
    }

    /// The corruptions that are there, in the published order.
    pub fn corruptions(&self) -> Vec<Corruption> {
        self.entries.iter().map(|(corruption, _)| *corruption).collect()
    }

    /// The images of one corruption at one severity. Arrays carry no class names, so they take `class_names`.
    ///
    /// # Errors
    /// [`Error::Config`] if the corruption is not there; [`Error::Format`] or [`Error::Io`] if its files are damaged.
    pub fn dataset(
        &self,
        corruption: Corruption,
        severity: Severity,
        class_names: Vec<String>,
    ) -> Result<Arc<dyn Dataset>> {
        let name = format!("{}, {corruption} {severity}", self.name);
        let place = self.entries.iter().find(|(c, _)| *c == corruption).map(|(_, place)| place);
        match place {
            None => Err(Error::config(format!("{} has no {corruption}", self.name))),
            Some(Place::Folder(folder)) => {
                Ok(Arc::new(FileDataset::scan(name, &folder.join(severity.to_string()))?))
            }
            Some(Place::Array(path)) => self.read_arrays(name, path, severity, class_names),
        }
    }

    fn read_arrays(
        &self,
        name: String,
        path: &Path,
        severity: Severity,
        class_names: Vec<String>,
    ) -> Result<Arc<dyn Dataset>> {
        let images = npy::read(path)?;
        let labels = npy::read(&self.labels)?.labels(&self.labels)?;
        let found = images.shape.clone();
        let (&[count, height, width, channels], npy::Data::Bytes(bytes)) = (found.as_slice(), images.data)
        else {
            return Err(Error::format(
                path,
                format!("expected uint8 [5 n, height, width, channels], found {found:?}"),
            ));
        };
        if count == 0 || count % 5 != 0 || labels.len() != count {
            return Err(Error::format(
                path,
                format!(
                    "expected five severities of the same images and one label for each, found {count} images and {} \
                     labels in {}",
                    labels.len(),
                    self.labels.display()
                ),
            ));
        }
        let (images, length) = (count / 5, height * width * channels);
        let first = severity.index() * images;
        let pixels = Pixels::Bytes(bytes[first * length..(first + images) * length].to_vec());
        let labels = labels[first..first + images].to_vec();
        let shape = [height, width, channels];
        Ok(Arc::new(ArrayDataset::new(name, path, pixels, shape, labels, class_names)?))
    }
}

fn find(folder: &Path, corruption: Corruption) -> Option<Place> {
    let name = corruption.name();
    let array = folder.join(format!("{name}.npy"));
    if array.is_file() {
        return Some(Place::Array(array));
    }
    [folder.join(name), folder.join(corruption.family()).join(name)]
        .into_iter()
        .find(|path| path.is_dir())
        .map(Place::Folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Image;
    use crate::data::array::numbered_classes;
    use crate::files;

    #[test]
    fn arrays_are_cut_by_severity() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..10 * 12).map(|i| i as u8).collect();
        let write = |name: &str, bytes: &[u8]| files::write_atomic(&folder.path().join(name), bytes).unwrap();
        write("fog.npy", &npy::encode_bytes(&[10, 2, 2, 3], &bytes));
        write("labels.npy", &npy::encode_bytes(&[10], &[0, 1].repeat(5)));
        let set = PublishedSet::open(folder.path()).unwrap();
        assert_eq!(set.corruptions(), [Corruption::Fog]);
        let third = set.dataset(Corruption::Fog, Severity::new(3).unwrap(), numbered_classes(2)).unwrap();
        assert_eq!(third.len(), 2);
        assert_eq!(third.get(1).unwrap(), (Image::from_bytes(2, 2, 3, &bytes[60..72]), 1));
        assert!(set.dataset(Corruption::Snow, Severity::new(1).unwrap(), numbered_classes(2)).is_err());
        write("labels.npy", &npy::encode_bytes(&[9], &[0; 9]));
        let error = set.dataset(Corruption::Fog, Severity::new(1).unwrap(), numbered_classes(2)).unwrap_err();
        assert!(error.to_string().contains("9 labels"), "{error}");
    }

    #[test]
    fn folders_are_found_with_and_without_families() {
        let folder = tempfile::tempdir().unwrap();
        let png = Image::filled(4, 4, 3, 0.5).to_png().unwrap();
        for path in
            ["noise/gaussian_noise/2/cat/a.png", "noise/gaussian_noise/2/dog/b.png", "fog/2/cat/a.png"]
        {
            files::write_atomic(&folder.path().join(path), &png).unwrap();
        }
        let set = PublishedSet::open(folder.path()).unwrap();
        assert_eq!(set.corruptions(), [Corruption::GaussianNoise, Corruption::Fog]);
        let noise = set.dataset(Corruption::GaussianNoise, Severity::new(2).unwrap(), vec![]).unwrap();
        assert_eq!((noise.len(), noise.class_names()), (2, &["cat".to_owned(), "dog".to_owned()][..]));
        assert!(PublishedSet::open(&folder.path().join("fog")).is_err());
    }
}
