//! Oxford Flowers-102: `jpg/image_00001.jpg`…, `imagelabels.mat`, `setid.mat`.
//!
//! The published training part has 10 images per class (`trnid`), the test part 6149 (`tstid`). With
//! `part=trainval`, the validation images (`valid`) are trained on too; with `test_part=val`, they are tested.

use std::sync::Arc;

use super::super::spec::Request;
use super::super::{Dataset, FileDataset, Split};
use super::{locate, tests_validation};
use crate::formats::mat;
use crate::{Error, Result};

const CLASSES: usize = 102;

/// `flowers102:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = locate(request.path, "flowers-102", "setid.mat")?;
    let label_path = root.join("imagelabels.mat");
    let labels = mat::find(&mat::read(&label_path)?, "labels", &label_path)?.values.to_indices();
    let labels = labels.ok_or_else(|| Error::format(&label_path, "labels must be whole numbers"))?;
    let split_path = root.join("setid.mat");
    let splits = mat::read(&split_path)?;
    let parts: &[&str] = match (request.split, request.option("part")) {
        (Split::Train, None | Some("train")) => &["trnid"],
        (Split::Train, Some("trainval")) => &["trnid", "valid"],
        (Split::Test, None | Some("train" | "trainval")) if tests_validation(request)? => &["valid"],
        (Split::Test, None | Some("train" | "trainval")) => &["tstid"],
        (_, Some(part)) => {
            return Err(Error::config(format!("part={part}: expected `train` or `trainval`")));
        }
    };
    let mut files = Vec::new();
    for part in parts {
        let numbers = mat::find(&splits, part, &split_path)?.values.to_indices().unwrap_or_default();
        for number in numbers {
            let label = number.checked_sub(1).and_then(|index| labels.get(index)).copied();
            let label = label.filter(|label| (1..=CLASSES).contains(label)).ok_or_else(|| {
                Error::format(&label_path, format!("image {number} has no label from 1 to {CLASSES}"))
            })?;
            files.push((root.join(format!("jpg/image_{number:05}.jpg")), label as u32 - 1));
        }
    }
    let classes = (1..=CLASSES).map(|class| format!("flower {class}")).collect();
    Ok(Arc::new(FileDataset::new(format!("flowers102 ({})", request.split), &root, files, classes)?))
}
