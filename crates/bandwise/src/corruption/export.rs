//! Corrupted sets as files in the layout of CIFAR-10-C.
//!
//! One `NAME.npy` per corruption, `uint8` `[severities · images, height, width, channels]`, all images of the first
//! severity first, and `labels.npy` of the same length. `corruptions.json` says how they were made, and which files are
//! whole: an export that was stopped continues with the next one.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ByteImage, Corruption, CorruptionConfig, Corruptor, Protocol, Severity};
use crate::data::Dataset;
use crate::formats::npy;
use crate::lock::Lock;
use crate::{Error, Job, Result, files};

/// Images read, corrupted and written together.
pub(super) const CHUNK: usize = 512;

/// The name of the file that says how a folder was made.
const MANIFEST: &str = "corruptions.json";

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
    /// One entry per file that is whole.
    pub files: Vec<ManifestFile>,
}

/// One corruption of a [`Manifest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// The corruption; its file is `NAME.npy`.
    pub corruption: Corruption,
    /// Whether it follows the published protocol (constants made for this size, published frost textures).
    pub official_protocol: bool,
    /// Where frost came from: `procedural` or the textures' SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frost: Option<String>,
}

/// The stage that progress is told of.
const STAGE: &str = "corrupting";

/// Writes corrupted versions of the first `limit` images of `data` into `folder`. Files that an earlier export of the
/// same images with the same settings left there are kept.
///
/// # Errors
/// [`Error::Config`] for an empty set, nothing to do, images of different sizes, or a folder that holds something else;
/// [`Error::Io`] if a file cannot be written; [`Error::Interrupted`] after a stop.
pub fn export(
    data: &dyn Dataset,
    config: &CorruptionConfig,
    limit: Option<usize>,
    folder: &Path,
    job: &Job,
) -> Result<Manifest> {
    let images = limit.unwrap_or(usize::MAX).min(data.len());
    let (corruptions, severities) = (config.list()?, &config.severities);
    if images == 0 || corruptions.is_empty() || severities.is_empty() {
        return Err(Error::config("nothing to write: no image, no corruption or no severity was asked for"));
    }
    let corruptor = config.corruptor(data)?;
    let wanted = Manifest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data: data.name().to_owned(),
        data_fingerprint: data.fingerprint().to_owned(),
        protocol: corruptor.protocol(),
        seed: corruptor.seed(),
        severities: severities.clone(),
        images,
        shape: data.first_shape()?,
        files: Vec::new(),
    };
    let _lock = Lock::folder(folder)?;
    files::remove_leftovers(folder)?;
    let mut manifest = begin(wanted, &corruptions, folder)?;
    write_labels(data, images, severities.len(), &folder.join("labels.npy"))?;
    let per_file = severities.len() * images;
    for (index, &corruption) in corruptions.iter().enumerate() {
        let entry = entry(&corruptor, corruption, manifest.shape);
        let path = folder.join(format!("{corruption}.npy"));
        let done = index * per_file;
        let part = job.part_of(STAGE, done, corruptions.len() * per_file, corruption.name());
        if manifest.holds(&entry, &path)? {
            job.note(&format!("{corruption}.npy: already there"));
            part.report(STAGE, per_file, per_file, "");
            check_stop(job)?;
            continue;
        }
        job.note(&format!("{corruption}.npy"));
        write_corruption(data, &manifest, &corruptor, corruption, &path, &part)?;
        manifest.files.retain(|file| file.corruption != corruption);
        manifest.files.push(entry);
        manifest.write(folder)?;
    }
    Ok(manifest)
}

fn check_stop(job: &Job) -> Result<()> {
    job.interrupt.check("whole files are kept; the same command continues with the next")
}

/// The manifest to continue: the folder's own, if it was made the same way, or a new one.
fn begin(wanted: Manifest, corruptions: &[Corruption], folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    if path.is_file() {
        let found = Manifest::read(&path)?;
        let differences = found.differences(&wanted);
        if !differences.is_empty() {
            return Err(Error::config(format!(
                "{} holds corrupted sets made with other settings ({}); choose another folder",
                folder.display(),
                differences.join(", ")
            )));
        }
        return Ok(Manifest { files: found.files, ..wanted });
    }
    let files = corruptions.iter().map(|corruption| format!("{corruption}.npy")).chain(["labels.npy".into()]);
    for file in files {
        if folder.join(&file).exists() {
            return Err(Error::config(format!(
                "{} holds a {file} without a {MANIFEST} that says how it was made; it is left alone: choose another \
                 folder",
                folder.display()
            )));
        }
    }
    wanted.write(folder)?;
    Ok(wanted)
}

fn entry(corruptor: &Corruptor, corruption: Corruption, [height, width, _]: [usize; 3]) -> ManifestFile {
    ManifestFile {
        corruption,
        official_protocol: corruptor.is_official(corruption, height, width),
        frost: (corruption == Corruption::Frost).then(|| corruptor.frost_fingerprint()),
    }
}

impl Manifest {
    /// How the corrupted sets in `folder` were made, if an export wrote them.
    ///
    /// # Errors
    /// [`Error::Format`] if its `corruptions.json` is damaged.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        if path.is_file() { Self::read(&path).map(Some) } else { Ok(None) }
    }

    fn read(path: &Path) -> Result<Self> {
        serde_json::from_slice(&files::read(path)?)
            .map_err(|e| Error::format(path, format!("expected what `bandwise corrupt` writes: {e}")))
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self).map_err(|e| Error::config(e.to_string()))?;
        json.push(b'\n');
        files::write_atomic(&folder.join(MANIFEST), &json)
    }

    /// The settings in which another manifest differs, as `seed: 0 → 1`.
    fn differences(&self, other: &Self) -> Vec<String> {
        let levels = |list: &[Severity]| list.iter().map(Severity::to_string).collect::<Vec<_>>().join(",");
        let settings = |m: &Self| {
            [
                ("data", m.data_fingerprint.clone()),
                ("protocol", m.protocol.to_string()),
                ("seed", m.seed.to_string()),
                ("severities", levels(&m.severities)),
                ("images", m.images.to_string()),
                ("version", m.version.clone()),
            ]
        };
        let pairs = settings(self).into_iter().zip(settings(other));
        let differing = pairs.filter(|((_, found), (_, wanted))| found != wanted);
        differing.map(|((name, found), (_, wanted))| format!("{name}: {found} → {wanted}")).collect()
    }

    /// Whether the file of `entry` is whole; one made with other frost is refused.
    fn holds(&self, entry: &ManifestFile, path: &Path) -> Result<bool> {
        let Some(found) = self.files.iter().find(|file| file.corruption == entry.corruption) else {
            return Ok(false);
        };
        if found != entry {
            return Err(Error::config(format!(
                "{} was made with other frost textures; remove it or choose another folder",
                path.display()
            )));
        }
        let [height, width, channels] = self.shape;
        let shape = [self.severities.len() * self.images, height, width, channels];
        let length = (npy::header_of("|u1", &shape).len() + shape.iter().product::<usize>()) as u64;
        Ok(std::fs::metadata(path).is_ok_and(|file| file.len() == length))
    }
}

fn write_corruption(
    data: &dyn Dataset,
    manifest: &Manifest,
    corruptor: &Corruptor,
    corruption: Corruption,
    path: &Path,
    job: &Job,
) -> Result<()> {
    let Manifest { images, shape, severities, .. } = manifest;
    // Sets can be larger than memory, so the file grows chunk by chunk under a temporary name.
    let mut file = files::AtomicFile::create(path)?;
    let [height, width, channels] = *shape;
    let header = npy::header_of("|u1", &[severities.len() * images, height, width, channels]);
    file.write_all(&header).map_err(|e| Error::io(path, e))?;
    let mut made = 0;
    for &severity in severities {
        for start in (0..*images).step_by(CHUNK) {
            let clean = read_images(data, start..(start + CHUNK).min(*images), *shape)?;
            let corrupted = corruptor.apply_all(&clean, corruption, severity, start as u64)?;
            for input in &corrupted {
                file.write_all(&input.bytes).map_err(|e| Error::io(path, e))?;
            }
            made += corrupted.len();
            job.report(STAGE, made, severities.len() * images, "");
            check_stop(job)?;
        }
    }
    file.commit()
}

pub(super) fn read_images(
    data: &dyn Dataset,
    range: std::ops::Range<usize>,
    shape: [usize; 3],
) -> Result<Vec<ByteImage>> {
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
            Ok(ByteImage::from(&image))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::Interrupt;
    use crate::data::{DataSpec, Split, Subset};
    use crate::job::{Progress, Stage};

    /// Counts images, keeps lines, and stops the work after some images.
    #[derive(Default)]
    struct Heard {
        done: AtomicUsize,
        stop_at: AtomicUsize,
        notes: Mutex<Vec<String>>,
        interrupt: Interrupt,
    }

    impl Progress for Heard {
        fn update(&self, stage: &Stage<'_>) {
            self.done.store(stage.done, Ordering::Relaxed);
            if stage.done > self.stop_at.load(Ordering::Relaxed) {
                self.interrupt.raise();
            }
        }

        fn note(&self, line: &str) {
            self.notes.lock().unwrap().push(line.into());
        }
    }

    #[test]
    fn an_export_goes_on_and_refuses_what_is_not_its_own() {
        let data = "synthetic".parse::<DataSpec>().unwrap().open(Split::Test).unwrap();
        let data = Subset::first(data, 6).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run = |seed, list: &[Corruption], stop_at: usize| {
            let heard = Arc::new(Heard::default());
            let interrupt = heard.interrupt.clone();
            heard.stop_at.store(stop_at, Ordering::Relaxed);
            let job = Job { interrupt, progress: heard.clone(), ..Job::default() };
            let config = CorruptionConfig {
                corruptions: list.iter().map(Corruption::to_string).collect(),
                severities: vec![Severity::new(2).unwrap(), Severity::new(4).unwrap()],
                seed,
                ..CorruptionConfig::default()
            };
            let result = export(&data, &config, None, folder.path(), &job);
            let present = heard.notes.lock().unwrap().iter().filter(|n| n.contains("already there")).count();
            (result, heard.done.load(Ordering::Relaxed), present)
        };
        let list = [Corruption::Contrast, Corruption::Frost];
        // Stopped in the middle of the second file: the first is whole, nothing is left of the second.
        let (stopped, ..) = run(1, &list, 12);
        assert!(matches!(stopped, Err(Error::Interrupted(_))));
        assert!(folder.path().join("contrast.npy").is_file() && !folder.path().join("frost.npy").exists());
        let (manifest, made, present) = run(1, &list, 99);
        let manifest = manifest.unwrap();
        assert_eq!((made, present, manifest.images, manifest.files.len()), (24, 1, 6, 2));
        assert_eq!(manifest.files[1].frost.as_deref(), Some("procedural"));
        assert!(manifest.files[0].official_protocol && !manifest.files[1].official_protocol);
        assert_eq!(Manifest::read(&folder.path().join(MANIFEST)).unwrap(), manifest);
        assert_eq!(npy::read(&folder.path().join("labels.npy")).unwrap().shape, [12]);
        assert_eq!(npy::read_shape(&folder.path().join("frost.npy")).unwrap(), [12, 32, 32, 3]);

        // What a killed export has left of a file is gone at the next start.
        std::fs::write(folder.path().join(".bandwise-x1y2z3.tmp"), b"half a file").unwrap();
        let lock = Lock::folder(folder.path()).unwrap();
        assert!(run(1, &list, 99).0.unwrap_err().to_string().contains("is being written by process"));
        drop(lock);
        run(1, &list, 99).0.unwrap();
        let hidden = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_string_lossy().starts_with('.')
        };
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().map(hidden).filter(|h| *h).count(), 0);

        let message = run(2, &list, 99).0.unwrap_err().to_string();
        assert!(message.contains("seed: 1 → 2"), "{message}");
        std::fs::remove_file(folder.path().join(MANIFEST)).unwrap();
        let message = run(1, &list, 99).0.unwrap_err().to_string();
        assert!(message.contains("contrast.npy without"), "{message}");
    }
}
