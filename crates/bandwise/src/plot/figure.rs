//! What a figure is to a page and to a folder of files.

use super::svg::Svg;

/// A figure. Its kind has a file of its own, and a line in the table of blocks (`section.rs`).
pub(crate) trait Figure {
    /// What it shows; its files are named after it.
    fn title(&self) -> &str;
    /// The sentence below it.
    fn caption_text(&self) -> &str;
    /// Whether it takes the whole width of a page.
    fn is_wide(&self) -> bool;
    /// The drawing.
    fn draw(&self) -> Svg;
    /// The data behind it.
    fn csv(&self) -> String;
}
