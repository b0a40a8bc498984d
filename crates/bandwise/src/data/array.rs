//! Data sets held in memory.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Dataset, Image, index_error};
use crate::{Error, Result, files};

/// The pixels of many images, one after the other, each `[height, width, channels]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 0 to 255.
    Bytes(Vec<u8>),
    /// `[0, 1]`.
    Floats(Vec<f32>),
}

impl Pixels {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }
}

/// Images of one shape, all in memory.
#[derive(Debug, Clone)]
pub struct ArrayDataset {
    name: String,
    pixels: Pixels,
    shape: [usize; 3],
    labels: Vec<u32>,
    class_names: Vec<String>,
    fingerprint: String,
}

impl ArrayDataset {
    /// A data set of images of `shape` = `[height, width, channels]` that came from the file or
    /// folder `origin`.
    ///
    /// # Errors
    /// If pixels and labels do not belong together, a label names no class, or a pixel is not in
    /// `[0, 1]`.
    pub fn new(
        name: impl Into<String>,
        origin: &Path,
        pixels: Pixels,
        shape: [usize; 3],
        labels: Vec<u32>,
        class_names: Vec<String>,
    ) -> Result<Self> {
        let bad = |reason: String| Err(Error::format(origin, reason));
        let [height, width, channels] = shape;
        if labels.is_empty() {
            return bad("there are no images in it".into());
        }
        let per_image = height.checked_mul(width).and_then(|n| n.checked_mul(channels));
        match per_image.and_then(|n| n.checked_mul(labels.len())) {
            Some(expected) if expected == pixels.len() && expected > 0 => {}
            _ => {
                return bad(format!(
                    "{} pixel values do not make {} images of {height}×{width}×{channels}",
                    pixels.len(),
                    labels.len()
                ));
            }
        }
        check_labels(origin, &labels, class_names.len())?;
        if let Pixels::Floats(values) = &pixels {
            // A NaN is inside no range, so it is found too.
            if let Some(at) = values.iter().position(|v| !(0.0..=1.0).contains(v)) {
                return bad(format!(
                    "image {} holds the pixel value {}; float pixels must lie in [0, 1]",
                    at / per_image.unwrap_or(1),
                    values[at]
                ));
            }
        }
        let fingerprint = fingerprint(&pixels, shape, &labels);
        Ok(Self { name: name.into(), pixels, shape, labels, class_names, fingerprint })
    }

    /// All pixels.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// All labels.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }
}

/// Refuses labels that name none of `classes`; `origin` is the file that holds the labels, where they have one of their
/// own.
pub(crate) fn check_labels(origin: &Path, labels: &[u32], classes: usize) -> Result<()> {
    match labels.iter().position(|&label| label as usize >= classes) {
        None => Ok(()),
        Some(image) => Err(Error::format(
            origin,
            format!(
                "image {image} has label {}, but there are only {classes} classes (0 to {})",
                labels[image],
                classes.saturating_sub(1)
            ),
        )),
    }
}

/// The content's hash: the same images have the same fingerprint whatever file they came in.
fn fingerprint(pixels: &Pixels, shape: [usize; 3], labels: &[u32]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("images {shape:?}"));
    match pixels {
        Pixels::Bytes(values) => hash.update(values),
        Pixels::Floats(values) => values.iter().for_each(|value| hash.update(value.to_le_bytes())),
    }
    labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
    files::hex(&hash.finalize())
}

impl Dataset for ArrayDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let label = self.label(index)?;
        let [height, width, channels] = self.shape;
        let length = height * width * channels;
        let range = index * length..(index + 1) * length;
        let image = match &self.pixels {
            Pixels::Bytes(values) => Image::from_bytes(height, width, channels, &values[range]),
            Pixels::Floats(values) => Image { height, width, channels, pixels: values[range].to_vec() },
        };
        Ok((image, label))
    }

    fn label(&self, index: usize) -> Result<u32> {
        self.labels.get(index).copied().ok_or_else(|| index_error(&self.name, index, self.len()))
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        Some(self.shape)
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// Class names for sets that have none: `"0"`, `"1"`, ….
pub fn numbered_classes(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(pixels: Pixels, labels: Vec<u32>) -> Result<ArrayDataset> {
        ArrayDataset::new("x", Path::new("x.bin"), pixels, [2, 1, 1], labels, numbered_classes(3))
    }

    #[test]
    fn images_and_labels_are_found_by_index() {
        let set = build(Pixels::Bytes(vec![0, 255, 51, 102]), vec![2, 0]).unwrap();
        assert_eq!(set.get(1).unwrap(), (Image::from_bytes(2, 1, 1, &[51, 102]), 0));
        assert_eq!(set.len(), 2);
        assert!(set.get(2).unwrap_err().to_string().contains("only 2"));
    }

    #[test]
    fn impossible_content_is_refused() {
        let message = |pixels, labels| build(pixels, labels).unwrap_err().to_string();
        assert!(message(Pixels::Bytes(vec![0; 4]), vec![0, 3]).contains("image 1 has label 3"));
        assert!(message(Pixels::Bytes(vec![0; 3]), vec![0, 1]).contains("3 pixel values"));
        assert!(message(Pixels::Bytes(vec![]), vec![]).contains("no images"));
        assert!(message(Pixels::Floats(vec![0.0, f32::NAN]), vec![0]).contains("NaN"));
        assert!(message(Pixels::Floats(vec![0.0, 255.0]), vec![0]).contains("[0, 1]"));
    }

    #[test]
    fn fingerprint_follows_content() {
        let one = build(Pixels::Bytes(vec![0, 1]), vec![0]).unwrap();
        let other_label = build(Pixels::Bytes(vec![0, 1]), vec![1]).unwrap();
        let same = build(Pixels::Bytes(vec![0, 1]), vec![0]).unwrap();
        assert_eq!(one.fingerprint(), same.fingerprint());
        assert_ne!(one.fingerprint(), other_label.fingerprint());
    }
}
