//! Accuracy under common corruptions: one record per corruption and severity, and what they add up to.

mod run;

use std::sync::Arc;

use serde_json::json;

pub use run::{CorruptedSet, CorruptionsConfig, run};

use super::accuracy;
use super::record::{Provenance, Record};
use super::statistics::mean_interval;
use crate::attack::Classifier;
use crate::corruption::export::Manifest;
use crate::corruption::{ByteImage, ChangedDataset, Corruption, Corruptor, DifferenceSpectrum, Severity};
use crate::data::{DataSpec, Dataset, Split};
use crate::wording::counted;
use crate::{Error, Job, Result};

/// Images from which the spectrum of a corruption's changes is measured.
const SPECTRUM_IMAGES: usize = 200;

/// Key of a record under which the centroid of the corruption's difference spectrum stands
/// ([`DifferenceSpectrum::centroid`]).
pub const CENTROID: &str = "spectrum_centroid";

/// Where corrupted images come from.
pub enum Source {
    /// Made of a clean set while it is read.
    Made {
        /// The clean set.
        clean: Arc<dyn Dataset>,
        /// Makes them.
        corruptor: Corruptor,
    },
    /// Read from a published set.
    Published {
        /// The set, with no corruption or severity chosen.
        spec: Box<DataSpec>,
        /// The set it was made of, image by image in the same order, if it is available.
        clean: Option<Arc<dyn Dataset>>,
        /// How it was made, if `bandwise corrupt` did.
        manifest: Option<Manifest>,
    },
}

impl Source {
    /// A published set, with the clean set that it was made of if that is available.
    ///
    /// # Errors
    /// If the set is not a corrupted one, or its `corruptions.json` is damaged.
    pub fn published(spec: DataSpec, clean: Option<Arc<dyn Dataset>>) -> Result<Self> {
        let manifest = spec.location().map_or(Ok(None), Manifest::of_folder)?;
        match spec.published_corruptions()? {
            None => Err(Error::config(format!("{spec} is not a published set of corrupted images"))),
            Some(_) => Ok(Self::Published { spec: Box::new(spec), clean, manifest }),
        }
    }

    /// The clean images, if they are available.
    pub fn clean(&self) -> Option<&Arc<dyn Dataset>> {
        match self {
            Self::Made { clean, .. } => Some(clean),
            Self::Published { clean, .. } => clean.as_ref(),
        }
    }

    /// The corruptions that can be had, in the published order; other names are passed over.
    ///
    /// # Errors
    /// If a published set cannot be read or holds none.
    pub fn corruptions(&self) -> Result<Vec<Corruption>> {
        match self {
            Self::Made { .. } => Ok(Corruption::all().collect()),
            Self::Published { spec, .. } => {
                let names = spec.published_corruptions()?.unwrap_or_default();
                Ok(Corruption::all().filter(|c| names.iter().any(|name| name == c.name())).collect())
            }
        }
    }

    /// The images of one corruption at one severity.
    ///
    /// # Errors
    /// If a published set does not hold them, or not as many as its clean set.
    pub fn dataset(&self, corruption: Corruption, severity: Severity) -> Result<Arc<dyn Dataset>> {
        match self {
            Self::Made { clean, corruptor } => {
                let set = ChangedDataset::corrupted(clean.clone(), corruptor.clone(), corruption, severity);
                Ok(Arc::new(set))
            }
            Self::Published { spec, clean, .. } => {
                let spec =
                    spec.as_ref().clone().with("corruption", corruption)?.with("severity", severity)?;
                let dataset = spec.open(Split::Test)?;
                match clean {
                    Some(clean) if clean.len() != dataset.len() => Err(Error::config(format!(
                        "{} has {}, the clean set {} has {}: they do not belong together",
                        dataset.name(),
                        counted(dataset.len(), "image"),
                        clean.name(),
                        clean.len()
                    ))),
                    _ => Ok(dataset),
                }
            }
        }
    }

    /// Where in the spectrum a corruption changes the first images; `None` without clean images.
    ///
    /// # Errors
    /// If images cannot be read or differ in size.
    pub fn spectrum(&self, corrupted: &dyn Dataset, limit: usize) -> Result<Option<DifferenceSpectrum>> {
        let Some(clean) = self.clean() else { return Ok(None) };
        let count = SPECTRUM_IMAGES.min(limit).min(clean.len());
        let inputs = |dataset: &dyn Dataset| -> Result<Vec<ByteImage>> {
            (0..count).map(|index| Ok(ByteImage::from(&dataset.get(index)?.0))).collect()
        };
        DifferenceSpectrum::between(&inputs(corrupted)?, &inputs(clean.as_ref())?).map(Some)
    }

    /// Writes into a record how its images came about.
    pub(crate) fn describe(
        &self,
        record: &mut Record,
        corruption: Corruption,
        [height, width, _]: [usize; 3],
    ) {
        let (source, official, made) = match self {
            Self::Made { corruptor, .. } => {
                let frost = (corruption == Corruption::Frost).then(|| corruptor.frost_fingerprint());
                let official = corruptor.is_official(corruption, height, width);
                ("made", official, Some((corruptor.protocol(), corruptor.seed(), frost)))
            }
            Self::Published { manifest: Some(manifest), .. } => {
                let file = manifest.files.iter().find(|file| file.corruption == corruption);
                let frost = file.and_then(|file| file.frost.clone());
                let official = file.is_some_and(|file| file.official_protocol);
                ("written by bandwise corrupt", official, Some((manifest.protocol, manifest.seed, frost)))
            }
            Self::Published { manifest: None, .. } => ("published", true, None),
        };
        record.extra.insert("corruption_source".into(), source.into());
        record.extra.insert("official_protocol".into(), official.into());
        if let Some((protocol, seed, frost)) = made {
            record.extra.insert("corruption_protocol".into(), protocol.to_string().into());
            record.extra.insert("corruption_seed".into(), seed.into());
            record.extra.extend(frost.map(|frost| ("frost".to_owned(), frost.into())));
        }
    }
}

/// Accuracy on the first `limit` images of one corruption at one severity, with everything that tells how they were made.
///
/// # Errors
/// If images cannot be read or do not fit the model.
pub fn measure(
    model: &dyn Classifier,
    source: &Source,
    corruption: Corruption,
    severity: Severity,
    limit: usize,
    provenance: &Provenance,
    job: &Job,
) -> Result<Record> {
    let began = std::time::Instant::now();
    let dataset = source.dataset(corruption, severity)?;
    let indices: Vec<usize> = (0..limit.min(dataset.len())).collect();
    let flags = accuracy::correct(model, dataset.as_ref(), &indices, job)?;
    let provenance = Provenance { data_sha256: dataset.fingerprint().to_owned(), ..provenance.clone() };
    let mut record = Record::accuracy(&flags)
        .under_corruption(corruption.name(), severity.level())
        .with_provenance(&provenance);
    source.describe(&mut record, corruption, dataset.first_shape()?);
    if let Some(spectrum) = source.spectrum(dataset.as_ref(), limit)? {
        record.extra.insert(CENTROID.into(), spectrum.centroid.into());
    }
    record.wall_seconds = Some(began.elapsed().as_secs_f64());
    Ok(record)
}

/// The records of a corruption among many.
pub fn of_corruption(records: &[Record], corruption: Corruption) -> Vec<&Record> {
    let name = Some(corruption.name());
    records.iter().filter(|r| r.metric == "accuracy" && r.corruption.as_deref() == name).collect()
}

/// Where a corruption's changes lie, mean over the severities that were measured: near 0 for fog, large for noise.
pub fn centroid(records: &[Record], corruption: Corruption) -> Option<f64> {
    let values: Vec<f64> = of_corruption(records, corruption)
        .iter()
        .filter_map(|record| record.extra.get(CENTROID)?.as_f64())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The measured corruptions from low to high frequency; in the published order where that is not known.
pub fn by_frequency(records: &[Record]) -> Vec<Corruption> {
    let mut measured: Vec<_> = Corruption::all()
        .filter(|&c| !of_corruption(records, c).is_empty())
        .map(|c| (c, centroid(records, c)))
        .collect();
    if measured.iter().all(|(_, centroid)| centroid.is_some()) {
        measured.sort_by(|(_, a), (_, b)| a.unwrap_or(0.0).total_cmp(&b.unwrap_or(0.0)));
    }
    measured.into_iter().map(|(corruption, _)| corruption).collect()
}

/// What the records of single corruptions add up to.
///
/// * `mean_corruption_accuracy_15`, `mean_corruption_accuracy_19`: the benchmark's mean over the main and over all
///   corruptions, named by how many these are, where all of them were measured; otherwise `mean_corruption_accuracy` over those that were.
/// * `mean_corruption_accuracy_low_frequency`, `…_middle_frequency`, `…_high_frequency`: over the thirds of the
///   corruptions from low to high frequency.
/// * `corruption_error` per corruption and `mce`, the mean over the main ones, if `baseline` holds the same conditions
///   (Hendrycks and Dietterich 2019, section 4): errors summed over severities and divided by the baseline's;
///   `relative_mce` if both have a clean accuracy too.
///
/// Intervals take images as the sample: the same image under many corruptions is one observation, not many.
///
/// # Errors
/// [`Error::Config`] if the baseline lacks a condition.
pub fn summary(records: &[Record], baseline: Option<&[Record]>) -> Result<Vec<Record>> {
    let measured = by_frequency(records);
    let mut summary = Vec::new();
    let has = |list: &[Corruption]| list.iter().all(|corruption| measured.contains(corruption));
    let all: Vec<Corruption> = Corruption::all().collect();
    if has(&Corruption::MAIN) {
        summary.extend(mean(&mean_over(Corruption::MAIN.len()), records, &Corruption::MAIN));
    }
    if has(&all) {
        summary.extend(mean(&mean_over(Corruption::COUNT), records, &all));
    }
    if !has(&Corruption::MAIN) || (measured.len() > Corruption::MAIN.len() && !has(&all)) {
        summary.extend(mean("mean_corruption_accuracy", records, &measured));
    }
    if measured.len() >= 3 && measured.iter().all(|&corruption| centroid(records, corruption).is_some()) {
        for (third, list) in ["low", "middle", "high"].into_iter().zip(thirds(&measured)) {
            summary.extend(mean(&format!("mean_corruption_accuracy_{third}_frequency"), records, list));
        }
    }
    if let Some(baseline) = baseline {
        summary.extend(corruption_errors(records, baseline, &measured)?);
    }
    Ok(summary)
}

/// The name of the mean over a whole group.
fn mean_over(corruptions: usize) -> String {
    format!("mean_corruption_accuracy_{corruptions}")
}

/// A list in three parts of nearly the same length, the middle one taking what is left.
fn thirds<T>(list: &[T]) -> [&[T]; 3] {
    let third = (list.len() + 1) / 3;
    [&list[..third], &list[third..list.len() - third], &list[list.len() - third..]]
}

/// The mean accuracy over corruptions, each with all its measured severities.
fn mean(metric: &str, records: &[Record], corruptions: &[Corruption]) -> Option<Record> {
    let chosen: Vec<&Record> = corruptions.iter().flat_map(|&c| of_corruption(records, c)).collect();
    let first = *chosen.first()?;
    let value = chosen.iter().map(|record| record.value).sum::<f64>() / chosen.len() as f64;
    let mut record = Record::scalar(metric, value).with_provenance(&first.provenance);
    record.provenance.data_sha256 = String::new();
    record.total = first.total;
    record.ci95 = interval_over_images(&chosen);
    let official = |record: &&Record| record.extra.get("official_protocol") == Some(&true.into());
    record.extra.insert("official_protocol".into(), chosen.iter().all(official).into());
    record.extra.insert("corruptions".into(), json!(corruptions));
    let mut severities: Vec<u8> = chosen.iter().filter_map(|record| record.severity).collect();
    severities.sort_unstable();
    severities.dedup();
    record.extra.insert("severities".into(), json!(severities));
    Some(record)
}

/// Student's interval of the mean over images of each image's share of right answers.
fn interval_over_images(records: &[&Record]) -> Option<[f64; 2]> {
    let images = records.first()?.per_image.as_ref()?.len();
    let mut right = vec![0.0; images];
    for record in records {
        let flags = record.per_image.as_ref().filter(|flags| flags.len() == images)?;
        right.iter_mut().zip(flags.bytes()).for_each(|(sum, flag)| *sum += f64::from(u8::from(flag == b'1')));
    }
    right.iter_mut().for_each(|sum| *sum /= records.len() as f64);
    let mean = mean_interval(&right).filter(|mean| mean.count > 1)?;
    Some([mean.low.max(0.0), mean.high.min(1.0)])
}

/// Corruption errors against a baseline, their mean, and the relative mean.
fn corruption_errors(
    records: &[Record],
    baseline: &[Record],
    measured: &[Corruption],
) -> Result<Vec<Record>> {
    let mut errors = Vec::new();
    let (mut sum, mut relative_sum, mut main) = (0.0, 0.0, 0);
    let clean = [records, baseline].map(clean_error);
    for &corruption in measured {
        let ours = of_corruption(records, corruption);
        let theirs = ours
            .iter()
            .map(|record| {
                let same = of_corruption(baseline, corruption);
                same.into_iter().rfind(|other| other.severity == record.severity).ok_or_else(|| {
                    let severity = record.severity.unwrap_or_default();
                    Error::config(format!(
                        "the baseline has no accuracy under {corruption} at severity {severity}"
                    ))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let total = |records: &[&Record]| records.iter().map(|record| 1.0 - record.value).sum::<f64>();
        let (ours_total, theirs_total) = (total(&ours), total(&theirs));
        let error = ours_total / theirs_total;
        let mut record = Record::scalar("corruption_error", error).with_provenance(&ours[0].provenance);
        record.provenance.data_sha256 = String::new();
        record.corruption = Some(corruption.name().into());
        errors.push(record);
        if Corruption::MAIN.contains(&corruption) {
            main += 1;
            sum += error;
            if let [Some(ours_clean), Some(theirs_clean)] = clean {
                let severities = ours.len() as f64;
                relative_sum +=
                    (ours_total - severities * ours_clean) / (theirs_total - severities * theirs_clean);
            }
        }
    }
    if main == Corruption::MAIN.len() {
        let mut add = |metric, value| {
            let record = Record::scalar(metric, value).with_provenance(&errors[0].provenance);
            errors.push(record);
        };
        add("mce", sum / main as f64);
        if clean.iter().all(Option::is_some) {
            add("relative_mce", relative_sum / main as f64);
        }
    }
    Ok(errors)
}

fn clean_error(records: &[Record]) -> Option<f64> {
    let clean = |r: &&Record| r.metric == "accuracy" && r.attack == "none" && r.corruption.is_none();
    records.iter().rfind(clean).map(|record| 1.0 - record.value)
}

#[cfg(test)]
#[path = "corruptions_tests.rs"]
mod tests;
