//! The two digests of an object, and the one pass over the bytes that gives both.
//!
//! BLAKE3 names objects because it is the quickest; SHA-256 is kept beside it
//! because the OCI image specification names blobs by nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {algorithm} digest: {expected}")]
pub struct ParseDigestError {
    text: String,
    algorithm: &'static str,
    expected: &'static str,
}

/// The BLAKE3 digest (32 bytes) of an object: its name in the store.
///
/// Written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectDigest([u8; 32]);

/// The SHA-256 digest (32 bytes) of an object: its name in OCI registries.
///
/// Written `sha256:` and 64 lower-case hexadecimal digits (OCI image
/// specification, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl ObjectDigest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest whose 32 raw bytes are `bytes`.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Sha256Digest {
    const PREFIX: &'static str = "sha256:";

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digest whose 32 raw bytes are `bytes`.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits without the `sha256:` prefix, as paths in an OCI layout want them.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

/// Decodes exactly 64 lower-case hexadecimal digits: one digest has one spelling.
fn decode_lower_hex(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

impl FromStr for ObjectDigest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode_lower_hex(text)
            .map(Self)
            .ok_or_else(|| ParseDigestError {
                text: text.to_owned(),
                algorithm: "BLAKE3",
                expected: "64 lower-case hexadecimal digits",
            })
    }
}

impl FromStr for Sha256Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix(Self::PREFIX)
            .and_then(decode_lower_hex)
            .map(Self)
            .ok_or_else(|| ParseDigestError {
                text: text.to_owned(),
                algorithm: "SHA-256",
                expected: "\"sha256:\" and 64 lower-case hexadecimal digits",
            })
    }
}

impl fmt::Display for ObjectDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(Self::PREFIX)?;
        formatter.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ObjectDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

macro_rules! serde_as_text {
    ($digest:ty) => {
        impl Serialize for $digest {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $digest {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(ObjectDigest);
serde_as_text!(Sha256Digest);

/// Computes both digests and the length in one pass over the bytes.
#[derive(Default)]
pub struct Digesting {
    blake3: blake3::Hasher,
    sha256: sha2::Sha256,
    size: u64,
}

impl Digesting {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Both digests, and how many bytes there were.
    pub fn finish(self) -> (ObjectDigest, Sha256Digest, u64) {
        (
            ObjectDigest(*self.blake3.finalize().as_bytes()),
            Sha256Digest(self.sha256.finalize().into()),
            self.size,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_nothing_are_the_published_ones() {
        let (object, sha256, size) = Digesting::new().finish();
        assert_eq!(
            object.to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(
            sha256.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(size, 0);
    }

    #[test]
    fn one_digest_has_one_spelling() {
        let digest = Sha256Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!(
            digest
                .to_string()
                .to_uppercase()
                .parse::<Sha256Digest>()
                .is_err()
        );
        assert!(digest.hex().parse::<Sha256Digest>().is_err());
        assert!(digest.hex().to_uppercase().parse::<ObjectDigest>().is_err());
        assert!("".parse::<ObjectDigest>().is_err());
    }
}
