//! Words in messages: plurals, p-values, and characters that would act on a terminal.

use std::borrow::Cow;

/// `1 image`, `2 images`, `1 query`, `5000 queries`, `2 classes`.
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {}", plural(what)) }
}

fn plural(what: &str) -> String {
    match what.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if what.ends_with("epoch") => format!("{what}s"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| what.ends_with(end)) => format!("{what}es"),
        _ => format!("{what}s"),
    }
}

/// `p = 0.042`; of a small one `p < 0.001`, which no rounding turns into 0.
pub fn p_value(p: f64) -> String {
    if p < 1e-3 { "p < 0.001".into() } else { format!("p = {p:.3}") }
}

/// `text` with everything that would move the cursor, change colors or turn the writing direction shown as an escape.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(acts_on_terminal) {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts_on_terminal(c) { result.extend(c.escape_default()) } else { result.push(c) }
    }
    Cow::Owned(result)
}

/// Control characters, separators of lines and paragraphs, and marks of the writing direction.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        for (count, what, text) in [
            (1, "image", "1 image"),
            (0, "image", "0 images"),
            (1, "query", "1 query"),
            (2, "query", "2 queries"),
            (3, "class", "3 classes"),
            (2, "batch", "2 batches"),
            (2, "key", "2 keys"),
            (2, "epoch", "2 epochs"),
        ] {
            assert_eq!(counted(count, what), text);
        }
    }

    #[test]
    fn no_probability_is_zero() {
        assert_eq!(
            [0.0, 4e-4, 0.0422, 1.0].map(p_value),
            ["p < 0.001", "p < 0.001", "p = 0.042", "p = 1.000"]
        );
    }

    #[test]
    fn what_acts_on_a_terminal_is_shown_as_an_escape() {
        assert_eq!(visible("cat, Кошка, 猫, ε = 8/255 ±"), "cat, Кошка, 猫, ε = 8/255 ±");
        assert_eq!(visible("\x1b[31mred\x07"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(visible("two\nlines\r\t"), "two\\nlines\\r\\t");
        assert_eq!(visible("\u{9b}2J \u{202e}txet"), "\\u{9b}2J \\u{202e}txet");
    }
}
