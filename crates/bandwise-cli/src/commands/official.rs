//! The command lines of FPCM's official repository (`train.py`, `test.py`; Bu, Huang, Cui; ICCV 2023), put into
//! ours: their flags, names and defaults.

use std::path::PathBuf;

use bandwise::attack::{Attack, Overrides};
use bandwise::data::{Augment, DataSpec};
use bandwise::train::optimizer::OptimizerConfig;
use bandwise::train::recipe::Recipe;
use bandwise::train::schedule::Schedule;
use bandwise::{Error, Result};
use clap::{Args, ValueEnum};

use super::evaluate::EvaluateArguments;

const HEADING: &str = "Official FPCM command line";
/// Where the official scripts look for data.
const DATA_ROOT: &str = "../data";
/// Side of an Imagenette picture.
const IMAGENETTE_SIZE: usize = 160;

/// `--dataset` and `--data_root`.
#[derive(Args, Clone)]
#[command(next_help_heading = HEADING)]
pub struct OfficialData {
    /// Data set by its official name
    #[arg(long, value_name = "NAME", ignore_case = true)]
    dataset: Option<DatasetName>,
    /// Folder of the data set [default: ../data]
    #[arg(long = "data_root", value_name = "DIR")]
    data_root: Option<PathBuf>,
}

/// The flags of `train.py`.
#[derive(Args, Clone)]
#[command(next_help_heading = HEADING)]
pub struct OfficialTraining {
    #[command(flatten)]
    data: OfficialData,
    /// Network, with FPCM [default: resnet18]
    #[arg(long, value_name = "NAME", ignore_case = true)]
    model: Option<ModelName>,
    /// Objective; every one of them on the pictures of a PGD attack [default: trades]
    #[arg(long, value_name = "NAME", ignore_case = true)]
    loss: Option<LossName>,
    /// Learning rate over the epochs [default: multistep]
    #[arg(long, value_name = "NAME", ignore_case = true)]
    scheduler: Option<SchedulerName>,
    /// Learning rate [default: 0.01, WRN-34-10: 0.1]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Weight decay [default: 3.5e-3, WRN-34-10: 5e-4]
    #[arg(long = "weight_decay", value_name = "DECAY")]
    weight_decay: Option<f64>,
    /// Pictures per step [default: 128]
    #[arg(long = "batch_size", value_name = "N")]
    batch_size: Option<usize>,
    /// Epochs [default: 120, WRN-34-10: 60]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// Attack that measures the robust accuracy during training [default: PGD]
    #[arg(long, value_name = "NAME")]
    attack: Option<String>,
    /// Steps of that attack, if it is PGD [default: 10]
    #[arg(long, value_name = "N")]
    step: Option<usize>,
}

/// The flags of `test.py` that `evaluate` does not have.
#[derive(Args, Clone)]
#[command(next_help_heading = HEADING)]
pub struct OfficialTest {
    #[command(flatten)]
    data: OfficialData,
    /// Steps of PGD [default: 10]; --attack takes FGSM, PGD, CW, Square, APGD and AA too
    #[arg(long, value_name = "N", conflicts_with = "steps")]
    step: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum DatasetName {
    #[value(name = "CIFAR10")]
    Cifar10,
    #[value(name = "CIFAR100")]
    Cifar100,
    #[value(name = "SVHN")]
    Svhn,
    #[value(name = "imagenette")]
    Imagenette,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ModelName {
    #[value(name = "resnet18")]
    ResNet18,
    #[value(name = "wrn-34-10")]
    WideResNet,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum LossName {
    #[value(name = "CE")]
    CrossEntropy,
    Trades,
    Mart,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SchedulerName {
    Multistep,
    Cosine,
}

impl DatasetName {
    /// Its name in recipes.
    fn name(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::Svhn => "svhn",
            Self::Imagenette => "imagenette",
        }
    }
}

impl OfficialData {
    fn is_given(&self) -> bool {
        self.dataset.is_some() || self.data_root.is_some()
    }

    fn dataset(&self) -> DatasetName {
        self.dataset.unwrap_or(DatasetName::Cifar10)
    }

    fn spec(&self) -> Result<DataSpec> {
        let root = self.data_root.clone().unwrap_or_else(|| DATA_ROOT.into());
        let spec: DataSpec = format!("{}:{}", self.dataset().name(), root.display()).parse()?;
        match self.dataset() {
            DatasetName::Imagenette => spec.with("size", IMAGENETTE_SIZE)?.with("size_of", "test"),
            _ => Ok(spec),
        }
    }
}

impl OfficialTraining {
    /// Whether any of the flags was given.
    pub fn is_given(&self) -> bool {
        let Self { data, model, loss, scheduler, lr, weight_decay, batch_size, epoch, attack, step } = self;
        let named = model.is_some() || loss.is_some() || scheduler.is_some() || attack.is_some();
        let numbers = lr.is_some() || weight_decay.is_some() || batch_size.is_some() || epoch.is_some();
        data.is_given() || named || numbers || step.is_some()
    }

    /// The built-in recipe that the flags stand for, changed as they say.
    ///
    /// # Errors
    /// For values that a recipe refuses.
    pub fn recipe(&self) -> Result<Recipe> {
        let model = self.model.unwrap_or(ModelName::ResNet18);
        let loss = self.loss.unwrap_or(LossName::Trades);
        let mut recipe = Recipe::parse(built_in(model, loss), &[])?;
        let dataset = self.data.dataset();
        recipe.name = recipe.name.replace(DatasetName::Cifar10.name(), dataset.name());
        recipe.source = recipe.source.replace("CIFAR10", &possible_value(dataset));
        recipe.data.source = self.data.spec()?;
        if dataset == DatasetName::Imagenette {
            let crop = Augment::RandomCrop { padding: 0, size: Some(IMAGENETTE_SIZE) };
            recipe.data.augment = vec![crop, Augment::HorizontalFlip];
        }
        recipe.learning_rate = self.lr.unwrap_or(recipe.learning_rate);
        recipe.batch_size = self.batch_size.unwrap_or(recipe.batch_size);
        recipe.epochs = self.epoch.unwrap_or(recipe.epochs);
        if let (Some(given), OptimizerConfig::Sgd { weight_decay, .. }) =
            (self.weight_decay, &mut recipe.optimizer)
        {
            *weight_decay = given;
        }
        match self.scheduler {
            Some(SchedulerName::Cosine) => recipe.schedule = Schedule::FpcmCosine,
            Some(SchedulerName::Multistep) | None => recipe.schedule = Schedule::FpcmMultistep,
        }
        if self.attack.is_some() || self.step.is_some() {
            recipe.evaluation.attack = evaluation_attack(self.attack.as_deref(), self.step)?;
        }
        recipe.validate()?;
        Ok(recipe)
    }
}

/// The recipes that the official script holds.
fn built_in(model: ModelName, loss: LossName) -> &'static str {
    macro_rules! recipe {
        ($name:literal) => {
            include_str!(concat!("../../../../recipes/fpcm/", $name, ".toml"))
        };
    }
    match (model, loss) {
        (ModelName::ResNet18, LossName::CrossEntropy) => recipe!("resnet18-cifar10-at"),
        (ModelName::ResNet18, LossName::Trades) => recipe!("resnet18-cifar10-trades"),
        (ModelName::ResNet18, LossName::Mart) => recipe!("resnet18-cifar10-mart"),
        (ModelName::WideResNet, LossName::CrossEntropy) => recipe!("wrn-34-10-cifar10-at"),
        (ModelName::WideResNet, LossName::Trades) => recipe!("wrn-34-10-cifar10-trades"),
        (ModelName::WideResNet, LossName::Mart) => recipe!("wrn-34-10-cifar10-mart"),
    }
}

fn evaluation_attack(name: Option<&str>, step: Option<usize>) -> Result<Option<Attack>> {
    let name = our_attack(name.unwrap_or("PGD"));
    if name == "none" {
        return Ok(None);
    }
    let given = Overrides { steps: step.filter(|_| name == "pgd"), ..Overrides::default() };
    Ok(given.attacks(&[&name])?.into_iter().next())
}

/// An official attack by our name; other names stay.
fn our_attack(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "cw" => "cw-linf".into(),
        "apgd" => "apgd-ce".into(),
        "aa" => "autoattack".into(),
        _ => lower,
    }
}

impl OfficialTest {
    /// Whether any of the flags was given.
    fn is_given(&self) -> bool {
        self.data.is_given() || self.step.is_some()
    }
}

/// The same evaluation without official flags and names.
///
/// # Errors
/// If `--data` and `--dataset` are both given.
pub fn translated(arguments: &EvaluateArguments) -> Result<EvaluateArguments> {
    let official = &arguments.official;
    let mut ours = arguments.clone();
    ours.attack = arguments.attack.iter().map(|name| our_attack(name)).collect();
    if !official.is_given() {
        return Ok(ours);
    }
    if official.data.is_given() {
        if arguments.data.is_some() {
            return Err(Error::config(
                "--data and --dataset both name the data set: give --data cifar10:DIR, or --dataset CIFAR10 \
                 --data_root DIR",
            ));
        }
        ours.data = Some(official.data.spec()?);
        if let Some(name) = &arguments.model.model {
            let model = ModelName::from_str(name, true).map_err(|_| {
                Error::config(format!(
                    "--dataset goes with --model resnet18 or wrn-34-10, not {name}; for other networks write --data \
                     {}",
                    official.data.spec().map_or_else(|_| "cifar10:DIR".into(), |spec| spec.to_string())
                ))
            })?;
            // The normalization of the official WRN-34-10 is recognized by its weights.
            ours.model.model = Some(possible_value(model));
        }
    }
    // As in test.py, where only PGD looks at it.
    if ours.attack.iter().any(|name| name == "pgd") {
        ours.steps = official.step.or(ours.steps);
    }
    Ok(ours)
}

/// A value as it is typed.
fn possible_value(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        training: OfficialTraining,
    }

    fn recipe(flags: &str) -> Recipe {
        let arguments = ["train"].into_iter().chain(flags.split_whitespace());
        Flags::try_parse_from(arguments).unwrap_or_else(|e| panic!("{e}")).training.recipe().unwrap()
    }

    fn shipped(name: &str) -> Recipe {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/fpcm");
        Recipe::read(&folder.join(name).with_extension("toml"), &[]).unwrap()
    }

    #[test]
    fn flags_stand_for_shipped_recipes() {
        for (flags, name) in [
            ("--data_root data/cifar10 --loss CE", "resnet18-cifar10-at"),
            ("--data_root data/cifar10", "resnet18-cifar10-trades"),
            ("--data_root data/cifar10 --model WRN-34-10 --loss MART", "wrn-34-10-cifar10-mart"),
            (
                "--data_root data/cifar100 --dataset cifar100 --scheduler multistep",
                "resnet18-cifar100-trades",
            ),
            ("--data_root data/svhn --dataset SVHN --loss CE", "resnet18-svhn-at"),
            ("--data_root data/imagenette2-160 --dataset Imagenette --loss CE", "resnet18-imagenette-at"),
        ] {
            assert_eq!(recipe(flags), shipped(name), "{flags}");
        }
    }

    #[test]
    fn the_documented_command_line() {
        let found = recipe(
            "--data_root D --dataset CIFAR10 --weight_decay 3.5e-3 --lr 0.01 --batch_size 128 --epoch 120 --model \
             resnet18 --loss trades --scheduler cosine --attack PGD --step 20",
        );
        let mut expected = shipped("resnet18-cifar10-trades");
        expected.data.source = "cifar10:D".parse().unwrap();
        expected.schedule = Schedule::FpcmCosine;
        let attack = Overrides { steps: Some(20), ..Overrides::default() }.attacks(&["pgd"]).unwrap();
        expected.evaluation.attack = attack.into_iter().next();
        assert_eq!(found, expected);
        let other = recipe("--lr 0.05 --weight_decay 1e-4 --batch_size 64 --epoch 7 --attack None");
        assert_eq!((other.learning_rate, other.batch_size, other.epochs), (0.05, 64, 7));
        assert_eq!((other.optimizer.weight_decay(), other.evaluation.attack), (1e-4, None));
    }

    #[test]
    fn wrong_names_are_refused() {
        for flags in ["--dataset CIFAR11", "--model resnet34", "--loss at", "--scheduler linear"] {
            assert!(Flags::try_parse_from(["train"].into_iter().chain(flags.split(' '))).is_err(), "{flags}");
        }
    }
}
