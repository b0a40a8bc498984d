//! The workflow: one mask for all images, or one per class.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{MaskProfile, claim, csv, file_name, learning_section, prepare, section, write_image};
use crate::analyze::bands::{MaskAccuracy, accuracy_table, mask_accuracy};
use crate::analyze::space::{Space, View, in_space};
use crate::analyze::{Analysis, Findings, NamedClassifier, shared_images, signed};
use crate::evaluate::subject::{Subject, TestImages};
use crate::lock::Lock;
use crate::method::fourier_mask::{
    Mask, SharedMaskConfig, SharedMaskLearner, SharedMaskResult, SharedMaskState,
};
use crate::plot::Block;
use crate::wording::counted;
use crate::{Error, Job, Result};

/// Sections of its page; masks of single images have the second as well.
pub const SECTIONS: [&str; 2] = ["learning", "masks"];

/// Which masks are learned for many images together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSetMasksConfig {
    /// One mask for each class rather than one for all images.
    pub per_class: bool,
    /// What masks act on.
    pub space: Space,
    /// How each is learned. Accuracy is measured with the job's batch size, whatever
    /// [`evaluation_batch`](SharedMaskConfig::evaluation_batch) says.
    pub learning: SharedMaskConfig,
}

/// A mask with everything that is told about it.
#[derive(Clone, Debug)]
pub struct LearnedMask {
    /// The network or the class that it belongs to.
    pub label: String,
    /// The mask and how it was learned.
    pub learned: SharedMaskResult,
    /// Accuracy through it.
    pub accuracy: MaskAccuracy,
}

/// Learns one mask for each network or, of a single one, one for each class.
///
/// `folder` keeps `mask.npy`, `mask.png` and the state of learning after each epoch, from which the same call resumes:
/// of several networks in a folder for each, of classes in `classes/NUMBER`, with all masks in `masks.npy`.
///
/// # Errors
/// [`Error::Config`] for settings that make no sense, or a folder that another process writes; [`Error::Format`] if the folder holds masks of something else;
/// [`Error::Interrupted`] after a stop; if files cannot be read or written.
pub fn run(
    subjects: &[Subject],
    job: &Job,
    config: &DataSetMasksConfig,
    folder: &Path,
) -> Result<Analysis<LearnedMask>> {
    if subjects.len() > 1 && config.per_class {
        return Err(Error::config(super::ONE_MODEL));
    }
    let images = shared_images(subjects, job)?;
    let _lock = Lock::folder(folder)?;
    let settings = json!({
        "masks": if config.per_class { "per class" } else { "of all images" },
        "space": config.space,
        "learning": SharedMaskConfig { evaluation_batch: 1, ..config.learning.clone() },
    });
    claim(folder, subjects, settings)?;
    prepare(folder)?;
    let learning = SharedMaskConfig { evaluation_batch: job.batch_size, ..config.learning.clone() };
    let config = &DataSetMasksConfig { learning, ..config.clone() };
    subjects.iter().try_for_each(|subject| subject.needs_gradients("learning a mask"))?;
    let learn = |subject: &Subject, label: &str, images: &TestImages, folder: &Path| {
        learn(subject, label, images, config, folder, job)
    };
    let mut all = Vec::new();
    if config.per_class {
        for (class, name) in images.classes.iter().enumerate() {
            let of_class = |row: &usize| images.label_values[*row] as usize == class;
            let rows: Vec<usize> = (0..images.label_values.len()).filter(of_class).collect();
            if !rows.is_empty() {
                let folder = folder.join("classes").join(class.to_string());
                all.push(learn(&subjects[0], name, &images.select(&rows)?, &folder)?);
            }
        }
        let masks: Vec<Mask> = all.iter().map(|mask| mask.learned.mask.clone()).collect();
        Mask::write_all_npy(&folder.join("masks.npy"), &masks)?;
    } else if let [subject] = subjects {
        all.push(learn(subject, &subject.label, &images, folder)?);
    } else {
        for (index, subject) in subjects.iter().enumerate() {
            let folder = folder.join(format!("{}-{}", index + 1, file_name(&subject.label)));
            all.push(learn(subject, &subject.label, &images, &folder)?);
        }
    }
    let findings = findings(subjects, &all, config)?;
    Ok(Analysis { results: all, findings })
}

fn learn(
    subject: &Subject,
    label: &str,
    images: &TestImages,
    config: &DataSetMasksConfig,
    folder: &Path,
    job: &Job,
) -> Result<LearnedMask> {
    let belongs = json!({
        "weights": subject.provenance.weights_sha256,
        "model": subject.provenance.configuration["model"],
        "data": subject.provenance.data_sha256,
        "precision": subject.provenance.precision,
        "images": images.label_values.len(),
        "space": config.space,
        "config": config.learning,
    });
    let (view, config) = (View::of(subject, config.space)?, &config.learning);
    let state = folder.join("state.safetensors");
    let (inputs, labels) = (view.enter(&images.images)?, images.labels.clone());
    let mut learner = SharedMaskLearner::new(&view, inputs.clone(), labels, config.clone())?;
    if state.exists() {
        learner = learner.resume(SharedMaskState::load(&state, &belongs, images.images.device())?)?;
        job.note(&format!("{label}: going on after epoch {}", learner.state().history.len()));
    }
    job.report(label, learner.state().history.len(), config.epochs, "");
    loop {
        match learner.epoch(Some(&job.interrupt)) {
            Ok(Some(log)) => {
                learner.state().save(&state, &belongs)?;
                job.report(label, log.epoch, config.epochs, "");
                job.note(&format!(
                    "{label}: epoch {}: {:.1} % of the spectrum, accuracy {:.2} % (clean {:.2} %), invariance {:.2e}",
                    log.epoch,
                    100.0 * log.relative_l1,
                    100.0 * log.masked_accuracy,
                    100.0 * log.clean_accuracy,
                    log.invariance
                ));
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
    let learned = learner.result()?;
    learned.mask.write_npy(&folder.join("mask.npy"))?;
    write_image(&folder.join("mask.png"), &learned.mask)?;
    let named = NamedClassifier { label, classifier: &view };
    let accuracy = mask_accuracy(&named, &inputs, &images.label_values, &learned.mask, job.batch_size)?;
    Ok(LearnedMask { label: label.to_owned(), learned, accuracy })
}

fn findings(subjects: &[Subject], all: &[LearnedMask], config: &DataSetMasksConfig) -> Result<Findings> {
    let mut findings = Findings::new("Fourier masks");
    let mut profiles = Vec::new();
    for (index, LearnedMask { label, learned, accuracy }) in all.iter().enumerate() {
        let profile = MaskProfile::new(&**label, &learned.mask)?;
        let share = |flags: &[bool]| 100.0 * flags.iter().filter(|f| **f).count() as f64 / flags.len() as f64;
        findings.lines.push(format!(
            "{label}: ‖M‖₁ {:.2} %, entries above 1e-8 {:.2} %, accuracy clean {:.2} %, masked {:.2} %, complement {:.2} %{}, {}{}",
            100.0 * profile.relative_l1,
            100.0 * profile.support,
            share(&accuracy.clean),
            share(&accuracy.masked),
            share(&accuracy.complement),
            if accuracy.empty_complement { " (of nothing: the mask keeps every frequency)" } else { "" },
            counted(learned.history.len(), "epoch"),
            if learned.accuracy_kept { "" } else { " (NO mask kept the accuracy)" },
        ));
        let subject = subjects.get(index).unwrap_or(&subjects[0]);
        for mut record in accuracy.records() {
            record.extra.insert("relative_l1".into(), profile.relative_l1.into());
            let record = signed(subject, record, config.learning.seed);
            findings.records.push(in_space(record, config.space));
        }
        profiles.push(profile);
    }
    findings.lines.push(config.space.describe().into());
    let accuracies: Vec<MaskAccuracy> = all.iter().map(|mask| mask.accuracy.clone()).collect();
    let histories: Vec<(&str, &[_])> =
        all.iter().map(|mask| (&*mask.label, &*mask.learned.history)).collect();
    let mut masks = section(&profiles)?;
    masks.blocks.insert(2.min(masks.blocks.len()), Block::Table(accuracy_table(&accuracies)));
    Ok(findings
        .table("energies", csv(&profiles))
        .section(SECTIONS[1], masks)
        .section(SECTIONS[0], learning_section(&histories)))
}
