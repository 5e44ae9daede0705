//! Where a bucket is, as `dags_bucket` writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use url::Url;

/// Why a text names no bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no bucket: {reason}")]
pub struct ParseBucketError {
    text: String,
    reason: &'static str,
}

/// `gs://NAME`, a bare name (which means the same), `s3://NAME`, `az://CONTAINER`, or
/// `file://PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BucketLocation {
    /// A bucket of Google Cloud Storage.
    GoogleCloudStorage {
        /// The bucket's name: 3 to 222 characters of `a-z 0-9 - _ .`.
        name: String,
    },
    /// A bucket of S3, or of a service that speaks its protocol.
    S3 {
        /// The bucket's name: 3 to 63 characters of `a-z 0-9 - .`.
        name: String,
    },
    /// A container of Azure Blob Storage; the account is in `AZURE_STORAGE_ACCOUNT`.
    Azure {
        /// The container's name: 3 to 63 characters of `a-z 0-9 -`.
        container: String,
    },
    /// A directory on this machine.
    Directory {
        /// The directory, as written.
        path: PathBuf,
    },
    /// A folder of a WebDAV server, without user and password. It does not come of
    /// [`FromStr`]: such servers keep too little of what is asked of a bucket to deploy to.
    WebDav {
        /// `http:` or `https:`, without a slash at its end.
        url: Url,
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
        let (scheme, name) = text.split_once("://").unwrap_or(("gs", text));
        let name = name.strip_suffix('/').unwrap_or(name);
        if matches!(scheme, "http" | "https") {
            return Err(invalid(
                "a WebDAV server can be a cache, but not what is deployed to",
            ));
        }
        if name.contains('/') {
            return Err(invalid("name the bucket alone, without a folder in it"));
        }
        let made_of = |others: &[u8], longest| {
            (3..=longest).contains(&name.len())
                && name.bytes().all(|byte| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || others.contains(&byte)
                })
        };
        let name = name.to_owned();
        match scheme {
            "gs" if made_of(b"-_.", 222) => Ok(Self::GoogleCloudStorage { name }),
            "gs" => Err(invalid(
                "a bucket's name has 3 to 222 lower-case letters, digits, and - _ .",
            )),
            "s3" if made_of(b"-.", 63) => Ok(Self::S3 { name }),
            "s3" => Err(invalid(
                "a bucket's name has 3 to 63 lower-case letters, digits, and - .",
            )),
            "az" if made_of(b"-", 63) => Ok(Self::Azure { container: name }),
            "az" => Err(invalid(
                "a container's name has 3 to 63 lower-case letters, digits, and -",
            )),
            _ => Err(invalid("only gs://, s3://, az:// and file:// are known")),
        }
    }
}

impl fmt::Display for BucketLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoogleCloudStorage { name } => write!(formatter, "gs://{name}"),
            Self::S3 { name } => write!(formatter, "s3://{name}"),
            Self::Azure { container } => write!(formatter, "az://{container}"),
            Self::Directory { path } => write!(formatter, "file://{}", path.display()),
            Self::WebDav { url } => formatter.write_str(url.as_str().trim_end_matches('/')),
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
        for text in ["s3://my.bucket", "az://my-container"] {
            let location: BucketLocation = format!("{text}/").parse().unwrap();
            assert_eq!(location.to_string(), text);
        }
        for text in [
            "",
            "ab",
            "Upper",
            "gs://a/b",
            "ftp://host",
            "file://",
            "s3://a_b",
            "az://a.b",
            "az://account/container",
            "https://files.example.com/team",
        ] {
            assert!(text.parse::<BucketLocation>().is_err(), "{text}");
        }
    }
}
