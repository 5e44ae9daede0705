//! Where a bucket is, as `dags_bucket` writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Why a text names no bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no bucket: {reason}")]
pub struct ParseBucketError {
    text: String,
    reason: &'static str,
}

/// `gs://NAME`, a bare name (which means the same), or `file://PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BucketLocation {
    /// A bucket of Google Cloud Storage.
    GoogleCloudStorage {
        /// The bucket's name: 3 to 222 characters of `a-z 0-9 - _ .`.
        name: String,
    },
    /// A directory on this machine.
    Directory {
        /// The directory, as written.
        path: PathBuf,
    },
}

impl BucketLocation {
    /// Makes a relative directory absolute, seen from `directory`.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        match self {
            Self::Directory { path } => Self::Directory {
                path: directory.join(path),
            },
            remote => remote,
        }
    }
}

impl FromStr for BucketLocation {
    type Err = ParseBucketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| ParseBucketError {
            text: text.to_owned(),
            reason,
        };
        if let Some(path) = text.strip_prefix("file://") {
            if path.is_empty() {
                return Err(invalid("file:// must be followed by a directory"));
            }
            return Ok(Self::Directory { path: path.into() });
        }
        let name = text.strip_prefix("gs://").unwrap_or(text);
        let name = name.strip_suffix('/').unwrap_or(name);
        if name.contains("://") {
            return Err(invalid("only gs:// and file:// are known"));
        }
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if name.contains('/') {
            return Err(invalid("name the bucket alone, without a folder in it"));
        }
        if !(3..=222).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(invalid(
                "a bucket's name has 3 to 222 lower-case letters, digits, and - _ .",
            ));
        }
        Ok(Self::GoogleCloudStorage {
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for BucketLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoogleCloudStorage { name } => write!(formatter, "gs://{name}"),
            Self::Directory { path } => write!(formatter, "file://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_means_google() {
        for text in [
            "gs://my-bucket",
            "my-bucket",
            "my-bucket/",
            "gs://my-bucket/",
        ] {
            assert_eq!(
                text.parse::<BucketLocation>().unwrap().to_string(),
                "gs://my-bucket"
            );
        }
        assert_eq!(
            "file://./local/composer".parse::<BucketLocation>().unwrap(),
            BucketLocation::Directory {
                path: "./local/composer".into()
            }
        );
        for text in ["", "ab", "Upper", "gs://a/b", "ftp://host", "file://"] {
            assert!(text.parse::<BucketLocation>().is_err(), "{text}");
        }
    }
}
