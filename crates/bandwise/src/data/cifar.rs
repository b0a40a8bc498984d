//! CIFAR-10 and CIFAR-100, in both layouts that their authors publish.
//!
//! * binary (`cifar-10-batches-bin`, `cifar-100-binary`): records of one label byte (CIFAR-100: coarse,
//!   then fine) and 3072 bytes, the red, green and blue planes, row-major;
//! * python (`cifar-10-batches-py`, `cifar-100-python`): pickled dictionaries whose `data` holds the
//!   same 3072 bytes a row. They are read without executing anything ([`pickle`]).
//!
//! CIFAR-100 means the 100 fine classes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::array::{ArrayDataset, Pixels, numbered_classes};
use super::spec::Request;
use super::{Dataset, Split};
use crate::formats::pickle;
use crate::{Error, Result, files};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const PIXELS: usize = 3 * PLANE;

/// CIFAR-10's classes.
pub const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// What distinguishes the two sets.
struct Variant {
    name: &'static str,
    /// Folder and file names: binary, then python.
    binary: Layout,
    python: Layout,
    /// Bytes before the pixels in a binary record; the last is the label.
    label_bytes: usize,
    label_key: &'static str,
    classes: usize,
}

struct Layout {
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static [&'static str],
    class_names: &'static str,
}

static CIFAR10: Variant = Variant {
    name: "cifar10",
    binary: Layout {
        folder: "cifar-10-batches-bin",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: &["test_batch.bin"],
        class_names: "batches.meta.txt",
    },
    python: Layout {
        folder: "cifar-10-batches-py",
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: &["test_batch"],
        class_names: "batches.meta",
    },
    label_bytes: 1,
    label_key: "labels",
    classes: 10,
};

static CIFAR100: Variant = Variant {
    name: "cifar100",
    binary: Layout {
        folder: "cifar-100-binary",
        train: &["train.bin"],
        test: &["test.bin"],
        class_names: "fine_label_names.txt",
    },
    python: Layout { folder: "cifar-100-python", train: &["train"], test: &["test"], class_names: "meta" },
    label_bytes: 2,
    label_key: "fine_labels",
    classes: 100,
};

impl Layout {
    fn files(&self, split: Split) -> &'static [&'static str] {
        match split {
            Split::Train => self.train,
            Split::Test => self.test,
        }
    }

    /// The folder, if it is `root` or inside `root`.
    fn find(&self, root: &Path, split: Split) -> Option<PathBuf> {
        let first = self.files(split)[0];
        [root.to_path_buf(), root.join(self.folder)].into_iter().find(|folder| folder.join(first).is_file())
    }
}

/// `cifar10:DIR`
pub(super) fn open_cifar10(request: &Request) -> Result<Arc<dyn Dataset>> {
    open(&CIFAR10, request)
}

/// `cifar100:DIR`
pub(super) fn open_cifar100(request: &Request) -> Result<Arc<dyn Dataset>> {
    open(&CIFAR100, request)
}

/// `cifar10-bin:FILE`: one file of binary records, the same for both splits.
pub(super) fn open_cifar10_file(request: &Request) -> Result<Arc<dyn Dataset>> {
    let mut records = Records::default();
    records.read_binary(&CIFAR10, request.path)?;
    let classes = CIFAR10_CLASSES.map(str::to_owned).to_vec();
    records.into_dataset("cifar10-bin".into(), request.path, classes)
}

fn open(variant: &Variant, request: &Request) -> Result<Arc<dyn Dataset>> {
    let (root, split) = (request.path, request.split);
    let mut records = Records::default();
    let (folder, classes);
    if let Some(found) = variant.binary.find(root, split) {
        folder = found;
        for file in variant.binary.files(split) {
            records.read_binary(variant, &folder.join(file))?;
        }
        classes = text_class_names(&folder.join(variant.binary.class_names))?;
    } else if let Some(found) = variant.python.find(root, split) {
        folder = found;
        for file in variant.python.files(split) {
            records.read_python(variant, &folder.join(file))?;
        }
        classes = pickled_class_names(&folder.join(variant.python.class_names))?;
    } else {
        return Err(Error::format(
            root,
            format!(
                "no {} here: expected the folder `{}` (with `{}`) or `{}` (with `{}`)",
                variant.name,
                variant.binary.folder,
                variant.binary.files(split)[0],
                variant.python.folder,
                variant.python.files(split)[0]
            ),
        ));
    }
    let classes = match (classes, variant.classes) {
        (Some(names), count) if names.len() == count => names,
        (_, 10) => CIFAR10_CLASSES.map(str::to_owned).to_vec(),
        (_, count) => numbered_classes(count),
    };
    records.into_dataset(format!("{} ({split})", variant.name), &folder, classes)
}

/// Images and labels collected from several files.
#[derive(Default)]
struct Records {
    pixels: Vec<u8>,
    labels: Vec<u32>,
}

impl Records {
    fn read_binary(&mut self, variant: &Variant, path: &Path) -> Result<()> {
        let bytes = files::read(path)?;
        let record = variant.label_bytes + PIXELS;
        if bytes.is_empty() || bytes.len() % record != 0 {
            return Err(Error::format(
                path,
                format!(
                    "{} bytes are not a whole number of {} records of {record} bytes: the file is cut off \
                     or something else; fetch it again",
                    bytes.len(),
                    variant.name
                ),
            ));
        }
        self.pixels.reserve(bytes.len());
        for (index, record) in bytes.chunks_exact(record).enumerate() {
            let (labels, planes) = record.split_at(variant.label_bytes);
            self.push(variant, path, index, u32::from(labels[variant.label_bytes - 1]), planes)?;
        }
        Ok(())
    }

    fn read_python(&mut self, variant: &Variant, path: &Path) -> Result<()> {
        let bad = |reason: String| Error::format(path, reason);
        let batch = pickle::read(&files::read(path)?).map_err(|e| bad(e.to_string()))?;
        let entries = batch.as_dict().unwrap_or_default();
        let entry = |key: &str| {
            // Python 3 writes the keys as `bytes`, in older protocols by way of a call.
            let found = entries.iter().find(|(name, _)| {
                name.as_str() == Some(key) || name.as_bytes().as_deref() == Some(key.as_bytes())
            });
            found
                .map(|(_, value)| *value)
                .ok_or_else(|| bad(format!("not a {} batch: there is no `{key}` in it", variant.name)))
        };
        let data = entry("data")?.as_ndarray().map_err(|e| bad(format!("`data`: {e}")))?;
        let count = data.shape[0];
        if data.dtype != "|u1" || data.shape[1..] != [PIXELS] {
            return Err(bad(format!(
                "`data` must be bytes of shape [images, {PIXELS}], but is {} of shape {:?}",
                data.dtype, data.shape
            )));
        }
        let labels = entry(variant.label_key)?.as_sequence().unwrap_or_default();
        if labels.len() != count {
            return Err(bad(format!("there are {count} images, but {} labels", labels.len())));
        }
        let pixels = data.row_major();
        self.pixels.reserve(pixels.len());
        for (index, (planes, label)) in pixels.chunks_exact(PIXELS).zip(labels).enumerate() {
            let number = label.as_int().and_then(|label| u32::try_from(label).ok());
            let label = number.ok_or_else(|| {
                bad(format!("image {index} has the label {}, which is no class", label.describe()))
            })?;
            self.push(variant, path, index, label, planes)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        variant: &Variant,
        path: &Path,
        index: usize,
        label: u32,
        planes: &[u8],
    ) -> Result<()> {
        if label as usize >= variant.classes {
            let last = variant.classes - 1;
            return Err(Error::format(
                path,
                format!(
                    "image {index} has label {label}, but {} labels lie between 0 and {last}",
                    variant.name
                ),
            ));
        }
        let (red, rest) = planes.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        let start = self.pixels.len();
        self.pixels.resize(start + PIXELS, 0);
        for (pixel, position) in self.pixels[start..].chunks_exact_mut(3).zip(0..PLANE) {
            pixel.copy_from_slice(&[red[position], green[position], blue[position]]);
        }
        self.labels.push(label);
        Ok(())
    }

    fn into_dataset(self, name: String, origin: &Path, classes: Vec<String>) -> Result<Arc<dyn Dataset>> {
        let pixels = Pixels::Bytes(self.pixels);
        let shape = [SIDE, SIDE, 3];
        Ok(Arc::new(ArrayDataset::new(name, origin, pixels, shape, self.labels, classes)?))
    }
}

/// One name a line; `None` without the file.
fn text_class_names(path: &Path) -> Result<Option<Vec<String>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = files::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Some(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()))
}

/// `label_names` (CIFAR-10) or `fine_label_names`; `None` without the file.
fn pickled_class_names(path: &Path) -> Result<Option<Vec<String>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let meta = pickle::read(&files::read(path)?).map_err(|e| Error::format(path, e.to_string()))?;
    let names = meta.get("fine_label_names").or_else(|| meta.get("label_names"));
    let names = names.and_then(pickle::Value::as_sequence).unwrap_or_default();
    Ok(names.iter().map(|name| name.as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataSpec;
    use crate::formats::pickle::writer::Writer;

    /// A record whose red plane is 1, green 2, blue 3.
    fn record(labels: &[u8]) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        (1..=3).for_each(|value| bytes.extend([value; PLANE]));
        bytes
    }

    fn open_text(spec: &str, path: &Path, split: Split) -> Result<Arc<dyn Dataset>> {
        format!("{spec}:{}", path.display()).parse::<DataSpec>()?.open(split)
    }

    #[test]
    fn binary_records_become_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("test_batch.bin"), [record(&[7]), record(&[9])].concat()).unwrap();
        for root in [folder.path(), &inner] {
            let set = open_text("cifar10", root, Split::Test).unwrap();
            let (image, label) = set.get(1).unwrap();
            assert_eq!((set.len(), label, set.class_names()[7].as_str()), (2, 9, "horse"));
            assert_eq!(image.to_bytes()[..6], [1, 2, 3, 1, 2, 3]);
        }
        let message = open_text("cifar10", &inner, Split::Train).unwrap_err().to_string();
        assert!(message.contains("cifar-10-batches-py"), "{message}");
    }

    #[test]
    fn cifar100_uses_fine_labels() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.bin"), record(&[3, 99])).unwrap();
        let set = open_text("cifar100", folder.path(), Split::Train).unwrap();
        assert_eq!((set.label(0).unwrap(), set.num_classes()), (99, 100));
    }

    #[test]
    fn python_batches_become_the_same_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let planes = &record(&[])[..];
        let batch = Writer::new()
            .op(b'}')
            .op(b'(')
            .old_text(b"data")
            .old_uint8_array(&[1, PIXELS], planes)
            .old_text(b"labels")
            .op(b']')
            .op(b'(')
            .int(4)
            .op(b'e')
            .op(b'u')
            .stop();
        std::fs::write(folder.path().join("test_batch"), batch).unwrap();
        let set = open_text("cifar10", folder.path(), Split::Test).unwrap();
        let (image, label) = set.get(0).unwrap();
        assert_eq!((label, &image.to_bytes()[..4]), (4, &[1, 2, 3, 1][..]));
    }

    #[test]
    fn damaged_files_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            open_text("cifar10-bin", &path, Split::Test).unwrap_err().to_string()
        };
        assert!(message(&record(&[7])[1..]).contains("3072 bytes are not a whole number"));
        assert!(message(&[]).contains("0 bytes"));
        assert!(message(&record(&[10])).contains("label 10"));
        std::fs::remove_file(&path).unwrap();
        assert!(open_text("cifar10-bin", &path, Split::Test).unwrap_err().to_string().contains("x.bin"));
        std::fs::write(folder.path().join("test_batch"), b"cposix\nsystem\n(S'true'\ntR.").unwrap();
        let message = open_text("cifar10", folder.path(), Split::Test).unwrap_err().to_string();
        assert!(message.contains("no `data`"), "{message}");
    }
}
