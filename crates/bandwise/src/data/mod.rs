//! Data sets: where images come from and how they reach a network.
//!
//! Everything is a [`Dataset`]: a list of labeled images, each obtained by its index. What the
//! command line names (`cifar10:DIR`, `synthetic:shape=0.9`, …) is a [`DataSpec`], which opens one
//! [`Split`] of it. A [`Loader`] turns a data set into shuffled, augmented batches.
//!
//! | file | job |
//! |---|---|
//! | `spec` | the name on the command line |
//! | `array`, `folder` | sets held in memory, sets read file by file |
//! | `cifar`, `idx`, `numpy`, `parquet` | one layout of files each |
//! | `published` | sets with a layout of their own: TinyImageNet, Flowers-102, … |
//! | `corrupted`, `cue_conflict` | published test sets for robustness and shape bias |
//! | `formats` | the table of everything that can be named |
//! | `fetch` | downloads, checked and resumed |
//! | `synthetic` | the built-in set with a low-frequency and a high-frequency cue |
//! | `view`, `mapping` | subsets, resized versions, other classes of another set |
//! | `augment`, `loader` | random changes, batches |
//! | `limits` | how much memory images may ask for |
//! | `statistics` | what `bandwise data info` prints |
//!
//! Pixels are f32 in `[0, 1]`, images `[height, width, channels]`; nothing here normalizes.
//!
//! ```
//! use bandwise::data::{Augment, DataSpec, Loader, LoaderConfig, Split};
//!
//! # fn main() -> bandwise::Result<()> {
//! let spec: DataSpec = "synthetic:count=10,size=16".parse()?;
//! let dataset = spec.open(Split::Train)?;
//! assert_eq!(dataset.get(3)?.0.shape(), [16, 16, 3]);
//!
//! let config = LoaderConfig { batch_size: 4, augment: Augment::standard(), ..LoaderConfig::default() };
//! let loader = Loader::new(dataset, config)?;
//! let sizes = loader.epoch(0).map(|batch| Ok(batch?.len())).collect::<bandwise::Result<Vec<_>>>()?;
//! assert_eq!(sizes, [4, 4, 2]);
//! # Ok(())
//! # }
//! ```

pub mod array;
pub mod augment;
pub mod cifar;
pub mod corrupted;
mod cue_conflict;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod folder;
mod formats;
pub mod idx;
pub mod image;
pub mod limits;
pub mod loader;
pub mod mapping;
mod numpy;
#[cfg(feature = "parquet")]
mod parquet;
mod published;
#[cfg(test)]
mod robustness_tests;
pub mod spec;
pub mod statistics;
pub mod synthetic;
pub mod view;

pub use array::ArrayDataset;
pub use augment::Augment;
pub use folder::FileDataset;
pub use image::Image;
pub use loader::{Batch, Loader, LoaderConfig, load_all};
pub use mapping::Remapped;
pub use spec::{DataSpec, Split};
pub use statistics::Statistics;
pub use view::{Gray, Resized, Subset};

use crate::wording::counted;
use crate::{Error, Result};

/// A finite list of labeled images.
///
/// Implementations are cheap to share between threads and give the same image for the same index
/// every time.
pub trait Dataset: Send + Sync {
    /// A short name for reports, such as `cifar10 (test)`.
    fn name(&self) -> &str;

    /// How many images there are.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes' names; labels index into them.
    fn class_names(&self) -> &[String];

    /// How many classes there are.
    fn num_classes(&self) -> usize {
        self.class_names().len()
    }

    /// The image at `index` and its label.
    fn get(&self, index: usize) -> Result<(Image, u32)>;

    /// The label at `index`, without reading the image.
    fn label(&self, index: usize) -> Result<u32>;

    /// The class whose *texture* the image at `index` shows, in sets whose label is the class of
    /// the *shape* (cue conflict); `None` elsewhere.
    fn texture_label(&self, _index: usize) -> Option<u32> {
        None
    }

    /// `[height, width, channels]` if all images share it, `None` if they may differ.
    fn image_shape(&self) -> Option<[usize; 3]>;

    /// The shape of all images, or, if they may differ, of the first.
    fn first_shape(&self) -> Result<[usize; 3]> {
        self.image_shape().map_or_else(|| Ok(self.get(0)?.0.shape()), Ok)
    }

    /// SHA-256 (hexadecimal) over the content, of folders over the names and bytes of all files, which are read when it
    /// is first asked for: two sets with the same fingerprint give the same numbers.
    fn fingerprint(&self) -> &str;
}

impl std::fmt::Debug for dyn Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [images, classes] =
            [(self.len(), "image"), (self.num_classes(), "class")].map(|(n, w)| counted(n, w));
        write!(f, "{}: {images}, {classes}", self.name())
    }
}

/// The methods of a [`Dataset`] that changes the images of `self.inner`, one by one: its list and its labels.
macro_rules! list_and_labels_of_inner {
    () => {
        fn len(&self) -> usize {
            self.inner.len()
        }

        fn class_names(&self) -> &[String] {
            self.inner.class_names()
        }

        fn label(&self, index: usize) -> $crate::Result<u32> {
            self.inner.label(index)
        }

        fn texture_label(&self, index: usize) -> Option<u32> {
            self.inner.texture_label(index)
        }
    };
}
pub(crate) use list_and_labels_of_inner;

/// The error for an index past the end.
pub(crate) fn index_error(name: &str, index: usize, len: usize) -> Error {
    Error::config(format!("{name}: image {index} was asked for, but there are only {len}"))
}
