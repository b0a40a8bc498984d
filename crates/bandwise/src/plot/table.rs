//! Tables of text and numbers with intervals, and lists of facts.

use serde::{Deserialize, Serialize};

use super::numbers;
use super::scale::NumberFormat;
use crate::formats::csv::Csv;
use crate::wording::counted;

/// A table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Table {
    /// What the table shows.
    #[serde(default)]
    pub title: String,
    /// A sentence below it.
    #[serde(default)]
    pub caption: String,
    /// Column headings; the first column names the rows.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell of a [`Table`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// Plain text.
    Text(String),
    /// A number, perhaps with an interval.
    Number(Number),
}

/// A number in a [`Table`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// The number.
    #[serde(with = "numbers::value")]
    pub value: f64,
    /// Its confidence interval.
    #[serde(default, with = "numbers::interval", skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// How both are written.
    #[serde(default)]
    pub format: NumberFormat,
    /// Whether it is set off as the best of its row.
    #[serde(default)]
    pub best: bool,
    /// Over how many seeds it is a mean; 0 for a single number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seeds: usize,
    /// A sign beside it that points to a remark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mark: String,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Cell {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Nothing.
    pub fn empty() -> Self {
        Self::text("")
    }

    /// A number as it is.
    pub fn number(value: f64) -> Self {
        Self::formatted(value, NumberFormat::Plain)
    }

    /// A fraction in per cent.
    pub fn percent(value: f64) -> Self {
        Self::formatted(value, NumberFormat::Percent)
    }

    /// A number in a given format.
    pub fn formatted(value: f64, format: NumberFormat) -> Self {
        Self::Number(Number { value, interval: None, format, best: false, seeds: 0, mark: String::new() })
    }

    /// Adds an interval (to a number).
    pub fn with_interval(mut self, bounds: Option<[f64; 2]>) -> Self {
        if let Self::Number(number) = &mut self {
            number.interval = bounds;
        }
        self
    }

    /// Sets a number off as the best of its row.
    pub fn best(mut self, best: bool) -> Self {
        if let Self::Number(number) = &mut self {
            number.best = best;
        }
        self
    }

    /// Says over how many seeds a number is a mean; 0 for a single number.
    pub fn seeds(mut self, seeds: usize) -> Self {
        if let Self::Number(number) = &mut self {
            number.seeds = seeds;
        }
        self
    }

    /// Puts a sign beside a number that points to a remark.
    pub fn mark(mut self, mark: String) -> Self {
        if let Self::Number(number) = &mut self {
            number.mark = mark;
        }
        self
    }

    /// The number, if it is one.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number.value),
            Self::Text(_) => None,
        }
    }
}

impl Number {
    /// The interval as text, without a unit: `[84.1, 88.0]`, or `± 1.9 over 3 seeds` around a mean.
    pub(crate) fn interval_text(&self) -> Option<String> {
        let [low, high] = self.interval?;
        let write = |v: f64| self.format.write(v).replace(" %", "");
        Some(match self.seeds {
            0 => format!("[{}, {}]", write(low), write(high)),
            seeds => {
                // At the end of its range the interval is cut.
                let symmetric = ((low + high) / 2.0 - self.value).abs() < 1e-9;
                let interval = match symmetric {
                    true => format!("± {}", write((high - low) / 2.0)),
                    false => format!("[{}, {}]", write(low), write(high)),
                };
                format!("{interval} over {}", counted(seeds, "seed"))
            }
        })
    }
}

impl Table {
    /// A table without rows.
    pub fn new<S: AsRef<str>>(title: impl Into<String>, columns: &[S]) -> Self {
        let columns = columns.iter().map(|c| c.as_ref().to_owned()).collect();
        Self { title: title.into(), columns, ..Self::default() }
    }

    /// Adds a row.
    pub fn row(mut self, cells: Vec<Cell>) -> Self {
        self.rows.push(cells);
        self
    }

    /// Says something below the table.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// The table as CSV; a column in which any cell has an interval is followed by its `low` and `high`,
    /// one with means by their number of `seeds`.
    pub fn csv(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(self.columns.len());
        let has_interval = |column: usize| {
            self.rows.iter().any(|r| matches!(r.get(column), Some(Cell::Number(n)) if n.interval.is_some()))
        };
        let has_seeds = |column: usize| {
            self.rows.iter().any(|r| matches!(r.get(column), Some(Cell::Number(n)) if n.seeds > 0))
        };
        let mut lines = vec![Vec::new(); self.rows.len() + 1];
        for column in 0..columns {
            let title = self.columns.get(column).cloned().unwrap_or_default();
            lines[0].push(title.clone());
            if has_interval(column) {
                lines[0].extend([format!("{title} low"), format!("{title} high")]);
            }
            if has_seeds(column) {
                lines[0].push(format!("{title} seeds"));
            }
            for (row, line) in self.rows.iter().zip(&mut lines[1..]) {
                let (value, interval, seeds) = match row.get(column) {
                    None => (String::new(), None, 0),
                    Some(Cell::Text(text)) => (text.clone(), None, 0),
                    Some(Cell::Number(n)) => (n.value.to_string(), n.interval, n.seeds),
                };
                line.push(value);
                if has_interval(column) {
                    line.extend(
                        interval.map_or([String::new(), String::new()], |i| i.map(|v| v.to_string())),
                    );
                }
                if has_seeds(column) {
                    line.push(if seeds > 0 { seeds.to_string() } else { String::new() });
                }
            }
        }
        let mut csv = Csv::new(&lines[0].iter().map(String::as_str).collect::<Vec<_>>());
        lines[1..].iter().for_each(|line| csv.cells(line));
        csv.into_text()
    }
}

/// Names and values: what was trained, on what, with what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Name and value, in order.
    pub entries: Vec<(String, String)>,
}

impl Facts {
    /// No facts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact.
    pub fn fact(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.entries.push((name.into(), value.to_string()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_columns_for_intervals() {
        let table = Table::new("", &["attack", "plain"])
            .row(vec![Cell::text("none"), Cell::percent(0.5).with_interval(Some([0.25, 0.75]))])
            .row(vec![Cell::text("pgd, 10"), Cell::empty()]);
        assert_eq!(table.csv(), "attack,plain,plain low,plain high\nnone,0.5,0.25,0.75\n\"pgd, 10\",,,\n");
    }

    #[test]
    fn means_say_over_how_many_seeds() {
        let cell = Cell::percent(0.5).with_interval(Some([0.48, 0.52])).seeds(3);
        let Cell::Number(number) = &cell else { panic!() };
        assert_eq!(number.interval_text().unwrap(), "± 2.0 over 3 seeds");
        let clipped = Cell::percent(0.99).with_interval(Some([0.97, 1.0])).seeds(3);
        let Cell::Number(clipped) = &clipped else { panic!() };
        assert_eq!(clipped.interval_text().unwrap(), "[97.0, 100.0] over 3 seeds");
        let table = Table::new("", &["images", "plain"]).row(vec![Cell::text("clean"), cell]);
        assert_eq!(table.csv(), "images,plain,plain low,plain high,plain seeds\nclean,0.5,0.48,0.52,3\n");
    }

    #[test]
    fn cells_survive_json() {
        let cells = vec![Cell::text("a"), Cell::percent(0.5).best(true), Cell::number(f64::NAN)];
        let back: Vec<Cell> = serde_json::from_str(&serde_json::to_string(&cells).unwrap()).unwrap();
        assert_eq!(back[..2], cells[..2]);
        assert!(back[2].value().unwrap().is_nan());
    }
}
