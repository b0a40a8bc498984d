//! Tables as comma-separated values (RFC 4180) that spreadsheets open without running anything.

use std::borrow::Cow;
use std::fmt::Display;

use csv_core::Writer;

use crate::wording::visible;

/// A table, written row by row.
///
/// Control characters are shown as escapes, as on a terminal. Numbers have as many digits as tell single-precision
/// numbers apart: `0.3`, not `0.30000000000000004`.
///
/// Cells that a spreadsheet would take for a formula get an apostrophe in front, which makes them text there: names of
/// classes, runs and files may come from anybody.
///
/// ```
/// use bandwise::formats::csv::Csv;
///
/// let mut csv = Csv::new(&["model", "accuracy"]);
/// csv.row(&[&"wide, plain", &0.5]);
/// csv.row(&[&"=1+1", &-0.5]);
/// assert_eq!(csv.into_text(), "model,accuracy\n\"wide, plain\",0.5\n'=1+1,-0.5\n");
/// ```
pub struct Csv {
    writer: Writer,
    text: Vec<u8>,
}

impl Csv {
    /// A table with these columns and no rows.
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self { writer: Writer::new(), text: Vec::new() };
        table.cells(columns);
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[&dyn Display]) {
        self.cells(cells.iter().map(ToString::to_string));
    }

    /// Adds a row of text.
    pub fn cells(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        for (index, cell) in cells.into_iter().enumerate() {
            let cell = rounded(cell.as_ref());
            let cell = visible(&cell);
            let cell = harmless(&cell);
            if index > 0 {
                self.write(2, |writer, room| writer.delimiter(room).1);
            }
            // All of it may be quotes, which are doubled.
            self.write(2 * cell.len() + 2, |writer, room| writer.field(cell.as_bytes(), room).2);
        }
        self.write(4, |writer, room| writer.terminator(room).1);
    }

    /// Lets `act` write into `room` more bytes; it says how many it took.
    fn write(&mut self, room: usize, act: impl FnOnce(&mut Writer, &mut [u8]) -> usize) {
        let before = self.text.len();
        self.text.resize(before + room, 0);
        let written = act(&mut self.writer, &mut self.text[before..]);
        self.text.truncate(before + written);
    }

    /// The whole table.
    pub fn into_text(self) -> String {
        String::from_utf8(self.text).expect("cells are text")
    }
}

/// A value, or an empty cell.
pub fn optional<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// A decimal number in the fewest digits that give the same number in single precision; beyond its range, in nine.
fn rounded(cell: &str) -> Cow<'_, str> {
    let is_decimal = cell.len() > 9 && cell.contains('.') && !cell.contains(char::is_whitespace);
    let Some(value) = cell.parse::<f64>().ok().filter(|value| is_decimal && value.is_finite()) else {
        return Cow::Borrowed(cell);
    };
    let single = value as f32;
    let text = match single.is_normal() || value == 0.0 {
        true => single.to_string(),
        false => format!("{value:.8e}").parse::<f64>().unwrap_or(value).to_string(),
    };
    if text.len() < cell.len() { Cow::Owned(text) } else { Cow::Borrowed(cell) }
}

/// What spreadsheets take for a formula or may strip down to one (OWASP, "CSV Injection"), numbers excepted.
fn harmless(cell: &str) -> Cow<'_, str> {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    match formula && cell.parse::<f64>().is_err() {
        true => Cow::Owned(format!("'{cell}")),
        false => Cow::Borrowed(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_the_standard_asks_for_it() {
        let mut csv = Csv::new(&["a", "b,c", ""]);
        csv.row(&[&"say \"hi\"", &"two, three", &""]);
        csv.row(&[&f64::NAN, &optional(None::<f64>), &optional(Some(2))]);
        assert_eq!(csv.into_text(), "a,\"b,c\",\n\"say \"\"hi\"\"\",\"two, three\",\nNaN,,2\n");
    }

    /// A cell as it stands in the file.
    fn written(cell: &str) -> String {
        let mut csv = Csv::new(&["label"]);
        csv.row(&[&cell]);
        csv.into_text().strip_prefix("label\n").unwrap().trim_end().to_owned()
    }

    #[test]
    fn nothing_is_a_formula() {
        for cell in ["=cmd|' '!A1", "+1+1", "-1-1", "-", "@SUM(1)", "＝1", "-cat"] {
            assert_eq!(written(cell), format!("'{cell}"));
        }
        assert_eq!(written("=1,2"), "\"'=1,2\"");
        for cell in ["-0.5", "+3", "-1e-7", "-inf", "cat", "8/255", "a=b", "'quoted'"] {
            assert_eq!(written(cell), cell);
        }
    }

    #[test]
    fn control_characters_are_shown() {
        for (cell, expected) in [
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("two\nlines", "two\\nlines"),
            ("\t=1", "\\t=1"),
            ("猫", "猫"),
        ] {
            assert_eq!(written(cell), expected);
        }
    }

    #[test]
    fn numbers_have_no_noise() {
        for (cell, expected) in [
            (f64::to_string(&(0.1 + 0.2)), "0.3"),
            (f64::from(0.9424f32).to_string(), "0.9424"),
            (f64::to_string(&(1.0 / 3.0)), "0.33333334"),
            (f64::to_string(&-1e-50), f64::to_string(&-1e-50).as_str()),
            ("12345678901".to_owned(), "12345678901"),
            ("2026-11-21T00:00:00Z".to_owned(), "2026-11-21T00:00:00Z"),
            ("1.2.3".to_owned(), "1.2.3"),
        ] {
            assert_eq!(written(&cell), expected);
        }
    }

    #[test]
    fn rows_may_have_any_length() {
        let mut csv = Csv::new(&["a", "b"]);
        csv.cells(["1"]);
        csv.cells([""]);
        csv.cells(["1", "2", "3"]);
        assert_eq!(csv.into_text(), "a,b\n1\n\"\"\n1,2,3\n");
    }
}
