//! Parquet files with embedded images, as Hugging Face's `datasets` writes them.
//!
//! `train-00000-of-00002.parquet`, `test-…`, `validation-…` in the folder or its `data`; or one file,
//! which then serves as both splits. The image is a column `image` or `img`: a structure whose
//! `bytes` are a PNG or JPEG file, or those bytes themselves. The label is the column `label`,
//! `labels` or `fine_label`, or another named with `label=COLUMN`. Class names come from the
//! metadata. The encoded images are held in memory and decoded when asked for.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use sha2::{Digest, Sha256};

use super::array::numbered_classes;
use super::spec::Request;
use super::{Dataset, Image, Split, index_error};
use crate::{Error, Result, files};

const IMAGE_COLUMNS: [&str; 2] = ["image", "img"];
const LABEL_COLUMNS: [&str; 3] = ["label", "labels", "fine_label"];

/// Encoded images with labels.
struct EncodedDataset {
    name: String,
    origin: PathBuf,
    images: Vec<Vec<u8>>,
    labels: Vec<u32>,
    class_names: Vec<String>,
    fingerprint: String,
}

/// `parquet:DIR`
pub(super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let mut images = Vec::new();
    let mut labels = Vec::new();
    let mut class_names = None;
    for path in find(request.path, request.split)? {
        // The parquet crate asserts what a damaged file breaks, so its panics are caught here.
        let (names, rows) = catch_unwind(|| read_file(&path, request.option("label")))
            .unwrap_or_else(|_| Err(Error::format(&path, "the Parquet file is damaged")))?;
        class_names = class_names.or(names);
        for (bytes, label) in rows {
            images.push(bytes);
            labels.push(label);
        }
    }
    let origin = request.path.to_path_buf();
    let highest =
        labels.iter().max().copied().ok_or_else(|| Error::format(&origin, "there are no images in it"))?;
    let class_names: Vec<String> = class_names.unwrap_or_else(|| numbered_classes(highest as usize + 1));
    if highest as usize >= class_names.len() {
        let count = class_names.len();
        return Err(Error::format(&origin, format!("there is a label {highest}, but only {count} classes")));
    }
    let mut hash = Sha256::new();
    for (bytes, label) in images.iter().zip(&labels) {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
        hash.update(label.to_le_bytes());
    }
    let fingerprint = files::hex(&hash.finalize());
    let name = format!("parquet ({})", request.split);
    Ok(Arc::new(EncodedDataset { name, origin, images, labels, class_names, fingerprint }))
}

/// Encoded images with their labels.
type Rows = Vec<(Vec<u8>, u32)>;

/// Class names, if the metadata have them, and all rows.
fn read_file(path: &Path, label: Option<&str>) -> Result<(Option<Vec<String>>, Rows)> {
    let file = File::open(path, label)?;
    Ok((file.class_names(), file.rows()?))
}

/// The files of a split, in order.
fn find(path: &Path, split: Split) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let prefixes: &[&str] = match split {
        Split::Train => &["train"],
        Split::Test => &["test", "validation", "valid", "val"],
    };
    for folder in [path.to_path_buf(), path.join("data")].iter().filter(|folder| folder.is_dir()) {
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        for prefix in prefixes {
            let own = |name: &&String| {
                let rest = name.strip_prefix(prefix);
                rest.is_some_and(|rest| rest.starts_with(['-', '.', '_']) && rest.ends_with(".parquet"))
            };
            let files: Vec<PathBuf> = names.iter().filter(own).map(|name| folder.join(name)).collect();
            if !files.is_empty() {
                return Ok(files);
            }
        }
    }
    Err(Error::format(path, format!("expected `{}-….parquet` here or in `data`", prefixes[0])))
}

/// One open file.
struct File {
    path: PathBuf,
    reader: SerializedFileReader<std::fs::File>,
    image_column: String,
    label_column: String,
}

impl File {
    fn open(path: &Path, label: Option<&str>) -> Result<Self> {
        let bad = |reason: String| Error::format(path, reason);
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let reader = SerializedFileReader::new(file)
            .map_err(|e| bad(format!("not a Parquet file, or one that is damaged ({e})")))?;
        let schema = reader.metadata().file_metadata().schema();
        let columns: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        let choose = |what: &str, candidates: &[&str]| {
            let found = candidates.iter().find(|name| columns.iter().any(|column| column == *name));
            found
                .map(|name| (*name).to_owned())
                .ok_or_else(|| bad(format!("no column for the {what}; there are: {}", columns.join(", "))))
        };
        let image_column = choose("images", &IMAGE_COLUMNS)?;
        let label_column = match label {
            Some(name) => choose("labels", &[name])?,
            None => choose("labels (name it with `label=COLUMN`)", &LABEL_COLUMNS)?,
        };
        Ok(Self { path: path.to_path_buf(), reader, image_column, label_column })
    }

    /// The names in the metadata that `datasets` leaves.
    fn class_names(&self) -> Option<Vec<String>> {
        let entries = self.reader.metadata().file_metadata().key_value_metadata()?;
        let entry = entries.iter().find(|entry| entry.key == "huggingface")?;
        let json: serde_json::Value = serde_json::from_str(entry.value.as_deref()?).ok()?;
        let names = json["info"]["features"][&self.label_column]["names"].as_array()?;
        names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    }

    fn rows(&self) -> Result<Rows> {
        let mut found = Vec::new();
        let bad = |reason: String| Error::format(&self.path, reason);
        let schema = self.reader.metadata().file_metadata().schema();
        let wanted =
            |field: &&Arc<Type>| [&self.image_column, &self.label_column].contains(&&field.name().to_owned());
        let fields = schema.get_fields().iter().filter(wanted).cloned().collect();
        let projection = Type::group_type_builder(schema.name()).with_fields(fields).build();
        let damaged = |e: parquet::errors::ParquetError| bad(format!("the file is damaged ({e})"));
        let rows = self.reader.get_row_iter(Some(projection.map_err(damaged)?)).map_err(damaged)?;
        for (index, row) in rows.enumerate() {
            let (mut bytes, mut label) = (None, None);
            for (name, field) in row.map_err(damaged)?.into_columns() {
                if name == self.image_column {
                    bytes = image_bytes(field);
                } else {
                    label = label_number(&field);
                }
            }
            let (Some(bytes), Some(label)) = (bytes, label) else {
                return Err(bad(format!(
                    "row {index}: expected image bytes in `{}` and a whole number in `{}`",
                    self.image_column, self.label_column
                )));
            };
            found.push((bytes, label));
        }
        Ok(found)
    }
}

fn image_bytes(field: Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data().to_vec()),
        Field::Group(row) => {
            let (_, bytes) = row.into_columns().into_iter().find(|(name, _)| name == "bytes")?;
            image_bytes(bytes)
        }
        _ => None,
    }
}

fn label_number(field: &Field) -> Option<u32> {
    match *field {
        Field::Byte(value) => u32::try_from(value).ok(),
        Field::Short(value) => u32::try_from(value).ok(),
        Field::Int(value) => u32::try_from(value).ok(),
        Field::Long(value) => u32::try_from(value).ok(),
        Field::UByte(value) => Some(value.into()),
        Field::UShort(value) => Some(value.into()),
        Field::UInt(value) => Some(value),
        _ => None,
    }
    .filter(|&label| label < 1_000_000)
}

impl Dataset for EncodedDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn get(&self, index: usize) -> Result<(Image, u32)> {
        let label = self.label(index)?;
        let image = Image::decode(&self.images[index], &self.origin.join(format!("row {index}")))?;
        Ok((image, label))
    }

    fn label(&self, index: usize) -> Result<u32> {
        self.labels.get(index).copied().ok_or_else(|| index_error(&self.name, index, self.len()))
    }

    fn image_shape(&self) -> Option<[usize; 3]> {
        None
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::DataSpec;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    pub(in super::super) fn write(path: &Path, images: &[Vec<u8>], labels: &[i64], metadata: &str) {
        let message =
            "message schema { optional group image { optional binary bytes; } optional int64 label; }";
        let schema = Arc::new(parse_message_type(message).unwrap());
        let entry = KeyValue::new("huggingface".to_owned(), metadata.to_owned());
        let properties = WriterProperties::builder().set_key_value_metadata(Some(vec![entry])).build();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let bytes: Vec<ByteArray> = images.iter().map(|p| ByteArray::from(p.clone())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes, Some(&vec![2; bytes.len()]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(labels, Some(&vec![1; labels.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    fn png(brightness: u8) -> Vec<u8> {
        Image::from_bytes(2, 2, 3, &[brightness; 12]).to_png().unwrap()
    }

    fn open_folder(folder: &Path, split: Split) -> Result<Arc<dyn Dataset>> {
        format!("parquet:{}", folder.display()).parse::<DataSpec>()?.open(split)
    }

    #[test]
    fn images_labels_and_names_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let names = r#"{"info":{"features":{"label":{"names":["cat","dog"],"_type":"ClassLabel"}}}}"#;
        write(&folder.path().join("test-00000-of-00002.parquet"), &[png(1), png(2)], &[1, 0], names);
        write(&folder.path().join("test-00001-of-00002.parquet"), &[png(3)], &[1], names);
        let set = open_folder(folder.path(), Split::Test).unwrap();
        assert_eq!((set.len(), set.class_names().join(" ")), (3, "cat dog".to_owned()));
        let (image, label) = set.get(2).unwrap();
        assert_eq!((image.to_bytes()[0], label), (3, 1));
        assert!(open_folder(folder.path(), Split::Train).unwrap_err().to_string().contains("train-"));
    }

    #[test]
    fn damaged_files_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.parquet");
        let message = || open_folder(folder.path(), Split::Train).unwrap_err().to_string();
        write(&path, &[png(1)], &[-1], "{}");
        assert!(message().contains("row 0"));
        write(&path, &[png(1)], &[5], r#"{"info":{"features":{"label":{"names":["cat"]}}}}"#);
        assert!(message().contains("label 5"));
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(message().contains("not a Parquet file"));
        write(&path, &[b"<html>".to_vec()], &[0], "{}");
        let set = open_folder(folder.path(), Split::Train).unwrap();
        assert!(set.get(0).unwrap_err().to_string().contains("row 0"));
    }
}
