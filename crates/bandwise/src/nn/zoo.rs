//! Architectures by name.

use super::architecture::resnet::ResNet;
use super::architecture::{
    Construct, cifar_resnet, efficientnet, preact_resnet, resnet9, small_cnn, vgg, wide_resnet,
};
use crate::{Error, Result};

/// One line of `bandwise models`.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name to type; upper-case letters stand for numbers.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
}

/// Every name that [`find`] knows.
pub const ENTRIES: &[Entry] = &[
    Entry { name: "smallcnn", description: "four 3×3 convolutions (16 to 64 channels), for demonstrations" },
    Entry { name: "resnet18", description: "ResNet-18 with CIFAR stem (pytorch-cifar names)" },
    Entry { name: "resnet34", description: "ResNet-34 with CIFAR stem" },
    Entry { name: "resnet50", description: "ResNet-50 with CIFAR stem" },
    Entry {
        name: "resnet18-imagenet",
        description: "ResNet-18 with 7×7 stem and max pooling (torchvision names)",
    },
    Entry { name: "resnet34-imagenet", description: "ResNet-34 with 7×7 stem and max pooling" },
    Entry { name: "resnet50-imagenet", description: "ResNet-50 with 7×7 stem and max pooling" },
    Entry {
        name: "resnet20",
        description: "thin CIFAR ResNet, shortcuts \"A\" (also resnet32, resnet44, resnet56)",
    },
    Entry { name: "resnet20-b", description: "the same with 1×1 shortcuts \"B\" (also resnet32-b, …)" },
    Entry {
        name: "cifar_resnet_N",
        description: "OpenLTH's thin ResNet of depth N = 6n + 2 (cifar_resnet_N_W: width W)",
    },
    Entry { name: "resnet9", description: "low-resolution ResNet-9 of filter frequency regularization" },
    Entry {
        name: "efficientnet_b0",
        description: "EfficientNet-B0 with stride-1 stem for low resolution (torchvision names)",
    },
    Entry { name: "efficientnet_b0-imagenet", description: "EfficientNet-B0 with stride-2 stem" },
    Entry {
        name: "preactresnet18",
        description: "pre-activation ResNet-18 as in JaFR (no final batch norm)",
    },
    Entry {
        name: "preactresnet18-bn",
        description: "pre-activation ResNet-18 with final batch norm (fast AT, RobustBench)",
    },
    Entry {
        name: "wrn-D-K",
        description: "WideResNet of depth D = 6n + 4 and widening K, e.g. wrn-28-10, wrn-34-10",
    },
    Entry { name: "vgg11_bn", description: "VGG-11 with batch norm, averaged features, one linear layer" },
    Entry { name: "vgg16_bn", description: "VGG-16 with batch norm, averaged features, one linear layer" },
    Entry {
        name: "vgg11_bn-imagenet",
        description: "VGG-11 with batch norm and torchvision's three linear layers (also vgg16_bn-imagenet)",
    },
];

/// The architecture of that name.
pub fn find(name: &str) -> Result<Construct> {
    let resnet = |blocks, bottleneck, imagenet_stem| -> Result<Construct> {
        let family = ResNet { blocks, bottleneck, imagenet_stem };
        Ok(Box::new(move |b, i| family.build(b, i)))
    };
    match name {
        "smallcnn" => Ok(Box::new(small_cnn::build)),
        "resnet18" => resnet([2, 2, 2, 2], false, false),
        "resnet34" => resnet([3, 4, 6, 3], false, false),
        "resnet50" => resnet([3, 4, 6, 3], true, false),
        "resnet18-imagenet" => resnet([2, 2, 2, 2], false, true),
        "resnet34-imagenet" => resnet([3, 4, 6, 3], false, true),
        "resnet50-imagenet" => resnet([3, 4, 6, 3], true, true),
        "resnet9" => Ok(Box::new(resnet9::build)),
        "efficientnet_b0" => Ok(Box::new(|b, i| efficientnet::build(1, b, i))),
        "efficientnet_b0-imagenet" => Ok(Box::new(|b, i| efficientnet::build(2, b, i))),
        "preactresnet18" => Ok(Box::new(|b, i| preact_resnet::build(preact_resnet::Variant::Jafr, b, i))),
        "preactresnet18-bn" => {
            Ok(Box::new(|b, i| preact_resnet::build(preact_resnet::Variant::FinalNorm, b, i)))
        }
        "vgg11_bn" => Ok(Box::new(|b, i| vgg::build(vgg::VGG11, b, i))),
        "vgg11_bn-imagenet" => Ok(Box::new(|b, i| vgg::build_imagenet(vgg::VGG11, b, i))),
        "vgg16_bn-imagenet" => Ok(Box::new(|b, i| vgg::build_imagenet(vgg::VGG16, b, i))),
        "vgg16_bn" => Ok(Box::new(|b, i| vgg::build(vgg::VGG16, b, i))),
        _ => numbered(name).unwrap_or_else(|| Err(unknown(name))),
    }
}

/// Families whose names carry numbers.
fn numbered(name: &str) -> Option<Result<Construct>> {
    let thin = |variant, depth: usize, width: Option<usize>| -> Option<Result<Construct>> {
        (depth >= 8 && depth % 6 == 2).then(|| -> Result<Construct> {
            Ok(Box::new(move |b, mut i| {
                i.width = i.width.or(width);
                cifar_resnet::build(variant, depth, b, i)
            }))
        })
    };
    if let Some(rest) = name.strip_prefix("wrn-") {
        let (depth, widen) = rest.split_once('-')?;
        let (depth, widen): (usize, usize) = (depth.parse().ok()?, widen.parse().ok()?);
        if depth < 10 || depth % 6 != 4 || widen == 0 {
            return Some(Err(Error::config(format!(
                "{name}: a WideResNet's depth is 6n + 4 (10, 16, 22, 28, 34, …)"
            ))));
        }
        return Some(Ok(Box::new(move |b, i| wide_resnet::build(depth, widen, b, i))));
    }
    if let Some(rest) = name.strip_prefix("cifar_resnet_") {
        let (depth, width) = rest.split_once('_').map_or((rest, None), |(d, w)| (d, Some(w)));
        let width = width.map(str::parse).transpose().ok()?;
        return thin(cifar_resnet::Variant::OpenLth, depth.parse().ok()?, width);
    }
    let rest = name.strip_prefix("resnet")?;
    match rest.strip_suffix("-b") {
        Some(depth) => thin(cifar_resnet::Variant::B, depth.parse().ok()?, None),
        None => thin(cifar_resnet::Variant::A, rest.parse().ok()?, None),
    }
}

fn unknown(name: &str) -> Error {
    let near = ENTRIES
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(name, a.name).total_cmp(&strsim::jaro_winkler(name, b.name)));
    let hint = near.map_or(String::new(), |entry| format!("; did you mean {}?", entry.name));
    Error::config(format!("unknown model '{name}'{hint} `bandwise models` lists all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_numbers() {
        for good in ["wrn-28-10", "resnet20", "resnet56-b", "cifar_resnet_20", "cifar_resnet_14_8"] {
            assert!(find(good).is_ok(), "{good}");
        }
        for bad in ["wrn-27-10", "resnet21", "cifar_resnet_20_x", "resnet", "wrn-28"] {
            assert!(find(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_typing_error_gets_a_suggestion() {
        let message = find("resnet19").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message.contains("did you mean resnet"), "{message}");
    }
}
