//! Image files on disk, read one by one when they are asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::spec::Request;
use super::{Dataset, Image, Split, index_error};
use crate::{Error, Result, files};

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Folders inside folders are followed this deep.
const MAX_DEPTH: usize = 8;

/// Image files with labels.
#[derive(Debug, Clone)]
pub struct FileDataset {
    name: String,
    root: PathBuf,
    files: Vec<(PathBuf, u32)>,
    class_names: Vec<String>,
    textures: Option<Vec<u32>>,
    fingerprint: OnceLock<String>,
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
            return Err(Error::format(root, "there are no PNG or JPEG images in it"));
        }
        for (path, label) in &files {
            if *label as usize >= class_names.len() {
                let count = class_names.len();
                return Err(Error::format(
                    path,
                    format!("label {label}, but there are only {count} classes"),
                ));
            }
            std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        }
        let (name, root) = (name.into(), root.to_path_buf());
        Ok(Self { name, root, files, class_names, textures: None, fingerprint: OnceLock::new() })
    }

    /// The images in the folders of `root`; a folder is a class, in the order of their names.
    pub fn scan(name: impl Into<String>, root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut class_names = Vec::new();
        for folder in subfolders(root)? {
            let image_files = image_files(&folder)?;
            // A folder without images is no class (`__pycache__`, `.git`).
            if !image_files.is_empty() {
                files.extend(image_files.into_iter().map(|path| (path, class_names.len() as u32)));
                class_names.push(file_name(&folder));
            }
        }
        if files.is_empty() {
            return Err(Error::format(
                root,
                "expected one folder per class with PNG or JPEG images in it, found none",
            ));
        }
        Self::new(name, root, files, class_names)
    }

    /// SHA-256 over names, labels and content of all files, which are read in parallel.
    fn content_hash(&self) -> String {
        // A file that cannot be read has no content to agree with: reading its image is the error.
        let digest = |(path, _): &(PathBuf, u32)| {
            files::read(path).map_or_else(|error| error.to_string(), |bytes| files::sha256(&bytes))
        };
        let digests: Vec<String> = self.files.par_iter().map(digest).collect();
        let mut hash = Sha256::new();
        for ((path, label), digest) in self.files.iter().zip(&digests) {
            let relative = path.strip_prefix(&self.root).unwrap_or(path);
            // One form of the path on all systems.
            for part in relative.iter() {
                hash.update(part.as_encoded_bytes());
                hash.update([0]);
            }
            hash.update(digest);
            hash.update(label.to_le_bytes());
        }
        files::hex(&hash.finalize())
    }

    /// All files with their labels.
    pub fn files(&self) -> &[(PathBuf, u32)] {
        &self.files
    }

    /// The same images, with other names for the classes.
    pub(super) fn rename_classes(mut self, name: impl Fn(&str) -> String) -> Self {
        self.class_names.iter_mut().for_each(|class| *class = name(class));
        self
    }

    /// The same images, each with the class of its texture.
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
        self.fingerprint.get_or_init(|| self.content_hash())
    }
}

/// `imagefolder:DIR`
pub(super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = match (request.option("folder"), request.option("test_part")) {
        (Some(folder), _) => request.path.join(folder),
        (None, Some(folder)) if request.split == Split::Test => request.path.join(folder),
        (None, _) => split_folder(request.path, request.split)?,
    };
    let set = FileDataset::scan(format!("imagefolder ({})", request.split), &root)?;
    if request.split == Split::Test && request.option("folder").is_none() {
        check_against_training(request, &root, set.class_names())?;
    }
    Ok(Arc::new(set))
}

/// Refuses test classes that are not those of the training images: labels would mean other classes.
fn check_against_training(request: &Request, root: &Path, classes: &[String]) -> Result<()> {
    let training = split_folder(request.path, Split::Train).unwrap_or_else(|_| root.to_path_buf());
    if training == *root {
        return Ok(());
    }
    let theirs = class_folders(&training)?;
    if classes == theirs {
        return Ok(());
    }
    if root.join("val_annotations.txt").is_file() {
        return Err(Error::format(
            request.path,
            format!(
                "this is TinyImageNet as it is published, whose validation images lie in one folder; name it \
                 tinyimagenet:{}",
                request.path.display()
            ),
        ));
    }
    let only = |ours: &[String], theirs: &[String]| ours.iter().find(|name| !theirs.contains(name)).cloned();
    let difference = match (only(classes, &theirs), only(&theirs, classes)) {
        (Some(name), _) => format!("`{name}` is a class of the test images only"),
        (None, Some(name)) => format!("`{name}` is a class of the training images only"),
        (None, None) => "they have another order".into(),
    };
    Err(Error::format(
        root,
        format!(
            "its {} classes are not the {} of `{}`: {difference}; the option folder={} reads this folder alone",
            classes.len(),
            theirs.len(),
            file_name(&training),
            file_name(root)
        ),
    ))
}

/// The folders in `root` that hold images, by name.
fn class_folders(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in subfolders(root)? {
        if holds_image(&folder, MAX_DEPTH)? {
            names.push(file_name(&folder));
        }
    }
    Ok(names)
}

/// Whether there is an image below `folder`; looks no further than the first.
fn holds_image(folder: &Path, depth: usize) -> Result<bool> {
    let entries = entries(folder)?;
    if entries.iter().any(|path| is_image(path)) {
        return Ok(true);
    }
    for path in entries.iter().filter(|path| depth > 0 && path.is_dir()) {
        if holds_image(path, depth - 1)? {
            return Ok(true);
        }
    }
    Ok(false)
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

/// All images below `folder`, by path.
pub(super) fn image_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect_images(folder, MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn collect_images(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        if is_image(&path) {
            found.push(path);
        } else if depth > 0 && path.is_dir() {
            collect_images(&path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Whether a name is that of an image.
fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    EXTENSIONS.contains(&extension.as_str())
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

    fn write_image(path: PathBuf, height: usize, width: usize) {
        files::write_atomic(&path, &Image::filled(height, width, 3, 0.2).to_png().unwrap()).unwrap();
    }

    #[test]
    fn folders_are_classes() {
        let root = tempfile::tempdir().unwrap();
        write_image(root.path().join("val/cat/deeper/b.png"), 4, 6);
        write_image(root.path().join("val/cat/a.PNG"), 4, 6);
        write_image(root.path().join("val/dog/c.png"), 8, 4);
        std::fs::create_dir(root.path().join("val/.hidden")).unwrap();
        let spec = format!("imagefolder:{}", root.path().display());
        let set = open_folder(&spec, Split::Test).unwrap();
        assert_eq!(set.class_names(), ["cat", "dog"]);
        assert_eq!((set.len(), set.label(2).unwrap(), set.image_shape()), (3, 1, None));
        let (image, _) = open_folder(&format!("{spec},size=3"), Split::Test).unwrap().get(2).unwrap();
        assert_eq!(image.shape(), [3, 3, 3]);
        assert_eq!(open_folder(&format!("{spec},folder=val"), Split::Train).unwrap().len(), 3);
        write_image(root.path().join("valid/cat/d.png"), 4, 6);
        assert_eq!(open_folder(&format!("{spec},test_part=valid"), Split::Test).unwrap().len(), 1);
        assert_eq!(open_folder(&spec, Split::Test).unwrap().len(), 3);
        let message = open_folder(&spec, Split::Train).unwrap_err().to_string();
        assert!(message.contains("no folder with train images"), "{message}");
    }

    #[test]
    fn images_of_equal_size_that_change_places_are_other_data() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, brightness: u8| {
            // Stored, not packed: every file has the same number of bytes.
            let png = Image::from_bytes(1, 1, 3, &[brightness; 3]).to_png().unwrap();
            files::write_atomic(&root.path().join(name), &png).unwrap();
            png.len()
        };
        let spec = format!("imagefolder:{}", root.path().display());
        let fingerprint = |spec: &str| open_folder(spec, Split::Test).unwrap().fingerprint().to_owned();
        assert_eq!(write("a/x.png", 1), write("b/x.png", 2));
        let (before, cut) = (fingerprint(&spec), fingerprint(&format!("{spec},limit=1")));
        write("a/x.png", 2);
        write("b/x.png", 1);
        assert_ne!(fingerprint(&spec), before);
        assert_ne!(fingerprint(&format!("{spec},limit=1")), cut);
        assert_ne!(fingerprint(&format!("{spec},size=4")), fingerprint(&spec));
    }

    #[test]
    fn test_classes_must_be_those_of_training() {
        let root = tempfile::tempdir().unwrap();
        for name in ["train/cat/a.png", "train/dog/a.png", "val/cat/a.png"] {
            write_image(root.path().join(name), 4, 4);
        }
        let spec = format!("imagefolder:{}", root.path().display());
        let message = |spec: &str| open_folder(spec, Split::Test).unwrap_err().to_string();
        assert!(
            message(&spec).contains("`dog` is a class of the training images only"),
            "{}",
            message(&spec)
        );
        assert_eq!(open_folder(&format!("{spec},folder=val"), Split::Test).unwrap().len(), 1);
        write_image(root.path().join("val/dog/deeper/b.png"), 4, 4);
        assert_eq!(open_folder(&spec, Split::Test).unwrap().len(), 2);
        write_image(root.path().join("val/owl/b.png"), 4, 4);
        assert!(message(&spec).contains("`owl` is a class of the test images only"), "{}", message(&spec));
        assert!(open_folder(&spec, Split::Train).is_ok());

        std::fs::remove_dir_all(root.path().join("val")).unwrap();
        write_image(root.path().join("val/images/val_0.png"), 4, 4);
        std::fs::write(root.path().join("val/val_annotations.txt"), "val_0.png\tcat\n").unwrap();
        assert!(message(&spec).contains("name it tinyimagenet:"), "{}", message(&spec));
    }

    #[test]
    fn fingerprints_follow_names_and_content_not_places() {
        let fingerprint = |name: &str, width| {
            let root = tempfile::tempdir().unwrap();
            write_image(root.path().join("a").join(name), 4, width);
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
