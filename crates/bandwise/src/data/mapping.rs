//! Another set's images under other classes: for sets with some of a model's classes, or coarser ones.
//!
//! `classes=a|b|c` keeps the images of these classes, which become 0, 1, 2. `map=FILE` reads a text
//! file with a line `own class, model class` for each class to keep, by name or number; several may
//! become one. Where all model classes are numbers they are the labels themselves, so that a set of
//! 200 ImageNet classes can be given to a network with 1000; names are numbered in the order in which
//! they first appear.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::array::numbered_classes;
use super::spec::unknown;
use super::{Dataset, Image, index_error};
use crate::{Error, Result, files, suggest};

/// A data set seen through a class mapping.
#[derive(Clone)]
pub struct Remapped {
    inner: Arc<dyn Dataset>,
    /// Index in the inner set.
    indices: Vec<usize>,
    /// New class of each old one.
    classes: HashMap<u32, u32>,
    class_names: Vec<String>,
    fingerprint: OnceLock<String>,
}

impl Remapped {
    /// Keeps the images of the listed classes (names or numbers), in the listed order.
    pub fn keep(inner: Arc<dyn Dataset>, classes: &str) -> Result<Self> {
        let listed: Vec<&str> = classes.split('|').map(str::trim).collect();
        let mut mapping = HashMap::new();
        let mut names = Vec::new();
        for text in listed {
            let class = find_class(&*inner, text)?;
            if mapping.insert(class, names.len() as u32).is_some() {
                return Err(Error::config(format!("classes={classes}: `{text}` is there twice")));
            }
            names.push(inner.class_names()[class as usize].clone());
        }
        Self::new(inner, mapping, names)
    }

    /// Maps classes as the file says; images of classes that are not in it are left out.
    pub fn read(inner: Arc<dyn Dataset>, path: &Path) -> Result<Self> {
        let text = String::from_utf8(files::read(path)?);
        let text = text.map_err(|_| Error::format(path, "expected a text file"))?;
        let mut pairs = Vec::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let pair = line.rsplit_once([',', '\t']).map(|(own, model)| (own.trim(), model.trim()));
            let pair = pair.filter(|(own, model)| !own.is_empty() && !model.is_empty()).ok_or_else(|| {
                Error::format(path, format!("line {}: expected `own class, model class`", number + 1))
            })?;
            pairs.push(pair);
        }
        let numbers: Option<Vec<u32>> = pairs.iter().map(|(_, model)| model.parse().ok()).collect();
        let (targets, names) = match numbers {
            Some(numbers) => {
                let highest = numbers.iter().max().copied().unwrap_or(0);
                if highest > 1_000_000 {
                    return Err(Error::format(path, format!("{highest} cannot be a class")));
                }
                (numbers, numbered_classes(highest as usize + 1))
            }
            None => numbered_by_appearance(pairs.iter().map(|(_, model)| *model)),
        };
        let mut mapping = HashMap::new();
        for ((own, _), target) in pairs.iter().zip(targets) {
            mapping.insert(find_class(&*inner, own)?, target);
        }
        Self::new(inner, mapping, names)
    }

    fn new(inner: Arc<dyn Dataset>, classes: HashMap<u32, u32>, class_names: Vec<String>) -> Result<Self> {
        let mut indices = Vec::new();
        for index in 0..inner.len() {
            if classes.contains_key(&inner.label(index)?) {
                indices.push(index);
            }
        }
        if indices.is_empty() {
            return Err(Error::config(format!("{}: no image is of one of the chosen classes", inner.name())));
        }
        Ok(Self { inner, indices, classes, class_names, fingerprint: OnceLock::new() })
    }

    fn inner_index(&self, index: usize) -> Result<usize> {
        self.indices.get(index).copied().ok_or_else(|| index_error(self.name(), index, self.len()))
    }
}

/// A class by its name or number.
fn find_class(dataset: &dyn Dataset, text: &str) -> Result<u32> {
    let names = dataset.class_names();
    let by_name = names.iter().position(|name| name == text);
    let class = by_name.or_else(|| text.parse().ok().filter(|&class| class < names.len()));
    class.map(|class| class as u32).ok_or_else(|| {
        // All of a thousand names would hide the message.
        let shown: Vec<&str> = names.iter().map(String::as_str).take(20).collect();
        if names.len() <= 20 {
            return unknown("class", text, &shown);
        }
        let hint = suggest::hint(text, names.iter().map(String::as_str));
        Error::config(format!(
            "unknown class `{text}`; {hint}there are {} classes, {}, …",
            names.len(),
            shown.join(", ")
        ))
    })
}

fn numbered_by_appearance<'a>(words: impl Iterator<Item = &'a str>) -> (Vec<u32>, Vec<String>) {
    let mut names: Vec<String> = Vec::new();
    let numbers = words
        .map(|word| {
            let known = names.iter().position(|name| name == word);
            known.unwrap_or_else(|| {
                names.push(word.to_owned());
                names.len() - 1
            }) as u32
        })
        .collect();
    (numbers, names)
}

impl Dataset for Remapped {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let (image, label) = self.inner.get(self.inner_index(index)?)?;
        Ok((image, self.classes[&label]))
    }

    fn label(&self, index: usize) -> Result<u32> {
        Ok(self.classes[&self.inner.label(self.inner_index(index)?)?])
    }

    fn texture_label(&self, index: usize) -> Option<u32> {
        let texture = self.inner.texture_label(self.inner_index(index).ok()?)?;
        self.classes.get(&texture).copied()
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        self.inner.image_shape()
    }

    fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let mut sorted: Vec<_> = self.classes.iter().collect();
            sorted.sort();
            files::sha256(format!("{} {sorted:?}", self.inner.fingerprint()).as_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSpec;
    use crate::data::Split;

    fn labels(spec: &str) -> Result<(Vec<u32>, Vec<String>)> {
        let set = spec.parse::<DataSpec>()?.open(Split::Train)?;
        let labels =
            (0..set.len()).map(|index| set.get(index).map(|(_, label)| label)).collect::<Result<_>>()?;
        Ok((labels, set.class_names().to_vec()))
    }

    #[test]
    fn classes_are_kept_in_the_given_order() {
        let (found, names) = labels("synthetic:count=20,classes=square|disc").unwrap();
        assert_eq!((found, names.join(" ")), (vec![1, 0, 1, 0], "square disc".to_owned()));
        assert!(labels("synthetic:classes=sqare|disc").unwrap_err().to_string().contains("`square`"));
        assert!(labels("synthetic:classes=0|disc").unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_file_maps_classes_to_names_or_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.txt");
        let spec = format!("synthetic:count=10,map={}", path.display());
        std::fs::write(&path, "# round and straight\ndisc, round\nring, round\nbar\tstraight\n").unwrap();
        let (found, names) = labels(&spec).unwrap();
        assert_eq!((found, names.join(" ")), (vec![0, 0, 1], "round straight".to_owned()));
        std::fs::write(&path, "disc, 7\nbar, 3\n").unwrap();
        let (found, names) = labels(&spec).unwrap();
        assert_eq!((found, names.len()), (vec![7, 3], 8));
        std::fs::write(&path, "disc 7\n").unwrap();
        assert!(labels(&spec).unwrap_err().to_string().contains("line 1"));
    }
}
