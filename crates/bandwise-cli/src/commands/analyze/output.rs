//! The folder that an analysis leaves: CSV, sections, records, figures, report.

use std::path::{Path, PathBuf};

use bandwise::evaluate::record::{self, Record};
use bandwise::outputs::{self, Kind};
use bandwise::report::{Report, Section};
use bandwise::{Result, files};

/// Collects what an analysis found.
pub struct Output {
    folder: PathBuf,
    report: Report,
}

impl Output {
    /// Into `folder`, under a title.
    pub fn new(folder: &Path, title: &str) -> Self {
        Self { folder: folder.to_path_buf(), report: Report::new(title) }
    }

    /// Refuses a folder with files of others under the names that every analysis writes; to be asked before anything
    /// is computed.
    ///
    /// # Errors
    /// See [`outputs::check`].
    pub fn check(folder: &Path) -> Result<()> {
        outputs::check(&folder.join("report.html"), &Kind::Page)?;
        outputs::check(&folder.join("results.jsonl"), &Kind::Json("metric".into()))
    }

    /// Writes `NAME.csv`.
    pub fn csv(&self, name: &str, text: &str) -> Result<()> {
        outputs::replace(&self.folder.join(format!("{name}.csv")), text.as_bytes())
    }

    /// Writes `sections/NAME.json`, which `bandwise report` collects, and shows it in the report.
    pub fn section(&mut self, name: &str, section: Section) -> Result<()> {
        section.write_json(&self.folder.join("sections").join(format!("{name}.json")))?;
        self.report.push(section);
        Ok(())
    }

    /// Writes `results.jsonl`, replacing an earlier one.
    pub fn records(&self, records: &[Record]) -> Result<()> {
        let path = self.folder.join("results.jsonl");
        files::write_atomic(&path, b"")?;
        record::append_jsonl(&path, records)
    }

    /// Writes `report.html` and the figures, and says where.
    pub fn finish(self) -> Result<()> {
        let page = self.folder.join("report.html");
        self.report.write(&page)?;
        self.report.write_figures(&self.folder.join("figures"))?;
        say!("Open the report: {}", page.display());
        Ok(())
    }
}
