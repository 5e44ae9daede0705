//! Where a cache is, and what its keys are called.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use forebay_store::{ObjectDigest, RecipeKey};

use url::Url;

use super::key::Domain;
use crate::bucket::{BucketLocation, InvalidKey, ObjectKey, ParseBucketError, nonce, unescape};
use crate::credentials::Secret;

/// Why a text names no cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCacheError {
    /// It has no scheme that is known.
    #[error(
        "{0:?} names no cache: write gs://BUCKET[/FOLDER], s3://BUCKET[/FOLDER], az://CONTAINER[/FOLDER], https://HOST/FOLDER (WebDAV) or file://FOLDER"
    )]
    Scheme(String),
    /// Its bucket is none.
    #[error(transparent)]
    Bucket(#[from] ParseBucketError),
    /// Its folder cannot be part of a key.
    #[error(transparent)]
    Folder(#[from] InvalidKey),
}

/// A cache: a bucket, and a folder in it. Several teams may share a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheLocation {
    /// The bucket.
    pub bucket: BucketLocation,
    /// The folder, without slashes around it; empty for none.
    folder: String,
    /// User and password, if they stood in the address of a WebDAV server.
    login: Option<(String, Secret)>,
}

impl CacheLocation {
    /// Makes a relative folder of this machine absolute, seen from `directory`.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        Self {
            bucket: self.bucket.relative_to(directory),
            ..self
        }
    }

    /// User and password of the address; they are never shown.
    pub fn login(&self) -> Option<(&str, &Secret)> {
        let (user, password) = self.login.as_ref()?;
        Some((user, password))
    }

    /// `https://[USER:PASSWORD@]HOST[:PORT]/FOLDER`.
    fn web_dav(text: &str) -> Result<Self, ParseCacheError> {
        let unusable = || ParseCacheError::Scheme(without_login(text));
        let mut url = Url::parse(text).map_err(|_| unusable())?;
        let login = (!url.username().is_empty()).then(|| {
            let password = unescape(url.password().unwrap_or_default());
            (unescape(url.username()), Secret::new(password))
        });
        let is_plain = url.query().is_none() && url.fragment().is_none() && url.has_host();
        let is_bare = url.set_username("").is_ok() && url.set_password(None).is_ok();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        match is_plain && is_bare {
            true => Ok(Self {
                bucket: BucketLocation::WebDav { url },
                folder: String::new(),
                login,
            }),
            false => Err(unusable()),
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

    /// With what a server's conditions are tried.
    pub(super) fn probe(&self) -> Result<ObjectKey, InvalidKey> {
        format!("{}probe-{}", self.prefix(), nonce()).parse()
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
        let scheme = || ParseCacheError::Scheme(without_login(text));
        let (kind, rest) = text.split_once("://").ok_or_else(scheme)?;
        match kind {
            "file" => {
                return Ok(Self {
                    bucket: text.parse()?,
                    folder: String::new(),
                    login: None,
                });
            }
            "http" | "https" => return Self::web_dav(text),
            "gs" | "s3" | "az" => {}
            _ => return Err(scheme()),
        }
        let (name, folder) = rest.split_once('/').unwrap_or((rest, ""));
        if name.contains('@') {
            return Err(scheme());
        }
        let folder = folder.trim_end_matches('/');
        if !folder.is_empty() {
            folder.parse::<ObjectKey>()?;
        }
        Ok(Self {
            bucket: format!("{kind}://{name}").parse()?,
            folder: folder.to_owned(),
            login: None,
        })
    }
}

/// A text for messages: what stands before an `@` may be a password.
fn without_login(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => text.to_owned(),
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
    fn a_password_is_taken_from_the_address_and_never_shown() {
        let text = "https://anna:s%40cret%3A1@dav.example.com:8443/team%20a/";
        let location: CacheLocation = text.parse().unwrap();
        assert_eq!(
            location.to_string(),
            "https://dav.example.com:8443/team%20a"
        );
        let (user, password) = location.login().unwrap();
        assert_eq!((user, password.reveal()), ("anna", "s@cret:1"));
        assert!(!format!("{location:?}").contains("s@cret"));
        let plain: CacheLocation = "http://127.0.0.1:80".parse().unwrap();
        assert!(plain.login().is_none());
        for text in [
            "htps://anna:s3cret@host/x",
            "https://anna:s3cret@host/x?query",
            "https://anna:s3cret@/x",
            "gs://anna:s3cret@bucket",
        ] {
            let error = text.parse::<CacheLocation>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
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
