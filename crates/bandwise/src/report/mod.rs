//! The self-contained HTML report, made of the [figures and tables](crate::plot) of records and analyses.
//!
//! A [`Report`] is a list of [`Section`]s; a section holds text, [`Facts`], [`Table`]s, [`LinePlot`]s,
//! [`BarPlot`]s, [`HeatMap`]s and [`ImageGrid`]s. The page needs no network: styles, plots (SVG with
//! real text, light and dark), images (PNG) and the data behind every plot (CSV) are inside it. The
//! same plots can be written as files ([`Report::write_figures`]).
//!
//! Nothing here computes a result: numbers come from [`records`](crate::evaluate::record), curves from
//! a run's metrics.
//!
//! ```
//! use bandwise::report::{Cell, Report, Section, Table};
//!
//! let table = Table::new("Accuracy", &["network", "clean"]).row(vec![Cell::text("plain"), Cell::percent(0.945)]);
//! let page = Report::new("Two networks").section(Section::new("Results").table(table)).to_html();
//! assert!(page.contains("<h1>Two networks</h1>") && page.contains("94.5"));
//! ```

mod folder;
mod html;
mod page;
mod run;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use folder::{AnalysisFolder, check_corruptions_folder, check_folder, write_analysis, write_corruptions};
pub use page::write_report;
pub use run::report_for_runs;

use crate::calendar::utc_timestamp;
use crate::plot::Part;
pub use crate::plot::{
    Axis, Bar, BarPlot, BarSeries, Block, Cell, ColorMap, Facts, HeatMap, HeatPanel, ImageGrid, ImageRow,
    LinePlot, Number, NumberFormat, PngImage, ScaleKind, Section, Series, Table, Width,
};
use crate::{Error, Result, files, outputs};

/// Builder for an HTML page.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    title: String,
    subtitle: String,
    created: String,
    sections: Vec<Section>,
    from_records: bool,
}

impl Report {
    /// An empty report, dated now.
    pub fn new(title: impl Into<String>) -> Self {
        let created = utc_timestamp(SystemTime::now());
        let (title, subtitle) = (title.into(), String::new());
        Self { title, subtitle, created, sections: Vec::new(), from_records: false }
    }

    /// A line below the title; `` `code` `` and `**strong**` are marked up.
    pub fn subtitle(mut self, subtitle: impl Into<String>) -> Self {
        self.subtitle = subtitle.into();
        self
    }

    /// Says on the page that it can be made again from the records of its folders at any time.
    pub fn made_from_records(mut self) -> Self {
        self.from_records = true;
        self
    }

    /// Whether the file is a page that was made from records ([`Report::made_from_records`]): writing it anew loses
    /// nothing.
    pub fn is_made_from_records(path: &Path) -> Result<bool> {
        Ok(head_of(path)?.contains(html::FROM_RECORDS.trim_end()))
    }

    /// Whether the file is an HTML page at all.
    pub fn is_page(path: &Path) -> Result<bool> {
        Ok(head_of(path)?.trim_start().to_ascii_lowercase().starts_with("<!doctype html"))
    }

    /// Adds a section.
    pub fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// Adds a section to a report that is kept.
    pub fn push(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// The sections so far.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The page.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// Writes the page, atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        outputs::replace(path, self.to_html().as_bytes())
    }

    /// Writes every plot as `.svg` and `.csv`, every table as `.csv` and every image as `.png` into a
    /// folder, numbered in the order of the page; returns the files.
    pub fn write_figures(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for block in self.sections.iter().flat_map(|s| &s.blocks) {
            collect_figures(block, &mut files);
        }
        let mut written = Vec::with_capacity(files.len());
        for (index, (name, content)) in files.into_iter().enumerate() {
            let path = folder.join(format!("{:02}-{name}", index + 1));
            files::write_atomic(&path, &content)?;
            written.push(path);
        }
        Ok(written)
    }
}

/// A figure of a section, drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// What it shows.
    pub title: String,
    /// The sentence below it.
    pub caption: String,
    /// A complete SVG document.
    pub svg: String,
    /// The numbers behind it.
    pub csv: String,
}

/// The figures of a section, in order.
pub fn drawings(section: &Section) -> Vec<Drawing> {
    fn collect(block: &Block, found: &mut Vec<Drawing>) {
        match block.part() {
            Part::Figure(figure) => found.push(Drawing {
                title: figure.title().into(),
                caption: figure.caption_text().into(),
                svg: figure.draw().standalone(),
                csv: figure.csv(),
            }),
            Part::Details { blocks, .. } => blocks.iter().for_each(|block| collect(block, found)),
            Part::Text(_) | Part::Note { .. } | Part::Facts(_) | Part::Table(_) | Part::Images(_) => {}
        }
    }
    let mut found = Vec::new();
    section.blocks.iter().for_each(|block| collect(block, &mut found));
    found
}

/// The beginning of a file as text.
fn head_of(path: &Path) -> Result<String> {
    use std::io::Read;

    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(4096).read_to_end(&mut head).map_err(|e| Error::io(path, e))?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn collect_figures(block: &Block, files: &mut Vec<(String, Vec<u8>)>) {
    match block.part() {
        Part::Figure(figure) => {
            let stem = file_stem(figure.title());
            files.push((format!("{stem}.svg"), figure.draw().standalone().into_bytes()));
            files.push((format!("{stem}.csv"), figure.csv().into_bytes()));
        }
        Part::Table(t) => files.push((format!("{}.csv", file_stem(&t.title)), t.csv().into_bytes())),
        Part::Images(grid) => {
            let pictures = grid.rows.iter().flat_map(|r| r.pictures.iter().map(move |p| (&r.label, p)));
            for (label, picture) in pictures {
                let name = file_stem(&format!("{} {label} {}", grid.title, picture.caption));
                files.extend(picture.bytes().map(|bytes| (format!("{name}.png"), bytes)));
            }
        }
        Part::Details { blocks, .. } => blocks.iter().for_each(|b| collect_figures(b, files)),
        Part::Text(_) | Part::Note { .. } | Part::Facts(_) => {}
    }
}

/// A title as a file name: lower-case letters, digits and hyphens.
fn file_stem(title: &str) -> String {
    let mut stem = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            stem.push(c);
        } else if !stem.ends_with('-') && !stem.is_empty() {
            stem.push('-');
        }
        if stem.len() >= 60 {
            break;
        }
    }
    let stem = stem.trim_end_matches('-');
    if stem.is_empty() { "figure".into() } else { stem.into() }
}

#[cfg(test)]
mod tests;
