//! Our corruptions against published files.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::export::{CHUNK, read_images};
use super::table::Draws;
use super::{Corruption, CorruptionConfig, Corruptor, Severity};
use crate::data::Dataset;
use crate::formats::npy;
use crate::{Error, Result};

/// Share of values that may differ by more than one gray level where nothing is random.
const MOST_BEYOND_ONE: f64 = 0.01;

/// How far our version of a corruption at one severity is from a published one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The corruption.
    pub corruption: Corruption,
    /// The severity.
    pub severity: Severity,
    /// Images compared.
    pub images: usize,
    /// Mean absolute difference in gray levels (0 to 255).
    pub mean: f64,
    /// Largest absolute difference in gray levels.
    pub largest: u8,
    /// Share of values that differ at all.
    pub differing: f64,
    /// Share of values that differ by more than one gray level.
    pub beyond_one: f64,
    /// Mean absolute change of our images from the clean ones, in gray levels.
    pub change: f64,
    /// The same of the published images.
    pub published_change: f64,
}

impl Difference {
    /// Whether both do the same: without randomness, all but 1 % of the values within one gray level; with it, a mean
    /// change of the clean images within 5 % (of few large shapes, such as snow's: 15 %).
    pub fn agrees(&self) -> bool {
        let tolerance = match self.corruption.draws() {
            Draws::Same => return self.beyond_one <= MOST_BEYOND_ONE,
            Draws::Alike => 0.05,
            Draws::Apart => 0.15,
        };
        (self.change - self.published_change).abs() <= tolerance * self.published_change
    }
}

/// The published files that can be compared with the corruptions of `config`: of a folder, all that are there as
/// `NAME.npy`; a single file has one corruption in its name, unless `config` names it.
///
/// # Errors
/// If nothing of what is asked for is there, or nothing tells which corruption a file holds.
pub fn published_files(published: &Path, config: &CorruptionConfig) -> Result<Vec<(Corruption, PathBuf)>> {
    let corruptions = config.list()?;
    if published.is_dir() {
        let file = |corruption: &Corruption| (*corruption, published.join(format!("{corruption}.npy")));
        let there: Vec<_> = corruptions.iter().map(file).filter(|(_, file)| file.is_file()).collect();
        return match there.is_empty() {
            true => Err(Error::format(
                published,
                "none of the corruptions is there as NAME.npy; sets of image files (TinyImageNet-C, ImageNet-C) were \
                 saved as JPEG and cannot be compared by pixels",
            )),
            false => Ok(there),
        };
    }
    let one = match corruptions[..] {
        [one] => one,
        _ if config.corruptions == ["all"] => {
            let stem = published.file_stem().unwrap_or_default().to_string_lossy();
            stem.parse().map_err(|_| {
                let reason = "its name is no corruption's; say which one it is with --corruption NAME";
                Error::format(published, reason)
            })?
        }
        _ => return Err(Error::format(published, "one file has one corruption; name one, or a folder")),
    };
    Ok(vec![(one, published.to_path_buf())])
}

/// Compares our version of a corruption of `clean` with a published `NAME.npy` of five severities, over the first
/// `limit` images of each.
///
/// Where a corruption is random, pixels cannot agree; [`Difference::change`] still tells whether the constants do.
///
/// # Errors
/// [`Error::Format`] if the file does not hold five severities of the clean set.
pub fn verify(
    published: &Path,
    clean: &dyn Dataset,
    limit: Option<usize>,
    corruptor: &Corruptor,
    corruption: Corruption,
) -> Result<Vec<Difference>> {
    let shape = clean.first_shape()?;
    check(published, clean.len(), shape)?;
    let images = limit.unwrap_or(usize::MAX).min(clean.len());
    let length = shape.iter().product::<usize>();
    let compare = |severity: Severity| {
        let mut counts = Counts::default();
        for start in (0..images).step_by(CHUNK) {
            let range = start..(start + CHUNK).min(images);
            let inputs = read_images(clean, range.clone(), shape)?;
            let ours = corruptor.apply_all(&inputs, corruption, severity, start as u64)?;
            let first = severity.index() * clean.len();
            let theirs = npy::read_rows(published, first + range.start..first + range.end)?;
            let npy::Data::Bytes(theirs) = theirs.data else {
                return Err(Error::format(published, "expected pixels of type uint8"));
            };
            for ((clean, ours), theirs) in inputs.iter().zip(&ours).zip(theirs.chunks_exact(length)) {
                counts.add(&clean.bytes, &ours.bytes, theirs);
            }
        }
        Ok(counts.summary(corruption, severity, images))
    };
    Severity::all().map(compare).collect()
}

fn check(published: &Path, images: usize, [height, width, channels]: [usize; 3]) -> Result<()> {
    let expected = vec![5 * images, height, width, channels];
    let found = npy::read_shape(published)?;
    if found == expected {
        return Ok(());
    }
    Err(Error::format(
        published,
        format!(
            "expected uint8 of shape {expected:?} (five severities of the clean set's {images} images), found \
             {found:?}; is this the corrupted version of that very set?"
        ),
    ))
}

/// How often each absolute difference occurs.
struct Counts {
    /// Ours from the published.
    differences: [u64; 256],
    /// Ours from the clean.
    change: u64,
    /// The published from the clean.
    published_change: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { differences: [0; 256], change: 0, published_change: 0 }
    }
}

impl Counts {
    fn add(&mut self, clean: &[u8], ours: &[u8], theirs: &[u8]) {
        for ((clean, ours), theirs) in clean.iter().zip(ours).zip(theirs) {
            self.differences[usize::from(ours.abs_diff(*theirs))] += 1;
            self.change += u64::from(ours.abs_diff(*clean));
            self.published_change += u64::from(theirs.abs_diff(*clean));
        }
    }

    fn summary(&self, corruption: Corruption, severity: Severity, images: usize) -> Difference {
        let counts = &self.differences;
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let sum: f64 = counts.iter().enumerate().map(|(level, &count)| level as f64 * count as f64).sum();
        Difference {
            corruption,
            severity,
            images,
            mean: sum / total,
            largest: counts.iter().rposition(|&count| count > 0).unwrap_or(0) as u8,
            differing: counts[1..].iter().sum::<u64>() as f64 / total,
            beyond_one: counts[2..].iter().sum::<u64>() as f64 / total,
            change: self.change as f64 / total,
            published_change: self.published_change as f64 / total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Job;
    use crate::corruption::{Protocol, export::export};
    use crate::data::{DataSpec, Split, Subset};

    #[test]
    fn our_own_files_agree_and_others_do_not() {
        let data = "synthetic".parse::<DataSpec>().unwrap().open(Split::Test).unwrap();
        let data = Subset::first(data, 6).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let corruptions = ["contrast", "gaussian_noise"].map(str::to_owned).to_vec();
        let config = CorruptionConfig { corruptions, seed: 1, ..CorruptionConfig::default() };
        export(&data, &config, None, folder.path(), &Job::default()).unwrap();
        let all = CorruptionConfig::default();
        let found = published_files(folder.path(), &all).unwrap();
        assert_eq!(found.iter().map(|(c, _)| c.name()).collect::<Vec<_>>(), ["gaussian_noise", "contrast"]);
        assert_eq!(published_files(&found[1].1, &all).unwrap(), [found[1].clone()]);
        assert!(published_files(&found[1].1, &config).unwrap_err().to_string().contains("one corruption"));
        let check = |file: &str, seed, protocol, corruption| {
            verify(&folder.path().join(file), &data, Some(4), &Corruptor::new(protocol, seed), corruption)
        };
        let same = check("contrast.npy", 1, Protocol::Cifar, Corruption::Contrast).unwrap();
        assert!(same.len() == 5 && same.iter().all(|d| d.images == 4 && d.largest == 0 && d.agrees()));
        let wrong = check("contrast.npy", 1, Protocol::Cifar, Corruption::Brightness).unwrap();
        assert!(wrong.iter().all(|d| d.mean > 0.0 && d.differing > 0.0 && !d.agrees()));
        // Other draws of the same noise agree in strength, other constants do not.
        let noise = check("gaussian_noise.npy", 2, Protocol::Cifar, Corruption::GaussianNoise).unwrap();
        assert!(noise.iter().all(|d| d.mean > 0.0 && d.agrees()));
        let other = check("gaussian_noise.npy", 2, Protocol::Side224, Corruption::GaussianNoise).unwrap();
        assert!(other.iter().all(|d| !d.agrees()));
        let message = check("labels.npy", 1, Protocol::Cifar, Corruption::Contrast).unwrap_err();
        assert!(message.to_string().contains("expected uint8 of shape"));
    }
}
