//! Imagenette: an image folder (`train`, `val`) whose folders are WordNet numbers, given their names.

use std::sync::Arc;

use super::super::folder::split_folder;
use super::super::spec::Request;
use super::super::{Dataset, FileDataset};
use crate::Result;

const NAMES: [(&str, &str); 10] = [
    ("n01440764", "tench"),
    ("n02102040", "English springer"),
    ("n02979186", "cassette player"),
    ("n03000684", "chain saw"),
    ("n03028079", "church"),
    ("n03394916", "French horn"),
    ("n03417042", "garbage truck"),
    ("n03425413", "gas pump"),
    ("n03445777", "golf ball"),
    ("n03888257", "parachute"),
];

/// `imagenette:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let folders = ["", "imagenette2-160", "imagenette2-320", "imagenette2"];
    let root = folders.iter().map(|name| request.path.join(name)).find(|root| root.join("val").is_dir());
    let root = split_folder(&root.unwrap_or_else(|| request.path.to_path_buf()), request.split)?;
    let set = FileDataset::scan(format!("imagenette ({})", request.split), &root)?;
    Ok(Arc::new(set.rename_classes(|number| {
        let found = NAMES.iter().find(|(wordnet, _)| *wordnet == number);
        found.map_or_else(|| number.to_owned(), |(_, name)| (*name).to_owned())
    })))
}
