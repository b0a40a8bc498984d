//! Describable Textures: `images/banded/banded_0002.jpg`, `labels/train1.txt`, `test1.txt`, ….
//!
//! Ten partitions are published; `partition=N` chooses one (default 1). With `part=trainval`, the
//! validation images are trained on too; with `test_part=val`, they are tested.

use std::sync::Arc;

use super::super::folder::{file_name, subfolders};
use super::super::spec::Request;
use super::super::{Dataset, FileDataset, Split};
use super::{bad_line, below, lines, locate, partition, tests_validation};
use crate::{Error, Result};

/// `dtd:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = locate(request.path, "dtd", "labels")?;
    let images = root.join("images");
    let partition = partition(request)?;
    let parts: &[&str] = match (request.split, request.option("part")) {
        (Split::Train, None | Some("train")) => &["train"],
        (Split::Train, Some("trainval")) => &["train", "val"],
        (Split::Test, None | Some("train" | "trainval")) if tests_validation(request)? => &["val"],
        (Split::Test, None | Some("train" | "trainval")) => &["test"],
        (_, Some(part)) => return Err(Error::config(format!("part={part}: expected `train` or `trainval`"))),
    };
    let classes: Vec<String> = subfolders(&images)?.iter().map(|folder| file_name(folder)).collect();
    let mut files = Vec::new();
    for part in parts {
        let list = root.join(format!("labels/{part}{partition}.txt"));
        for (number, line) in lines(&list)? {
            let class = line.split('/').next().and_then(|name| classes.iter().position(|c| c == name));
            let (Some(file), Some(class)) = (below(&images, &line), class) else {
                return Err(bad_line(&list, number, "`class/image.jpg` with a class that has a folder"));
            };
            files.push((file, class as u32));
        }
    }
    Ok(Arc::new(FileDataset::new(format!("dtd ({})", request.split), &root, files, classes)?))
}
