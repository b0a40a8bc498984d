//! Oxford-IIIT Pet: `images/NAME.jpg`, `annotations/trainval.txt`, `annotations/test.txt`.
//!
//! A line is `Abyssinian_100 1 1 1`: file name, breed (1 to 37), cat or dog, breed within those.

use std::sync::Arc;

use super::super::spec::Request;
use super::super::{Dataset, FileDataset, Split};
use super::{bad_line, below, lines, locate};
use crate::Result;

const CLASSES: usize = 37;

/// `pets:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = locate(request.path, "oxford-iiit-pet", "annotations")?;
    let list = root.join("annotations").join(match request.split {
        Split::Train => "trainval.txt",
        Split::Test => "test.txt",
    });
    let mut classes: Vec<String> = (1..=CLASSES).map(|class| format!("breed {class}")).collect();
    let mut files = Vec::new();
    for (number, line) in lines(&list)? {
        let mut words = line.split_whitespace();
        let (name, class) = (words.next(), words.next().and_then(|word| word.parse::<usize>().ok()));
        let file = name.and_then(|name| below(&root.join("images"), &format!("{name}.jpg")));
        let (Some(name), Some(file), Some(class @ 1..=CLASSES)) = (name, file, class) else {
            return Err(bad_line(&list, number, "`NAME CLASS SPECIES BREED` with a class from 1 to 37"));
        };
        if let Some((breed, _)) = name.rsplit_once('_') {
            classes[class - 1] = breed.replace('_', " ");
        }
        files.push((file, class as u32 - 1));
    }
    Ok(Arc::new(FileDataset::new(format!("pets ({})", request.split), &root, files, classes)?))
}
