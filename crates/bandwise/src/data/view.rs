//! Data sets seen through another: fewer images, another size, gray.

use std::sync::{Arc, OnceLock};

use rand::seq::SliceRandom;

use super::{Dataset, Image, index_error, list_and_labels_of_inner};
use crate::{Error, Result, files, random};

/// Some of another set's images, in a given order.
#[derive(Clone)]
pub struct Subset {
    inner: Arc<dyn Dataset>,
    indices: Vec<usize>,
    fingerprint: OnceLock<String>,
}

impl Subset {
    /// The images at `indices`, in that order.
    pub fn new(inner: Arc<dyn Dataset>, indices: Vec<usize>) -> Result<Self> {
        if let Some(&index) = indices.iter().find(|&&index| index >= inner.len()) {
            return Err(index_error(inner.name(), index, inner.len()));
        }
        Ok(Self { inner, indices, fingerprint: OnceLock::new() })
    }

    /// The first `count` images (all, if there are fewer).
    pub fn first(inner: Arc<dyn Dataset>, count: usize) -> Result<Self> {
        let count = count.min(inner.len());
        Self::new(inner, (0..count).collect())
    }

    /// A random share of the images, drawn without replacement from `seed`, kept in data order.
    pub fn fraction(inner: Arc<dyn Dataset>, fraction: f64, seed: u64) -> Result<Self> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(Error::config(format!("fraction must lie in (0, 1], not {fraction}")));
        }
        let count = ((inner.len() as f64 * fraction).round() as usize).clamp(1, inner.len().max(1));
        let mut indices: Vec<usize> = (0..inner.len()).collect();
        indices.shuffle(&mut random::stream(seed, &[random::tag("subset")]));
        indices.truncate(count);
        indices.sort_unstable();
        Self::new(inner, indices)
    }

    /// Where image `index` of this subset stands in the whole set.
    pub fn original_index(&self, index: usize) -> Option<usize> {
        self.indices.get(index).copied()
    }

    fn inner_index(&self, index: usize) -> Result<usize> {
        self.original_index(index).ok_or_else(|| index_error(self.name(), index, self.len()))
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        self.inner.get(self.inner_index(index)?)
    }

    fn label(&self, index: usize) -> Result<u32> {
        self.inner.label(self.inner_index(index)?)
    }

    fn texture_label(&self, index: usize) -> Option<u32> {
        self.inner.texture_label(self.original_index(index)?)
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        self.inner.image_shape()
    }

    fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let mut content = self.inner.fingerprint().as_bytes().to_vec();
            self.indices.iter().for_each(|&index| content.extend((index as u64).to_le_bytes()));
            files::sha256(&content)
        })
    }
}

/// Another set's images brought to one square size: shorter side resized and the middle cut out, or stretched.
#[derive(Clone)]
pub struct Resized {
    inner: Arc<dyn Dataset>,
    /// `None`: stretched.
    shorter_side: Option<usize>,
    size: usize,
    fingerprint: OnceLock<String>,
}

impl Resized {
    /// Images whose shorter side is brought to `shorter_side` and of which the middle `size` by
    /// `size` is kept (torchvision's `Resize` and `CenterCrop`).
    pub fn new(inner: Arc<dyn Dataset>, shorter_side: usize, size: usize) -> Self {
        Self { inner, shorter_side: Some(shorter_side), size, fingerprint: OnceLock::new() }
    }

    /// Images whose sides are both brought to `size`, whatever their proportions (torchvision's
    /// `Resize((size, size))`).
    pub fn stretched(inner: Arc<dyn Dataset>, size: usize) -> Self {
        Self { inner, shorter_side: None, size, fingerprint: OnceLock::new() }
    }
}

impl Dataset for Resized {
    fn name(&self) -> &str {
        self.inner.name()
    }

    list_and_labels_of_inner!();

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let (image, label) = self.inner.get(index)?;
        let image = match self.shorter_side {
            Some(side) => image.shorter_side_resized(side).center_crop(self.size, self.size),
            None => image.resized(self.size, self.size),
        };
        Ok((image, label))
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        // Files decode to RGB, the only case in which the inner shape may be unknown.
        let channels = self.inner.image_shape().map_or(3, |[_, _, channels]| channels);
        Some([self.size, self.size, channels])
    }

    fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let (inner, size) = (self.inner.fingerprint(), self.size);
            let content = match self.shorter_side {
                Some(side) => format!("{inner} resized {side} {size}"),
                None => format!("{inner} stretched {size}"),
            };
            files::sha256(content.as_bytes())
        })
    }
}

/// Another set's images in gray: one channel, `0.299·R + 0.587·G + 0.114·B` (ITU-R 601, as in Pillow and
/// torchvision).
#[derive(Clone)]
pub struct Gray {
    inner: Arc<dyn Dataset>,
    fingerprint: OnceLock<String>,
}

impl Gray {
    /// Gray images stay as they are.
    pub fn new(inner: Arc<dyn Dataset>) -> Self {
        Self { inner, fingerprint: OnceLock::new() }
    }
}

impl Dataset for Gray {
    fn name(&self) -> &str {
        self.inner.name()
    }

    list_and_labels_of_inner!();

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let (image, label) = self.inner.get(index)?;
        if image.channels != 3 {
            return Ok((image, label));
        }
        let luma = |rgb: &[f32]| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        let pixels = image.pixels.chunks_exact(3).map(luma).collect();
        Ok((Image { height: image.height, width: image.width, channels: 1, pixels }, label))
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        self.inner.image_shape().map(|[height, width, _]| [height, width, 1])
    }

    fn fingerprint(&self) -> &str {
        let content = || format!("{} gray", self.inner.fingerprint());
        self.fingerprint.get_or_init(|| files::sha256(content().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::array::{ArrayDataset, Pixels, numbered_classes};
    use std::path::Path;

    fn ten() -> Arc<dyn Dataset> {
        let pixels = Pixels::Bytes((0..40).collect());
        let labels = (0..10).collect();
        let set = ArrayDataset::new("ten", Path::new("ten"), pixels, [2, 2, 1], labels, numbered_classes(10));
        Arc::new(set.unwrap())
    }

    #[test]
    fn a_seeded_fraction_repeats_and_keeps_order() {
        let labels = |seed| {
            let subset = Subset::fraction(ten(), 0.5, seed).unwrap();
            (0..subset.len()).map(|i| subset.label(i).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(labels(1), labels(1));
        assert_ne!(labels(1), labels(2));
        assert_eq!(labels(1).len(), 5);
        assert!(labels(3).is_sorted());
        assert!(Subset::fraction(ten(), f64::NAN, 0).is_err());
    }

    #[test]
    fn the_first_images_are_the_same_and_have_their_own_fingerprint() {
        let subset = Subset::first(ten(), 3).unwrap();
        assert_eq!(subset.len(), 3);
        assert_eq!(subset.get(2).unwrap(), ten().get(2).unwrap());
        assert_ne!(subset.fingerprint(), ten().fingerprint());
        assert!(subset.get(3).is_err());
    }

    #[test]
    fn resized_images_have_the_promised_shape() {
        let set = Resized::new(ten(), 4, 3);
        assert_eq!(Some(set.get(0).unwrap().0.shape()), set.image_shape());
    }

    #[test]
    fn stretching_keeps_what_cropping_loses() {
        // A bright column at the right edge of a wide image.
        let pixels = Pixels::Bytes([[0, 0, 0, 0, 0, 0, 0, 255]; 2].concat());
        let set = ArrayDataset::new("wide", Path::new("w"), pixels, [2, 8, 1], vec![0], numbered_classes(1));
        let set: Arc<dyn Dataset> = Arc::new(set.unwrap());
        let brightest = |set: &Resized| set.get(0).unwrap().0.pixels.iter().fold(0.0f32, |a, &b| a.max(b));
        let (cut, stretched) = (Resized::new(set.clone(), 2, 2), Resized::stretched(set, 2));
        assert_eq!(stretched.get(0).unwrap().0.shape(), [2, 2, 1]);
        assert!(brightest(&cut) == 0.0 && brightest(&stretched) > 0.1);
        assert_ne!(cut.fingerprint(), stretched.fingerprint());
    }

    #[test]
    fn gray_images_have_one_channel() {
        let pixels = Pixels::Bytes(vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]);
        let set = ArrayDataset::new("c", Path::new("c"), pixels, [2, 2, 3], vec![0], numbered_classes(1));
        let set = Gray::new(Arc::new(set.unwrap()));
        let image = set.get(0).unwrap().0;
        assert_eq!(Some(image.shape()), set.image_shape());
        assert!(image.pixels.iter().zip([0.299, 0.587, 0.114, 1.0]).all(|(a, b)| (a - b).abs() < 1e-6));
        assert_eq!(Gray::new(ten()).get(3).unwrap(), ten().get(3).unwrap());
    }
}
