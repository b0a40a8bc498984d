//! What a journal holds about one attack.

use std::collections::HashMap;

use super::line::Entry;
use crate::attack::Outcome;

/// The judgments under one attack.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) label: String,
    /// One, without a name, for everything but AutoAttack.
    pub(super) parts: Vec<Part>,
}

/// The judgments of one part of an attack.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: Option<String>,
    /// By image: the judgment and its line as written, so that merging never re-formats a number.
    pub(super) entries: HashMap<usize, (Entry, String)>,
}

impl Task {
    pub(super) fn new(label: &str, parts: Vec<String>) -> Self {
        let mut names: Vec<Option<String>> = parts.into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        let parts = names.into_iter().map(|name| Part { name, entries: HashMap::new() }).collect();
        Self { label: label.to_string(), parts }
    }

    /// Whether the image withstood; `None` while a part is missing.
    pub(super) fn correct(&self, image: usize) -> Option<bool> {
        for part in &self.parts {
            match part.entries.get(&image) {
                None => return None,
                Some((entry, _)) if !entry.correct => return Some(false),
                Some(_) => {}
            }
        }
        Some(true)
    }

    pub(super) fn judgment(&self, image: usize) -> Option<Entry> {
        self.correct(image)?;
        if let [Part { name: None, entries }] = &self.parts[..] {
            return entries.get(&image).map(|(entry, _)| entry.clone());
        }
        let mut total = Outcome { margin: f64::INFINITY, ..Outcome::default() };
        for part in &self.parts {
            let Some((entry, _)) = part.entries.get(&image) else { break };
            total.add_part(part.name.as_deref().unwrap_or_default(), entry.outcome());
        }
        Some(Entry::of(image, &self.label, None, total))
    }

    pub(super) fn part(&mut self, name: Option<&str>) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.name.as_deref() == name)
    }
}
