//! What an analysis leaves, whoever keeps it.

use crate::evaluate::record::Record;
use crate::plot::{Block, Section};

/// Results, one per network, and what is told about them.
#[derive(Clone, Debug)]
pub struct Analysis<T> {
    /// What was measured.
    pub results: Vec<T>,
    /// The same for readers.
    pub findings: Findings,
}

/// What was found, for readers and for files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Title of the page.
    pub title: String,
    /// What it comes to, line by line.
    pub lines: Vec<String>,
    /// Its numbers.
    pub records: Vec<Record>,
    /// CSV texts, each with the name of its file without `.csv`.
    pub tables: Vec<(String, String)>,
    /// Sections of the page, each with the name of its file without `.json`.
    pub sections: Vec<(String, Section)>,
}

impl Findings {
    /// Nothing yet, under a title.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// With a CSV text.
    pub fn table(mut self, name: &str, csv: String) -> Self {
        self.tables.push((name.into(), csv));
        self
    }

    /// With a section.
    pub fn section(mut self, name: &str, section: Section) -> Self {
        self.sections.push((name.into(), section));
        self
    }

    /// What is doubtful about a network's numbers, at the head of the page.
    pub(super) fn warn(&mut self, label: &str, warnings: &[String]) {
        if let Some((_, section)) = self.sections.first_mut() {
            let said = warnings.iter().map(|warning| format!("{label}: {warning}"));
            section.blocks.splice(0..0, said.map(|text| Block::Note { text, warning: true }));
        }
    }
}
