//! Architectures by name: one line for each in [`ENTRIES`].

use super::architecture::resnet::ResNet;
use super::architecture::{
    BuildFn, ModelShape, cifar_resnet, efficientnet, efficientnet_pytorch, preact_resnet, resnet9, small_cnn,
    vgg, wide_resnet,
};
use super::build::Builder;
use super::layer::Layer;
use super::weights::Names;
use crate::{Error, Result, suggest};

/// A deeper network than this is refused; the deepest that was published has 1202 layers.
const MAX_DEPTH: usize = 10_000;
/// A wider WideResNet than this is refused.
const MAX_WIDENING: usize = 1 << 16;

/// One line of `bandwise models`.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name to type; upper-case letters stand for numbers.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    family: Family,
}

/// What builds the networks of an entry.
#[derive(Clone, Copy, Debug)]
enum Family {
    /// One network.
    One(fn(&mut Builder, ModelShape) -> Result<Vec<Layer>>),
    /// One for each number in the name.
    Numbered {
        /// The network of that name; `None` if the name is of another family.
        find: fn(&str) -> Option<Result<BuildFn>>,
        /// The name that a state dict's names and shapes suggest.
        read: fn(&Names) -> Option<String>,
        /// Names to suggest.
        examples: &'static [&'static str],
    },
}

/// A line for a network without numbers in its name.
macro_rules! one {
    ($name:literal, $description:literal, $build:expr) => {
        Entry { name: $name, description: $description, family: Family::One($build) }
    };
}

/// Every name that [`find`] knows.
pub const ENTRIES: &[Entry] = &[
    one!("smallcnn", "four 3×3 convolutions (16 to 64 channels), for demonstrations", small_cnn::build),
    one!("resnet18", "ResNet-18 with CIFAR stem (pytorch-cifar names)", |b, i| RESNET18.build(b, i)),
    one!("resnet34", "ResNet-34 with CIFAR stem", |b, i| RESNET34.build(b, i)),
    one!("resnet50", "ResNet-50 with CIFAR stem", |b, i| RESNET50.build(b, i)),
    one!("resnet18-imagenet", "ResNet-18 with 7×7 stem and max pooling (torchvision names)", |b, i| {
        ResNet { imagenet_stem: true, ..RESNET18 }.build(b, i)
    }),
    one!("resnet34-imagenet", "ResNet-34 with 7×7 stem and max pooling", |b, i| {
        ResNet { imagenet_stem: true, ..RESNET34 }.build(b, i)
    }),
    one!("resnet50-imagenet", "ResNet-50 with 7×7 stem and max pooling", |b, i| {
        ResNet { imagenet_stem: true, ..RESNET50 }.build(b, i)
    }),
    Entry {
        name: "resnetD",
        description: "thin CIFAR ResNet of depth D = 6n + 2, shortcuts \"A\": resnet20, resnet32, resnet44, resnet56, …",
        family: Family::Numbered {
            find: |name| thin(cifar_resnet::Variant::A, name.strip_prefix("resnet")?),
            read: |names| Some(format!("resnet{}", 6 * names.count("layer1.")? + 2)),
            examples: &["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"],
        },
    },
    Entry {
        name: "resnetD-b",
        description: "the same with 1×1 shortcuts \"B\": resnet20-b, …",
        family: Family::Numbered {
            find: |name| thin(cifar_resnet::Variant::B, name.strip_prefix("resnet")?.strip_suffix("-b")?),
            read: |names| Some(format!("resnet{}-b", 6 * names.count("layer1.")? + 2)),
            examples: &["resnet20-b", "resnet32-b", "resnet44-b", "resnet56-b", "resnet110-b"],
        },
    },
    Entry {
        name: "cifar_resnet_N",
        description: "OpenLTH's thin ResNet of depth N = 6n + 2 (cifar_resnet_N_W: width W; with _dw, _sp, _dw_sp, _di: \
                      depthwise, separable, no spatial filters)",
        family: Family::Numbered {
            find: |name| open_lth(name.strip_prefix("cifar_resnet_")?),
            read: |names| Some(format!("cifar_resnet_{}", 2 * names.count("blocks.")? + 2)),
            examples: &["cifar_resnet_20", "cifar_resnet_14_8", "cifar_resnet_20_dw"],
        },
    },
    one!("resnet9", "low-resolution ResNet-9 of filter frequency regularization", resnet9::build),
    one!(
        "efficientnet_b0",
        "EfficientNet-B0 with stride-1 stem for low resolution (torchvision names)",
        |b, i| { efficientnet::build(1, b, i) }
    ),
    one!("efficientnet_b0-imagenet", "EfficientNet-B0 with stride-2 stem", |b, i| {
        efficientnet::build(2, b, i)
    }),
    Entry {
        name: "efficientnet-bN",
        description: "EfficientNet-B0 to B8 of efficientnet_pytorch (its names, dropout, padding), stem stride set to 1",
        family: Family::Numbered {
            find: |name| efficient(name.strip_prefix("efficientnet-b")?, 1),
            read: |_| None,
            examples: &["efficientnet-b0", "efficientnet-b1"],
        },
    },
    Entry {
        name: "efficientnet-bN-imagenet",
        description: "the same with the package's stem stride of 2",
        family: Family::Numbered {
            find: |name| efficient(name.strip_prefix("efficientnet-b")?.strip_suffix("-imagenet")?, 2),
            read: |_| None,
            examples: &["efficientnet-b0-imagenet"],
        },
    },
    one!("preactresnet18", "pre-activation ResNet-18 as in JaFR (no final batch norm)", |b, i| {
        preact_resnet::build(preact_resnet::Variant::Jafr, b, i)
    }),
    one!(
        "preactresnet18-bn",
        "pre-activation ResNet-18 with final batch norm (fast AT, RobustBench)",
        |b, i| preact_resnet::build(preact_resnet::Variant::FinalNorm, b, i)
    ),
    Entry {
        name: "wrn-D-K",
        description: "WideResNet of depth D = 6n + 4 and widening K, e.g. wrn-28-10, wrn-34-10",
        family: Family::Numbered {
            find: wide,
            read: |names| {
                let widening = names.elements("block1.layer.0.bn2.weight")?
                    / names.elements("block1.layer.0.bn1.weight")?.max(1);
                Some(format!("wrn-{}-{widening}", 6 * names.count("block1.layer.")? + 4))
            },
            examples: &["wrn-28-10", "wrn-34-10", "wrn-34-20", "wrn-70-16", "wrn-28-4", "wrn-16-4"],
        },
    },
    one!("vgg11_bn", "VGG-11 with batch norm, averaged features, one linear layer", |b, i| {
        vgg::build(vgg::VGG11, b, i)
    }),
    one!("vgg16_bn", "VGG-16 with batch norm, averaged features, one linear layer", |b, i| {
        vgg::build(vgg::VGG16, b, i)
    }),
    one!("vgg11_bn-imagenet", "VGG-11 with batch norm and torchvision's three linear layers", |b, i| {
        vgg::build_imagenet(vgg::VGG11, b, i)
    }),
    one!("vgg16_bn-imagenet", "VGG-16 with batch norm and torchvision's three linear layers", |b, i| {
        vgg::build_imagenet(vgg::VGG16, b, i)
    }),
];

const RESNET18: ResNet = ResNet { blocks: [2, 2, 2, 2], bottleneck: false, imagenet_stem: false };
const RESNET34: ResNet = ResNet { blocks: [3, 4, 6, 3], ..RESNET18 };
const RESNET50: ResNet = ResNet { bottleneck: true, ..RESNET34 };

/// The architecture of that name, or of the name that official code gives to it.
///
/// # Errors
/// For unknown names, with the nearest known one, and for depths that a family does not have.
pub fn find(name: &str) -> Result<BuildFn> {
    let own = canonical(name);
    let found = ENTRIES.iter().find_map(|entry| match entry.family {
        Family::One(build) => (entry.name == own).then(|| Ok(Box::new(build) as BuildFn)),
        // Names without numbers come first in a family of the same beginning: resnet18 is not thin.
        Family::Numbered { find, .. } => find(&own),
    });
    found.unwrap_or_else(|| Err(unknown(name)))
}

/// Our name for an architecture that official code calls otherwise; other names stay.
pub fn canonical(name: &str) -> String {
    match name {
        // Filter frequency regularization.
        "lowres_resnet9" => "resnet9".to_owned(),
        _ => name
            .strip_prefix("openlth_resnet_")
            .map_or(name.to_owned(), |rest| format!("cifar_resnet_{rest}")),
    }
}

/// The names under which a state dict could be known: every network without numbers, and of each family the one
/// whose numbers the state dict suggests.
pub(crate) fn candidates(names: &Names) -> Vec<String> {
    let name = |entry: &Entry| match entry.family {
        Family::One(_) => Some(entry.name.to_owned()),
        Family::Numbered { read, .. } => read(names),
    };
    ENTRIES.iter().filter_map(name).filter(|name| find(name).is_ok()).collect()
}

/// OpenLTH's thin ResNet from the rest of its name: depth, width, kinds of filters.
fn open_lth(rest: &str) -> Option<Result<BuildFn>> {
    let numbers = rest.trim_end_matches(|c: char| c == '_' || c.is_ascii_lowercase());
    let filters = cifar_resnet::Filters::from_suffix(&rest[numbers.len()..])?;
    thin(cifar_resnet::Variant::OpenLth(filters), numbers)
}

/// EfficientNet of efficientnet_pytorch, from its number.
fn efficient(number: &str, stride: usize) -> Option<Result<BuildFn>> {
    let number: usize = number.parse().ok().filter(|number| *number < efficientnet_pytorch::COUNT)?;
    Some(Ok(Box::new(move |b, i| efficientnet_pytorch::build(number, stride, b, i))))
}

/// A thin ResNet from the rest of its name: a depth, of OpenLTH's also a width.
fn thin(variant: cifar_resnet::Variant, rest: &str) -> Option<Result<BuildFn>> {
    let (depth, width) = match rest.split_once('_') {
        Some((depth, width)) if matches!(variant, cifar_resnet::Variant::OpenLth(_)) => {
            (depth, Some(width.parse::<usize>().ok()?))
        }
        _ => (rest, None),
    };
    let depth: usize = depth.parse().ok()?;
    if depth > MAX_DEPTH {
        return Some(Err(too_deep(depth)));
    }
    (depth >= 8 && depth % 6 == 2).then(|| -> Result<BuildFn> {
        Ok(Box::new(move |b, mut i| {
            i.width = i.width.or(width);
            i.check()?;
            cifar_resnet::build(variant, depth, b, i)
        }))
    })
}

fn wide(name: &str) -> Option<Result<BuildFn>> {
    let (depth, widening) = name.strip_prefix("wrn-")?.split_once('-')?;
    let (depth, widening): (usize, usize) = (depth.parse().ok()?, widening.parse().ok()?);
    let refuse = |reason: String| Some(Err(Error::config(format!("{name}: {reason}"))));
    if depth < 10 || depth % 6 != 4 {
        return refuse("a WideResNet's depth is 6n + 4 (10, 16, 22, 28, 34, …)".into());
    }
    if !(1..=MAX_WIDENING).contains(&widening) {
        return refuse(format!("a WideResNet's widening lies between 1 and {MAX_WIDENING}"));
    }
    if depth > MAX_DEPTH {
        return Some(Err(too_deep(depth)));
    }
    Some(Ok(Box::new(move |b, i| wide_resnet::build(depth, widening, b, i))))
}

fn too_deep(depth: usize) -> Error {
    Error::config(format!("a network of depth {depth} is not built; the most is {MAX_DEPTH}"))
}

fn unknown(name: &str) -> Error {
    let known = ENTRIES.iter().flat_map(|entry| match entry.family {
        Family::One(_) => vec![entry.name],
        Family::Numbered { examples, .. } => examples.to_vec(),
    });
    let hint = suggest::hint(name, known);
    Error::config(format!("unknown model '{name}'; {hint}`bandwise models` lists all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        find(name).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn names_with_numbers() {
        for good in [
            "wrn-28-10",
            "efficientnet-b0",
            "efficientnet-b8-imagenet",
            "resnet20",
            "resnet56-b",
            "resnet110",
            "cifar_resnet_20",
            "cifar_resnet_14_8",
            "cifar_resnet_14_8_dw_sp",
            "cifar_resnet_20_di",
        ] {
            assert!(find(good).is_ok(), "{good}");
        }
        for bad in [
            "wrn-27-10",
            "efficientnet-b9",
            "resnet21",
            "cifar_resnet_20_x",
            "resnet",
            "wrn-28",
            "resnet20_8",
            "wrn-10-0",
        ] {
            assert!(find(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_line_can_be_found() {
        for entry in ENTRIES {
            match entry.family {
                Family::One(_) => assert!(find(entry.name).is_ok(), "{}", entry.name),
                Family::Numbered { examples, .. } => examples.iter().for_each(|name| {
                    assert!(find(name).is_ok(), "{name}");
                }),
            }
        }
    }

    #[test]
    fn a_typing_error_gets_a_suggestion_and_another_network_none() {
        assert!(message("resnet19").contains("did you mean `resnet18`?"), "{}", message("resnet19"));
        for other in ["convnext_tiny", "vit_tiny", "densenet121"] {
            assert_eq!(message(other), format!("unknown model '{other}'; `bandwise models` lists all"));
        }
    }

    #[test]
    fn official_names_are_known() {
        for official in ["openlth_resnet_20", "openlth_resnet_14_8", "lowres_resnet9"] {
            assert!(find(official).is_ok(), "{official}");
        }
    }

    #[test]
    fn absurd_depths_are_refused_at_once() {
        for name in ["cifar_resnet_99999999998", "wrn-99999999994-1", "resnet99999999998", "wrn-10-99999999"]
        {
            assert!(find(name).is_err(), "{name}");
        }
        assert!(message("resnet99999999998").contains("the most is 10000"));
    }
}
