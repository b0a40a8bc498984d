//! Sections: a heading, an explanation, and blocks of evidence. They are plain data and can be stored
//! as JSON, so that an analysis leaves its section in a folder and a report collects it later.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bar_plot::BarPlot;
use super::figure::Figure;
use super::heat_map::HeatMap;
use super::image::ImageGrid;
use super::line_plot::LinePlot;
use super::table::{Facts, Table};
use crate::{Error, Result, files};

/// A part of a report under one heading.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Section {
    /// The heading.
    pub heading: String,
    /// What follows, in order.
    #[serde(default)]
    pub blocks: Vec<Block>,
}

macro_rules! blocks {
    ($($variant:ident($figure:ty), $add:ident, $what:literal;)*) => {
        /// One piece of a section.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Block {
            /// A paragraph; `` `code` `` and `**strong**` are marked up.
            Text {
                /// The paragraph.
                text: String,
            },
            /// A remark set off from the text.
            Note {
                /// The remark.
                text: String,
                /// Whether it warns of something.
                #[serde(default)]
                warning: bool,
            },
            /// Names and values.
            Facts(Facts),
            /// A table.
            Table(Table),
            $(
                #[doc = concat!($what, ".")]
                $variant($figure),
            )*
            /// Images.
            Images(ImageGrid),
            /// Blocks behind a line that opens them.
            Details {
                /// The line.
                summary: String,
                /// What it opens.
                blocks: Vec<Block>,
            },
        }

        impl Block {
            /// The block as a page and a folder of files see it.
            pub(crate) fn part(&self) -> Part<'_> {
                match self {
                    Self::Text { text } => Part::Text(text),
                    Self::Note { text, warning } => Part::Note { text, warning: *warning },
                    Self::Facts(facts) => Part::Facts(facts),
                    Self::Table(table) => Part::Table(table),
                    $(Self::$variant(figure) => Part::Figure(figure),)*
                    Self::Images(grid) => Part::Images(grid),
                    Self::Details { summary, blocks } => Part::Details { summary, blocks },
                }
            }
        }

        impl Section {
            $(
                #[doc = concat!("Adds a figure. ", $what, ".")]
                pub fn $add(self, figure: $figure) -> Self {
                    self.block(Block::$variant(figure))
                }
            )*
        }
    };
}

// The figures: one line each.
blocks! {
    LinePlot(LinePlot), line_plot, "Curves";
    BarPlot(BarPlot), bar_plot, "Bars";
    HeatMap(HeatMap), heat_map, "Arrays as color";
}

/// A [`Block`], whatever figure it is.
pub(crate) enum Part<'a> {
    Text(&'a str),
    Note { text: &'a str, warning: bool },
    Facts(&'a Facts),
    Table(&'a Table),
    Figure(&'a dyn Figure),
    Images(&'a ImageGrid),
    Details { summary: &'a str, blocks: &'a [Block] },
}

impl Section {
    /// A section without content.
    pub fn new(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), blocks: Vec::new() }
    }

    /// Adds any block.
    pub fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    /// Adds a paragraph; `` `code` `` and `**strong**` are marked up.
    pub fn text(self, text: impl Into<String>) -> Self {
        self.block(Block::Text { text: text.into() })
    }

    /// Adds a remark set off from the text.
    pub fn note(self, text: impl Into<String>) -> Self {
        self.block(Block::Note { text: text.into(), warning: false })
    }

    /// Adds a warning.
    pub fn warning(self, text: impl Into<String>) -> Self {
        self.block(Block::Note { text: text.into(), warning: true })
    }

    /// Adds names and values.
    pub fn facts(self, facts: Facts) -> Self {
        self.block(Block::Facts(facts))
    }

    /// Adds a table.
    pub fn table(self, table: Table) -> Self {
        self.block(Block::Table(table))
    }

    /// Adds images.
    pub fn images(self, grid: ImageGrid) -> Self {
        self.block(Block::Images(grid))
    }

    /// Adds blocks behind a line that opens them.
    pub fn details(self, summary: impl Into<String>, blocks: Vec<Block>) -> Self {
        self.block(Block::Details { summary: summary.into(), blocks })
    }

    /// Writes the section as JSON, atomically; `bandwise report` collects such files from the
    /// `sections` folder of a run.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string(self)
            .map_err(|e| Error::format(path, format!("the section could not be written as JSON: {e}")))?;
        text.push('\n');
        files::write_atomic(path, text.as_bytes())
    }

    /// Reads a file that holds one section or a list of them.
    ///
    /// # Errors
    /// [`Error::Format`] naming file and line for anything else.
    pub fn read_json(path: &Path) -> Result<Vec<Section>> {
        let bytes = files::read(path)?;
        let list = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
        let sections = if list {
            serde_json::from_slice(&bytes)
        } else {
            serde_json::from_slice(&bytes).map(|s| vec![s])
        };
        sections.map_err(|e| {
            Error::format(path, format!("line {}: expected a report section as JSON: {e}", e.line()))
        })
    }
}
