//! The workflow: one mask per image, of one network or of several side by side.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::family::{self, Family, Learned};
use super::{claim, file_name, page, paired, prepare, seen};
use crate::analyze::perturbations::{announce, check};
use crate::analyze::space::{Space, in_space};
use crate::analyze::{Analysis, Findings, shared_images};
use crate::attack::Attack;
use crate::evaluate::subject::{Subject, with_warnings};
use crate::lock::Lock;
use crate::method::fourier_mask::ImageConfig;
use crate::{Job, Result};

/// Sections of its page, the first of which is always there.
pub const SECTIONS: [&str; 4] = ["masks", "seen", "paired", "classes"];

/// Which masks are learned for single images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageMasksConfig {
    /// How each is learned. As many are learned side by side as the job's batch size says, whatever
    /// [`batch_size`](ImageConfig::batch_size) is: it changes no mask.
    pub learning: ImageConfig,
    /// Learn masks of adversarial images. Of one network: instead, of those images that this attack breaks, with their
    /// wrong classes. Of several: besides, of the first one, for those images whose judgment the attack turns.
    pub attack: Option<Attack>,
    /// What masks act on.
    pub space: Space,
    /// Seed of the attack, and of whatever is measured on the masks.
    pub seed: u64,
}

/// What is known of one image's mask: a line of `images.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageLine {
    /// Row of masks.npy.
    pub row: usize,
    /// Index of the image in the data set.
    pub image: usize,
    /// Its class.
    pub label: u32,
    /// The class whose cross-entropy the mask keeps, where that is what another network predicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u32>,
    /// The class predicted without a mask, whose cross-entropy the mask keeps if there is no `target`.
    pub clean_prediction: u32,
    /// The class predicted through the mask.
    pub prediction: u32,
    /// Steps taken.
    pub steps: usize,
    /// Whether the mask converged.
    pub converged: bool,
    /// Last invariance.
    pub invariance: f64,
    /// ‖M‖₁ / ‖M₀‖₁.
    pub relative_l1: f64,
}

/// Learns a mask for each image, or for each one that an attack breaks.
///
/// Several networks are compared as published: on images that all judge alike (and whose judgment the attack turns for
/// the first), masks of every network are learned for what the first one predicts, and masks of the attacked images for
/// the first.
///
/// `folder` keeps `masks.npy` `[n, height, width]`, `images.jsonl`, from which the same call resumes, and images of
/// some masks; of several networks, a folder for each of them. Results are in the order of the networks, the attacked
/// images last.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for settings that make no sense, if no image is left, or for a folder that
/// another process writes; [`Error::Format`](crate::Error::Format) if the folder holds masks of something else;
/// [`Error::Interrupted`](crate::Error::Interrupted) after a stop; if files cannot be read or written.
pub fn run(
    subjects: &[Subject],
    job: &Job,
    config: &ImageMasksConfig,
    folder: &Path,
) -> Result<Analysis<Learned>> {
    subjects.iter().try_for_each(|subject| subject.needs_gradients("learning a mask"))?;
    let images = shared_images(subjects, job)?;
    let _lock = Lock::folder(folder)?;
    let settings = json!({
        "masks": "per image",
        "attack": config.attack,
        "seed": config.attack.as_ref().map(|_| config.seed),
        "space": config.space,
        // The batch size changes no mask.
        "learning": ImageConfig { batch_size: 1, ..config.learning.clone() },
    });
    claim(folder, subjects, settings)?;
    let mut warnings = Vec::new();
    if let Some(attack) = &config.attack {
        announce(attack, config.seed, job);
        warnings = check(&subjects[0], attack, &images, job)?;
    }
    let chosen = family::choose(subjects, &images, config, job)?;
    let families = Family::all(subjects, &chosen, config, job.batch_size)?;
    let folders: Vec<_> = match &families[..] {
        [_] => vec![folder.to_path_buf()],
        several => {
            let name = |(index, family): (usize, &Family)| {
                folder.join(format!("{}-{}", index + 1, file_name(&family.label)))
            };
            several.iter().enumerate().map(name).collect()
        }
    };
    let mut findings = Findings::new("Fourier masks of single images");
    findings.lines.extend(chosen.line.clone());
    let mut all = Vec::new();
    for (family, folder) in families.iter().zip(&folders) {
        prepare(folder)?;
        let learned = family.learn(&chosen, config, folder, job)?;
        findings.lines.extend(page::summary(&learned));
        all.push(learned);
    }
    findings.lines.push(config.space.describe().into());
    findings = page::report(findings, config, &families, &all, &chosen, &folders)?;
    findings = seen::report(findings, config, &families, &all, &chosen, job)?;
    findings = paired::report(findings, config, &families, &all, &chosen)?;
    findings.warn(&subjects[0].label, &warnings);
    let sign = |record| with_warnings(in_space(record, config.space), &warnings);
    findings.records = findings.records.into_iter().map(sign).collect();
    Ok(Analysis { results: all, findings })
}
