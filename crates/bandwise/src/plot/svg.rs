//! A small canvas for scalable vector graphics: escaped text, tidy coordinates, classes for colors.

use std::fmt::Write;

use super::color;

/// Styles of everything inside a figure; colors are custom properties of the page.
pub(crate) const FIGURE_CSS: &str = include_str!("figure.css");

/// Escapes text for HTML and SVG, in content and in double-quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Control characters are not allowed in XML at all.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Where text is anchored on its point.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Empty border of a figure that stands alone, in user units.
const MARGIN: f64 = 12.0;

/// A drawing in user units of about one CSS pixel.
pub(crate) struct Svg {
    width: f64,
    height: f64,
    description: String,
    body: String,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64, description: &str) -> Self {
        Self { width, height, description: description.to_owned(), body: String::new() }
    }

    pub(crate) fn width(&self) -> f64 {
        self.width
    }

    /// Opens a group with a class, for example a series color.
    pub(crate) fn open(&mut self, class: &str) {
        let _ = write!(self.body, "<g class=\"{class}\">");
    }

    pub(crate) fn close(&mut self) {
        self.body.push_str("</g>");
    }

    pub(crate) fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2]) {
        let [x1, y1] = from.map(number);
        let [x2, y2] = to.map(number);
        let _ =
            write!(self.body, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    pub(crate) fn path(&mut self, class: &str, data: &str) {
        let _ = write!(self.body, "<path class=\"{class}\" d=\"{data}\"/>");
    }

    pub(crate) fn rect(&mut self, class: &str, area: Area, attributes: &str, tooltip: &str) {
        let [x, y] = [area.left, area.top].map(number);
        let [w, h] = [area.width(), area.height()].map(|v| number(v.max(0.0)));
        let _ = write!(
            self.body,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" {attributes}>"
        );
        self.tooltip(tooltip);
        self.body.push_str("</rect>");
    }

    /// A marker at a point: circle, square, diamond or triangle, in turn.
    pub(crate) fn marker(&mut self, shape: usize, [x, y]: [f64; 2], tooltip: &str) {
        let polygon: &[[f64; 2]] = match shape % 4 {
            0 => &[],
            1 => &[[-3.1, -3.1], [3.1, -3.1], [3.1, 3.1], [-3.1, 3.1]],
            2 => &[[0.0, -4.5], [4.5, 0.0], [0.0, 4.5], [-4.5, 0.0]],
            _ => &[[0.0, -4.3], [4.1, 3.0], [-4.1, 3.0]],
        };
        if polygon.is_empty() {
            let (x, y) = (number(x), number(y));
            let _ = write!(self.body, "<circle class=\"marker\" cx=\"{x}\" cy=\"{y}\" r=\"3.6\">");
            self.tooltip(tooltip);
            self.body.push_str("</circle>");
        } else {
            let points: Vec<_> =
                polygon.iter().map(|[dx, dy]| format!("{},{}", number(x + dx), number(y + dy))).collect();
            let _ = write!(self.body, "<polygon class=\"marker\" points=\"{}\">", points.join(" "));
            self.tooltip(tooltip);
            self.body.push_str("</polygon>");
        }
    }

    /// An invisible disc that shows a tooltip.
    pub(crate) fn hot_spot(&mut self, [x, y]: [f64; 2], tooltip: &str) {
        let (x, y) = (number(x), number(y));
        let _ = write!(self.body, "<circle class=\"hot\" cx=\"{x}\" cy=\"{y}\" r=\"6\">");
        self.tooltip(tooltip);
        self.body.push_str("</circle>");
    }

    fn tooltip(&mut self, text: &str) {
        if !text.is_empty() {
            let _ = write!(self.body, "<title>{}</title>", escape(text));
        }
    }

    pub(crate) fn text(&mut self, class: &str, [x, y]: [f64; 2], anchor: Anchor, text: &str) {
        self.turned_text(class, [x, y], anchor, 0.0, text);
    }

    /// Text turned about its anchor by `degrees` clockwise.
    pub(crate) fn turned_text(
        &mut self,
        class: &str,
        [x, y]: [f64; 2],
        anchor: Anchor,
        degrees: f64,
        text: &str,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, text) = (number(x), number(y), escape(text));
        let turn =
            if degrees == 0.0 { String::new() } else { format!(" transform=\"rotate({degrees} {x} {y})\"") };
        let _ = write!(
            self.body,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\"{turn}>{text}</text>"
        );
    }

    /// A PNG stretched over an area without smoothing.
    pub(crate) fn png(&mut self, area: Area, base64: &str) {
        let [x, y, w, h] = [area.left, area.top, area.width(), area.height()].map(number);
        let _ = write!(
            self.body,
            "<image x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{base64}\"/>"
        );
    }

    /// The element for a page that carries [`FIGURE_CSS`].
    pub(crate) fn inline(&self) -> String {
        let [width, height] = [self.width, self.height].map(number);
        self.element(&format!("viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\""))
    }

    fn element(&self, view: &str) -> String {
        let (label, body) = (escape(&self.description), &self.body);
        format!(
            "<svg class=\"figure\" xmlns=\"http://www.w3.org/2000/svg\" {view} role=\"img\" aria-label=\"{label}\">{body}</svg>"
        )
    }

    /// A file of its own: its styles inside, fixed light colors, a white ground with a margin.
    pub(crate) fn standalone(&self) -> String {
        let style = color::resolve_variables(FIGURE_CSS);
        let [width, height] = [self.width + 2.0 * MARGIN, self.height + 2.0 * MARGIN].map(number);
        let ground = format!(
            "<rect x=\"-{MARGIN}\" y=\"-{MARGIN}\" width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"
        );
        let view =
            format!("viewBox=\"-{MARGIN} -{MARGIN} {width} {height}\" width=\"{width}\" height=\"{height}\"");
        self.element(&view).replacen("\">", &format!("\"><style>{style}</style>{ground}"), 1) + "\n"
    }
}

/// A rectangle; y grows downwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

impl Area {
    pub(crate) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(crate) fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// The x coordinate of a position in `[0, 1]` from the left.
    pub(crate) fn x(&self, position: f64) -> f64 {
        self.left + position * self.width()
    }

    /// The y coordinate of a position in `[0, 1]` from the bottom.
    pub(crate) fn y(&self, position: f64) -> f64 {
        self.bottom - position * self.height()
    }
}

/// One decimal, without a trailing `.0`.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// The approximate width of text in a sans-serif face.
pub(crate) fn text_width(text: &str, font_size: f64) -> f64 {
    let em = |c: char| match c {
        'i' | 'l' | 'j' | 'I' | '.' | ',' | ':' | ';' | '|' | '\'' | '!' | ' ' | '(' | ')' | 't' | 'f'
        | 'r' => 0.33,
        'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.88,
        c if c.is_uppercase() => 0.68,
        _ => 0.57,
    };
    text.chars().map(em).sum::<f64>() * font_size
}

/// Breaks text into lines of at most `width`, at spaces and after `-`, `_`, `/`; at most `lines` lines.
pub(crate) fn wrap(text: &str, width: f64, font_size: f64, lines: usize) -> Vec<String> {
    let mut wrapped: Vec<String> = vec![String::new()];
    for piece in text.split_inclusive([' ', '-', '_', '/']) {
        let current = wrapped.last_mut().expect("never empty");
        let fits = text_width(&format!("{current}{}", piece.trim_end()), font_size) <= width;
        if current.is_empty() || fits || wrapped.len() == lines.max(1) {
            wrapped.last_mut().expect("never empty").push_str(piece);
        } else {
            wrapped.push(piece.to_owned());
        }
    }
    for line in &mut wrapped {
        *line = shorten(line.trim_end(), width, font_size);
    }
    wrapped
}

/// Cuts text that is wider than `width`, with an ellipsis.
pub(crate) fn shorten(text: &str, width: f64, font_size: f64) -> String {
    if text_width(text, font_size) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        if text_width(&short, font_size) + font_size > width {
            break;
        }
        short.push(c);
    }
    short + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_text_is_escaped() {
        assert_eq!(escape("<b a=\"x\">&'\u{1}"), "&lt;b a=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
        let mut svg = Svg::new(10.0, 10.0, "\"><script>");
        svg.text("tick", [0.0, 0.0], Anchor::Start, "<script>alert(1)</script>");
        svg.marker(1, [1.0, 1.0], "<i>");
        assert!(!svg.standalone().contains("<script") && !svg.standalone().contains("<i>"));
    }

    #[test]
    fn a_standalone_figure_needs_no_page() {
        let svg = Svg::new(10.0, 20.5, "empty").standalone();
        assert!(svg.starts_with("<svg") && svg.contains("viewBox=\"-12 -12 34 44.5\""));
        assert!(svg.contains("<style>") && !svg.contains("var("));
    }

    #[test]
    fn text_is_wrapped_at_word_ends() {
        assert_eq!(wrap("cue conflict", 60.0, 12.0, 3), ["cue", "conflict"]);
        assert_eq!(wrap("gaussian_noise", 60.0, 12.0, 3), ["gaussian_", "noise"]);
        let long = wrap("one two three four", 30.0, 12.0, 2);
        assert!(long.len() == 2 && long[1].ends_with('…'), "{long:?}");
    }
}
