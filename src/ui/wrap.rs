//! Long text in a narrow terminal.

use unicode_width::UnicodeWidthStr as _;

/// Narrower than this nothing is wrapped: there would be a word a line.
const NARROWEST: usize = 24;

/// How much further in a line goes on.
const GOES_ON: usize = 2;

/// The columns that a text takes; colours take none.
pub(super) fn width_of(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().width()
}

/// Breaks every line of `text` between words, so that none is longer than `width`. Words that are
/// longer stay whole: they are paths, digests and commands, which somebody may want to copy.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        if width_of(line) <= width {
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

/// Breaks lines that are longer than `width` between words, and goes on below their beginning, two
/// columns further in. Where a word is longer than a line, the terminal breaks it: what is copied
/// there is still one word.
pub(super) fn fit(text: &str, width: usize) -> String {
    let lines = text.split('\n').map(|line| {
        if width_of(line) <= width || width < NARROWEST {
            return line.to_owned();
        }
        let words = line.trim_start_matches(' ');
        let indent = line.len() - words.len();
        let below = format!("\n{:1$}", "", indent + GOES_ON);
        let mut fitted = line.get(..indent).unwrap_or_default().to_owned();
        let mut used = indent;
        for (number, word) in words.split(' ').enumerate() {
            let columns = width_of(word);
            let fits_below = indent + GOES_ON + columns <= width;
            if number > 0 && used + 1 + columns > width && (fits_below || used > width) {
                fitted.truncate(fitted.trim_end_matches(' ').len());
                fitted.push_str(&below);
                used = indent + GOES_ON;
            } else if number > 0 {
                fitted.push(' ');
                used += 1;
            }
            fitted.push_str(word);
            used += columns;
        }
        fitted
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Wraps what stands after `indent` columns in a terminal of `width` columns; without a
/// terminal, and so without a width, nothing is wrapped.
pub fn wrap_after(text: &str, width: Option<usize>, indent: usize) -> String {
    let lines = match width {
        None => text.split('\n').map(str::to_owned).collect(),
        Some(width) if width < indent + NARROWEST => text.split('\n').map(str::to_owned).collect(),
        Some(width) => wrap(text, width.saturating_sub(indent)),
    };
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_on_further_in_and_long_words_stay_where_they_are() {
        let text = "  image    0123456789012345678901234567890123456789 (was there)\nshort\nan environment is live and all is well";
        assert_eq!(
            fit(text, 30),
            "  image    0123456789012345678901234567890123456789\n    (was there)\nshort\nan environment is live and all\n  is well"
        );
        assert_eq!(fit(text, 80), text);
    }

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
