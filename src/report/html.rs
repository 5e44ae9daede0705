//! Text in HTML.

use std::fmt::{self, Display, Write as _};
use std::io;

/// Something as text in an element or in an attribute between double quotes, whatever is in it.
pub(super) fn text<T: Display>(value: T) -> Text<T> {
    Text(value)
}

/// See [`text`].
pub(super) struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(formatter), "{}", self.0)
    }
}

struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                // No parser takes these for text.
                '\n' | '\t' => self.0.write_char(character)?,
                character if character.is_control() => self.0.write_char('\u{fffd}')?,
                character => self.0.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Lets JSON through in a form that can end no element: `<`, `>` and `&` stand only inside its texts,
/// where they can be written by their numbers.
pub(super) struct JsonInHtml<'a>(pub(super) &'a mut dyn io::Write);

impl io::Write for JsonInHtml<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| b"<>&".contains(byte)) {
            match part.split_last() {
                Some((last, rest)) if b"<>&".contains(last) => {
                    self.0.write_all(rest)?;
                    write!(self.0, "\\u{last:04x}")?;
                }
                _ => self.0.write_all(part)?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_leaves_its_place(hostile in "(?s)[<>&\"'/a\u{0}\u{1b}]*") {
            let escaped = text(&hostile).to_string();
            let escapes = escaped.contains(['<', '>', '"', '\'', '\u{0}', '\u{1b}']);
            prop_assert!(!escapes, "{}", escaped);
        }

        #[test]
        fn json_stays_the_same_document(hostile in "(?s)[<>&\"/!a-]*") {
            let mut output = Vec::new();
            serde_json::to_writer(JsonInHtml(&mut output), &hostile).unwrap();
            let output = String::from_utf8(output).unwrap();
            prop_assert!(!output.contains(['<', '>', '&']));
            prop_assert_eq!(serde_json::from_str::<String>(&output).unwrap(), hostile);
        }
    }
}
