//! The keys that we write.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a key that we would write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be an object's key: {reason}")]
pub struct InvalidKey {
    text: String,
    reason: &'static str,
}

/// A key that works on every backend and does not break Composer's
/// synchronisation: at most 1024 bytes, no leading or trailing slash, no empty,
/// `.` or `..` part, no control character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The media type of what we store under such a key.
    pub(super) fn content_type(&self) -> &'static str {
        match self.0.rsplit_once('.') {
            Some((_, "json")) => "application/json",
            Some((_, "py")) => "text/x-python",
            _ => "application/octet-stream",
        }
    }
}

impl FromStr for ObjectKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let reason = if text.is_empty() || text.len() > 1024 {
            "it must have 1 to 1024 bytes"
        } else if text.chars().any(char::is_control) {
            "it has a control character"
        } else if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            "it has an empty, . or .. part"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(InvalidKey {
            text: text.to_owned(),
            reason,
        })
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_break_a_backend_cannot_be_built() {
        for text in ["dags/a.py", "a", "forebay/v1/p/e/HEAD.json"] {
            assert_eq!(text.parse::<ObjectKey>().unwrap().as_str(), text);
        }
        for text in ["", "/a", "a/", "a//b", "a/../b", ".", "a/\u{0}", "a\nb"] {
            assert!(text.parse::<ObjectKey>().is_err(), "{text:?}");
        }
        assert!("x".repeat(1025).parse::<ObjectKey>().is_err());
    }
}
