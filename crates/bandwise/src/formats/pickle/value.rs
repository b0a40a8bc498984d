//! What a pickle holds.

use std::sync::Arc;

use super::PickleError;

/// A Python value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `bool`
    Bool(bool),
    /// An `int` of up to 64 bits.
    Int(i64),
    /// A larger `int`: little-endian two's complement.
    LargeInt(Arc<[u8]>),
    /// `float`
    Float(f64),
    /// `bytes`, `bytearray`, or a `str` of Python 2 (whose encoding the pickle does not tell).
    Bytes(Arc<[u8]>),
    /// Unicode text.
    String(Arc<str>),
    /// `list`
    List(Vec<Value>),
    /// `tuple`
    Tuple(Vec<Value>),
    /// `set` or `frozenset`
    Set(Vec<Value>),
    /// `dict`, in order of insertion; a later entry replaces an earlier one of the same key.
    Dict(Vec<(Value, Value)>),
    /// A class or function by name, never looked up.
    Global {
        /// Its module.
        module: Arc<str>,
        /// Its qualified name.
        name: Arc<str>,
    },
    /// A call that Python would have made.
    Object(Box<Object>),
    /// A reference to something outside the pickle (PyTorch: to a storage).
    Persistent(Box<Value>),
    /// A container inside itself.
    Recursive,
}

/// A call that Python would have made, and what it would have done with the result.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What is called: a [`Value::Global`], as a rule.
    pub callable: Value,
    /// The positional arguments: a [`Value::Tuple`], as a rule.
    pub arguments: Value,
    /// The argument of `__setstate__`, or the new `__dict__`.
    pub state: Option<Value>,
    /// What is appended to the result (lists, sets).
    pub items: Vec<Value>,
    /// What is put into the result by key (`OrderedDict`, `defaultdict`).
    pub entries: Vec<(Value, Value)>,
}

impl Object {
    /// `module.name` of the callable, or `"?"` where it is not a plain name.
    pub fn name(&self) -> String {
        match &self.callable {
            Value::Global { module, name } => format!("{module}.{name}"),
            _ => "?".to_owned(),
        }
    }

    /// The positional arguments; none where they are not a tuple.
    pub fn positional(&self) -> &[Value] {
        self.arguments.as_sequence().unwrap_or_default()
    }
}

impl Value {
    /// The number, of an `int` of up to 64 bits or a `bool`.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            Self::Bool(b) => Some(i64::from(*b)),
            _ => None,
        }
    }

    /// The number as a size or index, where it is one.
    pub fn as_usize(&self) -> Option<usize> {
        self.as_int().and_then(|i| usize::try_from(i).ok())
    }

    /// The text, also of a Python 2 `str` that is valid UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            Self::Bytes(b) => std::str::from_utf8(b).ok(),
            _ => None,
        }
    }

    /// The bytes, also in the form `_codecs.encode(text, "latin1")` in which Python 3 writes them
    /// for protocols 0 to 2.
    pub fn as_bytes(&self) -> Option<Arc<[u8]>> {
        match self {
            Self::Bytes(b) => Some(b.clone()),
            Self::Object(call) if call.name() == "_codecs.encode" => {
                let [text, encoding] = call.positional() else { return None };
                matches!(encoding.as_str(), Some("latin1" | "latin-1")).then_some(())?;
                text.as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
            }
            // An empty `bytes` of protocol 2.
            Self::Object(call)
                if call.positional().is_empty()
                    && matches!(call.name().as_str(), "__builtin__.bytes" | "builtins.bytes") =>
            {
                Some(Arc::from([]))
            }
            _ => None,
        }
    }

    /// The elements of a list, tuple or set.
    pub fn as_sequence(&self) -> Option<&[Value]> {
        match self {
            Self::List(v) | Self::Tuple(v) | Self::Set(v) => Some(v),
            _ => None,
        }
    }

    /// The entries of a `dict`, `OrderedDict` or `defaultdict`, in order.
    pub fn as_dict(&self) -> Option<Vec<(&Value, &Value)>> {
        match self {
            Self::Dict(entries) => Some(entries.iter().map(|(k, v)| (k, v)).collect()),
            Self::Object(call) => match call.name().as_str() {
                "collections.OrderedDict" => {
                    // Python 2 hands the entries over as an argument: a list of pairs.
                    let given = call.positional().first().and_then(Value::as_sequence).unwrap_or_default();
                    let pairs = given.iter().map(|pair| match pair.as_sequence() {
                        Some([key, value]) => Some((key, value)),
                        _ => None,
                    });
                    pairs.chain(call.entries.iter().map(|(k, v)| Some((k, v)))).collect()
                }
                "collections.defaultdict" => Some(call.entries.iter().map(|(k, v)| (k, v)).collect()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value under a text key of a dictionary, whether the key is `str` or Python 2 `str`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Dict(entries) => {
                entries.iter().rev().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
            }
            _ => self.as_dict()?.into_iter().rev().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v),
        }
    }

    /// What is there, in a few words, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(b) => format!("the bool {b}"),
            Self::Int(i) => format!("the int {i}"),
            Self::LargeInt(_) => "a large int".into(),
            Self::Float(f) => format!("the float {f}"),
            Self::Bytes(b) => format!("{} bytes", b.len()),
            Self::String(s) => format!("the text {:?}", s.chars().take(40).collect::<String>()),
            Self::List(v) => format!("a list of {}", v.len()),
            Self::Tuple(v) => format!("a tuple of {}", v.len()),
            Self::Set(v) => format!("a set of {}", v.len()),
            Self::Dict(v) => format!("a dict of {}", v.len()),
            Self::Global { module, name } => format!("the name {module}.{name}"),
            Self::Object(call) => format!("an object made by {}", call.name()),
            Self::Persistent(_) => "a reference to something outside the pickle".into(),
            Self::Recursive => "a container inside itself".into(),
        }
    }

    /// An error that says what was expected and what is there instead.
    pub(crate) fn unexpected(&self, expected: &str) -> PickleError {
        PickleError::Unexpected(format!("expected {expected}, found {}", self.describe()))
    }
}
