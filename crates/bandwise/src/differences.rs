//! What differs between two sets of settings, said in one sentence: the parameter, and both values.

use serde::Serialize;
use serde_json::Value;

/// What differs between two values, as `config.decay: the journal has 0.2, the command 0.3`; `None` if nothing does.
pub fn between(ours: (&str, &Value), theirs: (&str, &Value)) -> Option<String> {
    let mut found = Vec::new();
    walk("", Some(&plain(ours.1)), Some(&plain(theirs.1)), &mut found);
    (!found.is_empty()).then(|| sentence(&found, ours.0, theirs.0))
}

/// A value as a file gives it back: both sides of a comparison went through the same number parser.
pub(crate) fn plain<T: Serialize>(value: &T) -> Value {
    let text = serde_json::to_string(value).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// A parameter that is not the same on both sides.
pub(crate) struct Difference {
    path: String,
    ours: String,
    theirs: String,
}

impl Difference {
    pub(crate) fn new(path: &str, ours: Option<&Value>, theirs: Option<&Value>) -> Self {
        Self { path: path.into(), ours: shown(ours), theirs: shown(theirs) }
    }
}

/// Walks down to the leaves that differ; `path` is where both sides stand.
pub(crate) fn walk(path: &str, ours: Option<&Value>, theirs: Option<&Value>, found: &mut Vec<Difference>) {
    match (ours, theirs) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let more = other.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(more) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(&path, one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                walk(&format!("{path}[{index}]"), one.get(index), other.get(index), found);
            }
        }
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => found.push(Difference::new(path, ours, theirs)),
    }
}

/// A value in a sentence: hashes and long lists by their beginning.
fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => return "none".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let longest = if is_hash { 12 } else { 60 };
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The first of some differences, with what both sides are called.
pub(crate) fn sentence(differences: &[Difference], ours: &str, theirs: &str) -> String {
    let first = &differences[0];
    let more = match differences.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    format!("{}: {ours} has {}, {theirs} {}{more}", first.path, first.ours, first.theirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_named_with_both_values() {
        let (ours, theirs) =
            (json!({"a": 1, "b": {"c": 0.1, "d": [1, 2]}}), json!({"a": 1, "b": {"c": 0.2, "d": [1]}}));
        let found = between(("the folder", &ours), ("the command", &theirs)).unwrap();
        assert_eq!(found, "b.c: the folder has 0.1, the command 0.2 (and 1 more)");
        assert_eq!(between(("", &ours), ("", &ours)), None);
    }
}
