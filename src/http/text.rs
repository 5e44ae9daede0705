//! Words of servers, made fit to be shown.

/// Short, on one line, and without anything that steers a terminal: at most
/// `longest` characters, and `…` where more were there.
pub fn tidy(text: &str, longest: usize) -> String {
    let cleaned: String = (text.chars())
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    let words: Vec<_> = cleaned.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
