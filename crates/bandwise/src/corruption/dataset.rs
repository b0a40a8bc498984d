//! Data sets seen through a corruption or a shift, made while they are read.

use std::sync::{Arc, OnceLock};

use super::{Corruption, Corruptor, Severity, Shift};
use crate::data::{Dataset, Image, list_and_labels_of_inner};
use crate::{Result, files};

/// What happens to each image.
#[derive(Debug, Clone)]
enum Change {
    Corruption { corruptor: Corruptor, corruption: Corruption, severity: Severity },
    Shift { shift: Shift, seed: u64 },
}

/// Another set's images, each corrupted or shifted when it is asked for. Nothing is stored.
///
/// Randomness belongs to the image's index, so that the images are the same ones in every order, batch and thread.
#[derive(Clone)]
pub struct ChangedDataset {
    inner: Arc<dyn Dataset>,
    change: Change,
    name: String,
    /// What changes the images, for the fingerprint.
    detail: String,
    fingerprint: OnceLock<String>,
}

impl ChangedDataset {
    /// The images of `inner` under a corruption.
    pub fn corrupted(
        inner: Arc<dyn Dataset>,
        corruptor: Corruptor,
        corruption: Corruption,
        severity: Severity,
    ) -> Self {
        let what = format!("{corruption} {severity}");
        let mut detail = format!("{what} protocol {} seed {}", corruptor.protocol(), corruptor.seed());
        if corruption == Corruption::Frost {
            detail.push_str(&corruptor.frost_fingerprint());
        }
        Self::new(inner, Change::Corruption { corruptor, corruption, severity }, &what, &detail)
    }

    /// The images of `inner` under a shift.
    pub fn shifted(inner: Arc<dyn Dataset>, shift: Shift, seed: u64) -> Self {
        let what = shift.to_string();
        let detail = format!("{what} seed {seed}");
        Self::new(inner, Change::Shift { shift, seed }, &what, &detail)
    }

    fn new(inner: Arc<dyn Dataset>, change: Change, what: &str, detail: &str) -> Self {
        let name = format!("{}, {what}", inner.name());
        Self { inner, change, name, detail: detail.to_owned(), fingerprint: OnceLock::new() }
    }
}

impl Dataset for ChangedDataset {
    fn name(&self) -> &str {
        &self.name
    }

    list_and_labels_of_inner!();

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let (image, label) = self.inner.get(index)?;
        let changed = match &self.change {
            Change::Corruption { corruptor, corruption, severity } => {
                corruptor.apply_image(&image, *corruption, *severity, index as u64)?
            }
            Change::Shift { shift, seed } => shift.apply(&image, *seed, index as u64)?,
        };
        Ok((changed, label))
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        self.inner.image_shape()
    }

    fn fingerprint(&self) -> &str {
        let content = || format!("{} {}", self.inner.fingerprint(), self.detail);
        self.fingerprint.get_or_init(|| files::sha256(content().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corruption::Protocol;
    use crate::data::{DataSpec, Split};

    #[test]
    fn streamed_images_equal_directly_corrupted_ones() {
        let inner = "synthetic".parse::<DataSpec>().unwrap().open(Split::Test).unwrap();
        let corruptor = Corruptor::new(Protocol::Cifar, 4);
        let severity = Severity::new(2).unwrap();
        let set = ChangedDataset::corrupted(inner.clone(), corruptor.clone(), Corruption::Fog, severity);
        let (image, label) = inner.get(3).unwrap();
        let expected = corruptor.apply_image(&image, Corruption::Fog, severity, 3).unwrap();
        assert_eq!(set.get(3).unwrap(), (expected, label));
        assert_ne!(set.fingerprint(), inner.fingerprint());
        let low = ChangedDataset::shifted(inner, "low_pass:4".parse().unwrap(), 0);
        assert_ne!(low.fingerprint(), set.fingerprint());
        assert_eq!(low.get(3).unwrap().1, label);
    }
}
