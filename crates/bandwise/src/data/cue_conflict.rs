//! Images with the shape of one class and the texture of another (Geirhos et al. 2019).
//!
//! Files are named `SHAPE-TEXTURE.png` with optional numbers, as in `cat7-bicycle2.png`, in folders
//! named after the shape or all in one. Labels are the shapes' classes, texture labels the textures'.
//! Images whose shape and texture are of one class show no conflict and are left out, as in the
//! definition of the shape bias.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::folder::{file_name, image_files};
use super::spec::Request;
use super::{Dataset, FileDataset};
use crate::{Error, Result};

/// `cueconflict:DIR`
pub(super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let mut conflicts = Vec::new();
    let mut classes = BTreeSet::new();
    for path in image_files(request.path)? {
        let name = file_name(&path);
        let (shape, texture) = cues(&name).ok_or_else(|| {
            Error::format(&path, "expected a name of the form `shape-texture.png`, as in `cat7-bicycle2.png`")
        })?;
        classes.extend([shape.to_owned(), texture.to_owned()]);
        if shape != texture {
            conflicts.push((path.clone(), shape.to_owned(), texture.to_owned()));
        }
    }
    let classes: Vec<String> = classes.into_iter().collect();
    let class_of = |name: &String| classes.binary_search(name).unwrap_or_default() as u32;
    let textures = conflicts.iter().map(|(_, _, texture)| class_of(texture)).collect();
    let files = conflicts.iter().map(|(path, shape, _)| (path.clone(), class_of(shape))).collect();
    let set = FileDataset::new("cue conflict", request.path, files, classes)?;
    Ok(Arc::new(set.with_textures(textures)))
}

/// Shape and texture out of a file's name.
fn cues(file: &str) -> Option<(&str, &str)> {
    let (shape, texture) = file.rsplit_once('.')?.0.split_once('-')?;
    let plain = |word: &'_ str| word.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_').len();
    let (shape, texture) = (&shape[..plain(shape)], &texture[..plain(texture)]);
    (!shape.is_empty() && !texture.is_empty()).then_some((shape, texture))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSpec, Image, Split};

    #[test]
    fn names_tell_shape_and_texture() {
        assert_eq!(cues("cat7-bicycle2.png"), Some(("cat", "bicycle")));
        assert_eq!(cues("cat.png"), None);
        let folder = tempfile::tempdir().unwrap();
        for name in ["cat/cat1-dog2.png", "cat/cat1-cat3.png", "dog/dog1-elephant1.png"] {
            let png = Image::filled(2, 2, 3, 0.5).to_png().unwrap();
            crate::files::write_atomic(&folder.path().join(name), &png).unwrap();
        }
        let spec = format!("cueconflict:{}", folder.path().display()).parse::<DataSpec>().unwrap();
        let set = spec.open(Split::Test).unwrap();
        assert_eq!((set.len(), set.class_names().join(" ")), (2, "cat dog elephant".to_owned()));
        assert_eq!((set.label(1).unwrap(), set.texture_label(1)), (1, Some(2)));
    }
}
