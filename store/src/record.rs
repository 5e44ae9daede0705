//! The facts that the store keeps besides objects, as they are written into packs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ObjectDigest, RecipeKey};

/// What following a recipe gave: a name for every output, and its object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Realisation {
    /// The outputs by name.
    pub outputs: BTreeMap<String, ObjectDigest>,
}

/// Objects that must be kept, under a name that says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Why they are kept.
    pub name: RootName,
    /// The objects, sorted, each once.
    pub objects: Vec<ObjectDigest>,
}

/// The name of a root: 1 to 255 visible ASCII characters, such as `generation/shop/prod/42`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootName(String);

/// Why a text is not a root's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name of a root: it must be 1 to 255 visible ASCII characters")]
pub struct ParseRootNameError {
    text: String,
}

impl RootName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RootName {
    type Err = ParseRootNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseRootNameError {
                text: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for RootName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for RootName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RootName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One fact, as a pack holds it: JSON by `schema/store-record.schema.json`.
///
/// Of the records about one key or root, the one with the highest sequence
/// counts; among equals, the one with the greater value. So whoever reads the
/// same records, in whatever order, comes to the same end.
///
/// A sequence is the time of the commit in nanoseconds since 1970, or one more
/// than the highest that the committer knew, whichever is higher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    /// Following the recipe gave these outputs.
    Realisation {
        version: RecordVersion,
        key: RecipeKey,
        sequence: i64,
        outputs: BTreeMap<String, ObjectDigest>,
    },
    /// The root keeps these objects; without any list, it is removed.
    Root {
        version: RecordVersion,
        name: RootName,
        sequence: i64,
        objects: Option<BTreeSet<ObjectDigest>>,
    },
}

/// What a record is about, and how new it is; not what it says. A root may keep a million
/// objects, which whoever wants only this need not read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordHead {
    #[serde(rename = "record")]
    _kind: RecordKind,
    #[serde(rename = "version")]
    _version: RecordVersion,
    pub(crate) sequence: i64,
    /// Of a realisation.
    pub(crate) key: Option<RecipeKey>,
    /// Of a root.
    pub(crate) name: Option<RootName>,
}

/// The head of a record is within its first bytes, this many: a root's name has 255 at most,
/// of which each may be written as two.
pub(crate) const HEAD_SIZE: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordKind {
    Realisation,
    Root,
}

impl RecordHead {
    /// From the first [`HEAD_SIZE`] bytes of a record as [`Record::to_json`] writes it; none if
    /// they are not.
    pub(crate) fn from_start(start: &[u8]) -> Option<Self> {
        // Within a text the quotes would have a backslash before them.
        let [outputs, objects] = [br#","outputs":"#, br#","objects":"#];
        let at = start
            .windows(outputs.len())
            .position(|window| window == outputs || window == objects)?;
        let mut head = start.get(..at)?.to_vec();
        head.push(b'}');
        serde_json::from_slice(&head).ok()
    }
}

/// The version of a record's schema: always 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub(crate) struct RecordVersion;

impl TryFrom<u32> for RecordVersion {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, Self::Error> {
        match version {
            1 => Ok(Self),
            other => Err(format!("unknown record version {other}")),
        }
    }
}

impl From<RecordVersion> for u32 {
    fn from(_: RecordVersion) -> Self {
        1
    }
}

impl Record {
    pub(crate) fn sequence(&self) -> i64 {
        match self {
            Self::Realisation { sequence, .. } | Self::Root { sequence, .. } => *sequence,
        }
    }

    /// The objects that it names.
    pub(crate) fn objects(&self) -> Vec<&ObjectDigest> {
        match self {
            Self::Realisation { outputs, .. } => outputs.values().collect(),
            Self::Root { objects, .. } => objects.iter().flatten().collect(),
        }
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_the_documented_json() {
        let key = RecipeKey::from_bytes([1; 32]);
        let object = ObjectDigest::from_bytes([2; 32]);
        let realisation = Record::Realisation {
            version: RecordVersion,
            key,
            sequence: 7,
            outputs: [("layer".to_owned(), object)].into(),
        };
        assert_eq!(
            String::from_utf8(realisation.to_json().unwrap()).unwrap(),
            format!(
                r#"{{"record":"realisation","version":1,"key":"{key}","sequence":7,"outputs":{{"layer":"{object}"}}}}"#
            )
        );
        let removed = Record::Root {
            version: RecordVersion,
            name: "pin/x".parse().unwrap(),
            sequence: 8,
            objects: None,
        };
        assert_eq!(
            String::from_utf8(removed.to_json().unwrap()).unwrap(),
            r#"{"record":"root","version":1,"name":"pin/x","sequence":8,"objects":null}"#
        );
        for record in [realisation, removed] {
            let head = RecordHead::from_start(&record.to_json().unwrap()).unwrap();
            assert_eq!(head.sequence, record.sequence());
            assert_eq!(
                head.key.is_some(),
                matches!(record, Record::Realisation { .. })
            );
            assert_eq!(head.name.is_some(), matches!(record, Record::Root { .. }));
            assert_eq!(
                Record::from_json(&record.to_json().unwrap()).unwrap(),
                record
            );
        }
    }

    #[test]
    fn a_record_of_another_version_is_not_understood() {
        let text = r#"{"record":"root","version":2,"name":"pin/x","sequence":8,"objects":null}"#;
        assert!(Record::from_json(text.as_bytes()).is_err());
        assert!(RecordHead::from_start(text.as_bytes()).is_none());
    }

    #[test]
    fn root_names_are_visible_ascii() {
        assert!("generation/shop/prod/42".parse::<RootName>().is_ok());
        for bad in ["", "a b", "é", "a\n", &"x".repeat(256)] {
            assert!(bad.parse::<RootName>().is_err(), "{bad:?}");
        }
    }
}
