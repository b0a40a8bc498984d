//! Image files on disk, read one by one when they are asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::spec::Request;
use super::{Dataset, Image, Split, index_error};
use crate::{Error, Result, files};

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Folders inside folders are followed this deep.
const MAX_DEPTH: usize = 8;

/// Picture files with labels.
#[derive(Debug, Clone)]
pub struct FileDataset {
    name: String,
    files: Vec<(PathBuf, u32)>,
    class_names: Vec<String>,
    textures: Option<Vec<u32>>,
    fingerprint: String,
}

impl FileDataset {
    /// A data set of `files` (path, label) below `root`.
    ///
    /// # Errors
    /// If there are none, one is missing, or a label names no class.
    pub fn new(
        name: impl Into<String>,
        root: &Path,
        files: Vec<(PathBuf, u32)>,
        class_names: Vec<String>,
    ) -> Result<Self> {
        if files.is_empty() {
            return Err(Error::format(root, "there are no PNG or JPEG pictures in it"));
        }
        let mut hash = Sha256::new();
        for (path, label) in &files {
            if *label as usize >= class_names.len() {
                let count = class_names.len();
                return Err(Error::format(
                    path,
                    format!("label {label}, but there are only {count} classes"),
                ));
            }
            let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
            let relative = path.strip_prefix(root).unwrap_or(path);
            // One form of the path on all systems.
            for part in relative.iter() {
                hash.update(part.as_encoded_bytes());
                hash.update([0]);
            }
            hash.update(size.to_le_bytes());
            hash.update(label.to_le_bytes());
        }
        let fingerprint = files::hex(&hash.finalize());
        Ok(Self { name: name.into(), files, class_names, textures: None, fingerprint })
    }

    /// The pictures in the folders of `root`; a folder is a class, in the order of their names.
    pub fn scan(name: impl Into<String>, root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut class_names = Vec::new();
        for folder in subfolders(root)? {
            let pictures = pictures(&folder)?;
            // A folder without pictures is no class (`__pycache__`, `.git`).
            if !pictures.is_empty() {
                files.extend(pictures.into_iter().map(|path| (path, class_names.len() as u32)));
                class_names.push(file_name(&folder));
            }
        }
        if files.is_empty() {
            return Err(Error::format(
                root,
                "expected one folder per class with PNG or JPEG pictures in it, found none",
            ));
        }
        Self::new(name, root, files, class_names)
    }

    /// All files with their labels.
    pub fn files(&self) -> &[(PathBuf, u32)] {
        &self.files
    }

    /// The same pictures, with other names for the classes.
    pub(super) fn rename_classes(mut self, name: impl Fn(&str) -> String) -> Self {
        self.class_names.iter_mut().for_each(|class| *class = name(class));
        self
    }

    /// The same pictures, each with the class of its texture.
    pub(super) fn with_textures(mut self, textures: Vec<u32>) -> Self {
        self.textures = Some(textures);
        self
    }
}

impl Dataset for FileDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let label = self.label(index)?;
        Ok((Image::read(&self.files[index].0)?, label))
    }

    fn label(&self, index: usize) -> Result<u32> {
        let file = self.files.get(index).ok_or_else(|| index_error(&self.name, index, self.len()))?;
        Ok(file.1)
    }

    fn texture_label(&self, index: usize) -> Option<u32> {
        self.textures.as_ref()?.get(index).copied()
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        None
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// `imagefolder:DIR`
pub(super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = match (request.option("folder"), request.option("test_part")) {
        (Some(folder), _) => request.path.join(folder),
        (None, Some(folder)) if request.split == Split::Test => request.path.join(folder),
        (None, _) => split_folder(request.path, request.split)?,
    };
    Ok(Arc::new(FileDataset::scan(format!("imagefolder ({})", request.split), &root)?))
}

/// The folder of a split: `DIR/train`, `DIR/val` or `DIR/test`; `DIR` itself if it has none of them.
pub(super) fn split_folder(root: &Path, split: Split) -> Result<PathBuf> {
    const TRAIN: [&str; 1] = ["train"];
    const TEST: [&str; 4] = ["val", "test", "validation", "valid"];
    let present = |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
    let (own, other) = match split {
        Split::Train => (present(&TRAIN), present(&TEST)),
        Split::Test => (present(&TEST), present(&TRAIN)),
    };
    match (own, other) {
        (Some(folder), _) => Ok(folder),
        (None, None) => Ok(root.to_path_buf()),
        (None, Some(other)) => Err(Error::format(
            root,
            format!("there is `{}`, but no folder with {split} images beside it", file_name(&other)),
        )),
    }
}

/// The folders directly in `root`, by name.
pub(super) fn subfolders(root: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(root)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// All pictures below `folder`, by path.
pub(super) fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect_pictures(folder, MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn collect_pictures(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if EXTENSIONS.contains(&extension.as_str()) {
            found.push(path);
        } else if depth > 0 && path.is_dir() {
            collect_pictures(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// What lies in `folder`, sorted, without hidden files.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if !file_name(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The last part of a path, as text.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSpec;

    fn open_folder(spec: &str, split: Split) -> Result<Arc<dyn Dataset>> {
        spec.parse::<DataSpec>()?.open(split)
    }

    fn write_picture(path: PathBuf, height: usize, width: usize) {
        files::write_atomic(&path, &Image::filled(height, width, 3, 0.2).to_png().unwrap()).unwrap();
    }

    #[test]
    fn folders_are_classes() {
        let root = tempfile::tempdir().unwrap();
        write_picture(root.path().join("val/cat/deeper/b.png"), 4, 6);
        write_picture(root.path().join("val/cat/a.PNG"), 4, 6);
        write_picture(root.path().join("val/dog/c.png"), 8, 4);
        std::fs::create_dir(root.path().join("val/.hidden")).unwrap();
        let spec = format!("imagefolder:{}", root.path().display());
        let set = open_folder(&spec, Split::Test).unwrap();
        assert_eq!(set.class_names(), ["cat", "dog"]);
        assert_eq!((set.len(), set.label(2).unwrap(), set.image_shape()), (3, 1, None));
        let (image, _) = open_folder(&format!("{spec},size=3"), Split::Test).unwrap().get(2).unwrap();
        assert_eq!(image.shape(), [3, 3, 3]);
        assert_eq!(open_folder(&format!("{spec},folder=val"), Split::Train).unwrap().len(), 3);
        write_picture(root.path().join("valid/cat/d.png"), 4, 6);
        assert_eq!(open_folder(&format!("{spec},test_part=valid"), Split::Test).unwrap().len(), 1);
        assert_eq!(open_folder(&spec, Split::Test).unwrap().len(), 3);
        let message = open_folder(&spec, Split::Train).unwrap_err().to_string();
        assert!(message.contains("no folder with train images"), "{message}");
    }

    #[test]
    fn fingerprints_follow_names_and_sizes_not_places() {
        let fingerprint = |name: &str, width| {
            let root = tempfile::tempdir().unwrap();
            write_picture(root.path().join("a").join(name), 4, width);
            open_folder(&format!("imagefolder:{}", root.path().display()), Split::Test)
                .unwrap()
                .fingerprint()
                .to_owned()
        };
        assert_eq!(fingerprint("x.png", 4), fingerprint("x.png", 4));
        assert_ne!(fingerprint("x.png", 4), fingerprint("y.png", 4));
        assert_ne!(fingerprint("x.png", 4), fingerprint("x.png", 400));
    }

    #[test]
    fn empty_and_damaged_folders_are_explained() {
        let root = tempfile::tempdir().unwrap();
        let spec = format!("imagefolder:{}", root.path().display());
        assert!(open_folder(&spec, Split::Test).unwrap_err().to_string().contains("one folder per class"));
        std::fs::create_dir(root.path().join("a")).unwrap();
        std::fs::write(root.path().join("a/x.jpg"), b"<html>").unwrap();
        let set = open_folder(&spec, Split::Test).unwrap();
        assert!(set.get(0).unwrap_err().to_string().contains("x.jpg"));
        assert!(open_folder("imagefolder:/no/such/folder", Split::Test).is_err());
    }
}
