//! How records are read, which anybody who may write to the bucket could have written: their
//! format before all else, and no text that could steer the terminal that it is shown on.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::EnvironmentError;

#[derive(Deserialize)]
struct AnySchema {
    schema: u32,
}

/// As [`parse_readable`], but a newer format is refused even if it could be read.
pub(super) fn parse_versioned<T: serde::de::DeserializeOwned>(
    key: &str,
    bytes: &[u8],
    known: u32,
) -> Result<T, EnvironmentError> {
    let parsed = parse_readable(key, bytes, known)?;
    let schema = serde_json::from_slice::<AnySchema>(bytes).map(|any| any.schema);
    refuse_newer(key, schema.unwrap_or(known), known)?;
    Ok(parsed)
}

/// A newer format is for looking at: what its program counts on, we do not know.
pub(super) fn refuse_newer(key: &str, found: u32, known: u32) -> Result<(), EnvironmentError> {
    match found > known {
        true => Err(EnvironmentError::Newer {
            key: key.to_owned(),
            found,
            known,
        }),
        false => Ok(()),
    }
}

/// Reads `schema` before anything else: a newer format is called that, unless it still has
/// all that we read. Then refuses control characters, since names and messages are shown to
/// people.
pub(super) fn parse_readable<T: serde::de::DeserializeOwned>(
    key: &str,
    bytes: &[u8],
    known: u32,
) -> Result<T, EnvironmentError> {
    let malformed = |error: serde_json::Error| EnvironmentError::Malformed {
        key: key.to_owned(),
        problem: error.to_string(),
    };
    let AnySchema { schema } = serde_json::from_slice(bytes).map_err(malformed)?;
    let Steers(steers) = serde_json::from_slice(bytes).map_err(malformed)?;
    if steers {
        return Err(EnvironmentError::Malformed {
            key: key.to_owned(),
            problem: "a text in it has control characters".to_owned(),
        });
    }
    serde_json::from_slice(bytes).map_err(|error| {
        refuse_newer(key, schema, known)
            .err()
            .unwrap_or_else(|| malformed(error))
    })
}

/// Whether a text anywhere in a document has a control character. A record of ten thousand
/// files is some megabytes, and several times that as a tree of values; here nothing is kept.
struct Steers(bool);

impl<'de> Deserialize<'de> for Steers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SteersVisitor)
    }
}

struct SteersVisitor;

impl<'de> Visitor<'de> for SteersVisitor {
    type Value = Steers;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<Steers, E> {
        Ok(Steers(text.chars().any(char::is_control)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Steers, E> {
        Ok(Steers(false))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Steers, E> {
        Ok(Steers(false))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Steers, E> {
        Ok(Steers(false))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Steers, E> {
        Ok(Steers(false))
    }

    fn visit_unit<E>(self) -> Result<Steers, E> {
        Ok(Steers(false))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Steers, A::Error> {
        let mut found = false;
        while let Some(Steers(steers)) = values.next_element()? {
            found |= steers;
        }
        Ok(Steers(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Steers, A::Error> {
        let mut found = false;
        while let Some((Steers(name), Steers(value))) = members.next_entry()? {
            found |= name || value;
        }
        Ok(Steers(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_character_is_found_wherever_it_stands() {
        let steers = |text: &str| serde_json::from_str::<Steers>(text).unwrap().0;
        for text in [
            r#""\u001b""#,
            r#"["a", {"b": [1, -1, 1.5, null, true, "\n"]}]"#,
            r#"{"a\u0007": 1}"#,
            r#"{"a": {"b": "\u009b31m"}}"#,
        ] {
            assert!(steers(text), "{text}");
        }
        assert!(!steers(
            r#"{"a": ["b", {"c": "d é ☺"}, 18446744073709551615]}"#
        ));
    }
}
