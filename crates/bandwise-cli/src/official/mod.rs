//! The command lines of official repositories, put into ours: their flags, names and defaults. Here FPCM's (`train.py`,
//! `test.py`; Bu, Huang, Cui; ICCV 2023), and the choice between it and filter frequency regularization's
//! ([`filters`]).

mod filters;

use std::path::PathBuf;

use bandwise::attack::{Attack, AttackOverrides};
use bandwise::data::{Augment, DataSpec};
use bandwise::train::optimizer::OptimizerConfig;
use bandwise::train::recipe::Recipe;
use bandwise::train::schedule::Schedule;
use bandwise::wording::counted;
use bandwise::{Error, Result};
use clap::{Args, ValueEnum};

use filters::FilterFlags;

const HEADING: &str = "Official FPCM command line";
/// Where the official scripts look for data.
const DATA_ROOT: &str = "../data";
/// Side of an Imagenette image.
const IMAGENETTE_SIZE: usize = 160;

/// `--dataset` and `--data_root` of `test.py`.
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

/// The flags of both official `train.py`: FPCM's and filter frequency regularization's.
#[derive(Args, Clone)]
#[command(next_help_heading = "Official command lines: FPCM and filter frequency regularization")]
pub struct OfficialTraining {
    #[command(flatten)]
    shared: SharedFlags,
    #[command(flatten)]
    fpcm: FpcmFlags,
    #[command(flatten)]
    filters: FilterFlags,
}

/// What both scripts call the same.
#[derive(Args, Clone)]
pub struct SharedFlags {
    /// Data set by its official name (FPCM: CIFAR10, CIFAR100, SVHN, imagenette)
    #[arg(long, value_name = "NAME")]
    pub(super) dataset: Option<String>,
    /// Network: resnet18 or wrn-34-10 with FPCM; lowres_resnet9, openlth_resnet_N[_W] or efficientnet-b0 for filter
    /// frequency regularization
    #[arg(long, value_name = "NAME")]
    pub(super) model: Option<String>,
    /// Learning rate over the epochs (FPCM: multistep, cosine; else Step, Step_wide, FrankleStep, Cosine, WarmupCosine)
    #[arg(long, value_name = "NAME")]
    pub(super) scheduler: Option<String>,
    /// Weight decay [default: 3.5e-3, WRN-34-10: 5e-4, filter frequency regularization: 0.05]
    #[arg(long = "weight_decay", value_name = "DECAY")]
    pub(super) weight_decay: Option<f64>,
    /// Images per step [default: 128, filter frequency regularization: 256]
    #[arg(long = "batch_size", value_name = "N")]
    pub(super) batch_size: Option<usize>,
}

/// What only FPCM's script has.
#[derive(Args, Clone)]
#[command(next_help_heading = HEADING)]
struct FpcmFlags {
    /// Folder of the data set [default: ../data]
    #[arg(long = "data_root", value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Objective; every one of them on the images of a PGD attack [default: trades]
    #[arg(long, value_name = "NAME", ignore_case = true)]
    loss: Option<LossName>,
    /// Learning rate [default: 0.01, WRN-34-10: 0.1]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Epochs [default: 120, WRN-34-10: 60]
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// Attack that measures the robust accuracy during training [default: PGD]
    #[arg(long, value_name = "NAME")]
    attack: Option<String>,
    /// Steps of that attack, if it is PGD [default: 10]
    #[arg(long, value_name = "N")]
    step: Option<usize>,
    /// Folder of the log: the run folder, where --save_path names none
    #[arg(long = "out_dir", value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// Number of classes: that of the data set, or an error (the official script does not look at it)
    #[arg(long = "n_classes", value_name = "N")]
    n_classes: Option<usize>,
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

    fn classes(self) -> usize {
        if self == Self::Cifar100 { 100 } else { 10 }
    }

    fn spec(self, root: Option<&PathBuf>) -> Result<DataSpec> {
        let root = root.cloned().unwrap_or_else(|| DATA_ROOT.into());
        let spec: DataSpec = format!("{}:{}", self.name(), root.display()).parse()?;
        match self {
            Self::Imagenette => spec.with("size", IMAGENETTE_SIZE)?.with("size_of", "test"),
            _ => Ok(spec),
        }
    }
}

impl OfficialData {
    fn is_given(&self) -> bool {
        self.dataset.is_some() || self.data_root.is_some()
    }

    fn spec(&self) -> Result<DataSpec> {
        self.dataset.unwrap_or(DatasetName::Cifar10).spec(self.data_root.as_ref())
    }
}

impl OfficialTraining {
    /// Whether any of the flags was given.
    pub fn is_given(&self) -> bool {
        self.shared.is_given() || self.fpcm.is_given() || self.filters.is_given()
    }

    /// The built-in recipe that the flags stand for, changed as they say.
    ///
    /// # Errors
    /// For flags of both scripts, unknown names, and values that a recipe refuses.
    pub fn recipe(&self) -> Result<Recipe> {
        match self.is_for_filters() {
            true if self.fpcm.is_given() => Err(Error::config(
                "these are flags of two scripts: --data_root, --loss, --lr, --epoch, --attack, --step, --out_dir and \
                 --n_classes belong to FPCM's train.py; filter frequency regularization's has \
                 --data_dir, --learning_rate, --max_epochs, …",
            )),
            true => self.filters.recipe(&self.shared),
            false => self.fpcm.recipe(&self.shared),
        }
    }

    /// The run folder that the flags name.
    pub fn folder(&self) -> Option<PathBuf> {
        match self.is_for_filters() {
            true => self.filters.folder(&self.shared),
            false => self.fpcm.out_dir.clone(),
        }
    }

    /// Whether the flags are those of filter frequency regularization's script.
    fn is_for_filters(&self) -> bool {
        self.filters.is_given() || self.shared.model.as_deref().is_some_and(filters::is_its_model)
    }
}

impl SharedFlags {
    fn is_given(&self) -> bool {
        let Self { dataset, model, scheduler, weight_decay, batch_size } = self;
        let names = [dataset, model, scheduler].into_iter().any(Option::is_some);
        names || weight_decay.is_some() || batch_size.is_some()
    }

    /// The scheduler among those of one script.
    pub(super) fn choice_of_scheduler<T: ValueEnum>(&self, default: T) -> Result<T> {
        Self::choice("--scheduler", self.scheduler.as_deref(), default)
    }

    /// One of a list of names, whatever its case.
    fn choice<T: ValueEnum>(flag: &str, name: Option<&str>, default: T) -> Result<T> {
        let Some(name) = name else { return Ok(default) };
        T::from_str(name, true).map_err(|_| {
            let known: Vec<String> = T::value_variants().iter().map(possible_value).collect();
            Error::config(format!("{flag} {name}: expected {}", known.join(", ")))
        })
    }
}

impl FpcmFlags {
    fn is_given(&self) -> bool {
        let Self { data_root, loss, lr, epoch, attack, step, out_dir, n_classes } = self;
        let paths = data_root.is_some() || out_dir.is_some();
        let numbers = lr.is_some() || epoch.is_some() || step.is_some() || n_classes.is_some();
        paths || numbers || loss.is_some() || attack.is_some()
    }

    fn recipe(&self, shared: &SharedFlags) -> Result<Recipe> {
        let model = SharedFlags::choice("--model", shared.model.as_deref(), ModelName::ResNet18)?;
        let dataset = SharedFlags::choice("--dataset", shared.dataset.as_deref(), DatasetName::Cifar10)?;
        let loss = self.loss.unwrap_or(LossName::Trades);
        let mut recipe = Recipe::parse(built_in(model, loss), &[])?;
        recipe.name = recipe.name.replace(DatasetName::Cifar10.name(), dataset.name());
        recipe.source = recipe.source.replace("CIFAR10", &possible_value(&dataset));
        recipe.data.source = dataset.spec(self.data_root.as_ref())?;
        if dataset == DatasetName::Imagenette {
            let crop = Augment::RandomCrop { padding: 0, size: Some(IMAGENETTE_SIZE) };
            recipe.data.augment = vec![crop, Augment::HorizontalFlip];
        }
        recipe.learning_rate = self.lr.unwrap_or(recipe.learning_rate);
        recipe.batch_size = shared.batch_size.unwrap_or(recipe.batch_size);
        recipe.epochs = self.epoch.unwrap_or(recipe.epochs);
        if let (Some(given), OptimizerConfig::Sgd { weight_decay, .. }) =
            (shared.weight_decay, &mut recipe.optimizer)
        {
            *weight_decay = given;
        }
        recipe.schedule = match shared.choice_of_scheduler(SchedulerName::Multistep)? {
            SchedulerName::Cosine => Schedule::FpcmCosine,
            SchedulerName::Multistep => Schedule::FpcmMultistep,
        };
        if self.attack.is_some() || self.step.is_some() {
            recipe.evaluation.attack = evaluation_attack(self.attack.as_deref(), self.step)?;
        }
        if let Some(found) = self.n_classes.filter(|&found| found != dataset.classes()) {
            return Err(Error::config(format!(
                "--n_classes {found}: {} has {}",
                possible_value(&dataset),
                counted(dataset.classes(), "class")
            )));
        }
        recipe.validate()?;
        Ok(recipe)
    }
}

/// The recipes that the official script holds.
fn built_in(model: ModelName, loss: LossName) -> &'static str {
    macro_rules! recipe {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/fpcm/", $name, ".toml"))
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
    let given = AttackOverrides { steps: step.filter(|_| name == "pgd"), ..AttackOverrides::default() };
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

    /// Puts official flags and names into ours: data set, architecture, attacks and their steps.
    ///
    /// # Errors
    /// If `--data` and `--dataset` are both given.
    pub fn translate(
        &self,
        data: &mut Option<DataSpec>,
        model: &mut Option<String>,
        attacks: &mut [String],
        steps: &mut Option<usize>,
    ) -> Result<()> {
        attacks.iter_mut().for_each(|name| *name = our_attack(name));
        if !self.is_given() {
            return Ok(());
        }
        if self.data.is_given() {
            if data.is_some() {
                return Err(Error::config(
                    "--data and --dataset both name the data set: give --data cifar10:DIR, or --dataset CIFAR10 \
                     --data_root DIR",
                ));
            }
            *data = Some(self.data.spec()?);
            if let Some(name) = model {
                let known = ModelName::from_str(name, true).map_err(|_| {
                    Error::config(format!(
                        "--dataset goes with --model resnet18 or wrn-34-10, not {name}; for other networks write \
                         --data {}",
                        self.data.spec().map_or_else(|_| "cifar10:DIR".into(), |spec| spec.to_string())
                    ))
                })?;
                // The normalization of the official WRN-34-10 is recognized by its weights.
                *name = possible_value(&known);
            }
        }
        // As in test.py, where only PGD looks at it.
        if attacks.iter().any(|name| name == "pgd") {
            *steps = self.step.or(*steps);
        }
        Ok(())
    }
}

/// A value as it is typed.
fn possible_value(value: &impl ValueEnum) -> String {
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

    pub(super) fn training(flags: &str) -> OfficialTraining {
        let arguments = ["train"].into_iter().chain(flags.split_whitespace());
        Flags::try_parse_from(arguments).unwrap_or_else(|e| panic!("{e}")).training
    }

    fn recipe(flags: &str) -> Recipe {
        training(flags).recipe().unwrap()
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
        let attack =
            AttackOverrides { steps: Some(20), ..AttackOverrides::default() }.attacks(&["pgd"]).unwrap();
        expected.evaluation.attack = attack.into_iter().next();
        assert_eq!(found, expected);
        let other = recipe("--lr 0.05 --weight_decay 1e-4 --batch_size 64 --epoch 7 --attack None");
        assert_eq!((other.learning_rate, other.batch_size, other.epochs), (0.05, 64, 7));
        assert_eq!((other.optimizer.weight_decay(), other.evaluation.attack), (1e-4, None));
    }

    #[test]
    fn folders_and_classes() {
        let flags = "--out_dir logs --n_classes 100 --dataset CIFAR100 --data_root D";
        assert_eq!(training(flags).folder(), Some("logs".into()));
        assert_eq!(recipe(flags), recipe("--dataset CIFAR100 --data_root D"));
        let message = training("--n_classes 100 --dataset SVHN").recipe().unwrap_err().to_string();
        assert!(message.contains("SVHN has 10 classes"), "{message}");
    }

    #[test]
    fn wrong_names_are_refused() {
        for (flags, known) in [
            ("--dataset CIFAR11", "CIFAR100"),
            ("--model resnet34", "wrn-34-10"),
            ("--scheduler linear", "multistep, cosine"),
            ("--lr 0.1 --learning_rate 0.1", "two scripts"),
        ] {
            let message = training(flags).recipe().unwrap_err().to_string();
            assert!(message.contains(known), "{flags}: {message}");
        }
        assert!(Flags::try_parse_from(["train", "--loss", "at"]).is_err());
    }
}
