//! Grocery Store (Klasson et al. 2019): `train.txt`, `val.txt`, `test.txt`, `classes.csv`.
//!
//! A line is `train/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg, 0, 0`: image, fine class
//! (81), coarse class (43). The fine classes are used unless `labels=coarse` is given. With `test_part=val`, the
//! validation images are tested.

use std::path::Path;
use std::sync::Arc;

use super::super::spec::Request;
use super::super::{Dataset, FileDataset, Split};
use super::{bad_line, below, lines, locate, tests_validation};
use crate::{Error, Result};

/// `grocery:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    // The repository keeps its images in `dataset`.
    let root = locate(request.path, "dataset", "classes.csv")
        .or_else(|_| locate(request.path, "GroceryStoreDataset/dataset", "classes.csv"))
        .or_else(|_| locate(request.path, "GroceryStoreDataset-master/dataset", "classes.csv"))?;
    let coarse = match request.option("labels") {
        None | Some("fine") => false,
        Some("coarse") => true,
        Some(other) => return Err(Error::config(format!("labels={other}: expected `fine` or `coarse`"))),
    };
    let classes = class_names(&root.join("classes.csv"), coarse)?;
    let list = root.join(match request.split {
        Split::Train => "train.txt",
        Split::Test if tests_validation(request)? => "val.txt",
        Split::Test => "test.txt",
    });
    let mut files = Vec::new();
    for (number, line) in lines(&list)? {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let label = fields.get(if coarse { 2 } else { 1 }).and_then(|field| field.parse::<u32>().ok());
        let (Some(file), Some(label)) = (below(&root, fields[0]), label) else {
            return Err(bad_line(&list, number, "`image, fine class, coarse class`"));
        };
        files.push((file, label));
    }
    Ok(Arc::new(FileDataset::new(format!("grocery ({})", request.split), &root, files, classes)?))
}

/// Columns: fine name, fine class, coarse name, coarse class, ….
fn class_names(path: &Path, coarse: bool) -> Result<Vec<String>> {
    let (name_column, class_column) = if coarse { (2, 3) } else { (0, 1) };
    let mut names = Vec::new();
    for (number, line) in lines(path)?.into_iter().skip(1) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let class = fields.get(class_column).and_then(|field| field.parse::<usize>().ok());
        let class = class.filter(|&class| class < 10_000);
        let class =
            class.ok_or_else(|| bad_line(path, number, "`name, class, coarse name, coarse class, …`"))?;
        if names.len() <= class {
            names.resize(class + 1, String::new());
        }
        names[class] = fields[name_column].to_owned();
    }
    Ok(names)
}
