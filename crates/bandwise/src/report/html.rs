//! Renders a report as one HTML page that needs nothing but itself.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::chart::Width;
use super::colour;
use super::picture::{ImageGrid, Picture};
use super::section::{Block, Section};
use super::svg::{FIGURE_CSS, Svg, escape};
use super::table::{Cell, Facts, Table};
use super::{Report, file_stem};

const PAGE_CSS: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let title = escape(&report.title);
    let _ = write!(
        html,
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"generator\" content=\"bandwise {version}\">\n<title>{title}</title>\n\
         <style>:root{{{light}color-scheme:light dark}}\n\
         @media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n{PAGE_CSS}{FIGURE_CSS}</style>\n</head>\n<body>\n",
        version = env!("CARGO_PKG_VERSION"),
        light = colour::css_variables(false),
        dark = colour::css_variables(true),
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
    for (index, section) in report.sections.iter().enumerate() {
        write_section(&mut html, index, section);
    }
    let _ = write!(
        html,
        "</main>\n<footer>Written by bandwise {} on {}. This page is self-contained: all pictures and data \
         are inside it.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&report.created),
    );
    html
}

fn write_section(html: &mut String, index: usize, section: &Section) {
    let heading = escape(&section.heading);
    let _ = writeln!(html, "<section id=\"section-{index}\"><h2>{heading}</h2><div class=\"blocks\">");
    for block in &section.blocks {
        write_block(html, block);
    }
    html.push_str("</div></section>\n");
}

fn write_block(html: &mut String, block: &Block) {
    match block {
        Block::Text { text } => {
            let _ = write!(html, "<p class=\"wide\">{}</p>", markup(text));
        }
        Block::Note { text, warning } => {
            let class = if *warning { "wide note warning" } else { "wide note" };
            let _ = write!(html, "<p class=\"{class}\">{}</p>", markup(text));
        }
        Block::Facts(facts) => write_facts(html, facts),
        Block::Table(table) => write_table(html, table),
        Block::LinePlot(plot) => {
            write_figure(
                html,
                &plot.draw(),
                plot.width == Width::Full,
                &plot.title,
                &plot.caption,
                &plot.csv(),
            );
        }
        Block::BarPlot(plot) => {
            write_figure(
                html,
                &plot.draw(),
                plot.width == Width::Full,
                &plot.title,
                &plot.caption,
                &plot.csv(),
            );
        }
        Block::HeatMap(map) => {
            write_figure(html, &map.draw(), map.is_wide(), &map.title, &map.caption, &map.csv());
        }
        Block::Images(grid) => write_images(html, grid),
        Block::Details { summary, blocks } => {
            let summary = escape(summary);
            let _ =
                write!(html, "<details class=\"wide\"><summary>{summary}</summary><div class=\"blocks\">");
            for block in blocks {
                write_block(html, block);
            }
            html.push_str("</div></details>");
        }
    }
    html.push('\n');
}

fn write_figure(html: &mut String, svg: &Svg, wide: bool, title: &str, caption: &str, csv: &str) {
    let class = if wide { " class=\"wide\"" } else { "" };
    let _ = write!(html, "<figure{class}><div class=\"scroll\">{}</div>", svg.inline());
    let files = [("csv", "text/csv", csv), ("svg", "image/svg+xml", &svg.standalone())];
    write_caption(html, title, caption, &files);
    html.push_str("</figure>");
}

/// Caption and links to the data that the page carries.
fn write_caption(html: &mut String, title: &str, caption: &str, files: &[(&str, &str, &str)]) {
    html.push_str("<figcaption>");
    html.push_str(&markup(caption));
    if !files.is_empty() {
        html.push_str("<div class=\"files\">");
        for (extension, mime, content) in files {
            let (name, label) = (file_stem(title), extension.to_uppercase());
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

fn write_table(html: &mut String, table: &Table) {
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
    write_caption(html, &table.title, &table.caption, &[("csv", "text/csv", &table.csv())]);
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
            if let Some(interval) = number.interval_text() {
                let _ = write!(html, "<span class=\"interval\">{interval}</span>");
            }
            html.push_str("</td>");
        }
    }
}

fn write_images(html: &mut String, grid: &ImageGrid) {
    html.push_str("<figure class=\"wide\">");
    if !grid.title.is_empty() {
        let _ = write!(html, "<p class=\"caption-title\">{}</p>", escape(&grid.title));
    }
    let labelled = grid.rows.iter().any(|r| !r.label.is_empty());
    html.push_str("<div class=\"scroll\"><table class=\"pictures\">");
    if !grid.columns.is_empty() {
        let corner = if labelled { "<td></td>" } else { "" };
        let _ = write!(html, "<thead><tr>{corner}");
        for title in &grid.columns {
            let _ = write!(html, "<th scope=\"col\">{}</th>", escape(title));
        }
        html.push_str("</tr></thead>");
    }
    html.push_str("<tbody>");
    for row in &grid.rows {
        html.push_str("<tr>");
        if labelled {
            let _ = write!(html, "<th scope=\"row\">{}</th>", escape(&row.label));
        }
        for picture in &row.pictures {
            write_picture(html, picture);
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    write_caption(html, &grid.title, &grid.caption, &[]);
    html.push_str("</figure>");
}

fn write_picture(html: &mut String, picture: &Picture) {
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

/// Pictures are shown at most this wide, in CSS pixels.
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
    fn large_pictures_are_shown_smaller() {
        assert_eq!(display_size(96, 96), (96, 96));
        assert_eq!(display_size(448, 224), (224, 112));
    }
}
