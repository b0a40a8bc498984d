//! Where published data sets are, and their checksums as their publishers (or torchvision) give them.

use crate::Result;
use crate::data::spec::unknown;

/// A data set that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name on the command line, and of the folder.
    pub name: &'static str,
    /// What it is, how large it is.
    pub description: &'static str,
    /// The page of its publishers: terms of use, whom to cite.
    pub homepage: &'static str,
    /// The format that reads it.
    pub format: &'static str,
    /// Its files.
    pub files: &'static [Remote],
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Everything before the file's name in its address.
    pub base: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// MD5 sum; `None` if none is published.
    pub md5: Option<&'static str>,
    /// Whether it is an archive to unpack.
    pub unpack: bool,
}

impl Remote {
    const fn archive(base: &'static str, file: &'static str, md5: &'static str) -> Self {
        Self { base, file, md5: Some(md5), unpack: true }
    }

    const fn plain(base: &'static str, file: &'static str, md5: &'static str) -> Self {
        Self { base, file, md5: Some(md5), unpack: false }
    }

    const fn unchecked(base: &'static str, file: &'static str, unpack: bool) -> Self {
        Self { base, file, md5: None, unpack }
    }

    /// The address, at the publisher's or at a mirror.
    pub fn url(&self, mirror: Option<&str>) -> String {
        match mirror {
            Some(mirror) => format!("{}/{}", mirror.trim_end_matches('/'), self.file),
            None => format!("{}{}", self.base, self.file),
        }
    }
}

/// The source of that name.
pub fn find(name: &str) -> Result<&'static Source> {
    SOURCES.iter().find(|source| source.name == name).ok_or_else(|| {
        let names: Vec<&str> = SOURCES.iter().map(|source| source.name).collect();
        unknown("data set to fetch", name, &names)
    })
}

const TORONTO: &str = "https://www.cs.toronto.edu/~kriz/";
const MNIST: &str = "https://ossci-datasets.s3.amazonaws.com/mnist/";
const FASHION: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/";
const KMNIST: &str = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/";
const SVHN: &str = "http://ufldl.stanford.edu/housenumbers/";
const IMAGENETTE: &str = "https://s3.amazonaws.com/fast-ai-imageclas/";
const FLOWERS: &str = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/";
const PETS: &str = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/";
const CIFAR10_1: &str = "https://raw.githubusercontent.com/modestyachts/CIFAR-10.1/master/datasets/";
const IMAGENET_C: &str = "https://zenodo.org/records/2235448/files/";

/// All of them, small ones first.
pub static SOURCES: &[Source] = &[
    Source {
        name: "mnist",
        description: "MNIST, 70,000 gray digits, 11 MB",
        homepage: "http://yann.lecun.com/exdb/mnist/",
        format: "idx",
        files: &[
            Remote::plain(MNIST, "train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            Remote::plain(MNIST, "train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            Remote::plain(MNIST, "t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            Remote::plain(MNIST, "t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        ],
    },
    Source {
        name: "fashion-mnist",
        description: "Fashion-MNIST, 70,000 gray pieces of clothing, 30 MB",
        homepage: "https://github.com/zalandoresearch/fashion-mnist",
        format: "idx",
        files: &[
            Remote::plain(FASHION, "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            Remote::plain(FASHION, "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            Remote::plain(FASHION, "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            Remote::plain(FASHION, "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ],
    },
    Source {
        name: "kmnist",
        description: "Kuzushiji-MNIST, 70,000 gray characters, 21 MB",
        homepage: "https://github.com/rois-codh/kmnist",
        format: "idx",
        files: &[
            Remote::plain(KMNIST, "train-images-idx3-ubyte.gz", "bdb82020997e1d708af4cf47b453dcf7"),
            Remote::plain(KMNIST, "train-labels-idx1-ubyte.gz", "e144d726b3acfaa3e44228e80efcd344"),
            Remote::plain(KMNIST, "t10k-images-idx3-ubyte.gz", "5c965bf0a639b31b8f53240b1b52f4d7"),
            Remote::plain(KMNIST, "t10k-labels-idx1-ubyte.gz", "7320c461ea6c1c855c0b718fb2a4b134"),
        ],
    },
    Source {
        name: "cifar10.1",
        description: "CIFAR-10.1 v6, 2,000 new test images for CIFAR-10, 6 MB",
        homepage: "https://github.com/modestyachts/CIFAR-10.1",
        format: "cifar10.1",
        files: &[
            Remote::unchecked(CIFAR10_1, "cifar10.1_v6_data.npy", false),
            Remote::unchecked(CIFAR10_1, "cifar10.1_v6_labels.npy", false),
        ],
    },
    Source {
        name: "imagenette",
        description: "Imagenette, ten easy ImageNet classes, shorter side 160, 99 MB",
        homepage: "https://github.com/fastai/imagenette",
        format: "imagenette",
        files: &[Remote::archive(IMAGENETTE, "imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412")],
    },
    Source {
        name: "cifar10",
        description: "CIFAR-10, 60,000 images of 32×32, 170 MB",
        homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
        format: "cifar10",
        files: &[Remote::archive(TORONTO, "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")],
    },
    Source {
        name: "cifar100",
        description: "CIFAR-100, 60,000 images of 32×32, 169 MB",
        homepage: "https://www.cs.toronto.edu/~kriz/cifar.html",
        format: "cifar100",
        files: &[Remote::archive(TORONTO, "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")],
    },
    Source {
        name: "svhn",
        description: "Street View House Numbers, 99,289 images of 32×32, 246 MB",
        homepage: "http://ufldl.stanford.edu/housenumbers/",
        format: "svhn",
        files: &[
            Remote::plain(SVHN, "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            Remote::plain(SVHN, "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        ],
    },
    Source {
        name: "tinyimagenet",
        description: "TinyImageNet, 200 classes, 110,000 labeled images of 64×64, 248 MB",
        homepage: "http://cs231n.stanford.edu/",
        format: "tinyimagenet",
        files: &[Remote::archive(
            "http://cs231n.stanford.edu/",
            "tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
        )],
    },
    Source {
        name: "flowers102",
        description: "Oxford Flowers-102, 8,189 images, 345 MB",
        homepage: "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        format: "flowers102",
        files: &[
            Remote::plain(FLOWERS, "imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
            Remote::plain(FLOWERS, "setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
            Remote::archive(FLOWERS, "102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
        ],
    },
    Source {
        name: "grocery",
        description: "Grocery Store, 5,125 images of 81 products",
        homepage: "https://github.com/marcusklasson/GroceryStoreDataset",
        format: "grocery",
        files: &[Remote::unchecked(
            "https://github.com/marcusklasson/GroceryStoreDataset/archive/refs/heads/",
            "master.zip",
            true,
        )],
    },
    Source {
        name: "dtd",
        description: "Describable Textures, 5,640 images of 47 kinds, 625 MB",
        homepage: "https://www.robots.ox.ac.uk/~vgg/data/dtd/",
        format: "dtd",
        files: &[Remote::archive(
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
            "dtd-r1.0.1.tar.gz",
            "fff73e5086ae6bdbea199a49dfb8a4c1",
        )],
    },
    Source {
        name: "cinic10",
        description: "CINIC-10, 270,000 images of 32×32, 688 MB",
        homepage: "https://datashare.ed.ac.uk/handle/10283/3192",
        format: "cinic10",
        files: &[Remote::archive(
            "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/",
            "CINIC-10.tar.gz",
            "6ee4d0c996905fe93221de577967a372",
        )],
    },
    Source {
        name: "pets",
        description: "Oxford-IIIT Pet, 7,349 images of 37 breeds, 811 MB",
        homepage: "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        format: "pets",
        files: &[
            Remote::archive(PETS, "annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
            Remote::archive(PETS, "images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
        ],
    },
    Source {
        name: "cifar10c",
        description: "CIFAR-10-C, 19 corruptions at 5 severities, 2.9 GB",
        homepage: "https://zenodo.org/records/2535967",
        format: "cifar10c",
        files: &[Remote::archive(
            "https://zenodo.org/records/2535967/files/",
            "CIFAR-10-C.tar",
            "56bf5dcef84df0e2308c6dcbcbbd8499",
        )],
    },
    Source {
        name: "cifar100c",
        description: "CIFAR-100-C, 19 corruptions at 5 severities, 2.9 GB",
        homepage: "https://zenodo.org/records/3555552",
        format: "cifar100c",
        files: &[Remote::archive(
            "https://zenodo.org/records/3555552/files/",
            "CIFAR-100-C.tar",
            "11f0ed0f1191edbf9fa23466ae6021d3",
        )],
    },
    Source {
        name: "tinyimagenetc",
        description: "TinyImageNet-C, 15 corruptions at 5 severities",
        homepage: "https://zenodo.org/records/8206060",
        format: "tinyimagenetc",
        files: &[Remote::archive(
            "https://zenodo.org/records/8206060/files/",
            "Tiny-ImageNet-C.tar",
            "f9c9a9dbdc11469f0b850190f7ad8be1",
        )],
    },
    Source {
        name: "sun397",
        description: "SUN397, 108,754 images of 397 scenes, 37 GB",
        homepage: "https://vision.princeton.edu/projects/2010/SUN/",
        format: "sun397",
        files: &[
            Remote::unchecked(
                "https://vision.princeton.edu/projects/2010/SUN/download/",
                "Partitions.zip",
                true,
            ),
            Remote::archive(
                "http://vision.princeton.edu/projects/2010/SUN/",
                "SUN397.tar.gz",
                "8ca2778205c41d23104230ba66911c7a",
            ),
        ],
    },
    Source {
        name: "imagenetc",
        description: "ImageNet-C, 19 corruptions at 5 severities, 224×224, 75 GB",
        homepage: "https://zenodo.org/records/2235448",
        format: "imagenetc",
        files: &[
            Remote::archive(IMAGENET_C, "noise.tar", "e80562d7f6c3f8834afb1ecf27252745"),
            Remote::archive(IMAGENET_C, "blur.tar", "2d8e81fdd8e07fef67b9334fa635e45c"),
            Remote::archive(IMAGENET_C, "weather.tar", "33ffea4db4d93fe4a428c40a6ce0c25d"),
            Remote::archive(IMAGENET_C, "digital.tar", "89157860d7b10d5797849337ca2e5c03"),
            Remote::archive(IMAGENET_C, "extra.tar", "d492dfba5fc162d8ec2c3cd8ee672984"),
        ],
    },
];
