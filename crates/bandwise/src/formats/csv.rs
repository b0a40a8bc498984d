//! Tables as comma-separated values (RFC 4180) that spreadsheets open without running anything.

use std::borrow::Cow;
use std::fmt::Display;

use csv_core::Writer;

/// A table, written row by row.
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
            let cell = harmless(cell.as_ref());
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
        csv.row(&[&"say \"hi\"", &"two\nlines", &""]);
        csv.row(&[&f64::NAN, &optional(None::<f64>), &optional(Some(2))]);
        assert_eq!(csv.into_text(), "a,\"b,c\",\n\"say \"\"hi\"\"\",\"two\nlines\",\nNaN,,2\n");
    }

    /// A cell as it stands in the file.
    fn written(cell: &str) -> String {
        let mut csv = Csv::new(&["label"]);
        csv.row(&[&cell]);
        csv.into_text().strip_prefix("label\n").unwrap().trim_end().to_owned()
    }

    #[test]
    fn nothing_is_a_formula() {
        for cell in ["=cmd|' '!A1", "+1+1", "-1-1", "-", "@SUM(1)", "\t=1", "＝1", "-cat"] {
            assert_eq!(written(cell), format!("'{cell}"));
        }
        assert_eq!(written("=1,2"), "\"'=1,2\"");
        assert_eq!(written("\r=\"1\""), "\"'\r=\"\"1\"\"\"");
        for cell in ["-0.5", "+3", "-1e-7", "-inf", "cat", "8/255", "a=b", "'quoted'"] {
            assert_eq!(written(cell), cell);
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
