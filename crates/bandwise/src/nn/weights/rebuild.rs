//! From the pickled value of a PyTorch checkpoint to its state dict.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::Tensor;

use super::element::Element;
use super::torch::element_of;
use super::{Container, StateDict, StateFile, check_count};
use crate::formats::pickle::{Object, Value};

/// Entries of a checkpoint that hold the state dict, the likeliest first.
const ENTRIES: [&str; 12] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "parameters",
    "ema_state_dict",
    "state_dict_ema",
];

/// A reference to a storage: an array of numbers outside the pickle.
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) element: Element,
    /// Numbers in the whole storage.
    pub(super) length: usize,
    /// Numbers of the whole storage that lie before the part that is meant.
    start: usize,
}

/// Where the bytes of storages come from.
pub(super) trait Storages {
    /// All bytes of a storage.
    fn bytes(&mut self, storage: &Storage) -> Result<Arc<[u8]>, String>;
}

/// Finds the state dict in a pickled checkpoint and rebuilds its tensors.
pub(super) fn unpack(
    object: &Value,
    entry: Option<&str>,
    container: Container,
    storages: &mut dyn Storages,
    file_size: usize,
) -> Result<StateFile, String> {
    let ((entry, value), within) = match entry {
        None => (find(object, 0)?, None),
        Some(entry) => match chosen(object, entry) {
            Ok(value) => ((entry.to_owned(), value), None),
            // Or the names in the state dict begin with it.
            Err(reason) => {
                let prefix = format!("{entry}.");
                let found =
                    find(object, 0).ok().filter(|(_, value)| names_of(value).any(|n| n.starts_with(&prefix)));
                (found.ok_or(reason)?, Some(prefix))
            }
        },
    };
    let others = if within.is_none() { others(object, &entry, value) } else { Vec::new() };
    // Overlapping views may unfold to more than the file holds, but not without end.
    let mut rebuilder = Rebuilder { storages, budget: file_size.saturating_mul(8).saturating_add(1 << 24) };
    let mut tensors = StateDict::new();
    let entries = value.as_dict().unwrap_or_default();
    check_count(entries.len())?;
    for (key, value) in entries {
        let name = key.as_str().ok_or_else(|| format!("expected names as keys, found {}", key.describe()))?;
        // Plain values between tensors, such as a version or `_extra_state`, are no weights.
        if !matches!(value, Value::Object(_)) || value.as_dict().is_some() {
            continue;
        }
        let Some(name) = within.as_ref().map_or(Some(name), |prefix| name.strip_prefix(prefix.as_str()))
        else {
            continue;
        };
        let tensor = rebuilder.tensor(value).map_err(|reason| format!("{name}: {reason}"))?;
        tensors.insert(name.to_owned(), tensor);
    }
    if tensors.is_empty() {
        return Err("the state dict in this checkpoint holds no tensors".into());
    }
    let metadata = plain_values(object);
    let entry = match &within {
        Some(prefix) => prefix.trim_end_matches('.').to_owned(),
        None => entry,
    };
    let (path, sha256) = (PathBuf::new(), String::new());
    Ok(StateFile { path, container, entry, others, tensors, metadata, sha256 })
}

/// The names of the tensors directly in a dictionary.
fn names_of(value: &Value) -> impl Iterator<Item = &str> {
    let entries = value.as_dict().unwrap_or_default().into_iter();
    entries.filter(|(_, value)| is_tensor(value)).filter_map(|(key, _)| key.as_str())
}

/// Other dictionaries of the checkpoint with the same names as the one at `entry`, whatever a wrapper put before them.
fn others(object: &Value, entry: &str, value: &Value) -> Vec<String> {
    let bare = |value: &Value| -> BTreeSet<String> {
        names_of(value).map(|name| name.strip_prefix("module.").unwrap_or(name).to_owned()).collect()
    };
    let wanted = bare(value);
    let mut found = Vec::new();
    let mut open: Vec<(String, &Value)> = vec![(String::new(), object)];
    while let Some((path, inside)) = open.pop() {
        if path != entry && !path.is_empty() && bare(inside).is_superset(&wanted) {
            found.push(path);
            continue;
        }
        if path.matches('.').count() < DEEPEST {
            let below =
                inside.as_dict().unwrap_or_default().into_iter().filter(|(_, value)| holds_tensors(value, 0));
            open.extend(below.filter_map(|(key, value)| {
                let key = key.as_str().filter(|key| !key.contains('.'))?;
                Some((if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, value))
            }));
        }
    }
    found.sort();
    found
}

/// Dictionaries within dictionaries that are looked into.
const DEEPEST: usize = 3;

/// The value at a dotted path.
fn chosen<'a>(object: &'a Value, entry: &str) -> Result<&'a Value, String> {
    let mut value = object;
    for part in entry.split('.') {
        value = value.get(part).ok_or_else(|| {
            format!("there is no entry {part:?}; found: {}", keys(value).unwrap_or_else(|| value.describe()))
        })?;
    }
    if value.as_dict().is_none() {
        return Err(format!("the entry {entry:?} is not a state dict: {}", value.describe()));
    }
    Ok(value)
}

/// The path to the state dict and the state dict: under a usual name, or the value itself, or its
/// only entry that holds tensors.
fn find(value: &Value, depth: usize) -> Result<(String, &Value), String> {
    let Some(entries) = value.as_dict() else { return Err(not_a_state_dict(value)) };
    let below = |name: &str, value| {
        let (rest, found) = find(value, depth + 1)?;
        Ok((if rest.is_empty() { name.to_owned() } else { format!("{name}.{rest}") }, found))
    };
    if depth < 4 {
        for name in ENTRIES {
            if let Some(inner) = value.get(name).filter(|inner| holds_tensors(inner, 0)) {
                return below(name, inner);
            }
        }
    }
    if entries.iter().any(|(_, value)| is_tensor(value)) {
        return Ok((String::new(), value));
    }
    let candidates: Vec<(&str, &Value)> = entries
        .iter()
        .filter(|(_, value)| holds_tensors(value, 0))
        .filter_map(|(key, value)| Some((key.as_str()?, *value)))
        .collect();
    match candidates[..] {
        [(name, inner)] if depth < 4 => below(name, inner),
        [] => {
            // A model saved as a whole beside other things: say what it is.
            let model = entries.iter().find(|(key, value)| {
                key.as_str().is_some_and(|key| ENTRIES.contains(&key)) && matches!(value, Value::Object(_))
            });
            match model {
                Some((_, object)) => Err(not_a_state_dict(object)),
                None => Err(format!(
                    "no state dict in this checkpoint; found: {}",
                    keys(value).unwrap_or_default()
                )),
            }
        }
        _ => Err(format!(
            "several entries of this checkpoint hold tensors; choose one with FILE#ENTRY: {}",
            candidates.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn not_a_state_dict(value: &Value) -> String {
    format!(
        "expected a state dict (a dictionary of tensors), found {}; in Python: \
         torch.save(model.state_dict(), NEW_FILE)",
        value.describe()
    )
}

fn keys(value: &Value) -> Option<String> {
    let entries = value.as_dict()?;
    let names: Vec<&str> = entries.iter().filter_map(|(key, _)| key.as_str()).take(12).collect();
    Some(match (entries.is_empty(), names.is_empty()) {
        (true, _) => "nothing, the dictionary is empty".into(),
        (_, true) => "entries without names".into(),
        _ => names.join(", "),
    })
}

fn is_tensor(value: &Value) -> bool {
    matches!(value, Value::Object(call) if call.name().starts_with("torch.") && call.name().contains("._rebuild_"))
}

/// Whether a value is a dictionary with tensors in it, possibly some levels down.
fn holds_tensors(value: &Value, depth: usize) -> bool {
    depth < 4
        && value.as_dict().is_some_and(|entries| {
            entries.iter().any(|(_, value)| is_tensor(value) || holds_tensors(value, depth + 1))
        })
}

/// Numbers and texts directly in the checkpoint, such as the epoch.
fn plain_values(object: &Value) -> BTreeMap<String, String> {
    let entries = object.as_dict().unwrap_or_default();
    let plain = entries.into_iter().filter_map(|(key, value)| {
        let text = match value {
            Value::Int(i) => i.to_string(),
            Value::Float(f) => f.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::String(s) => s.to_string(),
            _ => return None,
        };
        Some((key.as_str()?.to_owned(), text))
    });
    plain.collect()
}

/// The number type of every storage that a pickled value refers to.
pub(super) fn storages_of(object: &Value) -> Result<HashMap<String, Element>, String> {
    let mut found = HashMap::new();
    let mut open = vec![object];
    while let Some(value) = open.pop() {
        match value {
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => open.extend(items),
            Value::Dict(entries) => open.extend(entries.iter().flat_map(|(key, value)| [key, value])),
            Value::Object(call) => {
                open.extend([&call.callable, &call.arguments]);
                open.extend(&call.state);
                open.extend(&call.items);
                open.extend(call.entries.iter().flat_map(|(key, value)| [key, value]));
            }
            Value::Persistent(_) => {
                if let Some(storage) = storage(value, None)? {
                    found.insert(storage.key, storage.element);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The storage that a persistent reference `("storage", class, key, location, length[, view])`
/// means; `None` for other references (the source text of a module class).
fn storage(value: &Value, dtype: Option<Element>) -> Result<Option<Storage>, String> {
    let wrong = || format!("expected a reference to a storage, found {}", value.describe());
    let Value::Persistent(reference) = value else { return Err(wrong()) };
    let parts = reference.as_sequence().ok_or_else(wrong)?;
    let (class, key, length, view) = match parts {
        [kind, ..] if kind.as_str() != Some("storage") => return Ok(None),
        [_, class, key, _, length] => (class, key, length, &Value::None),
        [_, class, key, _, length, view] => (class, key, length, view),
        _ => return Err(wrong()),
    };
    let untyped = matches!(class, Value::Global { name, .. } if &**name == "UntypedStorage");
    let mut length = length.as_usize().ok_or_else(wrong)?;
    let element = match dtype {
        Some(dtype) if untyped => {
            length /= dtype.size();
            dtype
        }
        // Only its bytes matter here: the tensor that uses it tells the type.
        None if untyped => Element::U8,
        _ => element_of(class)?,
    };
    let key = key.as_str().ok_or_else(wrong)?.to_owned();
    let start = match view.as_sequence() {
        Some([_, offset, _]) => offset.as_usize().ok_or_else(wrong)?,
        _ => 0,
    };
    Ok(Some(Storage { key, element, length, start }))
}

struct Rebuilder<'a> {
    storages: &'a mut dyn Storages,
    /// Bytes of tensors that may still be made.
    budget: usize,
}

impl Rebuilder<'_> {
    fn tensor(&mut self, value: &Value) -> Result<Tensor, String> {
        let Value::Object(call) = value else {
            return Err(format!("expected a tensor, found {}", value.describe()));
        };
        let arguments = call.positional();
        match (call.name().as_str(), arguments) {
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                [storage, offset, size, stride, ..],
            ) => self.view(storage, None, [offset, size, stride]),
            ("torch._utils._rebuild_tensor_v3", [storage, offset, size, stride, _, _, dtype, ..]) => {
                self.view(storage, Some(element_of(dtype)?), [offset, size, stride])
            }
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                [tensor, ..],
            ) => self.tensor(tensor),
            // A tensor with Python attributes: the function, the type, its arguments, the attributes.
            ("torch._tensor._rebuild_from_type_v2", [function, _, arguments, _]) => {
                self.tensor(&Value::Object(Box::new(Object {
                    callable: function.clone(),
                    arguments: arguments.clone(),
                    state: None,
                    items: vec![],
                    entries: vec![],
                })))
            }
            (name, _) => Err(format!(
                "made by {name}, which is not supported (only plain dense tensors and parameters are read)"
            )),
        }
    }

    /// A tensor as a view of a storage, made contiguous.
    fn view(
        &mut self,
        reference: &Value,
        dtype: Option<Element>,
        view: [&Value; 3],
    ) -> Result<Tensor, String> {
        let storage = storage(reference, dtype)?.ok_or("a tensor without a storage")?;
        let [offset, size, stride] = view;
        let numbers = |value: &Value| -> Option<Vec<usize>> {
            value.as_sequence()?.iter().map(Value::as_usize).collect()
        };
        let (Some(offset), Some(shape), Some(stride)) = (offset.as_usize(), numbers(size), numbers(stride))
        else {
            return Err("a tensor whose offset, size or stride is no number".into());
        };
        let too_large = || format!("a tensor of shape {shape:?} is larger than its storage allows");
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(too_large)?;
        let item = storage.element.size();
        let needed = count.checked_mul(item).ok_or_else(too_large)?;
        self.budget = self.budget.checked_sub(needed).ok_or_else(too_large)?;

        let bytes = if count == 0 { Arc::from([]) } else { self.storages.bytes(&storage)? };
        let start = storage.start.checked_add(offset).ok_or_else(too_large)?;
        if stride.len() != shape.len() || !fits(start, &shape, &stride, bytes.len() / item) {
            return Err(too_large());
        }
        let contiguous = gather(&bytes, item, start, &shape, &stride, needed);
        storage.element.tensor(&contiguous, &shape).map_err(|e| e.to_string())
    }
}

/// Whether the last number of a view lies inside its storage.
fn fits(start: usize, shape: &[usize], stride: &[usize], length: usize) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let last =
        shape.iter().zip(stride).try_fold(start, |last, (&n, &s)| last.checked_add((n - 1).checked_mul(s)?));
    last.is_some_and(|last| last < length)
}

/// The bytes of a view in row-major order.
fn gather(
    bytes: &[u8],
    item: usize,
    start: usize,
    shape: &[usize],
    stride: &[usize],
    size: usize,
) -> Vec<u8> {
    let row_major = shape
        .iter()
        .zip(stride)
        .rev()
        .try_fold(1, |expected, (&n, &s)| (n == 1 || s == expected).then_some(expected * n));
    if size == 0 || row_major.is_some() {
        return bytes[(start * item).min(bytes.len())..][..size].to_vec();
    }
    let mut out = Vec::with_capacity(size);
    let mut index = vec![0; shape.len()];
    while out.len() < size {
        let at = start + index.iter().zip(stride).map(|(i, s)| i * s).sum::<usize>();
        out.extend_from_slice(&bytes[at * item..(at + 1) * item]);
        for (i, n) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *n {
                break;
            }
            *i = 0;
        }
    }
    out
}
