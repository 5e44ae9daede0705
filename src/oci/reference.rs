//! Where an image lives: a registry's repository or an OCI layout on disk.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Sha256Digest;

/// Why a text names no image or repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {reason}")]
pub struct ParseReferenceError {
    text: String,
    kind: &'static str,
    reason: &'static str,
}

impl ParseReferenceError {
    fn new(text: &str, kind: &'static str, reason: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            kind,
            reason,
        }
    }
}

/// A repository of images.
///
/// Written as BigFlow's `docker_repository` is: `HOST[:PORT]/NAME` for a
/// registry (without a host, Docker's rule applies: `docker.io`), or
/// `oci:PATH` for a directory in the OCI image layout.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Repository {
    /// `HOST[:PORT]/NAME`.
    Registry {
        /// Host name or address, with the port if one is given.
        host: String,
        /// The repository's name (distribution specification, `<name>`).
        name: String,
    },
    /// `oci:PATH`.
    Layout {
        /// The layout's directory, as written.
        path: PathBuf,
    },
}

/// A tag (distribution specification, `<reference>` as a tag): at most 128
/// characters, `[A-Za-z0-9_][A-Za-z0-9._-]*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

/// A repository with a tag, a digest, or both; with neither, Docker's `latest` is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// Where.
    pub repository: Repository,
    /// The tag, if one was written.
    pub tag: Option<Tag>,
    /// The digest, if one was written; it wins over the tag.
    pub digest: Option<Sha256Digest>,
}

impl Repository {
    const LAYOUT_PREFIX: &'static str = "oci:";

    /// Makes a relative layout path absolute, seen from `directory`.
    #[must_use]
    pub fn relative_to(self, directory: &Path) -> Self {
        match self {
            Self::Layout { path } => Self::Layout {
                path: directory.join(path),
            },
            registry => registry,
        }
    }
}

fn is_repository_name(name: &str) -> bool {
    let component = |component: &str| {
        let alphanumeric =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = component.as_bytes();
        alphanumeric(bytes.first())
            && alphanumeric(bytes.last())
            && bytes.iter().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(byte)
            })
    };
    !name.is_empty() && name.len() <= 255 && name.split('/').all(component)
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
}

impl FromStr for Repository {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| ParseReferenceError::new(text, "image repository", reason);
        if let Some(path) = text.strip_prefix(Self::LAYOUT_PREFIX) {
            if path.is_empty() {
                return Err(invalid("`oci:` must be followed by a directory"));
            }
            return Ok(Self::Layout { path: path.into() });
        }
        // Docker's rule: the first component is a host only if it looks like one.
        let (host, name) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_owned(), rest.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), text.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{text}")),
        };
        if !is_host(&host) {
            return Err(invalid(
                "the host has a character that host names cannot have",
            ));
        }
        if !is_repository_name(&name) {
            return Err(invalid(
                "a name consists of lower-case letters, digits, and . _ - between them, in parts separated by /",
            ));
        }
        Ok(Self::Registry { host, name })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { host, name } => write!(formatter, "{host}/{name}"),
            Self::Layout { path } => write!(formatter, "{}{}", Self::LAYOUT_PREFIX, path.display()),
        }
    }
}

impl Tag {
    /// The tag that Docker means when none is written.
    pub fn latest() -> Self {
        Self("latest".to_owned())
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let bytes = text.as_bytes();
        if bytes.len() <= 128
            && bytes.first().is_some_and(word)
            && bytes.iter().all(|byte| word(byte) || b".-".contains(byte))
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseReferenceError::new(
                text,
                "image tag",
                "a tag has at most 128 letters, digits, and . _ -, and starts with a letter, a digit or _",
            ))
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for ImageReference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| {
                    ParseReferenceError::new(
                        text,
                        "image reference",
                        "after @ a sha256 digest must stand",
                    )
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to the host's port.
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let is_layout = rest.starts_with(Repository::LAYOUT_PREFIX);
        let tag_colon = rest[name_start..]
            .rfind(':')
            .map(|colon| name_start + colon);
        let (repository, tag) = match tag_colon {
            Some(colon) if !is_layout || colon >= Repository::LAYOUT_PREFIX.len() => {
                (&rest[..colon], Some(rest[colon + 1..].parse()?))
            }
            _ => (rest, None),
        };
        Ok(Self {
            repository: repository.parse()?,
            tag,
            digest,
        })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_follows_dockers_rule_for_hosts() {
        let cases = [
            ("python", "docker.io/library/python"),
            ("apache/airflow", "docker.io/apache/airflow"),
            ("localhost/a", "localhost/a"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
            ("europe-docker.pkg.dev/p/r/i", "europe-docker.pkg.dev/p/r/i"),
            ("oci:./local/images", "oci:./local/images"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Repository>().unwrap().to_string(), expected);
        }
        for text in [
            "",
            "Upper/case.d",
            "a.b/C",
            "oci:",
            "a.b/",
            "a.b/-x",
            "a b/c",
        ] {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_is_not_a_tag() {
        let reference: ImageReference = "127.0.0.1:5000/base/python:3.11".parse().unwrap();
        assert_eq!(
            reference.repository.to_string(),
            "127.0.0.1:5000/base/python"
        );
        assert_eq!(reference.tag.unwrap().as_str(), "3.11");

        let reference: ImageReference = "127.0.0.1:5000/base/python".parse().unwrap();
        assert_eq!(reference.tag, None);
    }

    #[test]
    fn a_reference_reads_back_as_written() {
        let digest = Sha256Digest::of(b"image");
        for text in [
            format!("registry.test/a:1@{digest}"),
            format!("registry.test/a@{digest}"),
            "oci:/tmp/layout:1.0".to_owned(),
            "oci:layout".to_owned(),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), text);
        }
    }
}
