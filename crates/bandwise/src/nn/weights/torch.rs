//! The two containers of `torch.save`: the zip archive of PyTorch 1.6 and later, and the older
//! sequence of pickles. Either gives a pickled value and a source of storages; the state dict is
//! then put together in [`rebuild`](super::rebuild).

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::sync::Arc;

use zip::ZipArchive;

use super::element::Element;
use super::rebuild::{Storage, Storages, storages_of, unpack};
use super::{Container, StateFile};
use crate::formats::pickle::{self, Value};

/// `torch.serialization.MAGIC_NUMBER`, the first pickle of a legacy file.
const LEGACY_MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const LEGACY_PROTOCOL: i64 = 1001;
const BIG_ENDIAN: &str =
    "the file was written on a big-endian machine, which is not read; save it anew on another";
const TRUNCATED: &str = "the file is cut off: fetch it again";

/// Whether the bytes start like a PyTorch file from before 1.6.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    let magic = &LEGACY_MAGIC.to_le_bytes()[..10];
    matches!(pickle::read(&bytes[..bytes.len().min(64)]), Ok(Value::LargeInt(number)) if *number == *magic)
}

/// Reads a legacy file: magic number, protocol, system, object, storage keys (five pickles), then
/// each storage as its length in numbers and the numbers.
pub(super) fn read_legacy(bytes: &[u8], entry: Option<&str>) -> Result<StateFile, String> {
    let mut rest = bytes;
    let mut next = |what: &str| {
        let (value, used) =
            pickle::read_prefix(rest).map_err(|e| format!("PyTorch checkpoint, {what}: {e}"))?;
        rest = &rest[used..];
        Ok::<_, String>(value)
    };
    next("magic number")?;
    let protocol = next("protocol")?;
    if protocol.as_int() != Some(LEGACY_PROTOCOL) {
        return Err(format!("expected PyTorch's protocol {LEGACY_PROTOCOL}, found {}", protocol.describe()));
    }
    if next("system information")?.get("little_endian") == Some(&Value::Bool(false)) {
        return Err(BIG_ENDIAN.into());
    }
    let object = next("object")?;
    let keys = next("storage keys")?;
    let keys = keys.as_sequence().ok_or("expected a list of storage keys")?;

    let elements = storages_of(&object)?;
    let mut storages = HashMap::new();
    for key in keys {
        let key = key.as_str().ok_or("expected storage keys to be texts")?;
        let element = *elements.get(key).ok_or_else(|| format!("no tensor uses the storage {key:?}"))?;
        let (length, after) = rest.split_first_chunk::<8>().ok_or(TRUNCATED)?;
        let size =
            usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|n| n.checked_mul(element.size()));
        let (data, after) = size.and_then(|size| after.split_at_checked(size)).ok_or(TRUNCATED)?;
        storages.insert(key.to_owned(), Arc::<[u8]>::from(data));
        rest = after;
    }
    let mut storages = LegacyStorages(storages);
    unpack(&object, entry, Container::TorchLegacy, &mut storages, bytes.len())
}

struct LegacyStorages(HashMap<String, Arc<[u8]>>);

impl Storages for LegacyStorages {
    fn bytes(&mut self, storage: &Storage) -> Result<Arc<[u8]>, String> {
        self.0
            .get(&storage.key)
            .cloned()
            .ok_or_else(|| format!("the storage {:?} is not in the file", storage.key))
    }
}

/// Reads a zip archive: `NAME/data.pkl` and one file `NAME/data/KEY` per storage.
pub(super) fn read_zip(bytes: &[u8], entry: Option<&str>) -> Result<StateFile, String> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|e| format!("a damaged zip archive ({e}), perhaps cut off: fetch it again"))?;
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let Some(root) = names.iter().find_map(|name| name.strip_suffix("data.pkl")).map(str::to_owned) else {
        return Err("a zip archive, but not a PyTorch checkpoint: there is no data.pkl in it".into());
    };
    let order = format!("{root}byteorder");
    if names.contains(&order) && read_member(&mut archive, &order, 16)?.trim_ascii() == b"big" {
        return Err(BIG_ENDIAN.into());
    }
    // Weights lie in the other members: the pickle itself is never larger than the archive allows.
    let object = read_member(&mut archive, &format!("{root}data.pkl"), 256 << 20)?;
    let object = pickle::read(&object).map_err(|e| format!("PyTorch checkpoint, data.pkl: {e}"))?;
    if names.iter().any(|name| name.starts_with(&format!("{root}code/"))) {
        return Err("a TorchScript program, not a state dict; in Python: \
                    torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
            .into());
    }
    let mut storages = ZipStorages { archive, root, read: HashMap::new() };
    unpack(&object, entry, Container::TorchZip, &mut storages, bytes.len())
}

struct ZipStorages<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    root: String,
    read: HashMap<String, Arc<[u8]>>,
}

impl Storages for ZipStorages<'_> {
    fn bytes(&mut self, storage: &Storage) -> Result<Arc<[u8]>, String> {
        if let Some(bytes) = self.read.get(&storage.key) {
            return Ok(bytes.clone());
        }
        let size = storage.length.checked_mul(storage.element.size()).ok_or("an absurd storage size")?;
        let name = format!("{}data/{}", self.root, storage.key);
        let bytes: Arc<[u8]> = read_member(&mut self.archive, &name, size)?.into();
        if bytes.len() != size {
            return Err(format!("{name} holds {} bytes, {size} were expected", bytes.len()));
        }
        self.read.insert(storage.key.clone(), bytes.clone());
        Ok(bytes)
    }
}

/// A whole member of at most `limit` bytes.
fn read_member(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, limit: usize) -> Result<Vec<u8>, String> {
    let mut member = archive.by_name(name).map_err(|e| format!("{name} in the archive: {e}"))?;
    let mut bytes = Vec::new();
    member
        .by_ref()
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("{name} in the archive: {e}"))?;
    if bytes.len() > limit {
        return Err(format!("{name} in the archive is larger than the {limit} bytes expected"));
    }
    Ok(bytes)
}

/// A storage class or dtype by name.
pub(super) fn element_of(value: &Value) -> Result<Element, String> {
    match value {
        Value::Global { module, name } if module.starts_with("torch") => {
            Element::of_storage(name).or_else(|| Element::of_dtype(name))
        }
        _ => None,
    }
    .ok_or_else(|| format!("numbers of this type are not read: {}", value.describe()))
}
