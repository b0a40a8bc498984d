//! Plots, tables and the self-contained HTML report, all from plain data.
//!
//! A [`Report`] is a list of [`Section`]s; a section holds text, [`Facts`], [`Table`]s, [`LinePlot`]s,
//! [`BarPlot`]s, [`HeatMap`]s and [`ImageGrid`]s. The page needs no network: styles, plots (SVG with
//! real text, light and dark), pictures (PNG) and the data behind every plot (CSV) are inside it. The
//! same plots can be written as files ([`Report::write_figures`]).
//!
//! Nothing here computes a result: numbers come from [`records`](crate::evaluate::record), curves from
//! a run's metrics.

mod bar_plot;
mod chart;
mod colour;
mod heat_map;
mod html;
mod line_plot;
mod numbers;
mod picture;
mod run;
mod scale;
mod section;
mod svg;
mod table;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use bar_plot::{Bar, BarPlot, BarSeries};
pub use chart::Width;
pub use colour::ColourMap;
pub use heat_map::{HeatMap, HeatPanel};
pub use line_plot::{LinePlot, Series};
pub use picture::{ImageGrid, ImageRow, Picture};
pub use run::report_for_runs;
pub use scale::{Axis, NumberFormat, ScaleKind};
pub use section::{Block, Section};
pub use table::{Cell, Facts, Number, Table};

use crate::evaluate::record::utc_timestamp;
use crate::{Result, files};

/// A page in the making.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    title: String,
    subtitle: String,
    created: String,
    sections: Vec<Section>,
}

impl Report {
    /// An empty report, dated now.
    pub fn new(title: impl Into<String>) -> Self {
        let created = utc_timestamp(SystemTime::now());
        Self { title: title.into(), subtitle: String::new(), created, sections: Vec::new() }
    }

    /// A line below the title; `` `code` `` and `**strong**` are marked up.
    pub fn subtitle(mut self, subtitle: impl Into<String>) -> Self {
        self.subtitle = subtitle.into();
        self
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
        files::write_atomic(path, self.to_html().as_bytes())
    }

    /// Writes every plot as `.svg` and `.csv`, every table as `.csv` and every picture as `.png` into a
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

fn collect_figures(block: &Block, files: &mut Vec<(String, Vec<u8>)>) {
    let mut plot = |title: &str, svg: String, csv: String| {
        files.push((format!("{}.svg", file_stem(title)), svg.into_bytes()));
        files.push((format!("{}.csv", file_stem(title)), csv.into_bytes()));
    };
    match block {
        Block::LinePlot(p) => plot(&p.title, p.svg(), p.csv()),
        Block::BarPlot(p) => plot(&p.title, p.svg(), p.csv()),
        Block::HeatMap(p) => plot(&p.title, p.svg(), p.csv()),
        Block::Table(t) => files.push((format!("{}.csv", file_stem(&t.title)), t.csv().into_bytes())),
        Block::Images(grid) => {
            let pictures = grid.rows.iter().flat_map(|r| r.pictures.iter().map(move |p| (&r.label, p)));
            for (label, picture) in pictures {
                let name = file_stem(&format!("{} {label} {}", grid.title, picture.caption));
                files.extend(picture.bytes().map(|bytes| (format!("{name}.png"), bytes)));
            }
        }
        Block::Details { blocks, .. } => blocks.iter().for_each(|b| collect_figures(b, files)),
        Block::Text { .. } | Block::Note { .. } | Block::Facts(_) => {}
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
