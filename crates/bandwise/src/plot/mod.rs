//! Figures, tables and sections from plain numbers: curves, bars, arrays as color, images. Each figure draws itself as SVG
//! and gives the numbers behind it as CSV.
//!
//! | file | what |
//! |---|---|
//! | `line_plot`, `bar_plot`, `heat_map` | the figures, by the trait in `figure` |
//! | `image` | images and grids of them |
//! | `table` | tables with intervals, facts |
//! | `section` | a heading with text, tables and figures: what an analysis leaves for a report |
//! | `chart`, `scale`, `color`, `svg` | axes, ticks, colors, drawing |
//!
//! Nothing here knows of models or records.
//!
//! ```
//! use bandwise::plot::{Axis, LinePlot, Section, Series};
//!
//! let plot = LinePlot::new("Learning", Axis::integers("epoch"), Axis::percent("accuracy"))
//!     .series(Series::new("plain", vec![[1.0, 0.3], [2.0, 0.45]]));
//! assert!(plot.svg().contains("accuracy"));
//! assert_eq!(Section::new("Training").line_plot(plot).blocks.len(), 1);
//! ```

mod bar_plot;
pub(crate) mod chart;
pub(crate) mod color;
pub(crate) mod figure;
mod heat_map;
mod image;
mod line_plot;
mod numbers;
mod scale;
mod section;
pub(crate) mod svg;
mod table;

pub use bar_plot::{Bar, BarPlot, BarSeries};
pub use chart::Width;
pub use color::ColorMap;
pub use heat_map::{HeatMap, HeatPanel};
pub use image::{ImageGrid, ImageRow, PngImage};
pub use line_plot::{LinePlot, Series};
pub use scale::{Axis, NumberFormat, ScaleKind};
pub(crate) use section::Part;
pub use section::{Block, Section};
pub use table::{Cell, Facts, Number, Table};
