//! What a cache says: which recipes gave which objects.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use forebay_store::{ObjectDigest, ObjectInfo, RecipeKey, Sha256Digest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::key::{Domain, SigningKey, TrustedKey};

/// Bytes that an entry has at most, as it is stored.
pub(super) const MAX_ENTRY: usize = 32 << 20;
/// Bytes that it inflates to at most.
const MAX_BODY: u64 = 128 << 20;
/// Bytes of the first line.
const MAX_HEADER: usize = 4096;
const FORMAT: &str = "forebay-cache-entry";
const VERSION: u32 = 1;

/// Why bytes are no entry that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Cut off, bits flipped, or something else altogether.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// A later program wrote it.
    #[error("it has version {0}, which this program does not know")]
    Newer(u32),
    /// Nobody whom we trust has signed these bytes for this key and this domain.
    #[error("no trusted key has signed it for this recipe")]
    Untrusted,
}

/// The first line of an entry (`schema/cache-entry.schema.json`, `header`).
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    domain: String,
    /// The public key, base64; absent in unsigned entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<String>,
    /// Over [`message`], base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// What an entry says (`schema/cache-entry.schema.json`, `statement`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The recipe that the entry is found by.
    pub key: RecipeKey,
    /// The trust domain that it was written for.
    pub domain: String,
    /// Who made it: program and version, user and machine.
    pub producer: String,
    /// When, by the producer's clock.
    pub created: Timestamp,
    /// What recipes gave: output names to objects.
    pub realisations: BTreeMap<RecipeKey, BTreeMap<String, ObjectDigest>>,
    /// Every object that an output names, each once.
    pub objects: Vec<Object>,
}

/// An object that an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// BLAKE3.
    pub digest: ObjectDigest,
    /// SHA-256.
    pub sha256: Sha256Digest,
    /// Bytes.
    pub size: u64,
    /// Whether its bytes follow the statement; otherwise it lies beside the entries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inline: bool,
}

impl Object {
    pub(super) fn info(&self) -> ObjectInfo {
        ObjectInfo {
            digest: self.digest,
            sha256: self.sha256,
            size: self.size,
        }
    }
}

/// A statement with the bytes of its inline objects.
///
/// As bytes: one line of JSON (format, version, domain, signer, signature), then a gzip
/// stream: the length of the statement (u32, little-endian), the statement as JSON, and the
/// inline objects one after another, in the statement's order. The signature covers the
/// domain, the recipe key and the whole stream, so that nothing of an entry can be
/// exchanged, and no entry be passed off as another recipe's or another domain's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub statement: Statement,
    /// The bytes of its inline objects, in order.
    pub inline: Vec<Bytes>,
}

/// What is signed.
fn message(domain: &str, key: &RecipeKey, body: &[u8]) -> Vec<u8> {
    let mut message = format!("{FORMAT} {VERSION}\0{domain}\0{key}\0").into_bytes();
    message.extend_from_slice(body);
    message
}

impl Entry {
    /// The entry as it is stored: signed if there is a key, which must be of its domain.
    pub(super) fn encode(&self, signer: Option<&SigningKey>) -> std::io::Result<Bytes> {
        let statement = serde_json::to_vec(&self.statement)?;
        let length = u32::try_from(statement.len()).map_err(std::io::Error::other)?;
        let mut body = GzEncoder::new(Vec::new(), Compression::new(6));
        body.write_all(&length.to_le_bytes())?;
        body.write_all(&statement)?;
        for bytes in &self.inline {
            body.write_all(bytes)?;
        }
        let body = body.finish()?;
        let Statement { domain, key, .. } = &self.statement;
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            domain: domain.clone(),
            signer: signer.map(|signer| signer.public().base64()),
            signature: signer
                .map(|signer| BASE64.encode(signer.sign(&message(domain, key, &body)))),
        };
        let mut bytes = serde_json::to_vec(&header)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&body);
        Ok(bytes.into())
    }

    /// Reads the entry of `key` in `domain`, if one of `trusted` has signed it; without a
    /// signature only in the domain of unsigned ones.
    pub(super) fn decode(
        bytes: &[u8],
        key: &RecipeKey,
        domain: &Domain,
        trusted: &[TrustedKey],
    ) -> Result<Self, EntryError> {
        let (header, body) = split(bytes)?;
        if header.domain != domain.as_str() {
            return Err(EntryError::Untrusted);
        }
        if *domain != Domain::unsigned() {
            let signature = header.signature.as_deref().unwrap_or_default();
            let signature = BASE64
                .decode(signature)
                .map_err(|_| EntryError::Untrusted)?;
            let message = message(domain.as_str(), key, body);
            let is_signed = trusted
                .iter()
                .filter(|trusted| trusted.domain == *domain)
                .any(|trusted| trusted.verifies(&message, &signature));
            if !is_signed {
                return Err(EntryError::Untrusted);
            }
        }
        let entry = Self::read(body)?;
        match entry.statement.key == *key && entry.statement.domain == domain.as_str() {
            true => Ok(entry),
            false => Err(EntryError::Untrusted),
        }
    }

    /// Reads an entry whoever wrote it: for a collection, which keeps what entries name and
    /// believes nothing else of them.
    pub(super) fn decode_unverified(bytes: &[u8]) -> Result<Self, EntryError> {
        Self::read(split(bytes)?.1)
    }

    fn read(body: &[u8]) -> Result<Self, EntryError> {
        let inflated = |_| EntryError::Damaged("its stream is broken");
        let mut stream = GzDecoder::new(body).take(MAX_BODY);
        let mut length = [0; 4];
        stream.read_exact(&mut length).map_err(inflated)?;
        let length = u64::from(u32::from_le_bytes(length));
        let mut statement = Vec::new();
        (&mut stream)
            .take(length)
            .read_to_end(&mut statement)
            .map_err(inflated)?;
        let statement: Statement = serde_json::from_slice(&statement)
            .map_err(|_| EntryError::Damaged("its statement cannot be read"))?;
        let mut inline = Vec::new();
        for object in statement.objects.iter().filter(|object| object.inline) {
            let mut bytes = Vec::new();
            (&mut stream)
                .take(object.size)
                .read_to_end(&mut bytes)
                .map_err(inflated)?;
            if ObjectInfo::of(&bytes) != object.info() {
                return Err(EntryError::Damaged("an object in it is not what it says"));
            }
            inline.push(bytes.into());
        }
        // The checksum of the stream is looked at only at its end.
        match stream.read(&mut [0]) {
            Ok(0) => Ok(Self { statement, inline }),
            _ => Err(EntryError::Damaged("its stream is broken")),
        }
    }

    /// The objects in it with their bytes.
    pub(super) fn inline(&self) -> impl Iterator<Item = (ObjectDigest, &Bytes)> {
        let inline = self.statement.objects.iter().filter(|object| object.inline);
        inline.map(|object| object.digest).zip(&self.inline)
    }
}

fn split(bytes: &[u8]) -> Result<(Header, &[u8]), EntryError> {
    let start = bytes.get(..bytes.len().min(MAX_HEADER)).unwrap_or_default();
    let end = start
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(EntryError::Damaged("it has no header"))?;
    let (header, body) = bytes.split_at(end);
    let header: Header = serde_json::from_slice(header)
        .map_err(|_| EntryError::Damaged("its header cannot be read"))?;
    if header.format != FORMAT {
        return Err(EntryError::Damaged("it is something else"));
    }
    if header.version != VERSION {
        return Err(EntryError::Newer(header.version));
    }
    Ok((header, body.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(domain: &str) -> Entry {
        let bytes = Bytes::from_static(b"{\"layers\":[]}");
        let info = ObjectInfo::of(&bytes);
        Entry {
            statement: Statement {
                key: RecipeKey::from_bytes([7; 32]),
                domain: domain.to_owned(),
                producer: "test".to_owned(),
                created: "2026-01-01T00:00:00Z".parse().unwrap(),
                realisations: [(
                    RecipeKey::from_bytes([8; 32]),
                    [("layers".to_owned(), info.digest)].into(),
                )]
                .into(),
                objects: vec![Object {
                    digest: info.digest,
                    sha256: info.sha256,
                    size: info.size,
                    inline: true,
                }],
            },
            inline: vec![bytes],
        }
    }

    fn key(domain: &str) -> SigningKey {
        SigningKey::generate(domain.parse().unwrap()).unwrap()
    }

    #[test]
    fn an_entry_counts_for_its_recipe_its_domain_and_its_signer_alone() {
        let (release, pull_request) = (key("release"), key("pull-request"));
        let entry = entry("release");
        let recipe = entry.statement.key;
        let bytes = entry.encode(Some(&release)).unwrap();
        let trusted = [release.public().clone()];
        let decode = |bytes: &[u8], key: &RecipeKey, domain: &str, trusted: &[TrustedKey]| {
            Entry::decode(bytes, key, &domain.parse().unwrap(), trusted)
        };
        assert_eq!(
            decode(&bytes, &recipe, "release", &trusted),
            Ok(entry.clone())
        );
        // Replayed under another key, or in another domain.
        let other = RecipeKey::from_bytes([9; 32]);
        for (key, domain) in [(&other, "release"), (&recipe, "pull-request")] {
            let both = [release.public().clone(), pull_request.public().clone()];
            let refused = decode(&bytes, key, domain, &both);
            assert_eq!(refused, Err(EntryError::Untrusted));
        }
        // Signed by a key of another domain, or by nobody.
        let claimed = format!("release:{}", pull_request.public().base64());
        let claimed: TrustedKey = claimed.parse().unwrap();
        let foreign = entry.encode(Some(&pull_request)).unwrap();
        assert_eq!(
            decode(&foreign, &recipe, "release", &trusted),
            Err(EntryError::Untrusted)
        );
        assert!(decode(&foreign, &recipe, "release", &[claimed]).is_ok());
        let unsigned = entry.encode(None).unwrap();
        assert_eq!(
            decode(&unsigned, &recipe, "release", &trusted),
            Err(EntryError::Untrusted)
        );
        let unsigned = Entry::decode(&unsigned, &recipe, &Domain::unsigned(), &trusted);
        assert_eq!(unsigned, Err(EntryError::Untrusted));
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let bytes = entry("release").encode(None).unwrap();
        let text = String::from_utf8_lossy(&bytes).replacen("\"version\":1", "\"version\":2", 1);
        assert_eq!(
            Entry::decode_unverified(text.as_bytes()),
            Err(EntryError::Newer(2))
        );
    }

    proptest! {
        #[test]
        fn no_flipped_bit_is_believed(position in any::<prop::sample::Index>(), bit in 0u8..8) {
            let signer = key("release");
            let entry = entry("release");
            let mut bytes = entry.encode(Some(&signer)).unwrap().to_vec();
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            let domain = "release".parse().unwrap();
            let trusted = [signer.public().clone()];
            let decoded = Entry::decode(&bytes, &entry.statement.key, &domain, &trusted);
            // A bit of the header's names or of the signer's own name says nothing.
            prop_assert!(decoded.is_err() || decoded == Ok(entry));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Entry::decode_unverified(&bytes);
        }
    }
}
