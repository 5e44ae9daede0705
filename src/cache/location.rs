//! Where a cache is, and what its keys are called.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use forebay_store::{ObjectDigest, RecipeKey};

use super::key::Domain;
use crate::bucket::{BucketLocation, InvalidKey, ObjectKey, ParseBucketError};

/// Why a text names no cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCacheError {
    /// It has no scheme that is known.
    #[error("{0:?} names no cache: write gs://BUCKET[/FOLDER] or file://FOLDER")]
    Scheme(String),
    /// Its bucket is none.
    #[error(transparent)]
    Bucket(#[from] ParseBucketError),
    /// Its folder cannot be part of a key.
    #[error(transparent)]
    Folder(#[from] InvalidKey),
}

/// A cache: a bucket, and a folder in it. Several teams may share a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheLocation {
    /// The bucket.
    pub bucket: BucketLocation,
    /// The folder, without slashes around it; empty for none.
    folder: String,
}

impl CacheLocation {
    /// Makes a relative folder of this machine absolute, seen from `directory`.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        Self {
            bucket: self.bucket.relative_to(directory),
            folder: self.folder,
        }
    }

    /// Bytes of an object that share one key. A larger one is cut, so that no transfer needs
    /// more memory than this, and a broken one repeats no more.
    pub(super) const PART: u64 = 16 << 20;

    /// Everything of the cache is below.
    pub(super) fn prefix(&self) -> String {
        match self.folder.as_str() {
            "" => "forebay-cache/v1/".to_owned(),
            folder => format!("{folder}/forebay-cache/v1/"),
        }
    }

    /// Below which the entries are: `entries/DOMAIN/KEY`.
    pub(super) fn entries(&self) -> String {
        format!("{}entries/", self.prefix())
    }

    /// The key of the entry of a recipe in a domain.
    pub(super) fn entry(&self, domain: &Domain, key: &RecipeKey) -> Result<ObjectKey, InvalidKey> {
        format!("{}{domain}/{key}", self.entries()).parse()
    }

    /// Below which the objects are.
    pub(super) fn objects(&self) -> String {
        format!("{}objects/", self.prefix())
    }

    /// What the keys of an object's parts begin with: `objects/AB/DIGEST.`
    pub(super) fn object(&self, digest: &ObjectDigest) -> String {
        let digest = digest.to_string();
        let folder = digest.get(..2).unwrap_or_default();
        format!("{}{folder}/{digest}.", self.objects())
    }

    /// The key of one part of an object; parts are counted from 0.
    pub(super) fn part(&self, digest: &ObjectDigest, part: u64) -> Result<ObjectKey, InvalidKey> {
        format!("{}{part}", self.object(digest)).parse()
    }

    /// The object whose part a key is.
    pub(super) fn object_of_part(&self, key: &str) -> Option<ObjectDigest> {
        let name = key.strip_prefix(&self.objects())?.rsplit('/').next()?;
        let (digest, part) = name.split_once('.')?;
        part.parse::<u64>().ok()?;
        digest.parse().ok()
    }

    /// Where the collector notes what it will delete.
    pub(super) fn mark(&self) -> Result<ObjectKey, InvalidKey> {
        format!("{}mark.json", self.prefix()).parse()
    }

    /// The sizes of an object's parts: all full but the last; an empty object has one.
    pub(super) fn parts(size: u64) -> impl Iterator<Item = u64> {
        let count = size.div_ceil(Self::PART).max(1);
        (0..count).map(move |part| (size - part * Self::PART).min(Self::PART))
    }
}

impl FromStr for CacheLocation {
    type Err = ParseCacheError;

    fn from_str(text: &str) -> Result<Self, ParseCacheError> {
        let scheme = || ParseCacheError::Scheme(text.to_owned());
        let (kind, rest) = text.split_once("://").ok_or_else(scheme)?;
        if kind == "file" {
            return Ok(Self {
                bucket: text.parse()?,
                folder: String::new(),
            });
        }
        let (name, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let folder = folder.trim_end_matches('/');
        if !folder.is_empty() {
            folder.parse::<ObjectKey>()?;
        }
        Ok(Self {
            bucket: format!("{kind}://{name}").parse()?,
            folder: folder.to_owned(),
        })
    }
}

impl fmt::Display for CacheLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bucket.fmt(formatter)?;
        match self.folder.as_str() {
            "" => Ok(()),
            folder => write!(formatter, "/{folder}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_a_bucket_with_or_without_a_folder() {
        for (text, prefix) in [
            ("gs://team-bucket", "forebay-cache/v1/"),
            ("gs://team-bucket/", "forebay-cache/v1/"),
            ("gs://team-bucket/ci/shop/", "ci/shop/forebay-cache/v1/"),
            ("file:///var/cache/team", "forebay-cache/v1/"),
        ] {
            let location: CacheLocation = text.parse().unwrap();
            assert_eq!(location.prefix(), prefix, "{text}");
            assert_eq!(location.to_string(), text.trim_end_matches('/'));
        }
        for text in [
            "",
            "team-bucket",
            "ftp://host/x",
            "gs://",
            "gs://team/../x",
            "file://",
        ] {
            assert!(text.parse::<CacheLocation>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn parts_cover_an_object() {
        let part = CacheLocation::PART;
        for size in [0, 1, part - 1, part, part + 1, 3 * part] {
            let parts: Vec<u64> = CacheLocation::parts(size).collect();
            assert_eq!(parts.iter().sum::<u64>(), size);
            assert!(!parts.is_empty() && parts.iter().all(|size| *size <= part));
        }
        let location: CacheLocation = "gs://team-bucket/ci".parse().unwrap();
        let digest = ObjectDigest::of(b"x");
        let key = location.part(&digest, 3).unwrap();
        assert_eq!(location.object_of_part(key.as_str()), Some(digest));
        assert_eq!(
            location.object_of_part("ci/forebay-cache/v1/mark.json"),
            None
        );
    }
}
