//! Renders a report as one HTML page that needs nothing but itself.

use std::collections::HashSet;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Report, file_stem};
use crate::plot::color;
use crate::plot::figure::Figure;
use crate::plot::svg::{FIGURE_CSS, escape};
use crate::plot::{Block, Cell, Facts, ImageGrid, Part, PngImage, Section, Table};

const PAGE_CSS: &str = include_str!("page.css");

/// Grids with more columns show smaller images.
const MANY_COLUMNS: usize = 6;

/// The line by which `bandwise report` knows a page that it may write again.
pub(super) const FROM_RECORDS: &str = "<meta name=\"bandwise-page\" content=\"from records\">\n";

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let title = escape(&report.title);
    let _ = write!(
        html,
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"generator\" content=\"bandwise {version}\">\n{origin}<title>{title}</title>\n\
         <style>:root{{{light}color-scheme:light dark}}\n\
         @media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n{PAGE_CSS}{FIGURE_CSS}</style>\n</head>\n<body>\n",
        version = env!("CARGO_PKG_VERSION"),
        origin = if report.from_records { FROM_RECORDS } else { "" },
        light = color::css_variables(false),
        dark = color::css_variables(true),
    );
    let _ = write!(html, "<header><p class=\"brand\">Bandwise report</p><h1>{title}</h1>");
    if !report.subtitle.is_empty() {
        let _ = write!(html, "<p class=\"subtitle\">{}</p>", markup(&report.subtitle));
    }
    if report.sections.len() > 1 {
        html.push_str("<nav>");
        for (index, section) in report.sections.iter().enumerate() {
            let _ = write!(html, "<a href=\"#section-{index}\">{}</a>", escape(&section.heading));
        }
        html.push_str("</nav>");
    }
    html.push_str("</header>\n<main>\n");
    let mut given = HashSet::new();
    for (index, section) in report.sections.iter().enumerate() {
        write_section(&mut html, index, section, &mut given);
    }
    let _ = write!(
        html,
        "</main>\n<footer>Written by bandwise {} on {}. This page is self-contained: all images and data \
         are inside it.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&report.created),
    );
    html
}

/// Names of the files that a page offers, each given once.
struct FileNames<'a> {
    heading: &'a str,
    given: &'a mut HashSet<String>,
}

impl FileNames<'_> {
    /// A name that says what is inside: the title's, or that of the section for what has no title.
    fn name(&mut self, title: &str) -> String {
        let stem = file_stem(if title.is_empty() { self.heading } else { title });
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let mut names = std::iter::once(stem.clone()).chain(numbered);
        let free = names.find(|name| !self.given.contains(name)).unwrap_or(stem);
        self.given.insert(free.clone());
        free
    }
}

fn write_section(html: &mut String, index: usize, section: &Section, given: &mut HashSet<String>) {
    let heading = escape(&section.heading);
    let mut names = FileNames { heading: &section.heading, given };
    let _ = writeln!(html, "<section id=\"section-{index}\"><h2>{heading}</h2><div class=\"blocks\">");
    for block in &section.blocks {
        write_block(html, block, &mut names);
    }
    html.push_str("</div></section>\n");
}

fn write_block(html: &mut String, block: &Block, names: &mut FileNames) {
    match block.part() {
        Part::Text(text) => {
            let _ = write!(html, "<p class=\"wide\">{}</p>", markup(text));
        }
        Part::Note { text, warning } => {
            let class = if warning { "wide note warning" } else { "wide note" };
            let _ = write!(html, "<p class=\"{class}\">{}</p>", markup(text));
        }
        Part::Facts(facts) => write_facts(html, facts),
        Part::Table(table) => write_table(html, table, names),
        Part::Figure(figure) => write_figure(html, figure, names),
        Part::Images(grid) => write_images(html, grid, names),
        Part::Details { summary, blocks } => {
            let summary = escape(summary);
            let _ =
                write!(html, "<details class=\"wide\"><summary>{summary}</summary><div class=\"blocks\">");
            for block in blocks {
                write_block(html, block, names);
            }
            html.push_str("</div></details>");
        }
    }
    html.push('\n');
}

fn write_figure(html: &mut String, figure: &dyn Figure, names: &mut FileNames) {
    let class = if figure.is_wide() { " class=\"wide\"" } else { "" };
    let svg = figure.draw();
    let _ = write!(html, "<figure{class}><div class=\"scroll\">{}</div>", svg.inline());
    let files = [("csv", "text/csv", &*figure.csv()), ("svg", "image/svg+xml", &svg.standalone())];
    write_caption(html, &names.name(figure.title()), figure.caption_text(), &files);
    html.push_str("</figure>");
}

/// Caption and links to the data that the page carries.
fn write_caption(html: &mut String, name: &str, caption: &str, files: &[(&str, &str, &str)]) {
    html.push_str("<figcaption>");
    html.push_str(&markup(caption));
    if !files.is_empty() {
        html.push_str("<div class=\"files\">");
        for (extension, mime, content) in files {
            let label = extension.to_uppercase();
            let data = BASE64.encode(content);
            let _ = write!(
                html,
                "<a download=\"{name}.{extension}\" href=\"data:{mime};base64,{data}\">{label}</a>"
            );
        }
        html.push_str("</div>");
    }
    html.push_str("</figcaption>");
}

fn write_facts(html: &mut String, facts: &Facts) {
    html.push_str("<dl class=\"wide\">");
    for (name, value) in &facts.entries {
        let _ = write!(html, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    }
    html.push_str("</dl>");
}

fn write_table(html: &mut String, table: &Table, names: &mut FileNames) {
    html.push_str("<figure class=\"wide\">");
    if !table.title.is_empty() {
        let _ = write!(html, "<p class=\"caption-title\">{}</p>", escape(&table.title));
    }
    let class = if table.columns.len() <= 2 { "data narrow" } else { "data" };
    let _ = write!(html, "<div class=\"scroll\"><table class=\"{class}\"><thead><tr>");
    for (column, title) in table.columns.iter().enumerate() {
        let numeric = table.rows.iter().any(|r| matches!(r.get(column), Some(Cell::Number(_))));
        let class = if numeric { " class=\"number\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{class}>{}</th>", escape(title));
    }
    html.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        html.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            write_cell(html, cell, column == 0);
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    write_caption(html, &names.name(&table.title), &table.caption, &[("csv", "text/csv", &table.csv())]);
    html.push_str("</figure>");
}

fn write_cell(html: &mut String, cell: &Cell, names_row: bool) {
    match cell {
        Cell::Text(text) if names_row => {
            let _ = write!(html, "<th scope=\"row\">{}</th>", escape(text));
        }
        Cell::Text(text) => {
            let _ = write!(html, "<td>{}</td>", escape(text));
        }
        Cell::Number(number) => {
            let class = if number.best { "number best" } else { "number" };
            let _ = write!(html, "<td class=\"{class}\">{}", number.format.write(number.value));
            if !number.mark.is_empty() {
                let _ = write!(html, " <sup class=\"mark\">{}</sup>", escape(&number.mark));
            }
            if let Some(interval) = number.interval_text() {
                let _ = write!(html, "<span class=\"interval\">{interval}</span>");
            }
            html.push_str("</td>");
        }
    }
}

fn write_images(html: &mut String, grid: &ImageGrid, names: &mut FileNames) {
    html.push_str("<figure class=\"wide\">");
    if !grid.title.is_empty() {
        let _ = write!(html, "<p class=\"caption-title\">{}</p>", escape(&grid.title));
    }
    let labeled = grid.rows.iter().any(|r| !r.label.is_empty());
    let class = if grid.columns.len() > MANY_COLUMNS { "pictures many" } else { "pictures" };
    let _ = write!(html, "<div class=\"scroll\"><table class=\"{class}\">");
    if !grid.columns.is_empty() {
        let corner = if labeled { "<td></td>" } else { "" };
        let _ = write!(html, "<thead><tr>{corner}");
        for title in &grid.columns {
            let _ = write!(html, "<th scope=\"col\">{}</th>", escape(title));
        }
        html.push_str("</tr></thead>");
    }
    html.push_str("<tbody>");
    for row in &grid.rows {
        html.push_str("<tr>");
        if labeled {
            let _ = write!(html, "<th scope=\"row\">{}</th>", escape(&row.label));
        }
        for picture in &row.pictures {
            write_image(html, picture);
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    write_caption(html, &names.name(&grid.title), &grid.caption, &[]);
    html.push_str("</figure>");
}

fn write_image(html: &mut String, picture: &PngImage) {
    let caption = escape(&picture.caption);
    if picture.is_sound() {
        let (width, height) = display_size(picture.width, picture.height);
        let _ = write!(
            html,
            "<td><img src=\"data:image/png;base64,{}\" width=\"{width}\" height=\"{height}\" alt=\"{caption}\" \
             loading=\"lazy\"><div style=\"max-width:{width}px\">{caption}</div></td>",
            picture.png
        );
    } else {
        let _ = write!(html, "<td>{caption}</td>");
    }
}

/// Images are shown at most this wide, in CSS pixels.
const WIDEST_PICTURE: usize = 224;

fn display_size(width: usize, height: usize) -> (usize, usize) {
    let longer = width.max(height).max(1);
    if longer <= WIDEST_PICTURE {
        return (width, height);
    }
    (width * WIDEST_PICTURE / longer, height * WIDEST_PICTURE / longer)
}

/// Escaped text in which `` `code` `` and `**strong**` are marked up.
fn markup(text: &str) -> String {
    let strong = pairs(&escape(text), "**", "<strong>", "</strong>");
    pairs(&strong, "`", "<code>", "</code>")
}

/// Replaces pairs of a delimiter by tags; a single one stays as it is.
fn pairs(text: &str, delimiter: &str, open: &str, close: &str) -> String {
    let parts: Vec<&str> = text.split(delimiter).collect();
    let mut html = String::with_capacity(text.len());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            let opens = index % 2 == 1;
            let single = opens && index == parts.len() - 1;
            html.push_str(if single {
                delimiter
            } else if opens {
                open
            } else {
                close
            });
        }
        html.push_str(part);
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_marks_pairs_only() {
        assert_eq!(markup("a `b<c` and **d**"), "a <code>b&lt;c</code> and <strong>d</strong>");
        assert_eq!(markup("5 ** 2 and a ` b"), "5 ** 2 and a ` b");
    }

    #[test]
    fn every_download_has_its_own_name() {
        let table = || Table::new("", &["a"]).row(vec![Cell::number(1.0)]);
        let section = Section::new("Accuracy").table(table()).table(table());
        let html = page(&Report::new("r").section(section.clone()).section(section));
        for name in ["accuracy.csv", "accuracy-2.csv", "accuracy-3.csv", "accuracy-4.csv"] {
            assert_eq!(html.matches(&format!("download=\"{name}\"")).count(), 1, "{name}");
        }
    }

    #[test]
    fn large_pictures_are_shown_smaller() {
        assert_eq!(display_size(96, 96), (96, 96));
        assert_eq!(display_size(448, 224), (224, 112));
    }
}
