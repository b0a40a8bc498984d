//! One mask for all pictures, or one per class.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use bandwise::analyze::NamedClassifier;
use bandwise::analyze::bands::{MaskAccuracy, accuracy_table, mask_accuracy};
use bandwise::analyze::masks::{self, MaskProfile};
use bandwise::evaluate::subject::Subject;
use bandwise::method::fourier_mask::{DataSetConfig, DataSetLearner, DataSetResult, DataSetState, Mask};
use bandwise::report::Block;
use bandwise::wording::counted;
use bandwise::{Error, Result, files};
use candle_core::Tensor;
use serde_json::json;

use super::super::analyze::output::Output;
use super::super::analyze::subjects::Pictures;
use super::{MaskArguments, write_picture};

/// A mask with everything that is told about it.
struct Learned {
    label: String,
    result: DataSetResult,
    accuracy: MaskAccuracy,
}

pub fn run(
    arguments: &MaskArguments,
    subjects: &[Subject],
    pictures: &Pictures,
    interrupt: &AtomicBool,
) -> Result<()> {
    let out = &arguments.subjects.out;
    let mut all = Vec::new();
    if arguments.per_class {
        for (class, name) in pictures.classes.iter().enumerate() {
            let Some(own) = of_class(pictures, class as u32)? else { continue };
            let folder = out.join("classes").join(format!("{class}"));
            all.push(learn(arguments, &subjects[0], name, &own, &folder, interrupt)?);
        }
        let masks: Vec<Mask> = all.iter().map(|l| l.result.mask.clone()).collect();
        Mask::write_all_npy(&out.join("masks.npy"), &masks)?;
    } else if let [subject] = subjects {
        all.push(learn(arguments, subject, &subject.label, pictures, out, interrupt)?);
    } else {
        for (index, subject) in subjects.iter().enumerate() {
            let folder = out.join(format!("{}-{}", index + 1, file_name(&subject.label)));
            all.push(learn(arguments, subject, &subject.label, pictures, &folder, interrupt)?);
        }
    }
    report(arguments, subjects, &all)
}

/// The pictures of one class; `None` if there are none.
fn of_class(pictures: &Pictures, class: u32) -> Result<Option<Pictures>> {
    let rows: Vec<u32> = (0..pictures.label_values.len() as u32)
        .filter(|row| pictures.label_values[*row as usize] == class)
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let count = rows.len();
    let rows = Tensor::from_vec(rows, count, pictures.images.device())?;
    Ok(Some(Pictures {
        images: pictures.images.index_select(&rows, 0)?,
        labels: pictures.labels.index_select(&rows, 0)?,
        label_values: vec![class; count],
        classes: pictures.classes.clone(),
    }))
}

fn learn(
    arguments: &MaskArguments,
    subject: &Subject,
    label: &str,
    pictures: &Pictures,
    folder: &Path,
    interrupt: &AtomicBool,
) -> Result<Learned> {
    let defaults = DataSetConfig::default();
    let config = DataSetConfig {
        decay: arguments.lambda.unwrap_or(defaults.decay),
        learning_rate: arguments.lr.unwrap_or(defaults.learning_rate),
        epochs: arguments.epochs,
        batch_size: arguments.step_batch,
        largest_exponent: arguments.bound.unwrap_or(defaults.largest_exponent),
        seed: arguments.subjects.seed,
        evaluation_batch: arguments.subjects.batch_size,
        ..defaults
    };
    let belongs = json!({
        "weights": subject.provenance.weights_sha256,
        "model": subject.network.config,
        "data": subject.provenance.data_sha256,
        "precision": subject.provenance.precision,
        "images": pictures.label_values.len(),
        "config": config,
    });
    let fingerprint = files::sha256(belongs.to_string().as_bytes());
    let state = folder.join("state.safetensors");
    let (images, labels) = (pictures.images.clone(), pictures.labels.clone());
    let mut learner = DataSetLearner::new(&subject.classifier, images, labels, config.clone())?;
    if state.exists() {
        learner = learner.resume(DataSetState::load(&state, &fingerprint, pictures.images.device())?)?;
        say!("{label}: going on after epoch {}", learner.state().history.len());
    }
    let bar = crate::progress::bar(label, config.epochs);
    loop {
        match learner.epoch(Some(interrupt)) {
            Ok(Some(log)) => {
                learner.state().save(&state, &fingerprint)?;
                bar.set_position(log.epoch as u64);
                bar.suspend(|| {
                    note!(
                        "{label}: epoch {}: {:.1} % of the spectrum, accuracy {:.2} % (clean {:.2} %), invariance {:.2e}",
                        log.epoch,
                        100.0 * log.relative_l1,
                        100.0 * log.masked_accuracy,
                        100.0 * log.clean_accuracy,
                        log.invariance
                    );
                });
            }
            Ok(None) => break,
            Err(Error::Interrupted(_)) => {
                let done = learner.state().history.len();
                return Err(Error::Interrupted(format!(
                    "the mask after {} is saved; the same command goes on",
                    counted(done, "epoch")
                )));
            }
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    let result = learner.result()?;
    result.mask.write_npy(&folder.join("mask.npy"))?;
    write_picture(&folder.join("mask.png"), &result.mask)?;
    let batch = arguments.subjects.batch_size;
    let accuracy = mask_accuracy(
        &NamedClassifier::of(subject),
        &pictures.images,
        &pictures.label_values,
        &result.mask,
        batch,
    )?;
    let accuracy = MaskAccuracy { label: label.to_string(), ..accuracy };
    Ok(Learned { label: label.to_string(), result, accuracy })
}

fn report(arguments: &MaskArguments, subjects: &[Subject], all: &[Learned]) -> Result<()> {
    let mut output = Output::new(&arguments.subjects.out, "Fourier masks");
    let (mut profiles, mut records) = (Vec::new(), Vec::new());
    for (index, learned) in all.iter().enumerate() {
        let profile = MaskProfile::new(&*learned.label, &learned.result.mask)?;
        let share = |flags: &[bool]| 100.0 * flags.iter().filter(|f| **f).count() as f64 / flags.len() as f64;
        say!(
            "{}: ‖M‖₁ {:.2} %, entries above 1e-8 {:.2} %, accuracy clean {:.2} %, masked {:.2} %, complement {:.2} %{}, {}{}",
            learned.label,
            100.0 * profile.relative_l1,
            100.0 * profile.support,
            share(&learned.accuracy.clean),
            share(&learned.accuracy.masked),
            share(&learned.accuracy.complement),
            if learned.accuracy.empty_complement {
                " (black images: the mask keeps every frequency)"
            } else {
                ""
            },
            counted(learned.result.history.len(), "epoch"),
            if learned.result.accuracy_kept { "" } else { " (NO mask kept the accuracy)" },
        );
        let subject = subjects.get(index).unwrap_or(&subjects[0]);
        for mut record in learned.accuracy.records() {
            record.extra.insert("relative_l1".into(), profile.relative_l1.into());
            records.push(subject.sign(record));
        }
        profiles.push(profile);
    }
    let accuracies: Vec<MaskAccuracy> = all.iter().map(|l| l.accuracy.clone()).collect();
    let histories: Vec<(&str, &[_])> = all.iter().map(|l| (&*l.label, &*l.result.history)).collect();
    let mut section = masks::section(&profiles)?;
    section.blocks.insert(2.min(section.blocks.len()), Block::Table(accuracy_table(&accuracies)));
    output.csv("energies", &masks::csv(&profiles))?;
    output.records(&records)?;
    output.section("masks", section)?;
    output.section("learning", masks::learning_section(&histories))?;
    output.finish()
}

/// A label as part of a folder's name.
fn file_name(label: &str) -> String {
    label.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}
