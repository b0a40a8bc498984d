//! The command line of filter frequency regularization's official `train.py` (Lukasik et al., TMLR 2023), put into
//! ours: its flags, names and defaults.

use std::path::PathBuf;

use bandwise::data::DataSpec;
use bandwise::method::filter_frequency::{Decomposition, Init, Penalty, PenaltyKind};
use bandwise::nn::decomposed::Domain;
use bandwise::train::optimizer::OptimizerConfig;
use bandwise::train::recipe::Recipe;
use bandwise::train::schedule::{Interval, Schedule};
use bandwise::{Error, Result};
use clap::{Args, ValueEnum};

use super::SharedFlags;

/// What only this script has.
#[derive(Args, Clone)]
#[command(next_help_heading = "Official command line of filter frequency regularization")]
pub struct FilterFlags {
    /// Folder that holds the data sets, each in a folder of its official name [default: data]
    #[arg(long = "data_dir", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Folder for runs: DIR/DATASET/MODEL/BASIS/SEED [default: output]
    #[arg(long = "output_dir", value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Channels of the images; -1: those of the data set
    #[arg(long = "model_in_channels", value_name = "N", allow_negative_numbers = true)]
    model_in_channels: Option<i64>,
    /// Outputs of the network; -1: the classes of the data set
    #[arg(long = "model_num_classes", value_name = "N", allow_negative_numbers = true)]
    model_num_classes: Option<i64>,
    /// Epochs [default: 125]
    #[arg(long = "max_epochs", value_name = "N")]
    max_epochs: Option<u64>,
    /// Optimizer [default: adamw]
    #[arg(long, value_name = "NAME", ignore_case = true)]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: 0.1]
    #[arg(long = "learning_rate", value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Momentum of SGD [default: 0.9]
    #[arg(long, value_name = "SHARE")]
    momentum: Option<f64>,
    /// Seed [default: 2]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Filters as coefficients: None, WD (weights) or SD (signal) [default: None]
    #[arg(long = "basis_filter", value_name = "NAME", ignore_case = true)]
    basis_filter: Option<BasisName>,
    /// First coefficients of WD [default: kaiming_uniform]
    #[arg(long = "init_scale", value_name = "NAME")]
    init_scale: Option<InitName>,
    /// 1: with the penalty (needs WD or SD) [default: 0]
    #[arg(long = "l2_reg", value_name = "0|1")]
    l2_reg: Option<u8>,
    /// Weight of the penalty [default: 0.01]
    #[arg(long = "l2_lambda", value_name = "LAMBDA")]
    l2_lambda: Option<f64>,
    /// 1 all layers, 2 half of them, 3 a third [default: 3]
    #[arg(long = "reg_depth", value_name = "DEPTH")]
    reg_depth: Option<f64>,
    /// 1: penalty on all frequencies but the lowest
    #[arg(long = "reg_all_freq", value_name = "0|1")]
    reg_all_freq: Option<u8>,
    /// 1: also where a low frequency exceeds the mean
    #[arg(long = "reg_diff", value_name = "0|1")]
    reg_diff: Option<u8>,
    /// 1: only where a higher frequency exceeds a lower one
    #[arg(long = "reg_diff_all", value_name = "0|1")]
    reg_diff_all: Option<u8>,
    /// Smallest kernel that is decomposed [default: 3]
    #[arg(long = "min_kernel_size", value_name = "N")]
    min_kernel_size: Option<usize>,
    /// Without effect here: images are read by as many threads as there are cores
    #[arg(long = "num_workers", value_name = "N", hide = true)]
    num_workers: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OptimizerName {
    Adam,
    Sgd,
    Adagrad,
    Rmsprop,
    Adamw,
    Adahessian,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum BasisName {
    None,
    #[value(name = "WD")]
    Weight,
    #[value(name = "SD")]
    Signal,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum InitName {
    #[value(name = "kaiming_uniform")]
    Uniform,
    #[value(name = "kaiming_normal")]
    Normal,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SchedulerName {
    #[value(name = "WarmupCosine")]
    WarmupCosine,
    #[value(name = "Step")]
    Step,
    #[value(name = "Step_wide")]
    StepWide,
    #[value(name = "FrankleStep")]
    FrankleStep,
    #[value(name = "Cosine")]
    Cosine,
    #[value(name = "None")]
    None,
}

/// Official name of each data set, and the recipe that reads it.
const DATA_SETS: [(&str, &str); 14] = {
    macro_rules! recipe {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/filter-frequency/", $name, ".toml"))
        };
    }
    [
        ("cifar10", recipe!("resnet9-cifar10")),
        ("cifar100", recipe!("resnet9-cifar100")),
        ("mnist", recipe!("resnet9-mnist")),
        ("kmnist", recipe!("resnet9-kmnist")),
        ("fashionmnist", recipe!("resnet9-fashion-mnist")),
        ("cinic10", recipe!("resnet9-cinic10")),
        ("imagenet", recipe!("efficientnet-imagenet")),
        ("svhn", recipe!("resnet9-svhn")),
        ("tinyimagenet", recipe!("efficientnet-tinyimagenet")),
        ("grocerystore", recipe!("resnet9-grocery")),
        ("sun397", recipe!("resnet9-sun397")),
        ("flowers102", recipe!("efficientnet-flowers102")),
        ("oxfordiiitpet", recipe!("efficientnet-pets")),
        ("dtd", recipe!("efficientnet-dtd")),
    ]
};

const MODEL: &str = "lowres_resnet9";

/// Whether a name is one of this script's networks.
pub fn is_its_model(name: &str) -> bool {
    name == MODEL || name.starts_with("openlth_") || name.starts_with("efficientnet-")
}

/// One of this script's networks by our name.
fn our_model(name: &str) -> Result<String> {
    match name.strip_prefix("openlth_") {
        _ if name == MODEL => Ok("resnet9".into()),
        Some(rest) => Ok(format!("cifar_{}", rest.strip_prefix("cifar_").unwrap_or(rest))),
        None if name.starts_with("efficientnet-") => Ok(name.into()),
        None => Err(Error::config(format!(
            "--model {name}: expected {MODEL}, openlth_resnet_N, openlth_resnet_N_W or efficientnet-b0 to -b8"
        ))),
    }
}

impl FilterFlags {
    /// Whether any of the flags was given.
    pub(super) fn is_given(&self) -> bool {
        let Self {
            data_dir,
            output_dir,
            model_in_channels,
            model_num_classes,
            max_epochs,
            optimizer,
            learning_rate,
            momentum,
            seed,
            basis_filter,
            init_scale,
            l2_reg,
            l2_lambda,
            reg_depth,
            reg_all_freq,
            reg_diff,
            reg_diff_all,
            min_kernel_size,
            num_workers,
        } = self;
        let paths = data_dir.is_some() || output_dir.is_some();
        let sizes = model_in_channels.is_some() || model_num_classes.is_some() || max_epochs.is_some();
        let rates = [learning_rate, momentum, l2_lambda, reg_depth].into_iter().any(Option::is_some);
        let switches = [l2_reg, reg_all_freq, reg_diff, reg_diff_all].into_iter().any(Option::is_some);
        let names = optimizer.is_some() || basis_filter.is_some() || init_scale.is_some();
        paths
            || sizes
            || rates
            || switches
            || names
            || seed.is_some()
            || (min_kernel_size.or(*num_workers)).is_some()
    }

    /// The official folder of the run; its last part is the seed (there also the time).
    pub(super) fn folder(&self, shared: &SharedFlags) -> Option<PathBuf> {
        let root = self.output_dir.clone().unwrap_or_else(|| "output".into());
        let basis = match self.basis() {
            BasisName::None => "None",
            BasisName::Weight => "WD",
            BasisName::Signal => "SD",
        };
        let dataset = shared.dataset.as_deref().unwrap_or("cifar10");
        let model = shared.model.as_deref().unwrap_or(MODEL);
        Some(root.join(dataset).join(model).join(basis).join(self.seed.unwrap_or(2).to_string()))
    }

    fn basis(&self) -> BasisName {
        self.basis_filter.unwrap_or(BasisName::None)
    }

    /// The recipe that the flags stand for.
    ///
    /// # Errors
    /// For unknown names and values that a recipe refuses.
    pub(super) fn recipe(&self, shared: &SharedFlags) -> Result<Recipe> {
        let dataset = shared.dataset.as_deref().unwrap_or("cifar10");
        let (name, text) = DATA_SETS.iter().find(|(name, _)| *name == dataset).ok_or_else(|| {
            let known: Vec<&str> = DATA_SETS.iter().map(|(name, _)| *name).collect();
            Error::config(format!("--dataset {dataset}: expected {}", known.join(", ")))
        })?;
        let model = shared.model.as_deref().unwrap_or(MODEL);
        let mut recipe = Recipe::parse(text, &[])?;
        recipe.name = format!("{model}-{name}");
        recipe.source = match recipe.source.split_once(", but for ") {
            Some((_, difference)) => {
                format!("Lukasik et al., TMLR 2023, official train.py, but for {difference}")
            }
            None => "Lukasik et al., TMLR 2023, official train.py".into(),
        };
        let root = self.data_dir.clone().unwrap_or_else(|| "data".into()).join(name);
        recipe.data.source = moved(&recipe.data.source, &root)?;
        recipe.seed = self.seed.unwrap_or(2);
        recipe.epochs = self.max_epochs.unwrap_or(125);
        recipe.batch_size = shared.batch_size.unwrap_or(256);
        recipe.learning_rate = self.learning_rate.unwrap_or(0.1);
        recipe.optimizer = self.optimizer(shared);
        recipe.schedule = schedule(shared)?;
        recipe.model.architecture = our_model(model)?;
        let given = |value: Option<i64>| value.and_then(|value| usize::try_from(value).ok());
        recipe.model.channels = given(self.model_in_channels);
        recipe.model.classes = given(self.model_num_classes);
        recipe.model.decomposition = self.decomposition();
        recipe.regularizers.filter_frequency = self.penalty();
        recipe.validate()?;
        Ok(recipe)
    }

    fn optimizer(&self, shared: &SharedFlags) -> OptimizerConfig {
        let weight_decay = shared.weight_decay.unwrap_or(0.05);
        let (betas, epsilon) = ([0.9, 0.999], 1e-8);
        match self.optimizer.unwrap_or(OptimizerName::Adamw) {
            OptimizerName::Sgd => {
                let momentum = self.momentum.unwrap_or(0.9);
                OptimizerConfig::Sgd { momentum, nesterov: true, weight_decay }
            }
            OptimizerName::Adam => OptimizerConfig::Adam { betas, epsilon, weight_decay },
            OptimizerName::Adamw => OptimizerConfig::AdamW { betas, epsilon, weight_decay },
            // There, too, its weight decay does not depend on the learning rate.
            OptimizerName::Adahessian => OptimizerConfig::AdaHessian {
                betas,
                epsilon: 1e-4,
                hessian_power: 0.5,
                weight_decay: weight_decay / self.learning_rate.unwrap_or(0.1),
            },
            OptimizerName::Adagrad => OptimizerConfig::Adagrad {
                learning_rate_decay: 0.0,
                initial_sum: 0.0,
                epsilon: 1e-10,
                weight_decay,
            },
            OptimizerName::Rmsprop => OptimizerConfig::RmsProp {
                smoothing: 0.99,
                epsilon,
                momentum: 0.0,
                centered: false,
                weight_decay,
            },
        }
    }

    fn decomposition(&self) -> Option<Decomposition> {
        let kind = match self.basis() {
            BasisName::None => return None,
            BasisName::Weight => Domain::Weight,
            BasisName::Signal => Domain::Signal,
        };
        let init = match self.init_scale {
            // SD starts as a 1×1 convolution does, whatever this says.
            Some(InitName::Normal) if kind == Domain::Weight => Init::KaimingNormal,
            _ => Init::Published,
        };
        Some(Decomposition { kind, min_kernel_size: self.min_kernel_size.unwrap_or(3), init })
    }

    /// As in train.py and l2_reg: `--reg_diff_all` counts only without `--reg_all_freq`, which main() switches off for it.
    fn penalty(&self) -> Option<Penalty> {
        let on = |switch: Option<u8>| switch.unwrap_or(0) != 0;
        if !on(self.l2_reg) || self.basis() == BasisName::None {
            return None;
        }
        let kind = match () {
            () if on(self.reg_diff_all) => PenaltyKind::Monotone,
            () if on(self.reg_all_freq) => PenaltyKind::Weighted,
            () => PenaltyKind::High,
        };
        Some(Penalty {
            lambda: self.l2_lambda.unwrap_or(0.01),
            kind,
            low_dominance: on(self.reg_diff) && kind != PenaltyKind::Monotone,
            depth: self.reg_depth.unwrap_or(3.0),
        })
    }
}

fn schedule(shared: &SharedFlags) -> Result<Schedule> {
    Ok(match shared.choice_of_scheduler(SchedulerName::Step)? {
        SchedulerName::WarmupCosine => Schedule::WarmupCosine { warmup: 0.3 },
        SchedulerName::Step => Schedule::Step { every: 30, factor: 0.1 },
        SchedulerName::StepWide => Schedule::Step { every: 60, factor: 0.2 },
        SchedulerName::FrankleStep => Schedule::Multistep { milestones: vec![80, 120], factor: 0.1 },
        SchedulerName::Cosine => Schedule::Cosine { floor: 0.0, per: Interval::Epoch },
        SchedulerName::None => Schedule::Constant,
    })
}

/// The same data set in another place.
fn moved(spec: &DataSpec, root: &std::path::Path) -> Result<DataSpec> {
    let text = spec.to_string();
    let (format, rest) = text.split_once(':').unwrap_or((&text, ""));
    let options = rest.split_once(',').map_or(String::new(), |(_, options)| format!(",{options}"));
    format!("{format}:{}{options}", root.display()).parse()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::official::tests::training;

    /// What is trained, without the places of data and the name.
    fn essence(recipe: &Recipe) -> Recipe {
        let mut recipe = recipe.clone();
        recipe.data.source = "synthetic".parse().unwrap();
        (recipe.name, recipe.source) = ("x".into(), String::new());
        recipe
    }

    /// The commands of the official README are the shipped recipes.
    #[test]
    fn the_documented_command_lines() {
        let resnet = "--data_dir D --output_dir O --model lowres_resnet9 --scheduler Step --learning_rate 0.01 \
                      --optimizer adamw --weight_decay 0.01 --l2_lambda 0.01";
        let efficient = "--data_dir D --output_dir O --model efficientnet-b0 --scheduler Cosine --learning_rate \
                         0.001 --optimizer adamw --weight_decay 0.05 --l2_lambda 0.01";
        for (flags, name) in [
            (format!("{resnet} --basis_filter WD --l2_reg 1"), "resnet9-cifar10-high"),
            (format!("{resnet} --basis_filter SD --l2_reg 1"), "resnet9-cifar10-sd-high"),
            (format!("{resnet} --basis_filter None --l2_reg 1"), "resnet9-cifar10"),
            (format!("{resnet} --basis_filter WD --l2_reg 1 --reg_diff 1"), "resnet9-cifar10-low-dominance"),
            (
                format!(
                    "{resnet} --basis_filter WD --l2_reg 1 --reg_diff_all 1 --reg_all_freq 1 --reg_diff 1"
                ),
                "resnet9-cifar10-monotone",
            ),
            (format!("{resnet} --dataset svhn --basis_filter WD --l2_reg 1"), "resnet9-svhn-high"),
            (format!("{resnet} --dataset fashionmnist"), "resnet9-fashion-mnist"),
            (format!("{efficient} --basis_filter None --l2_reg 0"), "efficientnet-cifar10"),
            (
                format!("{efficient} --basis_filter WD --l2_reg 1 --reg_all_freq 1"),
                "efficientnet-cifar10-weighted",
            ),
            (format!("{efficient} --dataset tinyimagenet"), "efficientnet-tinyimagenet"),
            (
                format!("{efficient} --dataset oxfordiiitpet --basis_filter WD --l2_reg 1"),
                "efficientnet-pets-high",
            ),
        ] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/filter-frequency");
            let shipped = Recipe::read(&folder.join(name).with_extension("toml"), &[]).unwrap();
            let found = training(&flags).recipe().unwrap();
            assert_eq!(essence(&found), essence(&shipped), "{flags}");
            let place = found.data.source.location().unwrap().parent().unwrap();
            assert_eq!(place, Path::new("D"), "{flags}");
            let options = |recipe: &Recipe| {
                recipe.data.source.to_string().split_once(',').map(|(_, options)| options.to_owned())
            };
            assert_eq!(options(&found), options(&shipped), "{flags}");
        }
    }

    #[test]
    fn defaults_and_names() {
        let found = training("--basis_filter WD").recipe().unwrap();
        assert_eq!((found.learning_rate, found.epochs, found.batch_size, found.seed), (0.1, 125, 256, 2));
        assert_eq!(found.optimizer.weight_decay(), 0.05);
        assert_eq!(found.schedule, Schedule::Step { every: 30, factor: 0.1 });
        assert_eq!(
            training("--basis_filter WD").folder().unwrap(),
            Path::new("output/cifar10/lowres_resnet9/WD/2")
        );
        let found = training(
            "--model openlth_resnet_14_8 --optimizer sgd --scheduler FrankleStep --seed 7 \
             --model_num_classes -1 --max_epochs 160 --batch_size 64 --weight_decay 1e-4",
        );
        let found = found.recipe().unwrap();
        assert_eq!(found.model.architecture, "cifar_resnet_14_8");
        assert_eq!(found.model.classes, None);
        assert_eq!((found.seed, found.epochs, found.batch_size), (7, 160, 64));
        let nesterov = OptimizerConfig::Sgd { momentum: 0.9, nesterov: true, weight_decay: 1e-4 };
        assert_eq!(found.optimizer, nesterov);
        // torch_optimizer's, with the weight decay divided by the learning rate.
        let found =
            training("--optimizer adahessian --learning_rate 0.2 --weight_decay 0.01").recipe().unwrap();
        let (betas, epsilon, hessian_power) = ([0.9, 0.999], 1e-4, 0.5);
        let expected =
            OptimizerConfig::AdaHessian { betas, epsilon, hessian_power, weight_decay: 0.01 / 0.2 };
        assert_eq!(found.optimizer, expected);
        for (flags, known) in [
            ("--basis_filter WD --dataset imagenette", "oxfordiiitpet"),
            ("--basis_filter WD --model resnet18", "lowres_resnet9"),
            ("--basis_filter WD --scheduler scheduler", "Step_wide"),
        ] {
            let message = training(flags).recipe().unwrap_err().to_string();
            assert!(message.contains(known), "{flags}: {message}");
        }
    }
}
