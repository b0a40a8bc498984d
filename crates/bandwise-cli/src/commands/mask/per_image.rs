//! One mask per picture.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bandwise::analyze::embedding;
use bandwise::analyze::masks::{self, ClassSimilarity, MaskProfile};
use bandwise::analyze::probe::{self, Probe, ProbeConfig};
use bandwise::attack::Attack;
use bandwise::evaluate::record::Record;
use bandwise::evaluate::subject::Subject;
use bandwise::evaluate::suite::attacked;
use bandwise::method::fourier_mask::{Clean, ImageConfig, ImageLearner, ImageSchedule, Mask};
use bandwise::report::{ImageGrid, Picture, Section};
use bandwise::wording::counted;
use bandwise::{Error, Result, files};
use candle_core::Tensor;
use serde_json::json;

use super::super::analyze::output::Output;
use super::super::analyze::perturbations::perturb;
use super::super::analyze::subjects::{Pictures, progress};
use super::images_file::{ImageLine, ImagesFile};
use super::{MaskArguments, ScheduleArgument, write_picture};

/// Pictures of single masks that are written and shown.
const SHOWN: usize = 24;

pub fn run(
    arguments: &MaskArguments,
    subject: &Subject,
    pictures: Pictures,
    attack: Option<&Attack>,
    interrupt: &AtomicBool,
) -> Result<()> {
    let (pictures, indices) = match attack {
        Some(attack) => broken(arguments, subject, pictures, attack, interrupt)?,
        None => {
            let indices = (0..pictures.label_values.len()).collect();
            (pictures, indices)
        }
    };
    let config = config(arguments);
    let (count, height, width, _) = pictures.images.dims4()?;
    let belongs = json!({
        "weights": subject.provenance.weights_sha256,
        "model": subject.network.config,
        "data": subject.provenance.data_sha256,
        "precision": subject.provenance.precision,
        "images": count,
        "attack": attack,
        // The batch size changes no mask.
        "config": ImageConfig { batch_size: 1, ..config.clone() },
    });
    let fingerprint = files::sha256(belongs.to_string().as_bytes());
    let mut file = ImagesFile::open(&arguments.subjects.out, [count, height, width], &fingerprint)?;
    let seconds = learn(subject, &pictures, &indices, &config, &mut file, interrupt)?;
    let masks = file.read()?;
    file.lines.sort_by_key(|line| line.row);
    summarise(&file.lines, seconds);
    report(arguments, subject, attack, &pictures, &file.lines, &masks, seconds)
}

fn config(arguments: &MaskArguments) -> ImageConfig {
    let defaults = ImageConfig::default();
    let (schedule, steps) = match arguments.schedule.unwrap_or(ScheduleArgument::Published) {
        ScheduleArgument::Published => (ImageSchedule::Published, defaults.max_steps),
        ScheduleArgument::Corrected => (ImageSchedule::Corrected, 1000),
    };
    ImageConfig {
        decay: arguments.lambda.unwrap_or(defaults.decay),
        learning_rate: arguments.lr.unwrap_or(defaults.learning_rate),
        max_steps: arguments.max_steps.unwrap_or(steps),
        schedule,
        batch_size: arguments.subjects.batch_size,
        ..defaults
    }
}

/// The adversarial versions of those pictures that the attack turns from right to wrong, and their indices.
fn broken(
    arguments: &MaskArguments,
    subject: &Subject,
    pictures: Pictures,
    attack: &Attack,
    interrupt: &AtomicBool,
) -> Result<(Pictures, Vec<usize>)> {
    let batch = arguments.subjects.batch_size;
    let bar = crate::progress::bar(&attack.to_string(), 1);
    let mut progress = progress(&bar, interrupt);
    let adversarial =
        perturb(attack, &subject.classifier, &pictures, batch, arguments.subjects.seed, &mut progress)?;
    bar.finish_and_clear();
    let before = Clean::measure(&subject.classifier, &pictures.images, None, batch)?.predictions;
    let after = Clean::measure(&subject.classifier, &adversarial, None, batch)?.predictions;
    let rows: Vec<usize> = (0..before.len())
        .filter(|i| before[*i] == pictures.label_values[*i] && after[*i] != pictures.label_values[*i])
        .collect();
    say!("{attack} breaks {} of {}; their masks are learned", rows.len(), counted(before.len(), "image"));
    if rows.is_empty() {
        return Err(Error::config("the attack breaks no picture: there are no adversarial masks to learn"));
    }
    let selected =
        Tensor::from_vec(rows.iter().map(|r| *r as u32).collect(), rows.len(), adversarial.device())?;
    let broken = Pictures {
        images: adversarial.index_select(&selected, 0)?,
        labels: pictures.labels.index_select(&selected, 0)?,
        label_values: rows.iter().map(|r| pictures.label_values[*r]).collect(),
        classes: pictures.classes,
    };
    Ok((broken, rows))
}

/// Learns what is not there yet; returns the seconds it took.
fn learn(
    subject: &Subject,
    pictures: &Pictures,
    indices: &[usize],
    config: &ImageConfig,
    file: &mut ImagesFile,
    interrupt: &AtomicBool,
) -> Result<f64> {
    let done: HashSet<usize> = file.lines.iter().map(|line| line.row).collect();
    let rows: Vec<usize> = (0..indices.len()).filter(|row| !done.contains(row)).collect();
    if rows.is_empty() {
        return Ok(0.0);
    }
    let selected: Vec<u32> = rows.iter().map(|r| *r as u32).collect();
    let selected = Tensor::from_vec(selected, rows.len(), pictures.images.device())?;
    let began = Instant::now();
    let images = pictures.images.index_select(&selected, 0)?;
    let mut learner = ImageLearner::new(&subject.classifier, images, None, config.clone())?;
    let bar = crate::progress::bar("masks", indices.len());
    bar.set_position(done.len() as u64);
    while !learner.is_finished() {
        let finished = learner.step(Some(interrupt)).map_err(|error| match error {
            Error::Interrupted(_) => Error::Interrupted(format!(
                "saved so far: {}; the same command goes on",
                counted(file.lines.len(), "mask")
            )),
            other => other,
        })?;
        for mask in finished {
            let row = rows[mask.index];
            let line = ImageLine {
                row,
                image: indices[row],
                label: pictures.label_values[row],
                clean_prediction: mask.clean_prediction,
                prediction: mask.prediction,
                steps: mask.steps,
                converged: mask.converged,
                invariance: mask.invariance,
                relative_l1: mask.mask.relative_l1(),
            };
            file.add(&mask, line)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(began.elapsed().as_secs_f64())
}

fn summarise(lines: &[ImageLine], seconds: f64) {
    let mean =
        |value: &dyn Fn(&ImageLine) -> f64| lines.iter().map(value).sum::<f64>() / lines.len().max(1) as f64;
    let same = lines.iter().filter(|l| l.prediction == l.clean_prediction).count();
    let steps: usize = lines.iter().map(|l| l.steps).sum();
    say!(
        "{}: {:.2} % of the spectrum on average, {same} predictions kept, {} stood still, {:.0} steps each",
        counted(lines.len(), "mask"),
        100.0 * mean(&|l| l.relative_l1),
        lines.iter().filter(|l| l.converged).count(),
        mean(&|l| l.steps as f64),
    );
    if seconds > 0.0 {
        let (each, step) = (seconds / lines.len().max(1) as f64, 1e3 * seconds / steps.max(1) as f64);
        say!("{seconds:.1} s: {each:.4} s per picture, {step:.4} ms per picture and step");
    }
}

fn report(
    arguments: &MaskArguments,
    subject: &Subject,
    attack: Option<&Attack>,
    pictures: &Pictures,
    lines: &[ImageLine],
    all: &[Mask],
    seconds: f64,
) -> Result<()> {
    let out = &arguments.subjects.out;
    let mean = masks::mean(all).ok_or_else(|| Error::config("there are no masks"))?;
    write_picture(&out.join("mean.png"), &mean)?;
    let mut grid = ImageGrid::new("Masks of single images", &[]);
    let mut shown = Vec::new();
    for (line, mask) in lines.iter().zip(all).take(SHOWN) {
        write_picture(&out.join("pictures").join(format!("{:05}.png", line.image)), mask)?;
        let class = pictures.classes.get(line.prediction as usize).map_or("", |c| c);
        let mark = if line.converged { "" } else { " *" };
        let caption = format!("{} {class}: {:.1} %{mark}", line.image, 100.0 * line.relative_l1);
        shown.push(masks::picture(&mask.centred(), mask.height, mask.width).caption(caption));
    }
    for row in shown.chunks(6) {
        grid = grid.row("", Vec::<Picture>::from(row));
    }
    let open = lines.iter().filter(|line| !line.converged).count();
    let mut caption = String::from(
        "Even part, zero frequency in the center; black is 0, the brightest yellow 1; the share is ‖M‖₁ / ‖M₀‖₁.",
    );
    if open > 0 {
        caption += &format!(" * not converged when the steps ran out ({open} of {} masks).", lines.len());
    }
    let grid = grid.caption(caption);
    let values = |value: &dyn Fn(&ImageLine) -> f64| lines.iter().map(value).collect::<Vec<f64>>();
    let profile = MaskProfile::new(format!("mean of {}", subject.label), &mean)?;
    let histograms = [
        masks::histogram("Sparsity: ‖M‖₁ / ‖M₀‖₁ in %", "", &values(&|l| 100.0 * l.relative_l1), 12),
        masks::histogram("Steps until the mask converged", "", &values(&|l| l.steps as f64), 12),
    ];
    let section = masks::section(&[profile])?.images(grid);
    let section = histograms.into_iter().flatten().fold(section, Section::bar_plot);
    let mut output = Output::new(out, "Fourier masks of single images");
    output.section("masks", section)?;
    let mut records = vec![];
    let kept: Vec<bool> = lines.iter().map(|l| l.prediction == l.clean_prediction).collect();
    records.push(Record { metric: "masked_prediction_kept".into(), ..Record::accuracy(&kept) });
    let mut sparsity = Record::scalar(
        "mask_relative_l1",
        values(&|l| l.relative_l1).iter().sum::<f64>() / lines.len() as f64,
    );
    sparsity.wall_seconds = (seconds > 0.0).then_some(seconds);
    records.push(sparsity);
    if lines.len() >= 20 {
        let (section, probes) = classes(arguments, pictures, lines, all)?;
        output.section("classes", section)?;
        records.extend(probes.iter().flat_map(Probe::records));
    }
    let records: Vec<Record> =
        records.into_iter().map(|record| subject.sign(attacked(record, attack))).collect();
    output.records(&records)?;
    output.finish()
}

/// Do masks tell the class?
fn classes(
    arguments: &MaskArguments,
    pictures: &Pictures,
    lines: &[ImageLine],
    all: &[Mask],
) -> Result<(Section, Vec<Probe>)> {
    let seed = arguments.subjects.seed;
    let predicted: Vec<u32> = lines.iter().map(|l| l.clean_prediction).collect();
    let truth: Vec<u32> = lines.iter().map(|l| l.label).collect();
    let config = ProbeConfig { seed, ..ProbeConfig::default() };
    let probes = vec![
        Probe::measure("predicted class", all, &predicted, &config)?,
        Probe::measure("true class", all, &truth, &config)?,
    ];
    for probe in &probes {
        let share = |flags: &[bool]| 100.0 * flags.iter().filter(|f| **f).count() as f64 / flags.len() as f64;
        say!(
            "linear classifier on masks, {}: {:.1} % (scrambled labels {:.1} %)",
            probe.label,
            share(&probe.correct),
            share(&probe.scrambled)
        );
    }
    let points: Vec<Vec<f32>> = all.iter().map(|m| m.even().values).collect();
    let places = embedding::t_sne(&points, 30.0, seed)?;
    let similarity = ClassSimilarity::new(all, &predicted, &pictures.classes);
    let section = Section::new("Do masks tell the class?")
        .text("Every mask was learned for one image. If a linear classifier finds the class in masks of images it has not seen, what a network looks at depends on the class.")
        .table(probe::table(&probes))
        .line_plot(embedding::plot("Masks in the plane, by predicted class", &places, &predicted, &pictures.classes));
    let section =
        if pictures.classes.len() <= 20 { section.heat_map(similarity.heat_map()) } else { section };
    Ok((section, probes))
}
