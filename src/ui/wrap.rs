//! Long text in a narrow terminal.

use unicode_width::UnicodeWidthStr as _;

/// Narrower than this nothing is wrapped: there would be a word a line.
const NARROWEST: usize = 24;

/// The columns that a text takes; colours take none.
pub(super) fn width_of(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().width()
}

/// Breaks every line of `text` between words, so that none is longer than `width`. Words that are
/// longer stay whole: they are paths, digests and commands, which somebody may want to copy.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        if width_of(line) <= width || width < NARROWEST {
            lines.push(line.to_owned());
            continue;
        }
        let mut current = String::new();
        for word in line.split(' ') {
            if !current.is_empty() && width_of(&current) + 1 + width_of(word) > width {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines
}

/// Wraps what stands after `indent` columns in a terminal of `width` columns; without a
/// terminal, and so without a width, nothing is wrapped.
pub fn wrap_after(text: &str, width: Option<usize>, indent: usize) -> String {
    let lines = match width {
        None => text.split('\n').map(str::to_owned).collect(),
        Some(width) => wrap(text, width.saturating_sub(indent)),
    };
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_between_words_and_long_words_stay_whole() {
        let text = "a path /very/long/path/that/has/no/blank/at/all and more";
        assert_eq!(
            wrap_after(text, Some(34), 4),
            "a path\n    /very/long/path/that/has/no/blank/at/all\n    and more"
        );
        assert_eq!(wrap_after(text, None, 4), text);
        assert_eq!(
            wrap_after("日本 日本 日本 日本 日本 日本", Some(24), 0)
                .lines()
                .count(),
            2
        );
    }
}
