//! SUN397: `ClassName.txt` (`/a/abbey`), pictures in `a/abbey/sun_….jpg`, and the published
//! partitions `Training_01.txt`, `Testing_01.txt`, … (50 images per class each); `partition=N`
//! chooses one (default 1).

use std::collections::HashMap;
use std::sync::Arc;

use super::super::spec::Request;
use super::super::{Dataset, FileDataset, Split};
use super::{bad_line, below, lines, locate, partition};
use crate::{Error, Result};

/// `sun397:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let root = locate(request.path, "SUN397", "ClassName.txt")?;
    let part = match request.split {
        Split::Train => "Training",
        Split::Test => "Testing",
    };
    let list_name = format!("{part}_{:02}.txt", partition(request)?);
    let places =
        [root.join(&list_name), root.join("Partitions").join(&list_name), request.path.join(&list_name)];
    let list = places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::format(&root, format!("expected the list `{list_name}` (from Partitions.zip) here"))
    })?;
    let names: Vec<String> = lines(&root.join("ClassName.txt"))?.into_iter().map(|(_, line)| line).collect();
    let class_of: HashMap<&str, u32> =
        names.iter().zip(0..).map(|(name, class)| (name.as_str(), class)).collect();
    let mut files = Vec::new();
    for (number, line) in lines(&list)? {
        let class = line.rsplit_once('/').and_then(|(folder, _)| class_of.get(folder));
        let (Some(file), Some(&class)) = (below(&root, &line), class) else {
            return Err(bad_line(&list, number, "`/a/abbey/sun_….jpg` with a class of ClassName.txt"));
        };
        files.push((file, class));
    }
    // `/a/abbey` without the letter it is filed under.
    let classes = names.iter().map(|name| name.splitn(3, '/').last().unwrap_or(name).to_owned()).collect();
    Ok(Arc::new(FileDataset::new(format!("sun397 ({})", request.split), &root, files, classes)?))
}
