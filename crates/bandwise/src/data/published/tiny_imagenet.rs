//! TinyImageNet (`tiny-imagenet-200`): `train/n…/images/*.JPEG`; the validation images lie in one
//! folder, `val/images`, with their classes in `val/val_annotations.txt`. They serve as test images,
//! since no labels are published for `test`. Classes are in the order of their WordNet numbers,
//! as torchvision's `ImageFolder` has them.

use std::path::Path;
use std::sync::Arc;

use super::super::folder::{file_name, subfolders};
use super::super::spec::Request;
use super::super::{Dataset, FileDataset, Split};
use super::{bad_line, below, lines, locate};
use crate::Result;

/// `tinyimagenet:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = locate(request.path, "tiny-imagenet-200", "val")?;
    let name = format!("tinyimagenet ({})", request.split);
    let annotations = root.join("val/val_annotations.txt");
    // Many keep a copy whose validation images are sorted into folders.
    let sorted = !root.join("val/images").is_dir();
    let set = match request.split {
        Split::Train => FileDataset::scan(name, &root.join("train"))?,
        Split::Test if sorted => FileDataset::scan(name, &root.join("val"))?,
        Split::Test => annotated(name, &root, &annotations)?,
    };
    let words = word_names(&root.join("words.txt"))?;
    Ok(Arc::new(set.rename_classes(|number| words.get(number).cloned().unwrap_or_else(|| number.to_owned()))))
}

/// Lines: `val_0.JPEG n03444034 0 32 44 62`, the image, its class and a box.
fn annotated(name: String, root: &Path, annotations: &Path) -> Result<FileDataset> {
    let classes = class_numbers(root, annotations)?;
    let mut files = Vec::new();
    for (number, line) in lines(annotations)? {
        let mut words = line.split_whitespace();
        let file = words.next().and_then(|file| below(&root.join("val/images"), file));
        let class = words.next().and_then(|class| classes.binary_search_by(|c| c.as_str().cmp(class)).ok());
        let (Some(file), Some(class)) = (file, class) else {
            return Err(bad_line(annotations, number, "an image and the WordNet number of a known class"));
        };
        files.push((file, class as u32));
    }
    FileDataset::new(name, root, files, classes)
}

/// The classes, sorted: those of the training folder, else those that the annotations mention.
fn class_numbers(root: &Path, annotations: &Path) -> Result<Vec<String>> {
    let mut classes: Vec<String> = match subfolders(&root.join("train")) {
        Ok(folders) => folders.iter().map(|folder| file_name(folder)).collect(),
        Err(_) => {
            let class = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
            lines(annotations)?.iter().filter_map(|(_, line)| class(line)).collect()
        }
    };
    classes.sort();
    classes.dedup();
    Ok(classes)
}

/// `n02124075 Egyptian cat`: the first name of each number; none without the file.
fn word_names(path: &Path) -> Result<std::collections::HashMap<String, String>> {
    if !path.is_file() {
        return Ok(Default::default());
    }
    let names = lines(path)?.into_iter().filter_map(|(_, line)| {
        let (number, names) = line.split_once('\t')?;
        Some((number.to_owned(), names.split(',').next()?.trim().to_owned()))
    });
    Ok(names.collect())
}
