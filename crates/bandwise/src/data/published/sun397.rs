//! SUN397: `ClassName.txt` (`/a/abbey`), images in `a/abbey/sun_….jpg`, and the published
//! partitions `Training_01.txt`, `Testing_01.txt`, … (50 images per class each); `partition=N`
//! chooses one (default 1). `holdout=0.15` uses all images instead: that share of them, always the same random one,
//! is tested, the others are trained on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::seq::SliceRandom;

use super::super::folder::image_files;
use super::super::spec::Request;
use super::super::{Dataset, FileDataset, Split};
use super::{bad_line, below, lines, locate, partition};
use crate::{Error, Result, random};

/// `sun397:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = locate(request.path, "SUN397", "ClassName.txt")?;
    let names: Vec<String> = lines(&root.join("ClassName.txt"))?.into_iter().map(|(_, line)| line).collect();
    let files = match request.option("holdout") {
        Some(share) => held_out(&root, &names, share, request.split)?,
        None => listed(request, &root, &names)?,
    };
    // `/a/abbey` without the letter it is filed under.
    let classes = names.iter().map(|name| name.splitn(3, '/').last().unwrap_or(name).to_owned()).collect();
    Ok(Arc::new(FileDataset::new(format!("sun397 ({})", request.split), &root, files, classes)?))
}

/// The images of a published partition.
fn listed(request: &Request, root: &Path, names: &[String]) -> Result<Vec<(PathBuf, u32)>> {
    let part = match request.split {
        Split::Train => "Training",
        Split::Test => "Testing",
    };
    let list_name = format!("{part}_{:02}.txt", partition(request)?);
    let places =
        [root.join(&list_name), root.join("Partitions").join(&list_name), request.path.join(&list_name)];
    let list = places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::format(root, format!("expected the list `{list_name}` (from Partitions.zip) here"))
    })?;
    let class_of: HashMap<&str, u32> =
        names.iter().zip(0..).map(|(name, class)| (name.as_str(), class)).collect();
    let mut files = Vec::new();
    for (number, line) in lines(&list)? {
        let class = line.rsplit_once('/').and_then(|(folder, _)| class_of.get(folder));
        let (Some(file), Some(&class)) = (below(root, &line), class) else {
            return Err(bad_line(&list, number, "`/a/abbey/sun_….jpg` with a class of ClassName.txt"));
        };
        files.push((file, class));
    }
    Ok(files)
}

/// All images but (training) or only (test) a random share of them.
fn held_out(root: &Path, names: &[String], share: &str, split: Split) -> Result<Vec<(PathBuf, u32)>> {
    let number = share.parse().ok().filter(|share| (0.0..1.0).contains(share) && *share > 0.0);
    let share: f64 =
        number.ok_or_else(|| Error::config(format!("holdout={share}: expected a share between 0 and 1")))?;
    let mut files = Vec::new();
    for (name, class) in names.iter().zip(0..) {
        let folder = below(root, name).ok_or_else(|| {
            Error::format(root, format!("`{name}` of ClassName.txt leads out of the folder"))
        })?;
        files.extend(image_files(&folder)?.into_iter().map(|file| (file, class)));
    }
    files.shuffle(&mut random::stream(0, &[random::tag("sun397 holdout")]));
    let tested = (files.len() as f64 * share) as usize;
    let mut files = match split {
        Split::Test => files[..tested].to_vec(),
        Split::Train => files[tested..].to_vec(),
    };
    files.sort();
    Ok(files)
}
