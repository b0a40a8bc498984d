//! Corrupted sets as files in the layout of CIFAR-10-C, and the comparison with a published one.
//!
//! One `NAME.npy` per corruption, `uint8` `[severities · images, height, width, channels]`, all images of the first
//! severity first, and `labels.npy` of the same length. `corruptions.json` says how they were made.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Corruption, Corruptor, Picture, Protocol, Severity};
use crate::data::{Dataset, npy};
use crate::{Error, Result, files};

/// Images read, corrupted and written together.
const CHUNK: usize = 512;

/// How a folder of corrupted sets was made: `corruptions.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of Bandwise that made it.
    pub version: String,
    /// The clean set.
    pub data: String,
    /// The clean set's fingerprint.
    pub data_fingerprint: String,
    /// Whose constants.
    pub protocol: Protocol,
    /// The seed of all randomness.
    pub seed: u64,
    /// Severities in the order they are stored.
    pub severities: Vec<Severity>,
    /// Images per severity.
    pub images: usize,
    /// `[height, width, channels]`.
    pub shape: [usize; 3],
    /// One entry per file.
    pub files: Vec<ManifestFile>,
}

/// One corruption of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// The corruption; its file is `NAME.npy`.
    pub corruption: Corruption,
    /// Whether it follows the published protocol (constants made for this size, published frost textures).
    pub official_protocol: bool,
}

/// Writes corrupted versions of the first `limit` images of `data` into `folder`; `progress` hears of every image.
///
/// # Errors
/// [`Error::Config`] for an empty set, nothing to do, or images of different sizes;
/// [`Error::Io`] if a file cannot be written.
pub fn export(
    data: &dyn Dataset,
    limit: Option<usize>,
    corruptor: &Corruptor,
    corruptions: &[Corruption],
    severities: &[Severity],
    folder: &Path,
    progress: &mut dyn FnMut(Corruption, Severity, usize),
) -> Result<Manifest> {
    let images = limit.unwrap_or(usize::MAX).min(data.len());
    let shape = data.first_shape()?;
    if images == 0 || corruptions.is_empty() || severities.is_empty() {
        return Err(Error::config("nothing to write: no image, no corruption or no severity was asked for"));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    for &corruption in corruptions {
        let path = folder.join(format!("{corruption}.npy"));
        write_corruption(data, images, shape, corruptor, corruption, severities, &path, progress)?;
    }
    write_labels(data, images, severities.len(), &folder.join("labels.npy"))?;
    let manifest = Manifest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data: data.name().to_owned(),
        data_fingerprint: data.fingerprint().to_owned(),
        protocol: corruptor.protocol(),
        seed: corruptor.seed(),
        severities: severities.to_vec(),
        images,
        shape,
        files: corruptions
            .iter()
            .map(|&corruption| ManifestFile {
                corruption,
                official_protocol: corruptor.is_official(corruption, shape[0], shape[1]),
            })
            .collect(),
    };
    let json = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::config(e.to_string()))?;
    files::write_atomic(&folder.join("corruptions.json"), &json)?;
    Ok(manifest)
}

#[allow(clippy::too_many_arguments)]
fn write_corruption(
    data: &dyn Dataset,
    images: usize,
    shape: [usize; 3],
    corruptor: &Corruptor,
    corruption: Corruption,
    severities: &[Severity],
    path: &Path,
    progress: &mut dyn FnMut(Corruption, Severity, usize),
) -> Result<()> {
    // Sets can be larger than memory, so the file grows chunk by chunk under a temporary name.
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(|e| Error::io(path, e))?;
    let [height, width, channels] = shape;
    let header = npy::header_of("|u1", &[severities.len() * images, height, width, channels]);
    file.write_all(&header).map_err(|e| Error::io(path, e))?;
    for &severity in severities {
        for start in (0..images).step_by(CHUNK) {
            let clean = read_pictures(data, start..(start + CHUNK).min(images), shape)?;
            let corrupted = corruptor.apply_all(&clean, corruption, severity, start as u64)?;
            for picture in &corrupted {
                file.write_all(&picture.bytes).map_err(|e| Error::io(path, e))?;
            }
            progress(corruption, severity, corrupted.len());
        }
    }
    file.as_file().sync_all().map_err(|e| Error::io(path, e))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let shared = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(shared).map_err(|e| Error::io(path, e))?;
    }
    file.persist(path).map_err(|e| Error::io(path, e.error))?;
    Ok(())
}

fn read_pictures(
    data: &dyn Dataset,
    range: std::ops::Range<usize>,
    shape: [usize; 3],
) -> Result<Vec<Picture>> {
    range
        .map(|index| {
            let (image, _) = data.get(index)?;
            if image.shape() != shape {
                return Err(Error::config(format!(
                    "image {index} of {} is {:?}, the first one {shape:?}; bring them to one size first",
                    data.name(),
                    image.shape()
                )));
            }
            Ok(Picture::from(&image))
        })
        .collect()
}

fn write_labels(data: &dyn Dataset, images: usize, repeats: usize, path: &Path) -> Result<()> {
    let labels = (0..images).map(|index| data.label(index)).collect::<Result<Vec<_>>>()?;
    let bytes = match labels.iter().map(|&label| u8::try_from(label)).collect::<Result<Vec<_>, _>>() {
        Ok(bytes) => npy::encode_bytes(&[repeats * images], &bytes.repeat(repeats)),
        // The published layout has one byte per label; sets with more classes need more.
        Err(_) => {
            let wide: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
            npy::encode_integers(&[repeats * images], &wide.repeat(repeats))
        }
    };
    files::write_atomic(path, &bytes)
}

/// How far our version of a corruption at one severity is from a published one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The severity.
    pub severity: Severity,
    /// Images compared.
    pub images: usize,
    /// Mean absolute difference in grey levels (0 to 255).
    pub mean: f64,
    /// Largest absolute difference in grey levels.
    pub largest: u8,
    /// Share of values that differ at all.
    pub differing: f64,
    /// Share of values that differ by more than one grey level.
    pub beyond_one: f64,
}

/// Compares our version of a deterministic corruption of `clean` with a published `NAME.npy` of five severities, over
/// the first `limit` images of each.
///
/// # Errors
/// [`Error::Config`] for a corruption with randomness in it; [`Error::Format`] if the file does not hold five
/// severities of the clean set.
pub fn verify(
    published: &Path,
    clean: &dyn Dataset,
    limit: Option<usize>,
    corruptor: &Corruptor,
    corruption: Corruption,
) -> Result<Vec<Difference>> {
    if !corruption.is_deterministic() {
        return Err(Error::config(format!(
            "{corruption} is random: only statistics can be compared, not pixels (deterministic are {})",
            Corruption::all()
                .filter(|c| c.is_deterministic())
                .map(Corruption::name)
                .collect::<Vec<_>>()
                .join(", ")
        )));
    }
    let shape = clean.first_shape()?;
    let theirs = PublishedSet::read(published, clean.len(), shape)?;
    let images = limit.unwrap_or(usize::MAX).min(clean.len());
    Severity::all()
        .map(|severity| {
            let mut counts = [0u64; 256];
            for start in (0..images).step_by(CHUNK) {
                let pictures = read_pictures(clean, start..(start + CHUNK).min(images), shape)?;
                let ours = corruptor.apply_all(&pictures, corruption, severity, start as u64)?;
                for (offset, picture) in ours.iter().enumerate() {
                    let theirs = theirs.image(severity, start + offset);
                    let pairs = picture.bytes.iter().zip(theirs);
                    pairs.for_each(|(a, b)| counts[usize::from(a.abs_diff(*b))] += 1);
                }
            }
            Ok(summary(severity, images, &counts))
        })
        .collect()
}

fn summary(severity: Severity, images: usize, counts: &[u64; 256]) -> Difference {
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let sum: f64 = counts.iter().enumerate().map(|(level, &count)| level as f64 * count as f64).sum();
    Difference {
        severity,
        images,
        mean: sum / total,
        largest: counts.iter().rposition(|&count| count > 0).unwrap_or(0) as u8,
        differing: counts[1..].iter().sum::<u64>() as f64 / total,
        beyond_one: counts[2..].iter().sum::<u64>() as f64 / total,
    }
}

/// A published file of five severities, severity-major.
struct PublishedSet {
    bytes: Vec<u8>,
    images: usize,
    length: usize,
}

impl PublishedSet {
    fn read(path: &Path, images: usize, shape: [usize; 3]) -> Result<Self> {
        let array = npy::read(path)?;
        let [height, width, channels] = shape;
        let expected = vec![5 * images, height, width, channels];
        let found = array.shape.clone();
        match array.data {
            npy::Data::Bytes(bytes) if found == expected => {
                Ok(Self { bytes, images, length: height * width * channels })
            }
            _ => Err(Error::format(
                path,
                format!(
                    "expected uint8 of shape {expected:?} (five severities of the clean set's {images} images), found \
                     {found:?}; is this the corrupted version of that very set?"
                ),
            )),
        }
    }

    fn image(&self, severity: Severity, index: usize) -> &[u8] {
        let position = severity.index() * self.images + index;
        &self.bytes[position * self.length..][..self.length]
    }
}

/// The corruption files (`NAME.npy`) of a folder in CIFAR-10-C's layout, in the published order.
pub fn corruption_files(folder: &Path) -> Vec<(Corruption, PathBuf)> {
    Corruption::all()
        .map(|corruption| (corruption, folder.join(format!("{corruption}.npy"))))
        .filter(|(_, path)| path.is_file())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSpec, Split};

    #[test]
    fn exported_sets_read_back_and_verify() {
        let data = "synthetic".parse::<DataSpec>().unwrap().open(Split::Test).unwrap();
        let data = crate::data::Subset::first(data, 6).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let corruptor = Corruptor::new(Protocol::Cifar, 1);
        let severities: Vec<_> = Severity::all().collect();
        let list = [Corruption::Contrast, Corruption::Fog];
        let mut seen = 0;
        let manifest =
            export(&data, None, &corruptor, &list, &severities, folder.path(), &mut |_, _, n| seen += n)
                .unwrap();
        assert_eq!(seen, 60);
        assert_eq!(manifest.images, 6);
        let text = std::fs::read_to_string(folder.path().join("corruptions.json")).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        assert_eq!(corruption_files(folder.path()).len(), 2);
        let labels = npy::read(&folder.path().join("labels.npy")).unwrap();
        assert_eq!(labels.shape, [30]);

        let file = folder.path().join("contrast.npy");
        let differences = verify(&file, &data, Some(4), &corruptor, Corruption::Contrast).unwrap();
        assert!(differences.iter().all(|d| d.images == 4 && d.largest == 0 && d.mean == 0.0));
        let wrong = verify(&file, &data, None, &corruptor, Corruption::Brightness).unwrap();
        assert!(wrong.iter().all(|d| d.mean > 0.0 && d.differing > 0.0));
        assert!(verify(&file, &data, None, &corruptor, Corruption::Fog).is_err());
        let message =
            verify(&folder.path().join("labels.npy"), &data, None, &corruptor, Corruption::Contrast);
        assert!(message.unwrap_err().to_string().contains("expected uint8 of shape"));
    }
}
