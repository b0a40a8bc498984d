//! The table of formats that can be named on the command line.

use std::path::Path;
use std::sync::Arc;

use super::{Dataset, Split, cifar, corrupted, cue_conflict, folder, idx, numpy, published};
use crate::Result;

/// A format that can be named on the command line.
#[derive(Debug)]
pub struct Format {
    /// Before the colon.
    pub name: &'static str,
    /// What follows the colon: `DIR`, `FILE`.
    pub location: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Options of this format beside the common ones, with their meaning.
    pub options: &'static [(&'static str, &'static str)],
    pub(super) open: fn(&Request) -> Result<Arc<dyn Dataset>>,
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// What a format is asked to open.
pub(super) struct Request<'a> {
    /// The format's name.
    pub(super) name: &'static str,
    pub(super) path: &'a Path,
    pub(super) split: Split,
    /// All options, as written.
    pub(super) options: &'a [(String, String)],
}

impl Request<'_> {
    /// The value of one of the format's own options.
    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

const CORRUPTION: &[(&str, &str)] =
    &[("corruption", "which corruption, as in gaussian_noise"), ("severity", "1 to 5; all, if not given")];
const FOLDER: (&str, &str) = ("folder", "read this folder inside DIR, for training and test alike");
const PART: (&str, &str) =
    ("part", "train (default) or trainval: whether to train on the validation part too");
const TEST_PART: (&str, &str) = ("test_part", "test (default) or val: which part is tested on");
const TEST_FOLDER: (&str, &str) =
    ("test_part", "the folder of the test images (default: the first of val, test, validation, valid)");
const PARTITION: (&str, &str) = ("partition", "which of the ten published partitions (default 1)");

/// All formats that read files, in the order of the help text.
pub static FORMATS: &[Format] = &[
    Format {
        name: "cifar10",
        location: "DIR",
        help: "CIFAR-10, binary or python layout (the folder or its parent)",
        options: &[],
        open: cifar::open_cifar10,
    },
    Format {
        name: "cifar10-bin",
        location: "FILE",
        help: "one file of CIFAR-10 binary records",
        options: &[],
        open: cifar::open_cifar10_file,
    },
    Format {
        name: "cifar100",
        location: "DIR",
        help: "CIFAR-100 with its 100 fine classes, binary or python layout",
        options: &[],
        open: cifar::open_cifar100,
    },
    Format {
        name: "idx",
        location: "DIR",
        help: "MNIST, Fashion-MNIST, KMNIST, EMNIST: train-… and t10k-… IDX files, plain or .gz",
        options: &[],
        open: idx::open,
    },
    Format {
        name: "imagefolder",
        location: "DIR",
        help: "PNG and JPEG files, one folder per class, below train and val or test, or directly in DIR",
        options: &[FOLDER, TEST_FOLDER],
        open: folder::open,
    },
    Format {
        name: "npy",
        location: "DIR",
        help: "NumPy arrays: train_images.npy, train_labels.npy, …, images.npy, labels.npy, or an .npz file",
        options: &[],
        open: numpy::open,
    },
    Format {
        name: "parquet",
        location: "DIR",
        help: "Parquet files with embedded images, as Hugging Face datasets are published",
        options: &[("label", "the column of the labels (default: label, labels or fine_label)")],
        open: open_parquet,
    },
    Format {
        name: "svhn",
        location: "DIR",
        help: "Street View House Numbers: train_32x32.mat, test_32x32.mat",
        options: &[],
        open: published::open_svhn,
    },
    Format {
        name: "tinyimagenet",
        location: "DIR",
        help: "TinyImageNet (tiny-imagenet-200); the validation images are the test images",
        options: &[],
        open: published::open_tiny_imagenet,
    },
    Format {
        name: "cinic10",
        location: "DIR",
        help: "CINIC-10: train, valid and test folders",
        options: &[FOLDER, TEST_FOLDER],
        open: folder::open,
    },
    Format {
        name: "imagenette",
        location: "DIR",
        help: "Imagenette, in any of its three sizes",
        options: &[],
        open: published::open_imagenette,
    },
    Format {
        name: "imagenet",
        location: "DIR",
        help: "ImageNet: train and val with one folder per class; most networks want resize=256,size=224",
        options: &[FOLDER, TEST_FOLDER],
        open: folder::open,
    },
    Format {
        name: "flowers102",
        location: "DIR",
        help: "Oxford Flowers-102: jpg, imagelabels.mat, setid.mat",
        options: &[PART, TEST_PART],
        open: published::open_flowers,
    },
    Format {
        name: "pets",
        location: "DIR",
        help: "Oxford-IIIT Pet: images, annotations",
        options: &[],
        open: published::open_pets,
    },
    Format {
        name: "dtd",
        location: "DIR",
        help: "Describable Textures: images, labels",
        options: &[PART, TEST_PART, PARTITION],
        open: published::open_dtd,
    },
    Format {
        name: "grocery",
        location: "DIR",
        help: "Grocery Store: dataset/train.txt, test.txt, classes.csv",
        options: &[("labels", "fine (81 classes, default) or coarse (43)"), TEST_PART],
        open: published::open_grocery,
    },
    Format {
        name: "sun397",
        location: "DIR",
        help: "SUN397 with its published partitions",
        options: &[
            PARTITION,
            (
                "holdout",
                "no partition: this share of all images, drawn at random, is tested, the others trained on",
            ),
        ],
        open: published::open_sun397,
    },
    Format {
        name: "cifar10c",
        location: "DIR",
        help: "CIFAR-10-C: corruption.npy files and labels.npy",
        options: CORRUPTION,
        open: corrupted::open_cifar10c,
    },
    Format {
        name: "cifar100c",
        location: "DIR",
        help: "CIFAR-100-C, likewise",
        options: CORRUPTION,
        open: corrupted::open_cifar100c,
    },
    Format {
        name: "tinyimagenetc",
        location: "DIR",
        help: "TinyImageNet-C: corruption/severity/class folders",
        options: CORRUPTION,
        open: corrupted::open_folders,
    },
    Format {
        name: "imagenetc",
        location: "DIR",
        help: "ImageNet-C, likewise",
        options: CORRUPTION,
        open: corrupted::open_folders,
    },
    Format {
        name: "cifar10.1",
        location: "DIR",
        help: "CIFAR-10.1: cifar10.1_v6_data.npy, cifar10.1_v6_labels.npy",
        options: &[("version", "v6 (default) or v4")],
        open: corrupted::open_cifar10_1,
    },
    Format {
        name: "cueconflict",
        location: "DIR",
        help: "shape-texture cue conflict: files named shape-texture.png, as in cat7-bicycle2.png",
        options: &[],
        open: cue_conflict::open,
    },
];

#[cfg(feature = "parquet")]
fn open_parquet(request: &Request) -> Result<Arc<dyn Dataset>> {
    super::parquet::open(request)
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(request: &Request) -> Result<Arc<dyn Dataset>> {
    Err(crate::Error::config(format!(
        "{}: this program was built without the feature `parquet` of bandwise",
        request.path.display()
    )))
}
