//! The shipped recipes against the published set-ups, transcribed from the official repositories.

use std::path::PathBuf;

use super::*;
use crate::attack::{Attack, Epsilon, Pgd, PgdLoss, Start};
use crate::method::filter_frequency::PenaltyKind;
use crate::nn::decomposed::Domain;
use crate::train::regularizers::Tracked;
use crate::train::selection::Selection;
use crate::train::step::AttackMode;

fn recipes(folder: &str) -> Vec<Recipe> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(folder);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> =
        files.map(|path| Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"))).collect();
    assert!(!found.is_empty(), "{}", folder.display());
    found
}

/// A line of filter frequency regularization's `data.py`.
struct DataSet {
    name: &'static str,
    /// What the options of ours must say.
    options: &'static [(&'static str, &'static str)],
    augment: &'static str,
    mean: &'static [f64],
    std: &'static [f64],
    /// Channels of the images.
    channels: usize,
}

const IMAGENET_MEAN: &[f64] = &[0.485, 0.456, 0.406];
const IMAGENET_STD: &[f64] = &[0.229, 0.224, 0.225];
const RESIZED_32: &[(&str, &str)] = &[("size", "32")];

const DATA_SETS: [DataSet; 14] = [
    DataSet {
        name: "cifar10",
        options: &[],
        augment: "crop 32 padding 4, flip",
        mean: &[0.49139968, 0.48215841, 0.44653091],
        std: &[0.24703223, 0.24348513, 0.26158784],
        channels: 3,
    },
    DataSet {
        name: "cifar100",
        options: &[],
        augment: "crop 32 padding 4, flip",
        mean: &[0.50707516, 0.48654887, 0.44091784],
        std: &[0.26733429, 0.25643846, 0.27615047],
        channels: 3,
    },
    DataSet {
        name: "cinic10",
        options: &[("test_part", "valid")],
        augment: "crop 32 padding 4, flip",
        mean: &[0.47889522, 0.47227842, 0.43047404],
        std: &[0.24205776, 0.23828046, 0.25874835],
        channels: 3,
    },
    DataSet {
        name: "svhn",
        options: &[],
        augment: "",
        mean: &[0.4377, 0.4438, 0.4728],
        std: &[0.1980, 0.2010, 0.1970],
        channels: 3,
    },
    DataSet { name: "mnist", options: RESIZED_32, augment: "", mean: &[0.1307], std: &[0.3081], channels: 1 },
    DataSet {
        name: "kmnist",
        options: RESIZED_32,
        augment: "",
        mean: &[0.1918],
        std: &[0.3483],
        channels: 1,
    },
    DataSet {
        name: "fashion-mnist",
        options: RESIZED_32,
        augment: "",
        mean: &[0.2860],
        std: &[0.3530],
        channels: 1,
    },
    DataSet {
        name: "tinyimagenet",
        options: &[("size", "56"), ("resize", "64"), ("size_of", "test")],
        augment: "resized crop 56",
        mean: &[0.4802, 0.4481, 0.3975],
        std: &[0.2764, 0.2689, 0.2816],
        channels: 3,
    },
    DataSet {
        name: "grocery",
        options: &[
            ("labels", "coarse"),
            ("test_part", "val"),
            ("size", "32"),
            ("resize", "48"),
            ("size_of", "test"),
        ],
        augment: "resize 48, resized crop 32, flip",
        mean: &[0.5525, 0.4104, 0.2445],
        std: &[0.2205, 0.1999, 0.1837],
        channels: 3,
    },
    DataSet {
        name: "sun397",
        options: &[("holdout", "0.15"), ("size", "32"), ("resize", "38"), ("size_of", "test")],
        augment: "resized crop 32",
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        channels: 3,
    },
    DataSet {
        name: "imagenet",
        options: &[("size", "224"), ("resize", "256"), ("size_of", "test")],
        augment: "resized crop 224, flip",
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
        channels: 3,
    },
    DataSet {
        name: "flowers102",
        options: &[("test_part", "val"), ("size", "224"), ("fit", "stretch"), ("size_of", "test")],
        augment: "crop 224, flip",
        mean: &[0.4330, 0.3819, 0.2964],
        std: &[0.2736, 0.2240, 0.2525],
        channels: 3,
    },
    DataSet {
        name: "pets",
        options: &[("size", "224"), ("fit", "stretch"), ("size_of", "test")],
        augment: "crop 224, flip",
        mean: &[0.4783, 0.4459, 0.3957],
        std: &[0.2627, 0.2572, 0.2653],
        channels: 3,
    },
    DataSet {
        name: "dtd",
        options: &[("test_part", "val"), ("size", "224"), ("resize", "256"), ("size_of", "test")],
        augment: "resize 256, resized crop 224, flip, vertical flip",
        mean: &[0.5347, 0.4772, 0.4275],
        std: &[0.2624, 0.2535, 0.2612],
        channels: 3,
    },
];

/// Augmentation in torchvision's words.
fn described(steps: &[Augment]) -> String {
    let step = |step: &Augment| match step {
        Augment::RandomCrop { padding: 4, size: None } => "crop 32 padding 4".into(),
        Augment::RandomCrop { padding: 0, size: Some(size) } => format!("crop {size}"),
        Augment::HorizontalFlip => "flip".into(),
        Augment::VerticalFlip => "vertical flip".into(),
        Augment::Resize { size } => format!("resize {size}"),
        Augment::RandomResizedCrop { size, scale: (0.08, 1.0), ratio } if *ratio == (0.75, 4.0 / 3.0) => {
            format!("resized crop {size}")
        }
        other => format!("{other:?}"),
    };
    steps.iter().map(step).collect::<Vec<_>>().join(", ")
}

fn is_ours(recipe: &Recipe) -> bool {
    recipe.source.starts_with("ours, after ")
}

#[test]
fn filter_frequency_recipes_are_the_official_set_ups() {
    let recipes = recipes("filter-frequency");
    let mut seen = std::collections::BTreeSet::new();
    for recipe in &recipes {
        let name = &recipe.name;
        assert_eq!(recipe.evaluation.every, 1, "{name}: the best is judged after every epoch");
        let (network, rest) = name.split_once('-').unwrap();
        let data =
            DATA_SETS.iter().filter(|data| rest == data.name || rest.starts_with(&format!("{}-", data.name)));
        let Some(data) = data.max_by_key(|data| data.name.len()) else {
            assert!(is_ours(recipe), "{name} names no official data set");
            continue;
        };
        // The data, also of our own variations.
        let place = recipe.data.source.location().unwrap().file_name().unwrap().to_str().unwrap();
        assert_eq!(place.replace("tiny-imagenet-200", "tinyimagenet"), data.name, "{name}");
        for (key, value) in data.options {
            assert_eq!(recipe.data.source.option(key), Some(*value), "{name}: {key}");
        }
        let options = recipe.data.source.to_string().matches('=').count();
        assert_eq!(options, data.options.len(), "{name}: {}", recipe.data.source);
        assert_eq!(described(&recipe.data.augment), data.augment, "{name}");
        let normalization = recipe.model.normalization.as_ref().unwrap();
        assert_eq!((&normalization.mean[..], &normalization.std[..]), (data.mean, data.std), "{name}");
        assert_eq!(normalization.mean.len(), data.channels, "{name}");
        if is_ours(recipe) {
            continue;
        }
        // What train.py sets and its README's commands give.
        assert!(recipe.source.starts_with("Lukasik et al., TMLR 2023, official train.py"), "{name}");
        assert_eq!((recipe.seed, recipe.epochs, recipe.batch_size), (2, 125, 256), "{name}");
        assert!(!recipe.data.drop_last && recipe.data.train_limit.is_none(), "{name}");
        assert!(matches!(&recipe.objective, Objective::Standard(s) if s.label_smoothing == 0.0), "{name}");
        let (rate, decay, schedule) = match network {
            "resnet9" => (0.01, 0.01, Schedule::Step { every: 30, factor: 0.1 }),
            _ => (0.001, 0.05, Schedule::Cosine { floor: 0.0, per: crate::train::schedule::Interval::Epoch }),
        };
        assert_eq!((recipe.learning_rate, &recipe.schedule), (rate, &schedule), "{name}");
        let architecture = if network == "resnet9" { "resnet9" } else { "efficientnet-b0" };
        assert_eq!(recipe.model.architecture, architecture, "{name}");
        let adamw = OptimizerConfig::AdamW { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: decay };
        assert_eq!(recipe.optimizer, adamw, "{name}");
        check_flags(recipe, &rest[data.name.len()..]);
        seen.insert(data.name);
    }
    assert_eq!(seen.len(), DATA_SETS.len(), "data sets without a recipe: only {seen:?}");
}

/// `--basis_filter`, `--l2_reg` and the flags of the penalty, by the end of the name.
fn check_flags(recipe: &Recipe, variant: &str) {
    let name = &recipe.name;
    let domain = match variant {
        "" => None,
        "-sd-high" => Some(Domain::Signal),
        _ => Some(Domain::Weight),
    };
    let found = recipe.model.decomposition.as_ref();
    assert_eq!(found.map(|d| (d.kind, d.min_kernel_size)), domain.map(|domain| (domain, 3)), "{name}");
    let kind = match variant {
        "" | "-wd" => None,
        "-high" | "-sd-high" => Some((PenaltyKind::High, false)),
        "-weighted" => Some((PenaltyKind::Weighted, false)),
        "-monotone" => Some((PenaltyKind::Monotone, false)),
        "-low-dominance" => Some((PenaltyKind::High, true)),
        other => panic!("{name}: what is {other}?"),
    };
    let penalty = recipe.regularizers.filter_frequency.as_ref();
    let found = penalty.map(|p| (p.kind, p.low_dominance));
    assert_eq!(found, kind, "{name}");
    assert!(penalty.is_none_or(|p| p.lambda == 0.01 && p.depth == 3.0), "{name}");
}

/// One of JaFR's `example_scripts`.
struct Script {
    recipe: &'static str,
    attack: &'static str,
    rate: f64,
    jafr: Option<f64>,
    grad_align: Option<f64>,
    /// Whether it has all `--track_…` flags; the others have none.
    tracks: bool,
}

const fn script(
    recipe: &'static str,
    attack: &'static str,
    rate: f64,
    jafr: Option<f64>,
    grad_align: Option<f64>,
    tracks: bool,
) -> Script {
    Script { recipe, attack, rate, jafr, grad_align, tracks }
}

const SCRIPTS: [Script; 11] = [
    script("cifar10-standard", "none", 0.2, None, None, true),
    script("cifar10-jafr", "none", 0.2, Some(0.001), None, true),
    script("cifar10-fgsm", "fgsm", 0.2, None, None, false),
    script("cifar10-gradalign", "fgsm", 0.3, None, Some(0.2), false),
    script("cifar10-jafr-fgsm", "fgsm", 0.3, Some(0.001), None, true),
    script("cifar10-pgd", "pgd", 0.3, None, None, true),
    script("cifar100-standard", "none", 0.2, None, None, false),
    script("cifar100-jafr", "none", 0.1, Some(0.001), None, true),
    script("cifar100-gradalign", "fgsm", 0.3, None, Some(0.2), false),
    script("cifar100-jafr-fgsm", "fgsm", 0.3, Some(0.002), None, true),
    script("cifar100-pgd", "pgd", 0.3, None, None, true),
];

#[test]
fn jafr_recipes_are_the_official_scripts() {
    let recipes = recipes("jafr");
    for recipe in &recipes {
        let name = &recipe.name;
        assert_eq!((recipe.seed, recipe.epochs, recipe.batch_size), (1, 30, 128), "{name}");
        assert!(recipe.data.drop_last && recipe.model.normalization.is_none(), "{name}");
        let flip = if name.starts_with("svhn") { "" } else { ", flip" };
        assert_eq!(described(&recipe.data.augment), format!("crop 32 padding 4{flip}"), "{name}");
        let sgd = OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: 5e-4 };
        assert_eq!((&recipe.optimizer, &recipe.schedule), (&sgd, &Schedule::Cyclic { peak: 0.4 }), "{name}");
        assert_eq!(recipe.model.architecture, "preactresnet18", "{name}");
        check_evaluation(recipe);
        // ε ramps on SVHN, and nowhere else.
        let ramps = recipe.objective.epsilon_warmup() > 0.0;
        assert_eq!(ramps, name.starts_with("svhn") && recipe.objective.is_adversarial(), "{name}");
        let Some(script) = SCRIPTS.iter().find(|script| script.recipe == name) else {
            assert!(is_ours(recipe), "{name} is no official script, but says \"{}\"", recipe.source);
            continue;
        };
        assert!(recipe.source.starts_with("JaFR (IJCAI 2022), example_scripts/C10"), "{name}");
        assert!(!recipe.source.contains("but for"), "{name}");
        assert_eq!(recipe.learning_rate, script.rate, "{name}");
        assert_eq!(recipe.regularizers.jafr.as_ref().map(|jafr| jafr.lambda), script.jafr, "{name}");
        let grad_align = recipe.regularizers.grad_align.as_ref();
        assert_eq!(grad_align.map(|align| align.lambda), script.grad_align, "{name}");
        assert!(grad_align.is_none_or(|align| align.detach_clean), "{name}");
        let all = [Tracked::GroupSparsity, Tracked::GradientNorm, Tracked::LowFrequencyBias];
        let track: &[Tracked] = if script.tracks { &all } else { &[] };
        assert_eq!(recipe.regularizers.track, track, "{name}");
        check_attack(recipe, script.attack);
    }
    let names: Vec<&str> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
    assert!(SCRIPTS.iter().all(|script| names.contains(&script.recipe)), "{names:?}");
}

/// `--attack`, `--eps=8`, `--attack_init=zero`, in training mode. From the image itself FGSM's step of 1.25 ε is cut at ε.
fn check_attack(recipe: &Recipe, name: &str) {
    let Objective::Adversarial(objective) = &recipe.objective else {
        return assert_eq!(name, "none", "{}", recipe.name);
    };
    assert_eq!(objective.attack_mode, AttackMode::Train, "{}", recipe.name);
    assert_eq!(objective.attack.epsilon(), Epsilon::of_255(8.0), "{}", recipe.name);
    match &objective.attack {
        Attack::Fgsm(_) => assert_eq!(name, "fgsm"),
        Attack::Pgd(pgd) => {
            let step = Some(Epsilon::of_255(2.0));
            assert_eq!((name, pgd.steps, pgd.step_size, pgd.start), ("pgd", 10, step, Start::Zero));
        }
        other => panic!("{}: {other}", recipe.name),
    }
}

/// eval.py: PGD-50 with ten restarts and steps of ε/4 at four ε, and on the margin at 8/255.
fn check_evaluation(recipe: &Recipe) {
    let pgd = |epsilon: f64, loss| {
        let (epsilon, step_size) = (Epsilon::of_255(epsilon), Some(Epsilon::of_255(epsilon / 4.0)));
        Attack::Pgd(Pgd { epsilon, step_size, steps: 50, restarts: 10, loss, ..Pgd::default() })
    };
    let mut expected = [4.0, 8.0, 12.0, 16.0].map(|epsilon| pgd(epsilon, PgdLoss::CrossEntropy)).to_vec();
    expected.push(pgd(8.0, PgdLoss::Margin));
    assert_eq!(recipe.evaluation.final_attacks, expected, "{}", recipe.name);
    // train.py: --eval_iter_freq, --n_eval_every_k_iter and --attack_iters.
    let attack = Attack::Pgd(Pgd {
        steps: 10,
        restarts: 1,
        ..match &expected[1] {
            Attack::Pgd(pgd) => pgd.clone(),
            other => panic!("{other}"),
        }
    });
    let select = Selection { images: 256, every: 200, attack };
    assert_eq!(recipe.evaluation.select, Some(select), "{}", recipe.name);
}

/// The official FPCM script: D0 counts to 120 in ResNet-18, evaluations come every tenth epoch and every one after
/// int(0.7 · epochs), and its extra clean pass is named.
#[test]
fn fpcm_recipes_are_the_official_script() {
    for recipe in recipes("fpcm").iter().filter(|recipe| recipe.source.contains("official train.py")) {
        let name = &recipe.name;
        assert!(recipe.source.ends_with("but for the clean pass before each attack"), "{name}");
        let wide = recipe.model.architecture == "wrn-34-10";
        let fpcm = recipe.model.fpcm.as_ref().unwrap();
        assert_eq!(fpcm.schedule_epochs, (!wide).then_some(120), "{name}");
        assert_eq!((fpcm.cutoff_start, fpcm.cutoff_end), (if wide { 8 } else { 2 }, 8), "{name}");
        assert_eq!((fpcm.omega_min, fpcm.omega_max, fpcm.omega), (0.5, 1.0, None), "{name}");
        let (epochs, rate, decay) = if wide { (60, 0.1, 5e-4) } else { (120, 0.01, 3.5e-3) };
        assert_eq!((recipe.epochs, recipe.learning_rate, recipe.batch_size), (epochs, rate, 128), "{name}");
        let sgd = OptimizerConfig::Sgd { momentum: 0.9, nesterov: false, weight_decay: decay };
        assert_eq!((&recipe.optimizer, &recipe.schedule), (&sgd, &Schedule::FpcmMultistep), "{name}");
        let official = |epoch: u64| epoch.is_multiple_of(10) || epoch > epochs * 7 / 10;
        for epoch in 1..=epochs {
            assert_eq!(recipe.evaluation.is_due(epoch, epochs), official(epoch), "{name}: epoch {epoch}");
        }
    }
}
