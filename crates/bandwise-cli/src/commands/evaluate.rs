//! `bandwise evaluate`.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bandwise::attack::{Attack, FrozenModel};
use bandwise::data::{DataSpec, Dataset, Split};
use bandwise::evaluate::accuracy::{self, Settings};
use bandwise::evaluate::record::{self, Provenance, Record};
use bandwise::evaluate::suite;
use bandwise::method::Network;
use bandwise::train::recipe::PrecisionName;
use bandwise::{Error, Result, files};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::arguments::{ComputeArguments, ModelArguments, SplitArgument, data_spec};
use crate::{device, progress};

/// Measure accuracy, clean and under attack, with confidence intervals.
///
/// Pixels are in [0,1] and normalisation is part of the model. A picture is dropped as soon as it is
/// broken, so only survivors cost time. Every number comes with its Wilson interval; --json keeps the
/// full records, with one character per picture.
#[derive(Args)]
pub struct EvaluateArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// cifar10:DIR, cifar100:DIR, cifar10-bin:FILE, idx:DIR, imagefolder:DIR, npy:DIR, synthetic[:key=value,…]
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    data: DataSpec,
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArgument::Test)]
    split: SplitArgument,
    /// Only the first N pictures
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// none, or attacks separated by commas
    #[arg(long, value_name = "NAME", default_value = "none", value_delimiter = ',')]
    attack: Vec<String>,
    /// Size of the perturbation, pixels in [0,1], e.g. 8/255
    #[arg(long, value_name = "EPSILON")]
    eps: Option<String>,
    /// Length of one step of an iterated attack
    #[arg(long, value_name = "SIZE")]
    step_size: Option<String>,
    /// Steps of an iterated attack
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Where an iterated attack starts: zero or random
    #[arg(long, value_name = "START")]
    start: Option<String>,
    /// Random starts of an iterated attack
    #[arg(long, value_name = "N")]
    restarts: Option<u64>,
    /// Norm that bounds the perturbation
    #[arg(long, value_name = "linf|l2|l1")]
    norm: Option<String>,
    /// Compute the gradient of the cross-entropy exactly, instead of rounded as in PyTorch's float32
    #[arg(long)]
    exact_gradient: bool,
    /// Seed of random starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pictures per pass
    #[arg(long, value_name = "N", default_value_t = 250)]
    batch_size: usize,
    /// Write the records to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// Runs the command.
pub fn run(arguments: &EvaluateArguments, interrupt: &AtomicBool) -> Result<bool> {
    if arguments.batch_size == 0 {
        return Err(Error::config("--batch-size must be at least 1"));
    }
    let attacks = attacks(arguments)?;
    let device = device::open(&arguments.compute.device)?;
    let split = Split::from(arguments.split);
    let dataset = arguments.data.open(split)?;
    let count = arguments.limit.unwrap_or(usize::MAX).min(dataset.len());
    if count == 0 {
        return Err(Error::config("there are no pictures to evaluate"));
    }
    let channels = dataset.get(0)?.0.channels;
    let config = arguments.model.config(dataset.num_classes(), channels)?;
    let (mut network, report) = Network::load(&arguments.model.weights, config, &device)?;
    if !report.is_exact() {
        eprintln!("{report}");
    }
    network.model.set_precision(PrecisionName::from(arguments.compute.precision).into())?;
    let model = FrozenModel::folded(&network.model)?;
    let provenance = provenance(arguments, &network, dataset.as_ref(), split)?;
    let indices: Vec<usize> = (0..count).collect();

    let mut records = Vec::new();
    let mut clean: Option<Vec<bool>> = None;
    for attack in std::iter::once(None).chain(attacks.iter().map(Some)) {
        let name = attack.map_or("clean".into(), |attack: &Attack| attack.to_string());
        let bar = progress::bar(&name, count);
        let settings = Settings {
            batch_size: arguments.batch_size,
            device: &device,
            interrupt: Some(interrupt),
            progress: &|done, total, right| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(format!("{right} right"));
            },
        };
        let began = std::time::Instant::now();
        let flags = match (attack, &clean) {
            (Some(attack), Some(clean)) => {
                accuracy::robust(&model, dataset.as_ref(), clean, attack, arguments.seed, &settings)?
            }
            _ => accuracy::correct(&model, dataset.as_ref(), &indices, &settings)?,
        };
        bar.finish_and_clear();
        let mut record = suite::accuracy_record(&flags, attack, &provenance);
        record.wall_seconds = Some(began.elapsed().as_secs_f64());
        print(&record, &name);
        records.push(record);
        clean.get_or_insert(flags);
    }
    if let Some(path) = &arguments.json {
        record::write_json(path, &records)?;
        println!("wrote {}", path.display());
    }
    Ok(true)
}

fn print(record: &Record, name: &str) {
    let [low, high] = record.ci95.unwrap_or([f64::NAN; 2]);
    println!(
        "{name}: accuracy {:.2} % ({} of {}, 95 % interval {:.2} to {:.2} %) in {:.1} s",
        100.0 * record.value,
        record.correct.unwrap_or(0),
        record.total.unwrap_or(0),
        100.0 * low,
        100.0 * high,
        record.wall_seconds.unwrap_or(0.0),
    );
}

fn provenance(
    arguments: &EvaluateArguments,
    network: &Network,
    dataset: &dyn Dataset,
    split: Split,
) -> Result<Provenance> {
    Ok(Provenance {
        model: network.config.architecture.clone(),
        weights_sha256: files::sha256(&files::read(&arguments.model.weights)?),
        data: arguments.data.to_string(),
        data_sha256: dataset.fingerprint().to_string(),
        split: split.to_string(),
        seeds: vec![arguments.seed],
        device: arguments.compute.device.clone(),
        precision: PrecisionName::from(arguments.compute.precision).name().to_string(),
        configuration: json!({ "model": network.config, "limit": arguments.limit }),
        ..Provenance::default()
    })
}

/// The attacks that were named, with the settings that were given.
fn attacks(arguments: &EvaluateArguments) -> Result<Vec<Attack>> {
    let given: [(&str, Option<Value>); 7] = [
        ("epsilon", arguments.eps.clone().map(Value::from)),
        ("step_size", arguments.step_size.clone().map(Value::from)),
        ("steps", arguments.steps.map(Value::from)),
        ("start", arguments.start.clone().map(Value::from)),
        ("restarts", arguments.restarts.map(Value::from)),
        ("norm", arguments.norm.clone().map(Value::from)),
        ("exact_gradient", arguments.exact_gradient.then_some(Value::Bool(true))),
    ];
    let given: Map<String, Value> =
        given.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))).collect();
    let names: Vec<&String> = arguments.attack.iter().filter(|name| *name != "none").collect();
    if names.is_empty() && !given.is_empty() {
        return Err(Error::config("--eps, --steps and the like need an attack, for example --attack pgd"));
    }
    names.into_iter().map(|name| suite::attack_with(name, &given)).collect()
}
