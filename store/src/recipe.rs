//! What decides an artifact, written so that equal inputs are equal bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ObjectDigest, ParseDigestError, StoreError};

/// Everything that decides an artifact: a kind, the version of the code that
/// makes it, and its inputs.
///
/// Canonical JSON: `{"inputs":…,"kind":…,"version":…}`, no white space, the
/// members of every object sorted by the UTF-8 bytes of their names, numbers
/// and strings as `serde_json` writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    canonical_json: Vec<u8>,
}

impl Recipe {
    /// A recipe of the given kind ("layer", "dag-set"). Raise `version` whenever
    /// the code that follows the recipe gives other bytes for equal inputs.
    ///
    /// # Errors
    /// [`StoreError::Recipe`] if the inputs are no JSON (a map whose keys are not strings).
    pub fn new(kind: &str, version: u32, inputs: &impl Serialize) -> Result<Self, StoreError> {
        let inputs = serde_json::to_value(inputs).map_err(|source| StoreError::Recipe {
            kind: kind.to_owned(),
            source,
        })?;
        let mut canonical_json = String::new();
        write_canonical(
            &serde_json::json!({ "kind": kind, "version": version, "inputs": inputs }),
            &mut canonical_json,
        );
        Ok(Self {
            canonical_json: canonical_json.into_bytes(),
        })
    }

    /// The recipe's name.
    pub fn key(&self) -> RecipeKey {
        RecipeKey(ObjectDigest::of(&self.canonical_json))
    }

    /// The recipe as bytes: what the key is the digest of.
    pub fn canonical_json(&self) -> &[u8] {
        &self.canonical_json
    }
}

/// `serde_json` sorts members too, but only until some crate of the program
/// asks it to preserve their order.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (position, (name, member)) in members.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// The BLAKE3 digest of a recipe's canonical JSON, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecipeKey(ObjectDigest);

impl RecipeKey {
    /// The key whose 32 raw bytes are `bytes`.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(ObjectDigest::from_bytes(bytes))
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl FromStr for RecipeKey {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for RecipeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for RecipeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashMap};

    #[test]
    fn canonical_json_is_sorted_and_tight() {
        let recipe = Recipe::new(
            "layer",
            3,
            &serde_json::json!({ "b": [1, 2.5, null, true], "a": { "é": "\n", "Z": "\"" } }),
        )
        .unwrap();
        assert_eq!(
            std::str::from_utf8(recipe.canonical_json()).unwrap(),
            r#"{"inputs":{"a":{"Z":"\"","é":"\n"},"b":[1,2.5,null,true]},"kind":"layer","version":3}"#
        );
        assert_eq!(
            recipe.key().as_bytes(),
            blake3::hash(recipe.canonical_json()).as_bytes()
        );
        assert_eq!(recipe.key().to_string().parse(), Ok(recipe.key()));
    }

    #[test]
    fn the_key_depends_on_kind_version_and_inputs_but_not_on_the_order_of_a_map() {
        let pairs: Vec<_> = (0..100).map(|n| (format!("k{n}"), n)).collect();
        let sorted: BTreeMap<_, _> = pairs.iter().cloned().collect();
        let hashed: HashMap<_, _> = pairs.into_iter().rev().collect();
        let of = |kind, version| Recipe::new(kind, version, &sorted).unwrap().key();
        assert_eq!(of("a", 1), Recipe::new("a", 1, &hashed).unwrap().key());
        assert_ne!(of("a", 1), of("a", 2));
        assert_ne!(of("a", 1), of("b", 1));
        assert_ne!(of("a", 1), Recipe::new("a", 1, &"other").unwrap().key());
    }

    #[test]
    fn a_map_without_text_keys_is_refused() {
        let inputs: BTreeMap<Vec<u8>, u8> = [(vec![1], 1)].into();
        assert!(matches!(
            Recipe::new("layer", 1, &inputs),
            Err(StoreError::Recipe { kind, .. }) if kind == "layer"
        ));
    }
}
