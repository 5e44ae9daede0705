//! Image repositories behind one trait: registries over HTTP and OCI layouts on disk.
//!
//! The order of a push is part of the design: blobs first, in parallel; the
//! manifest last, so that a manifest that can be read proves its blobs.

mod archive;
mod certificates;
mod counted;
mod forecast;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod layout;
mod open;
mod proven;
mod push;
mod remote;
mod verified;

pub use archive::write_archive;
pub use certificates::certificate_folders_of_process;
pub use forecast::{PushForecast, forecast_push};
pub use open::{Access, OpenOptions, open};
pub use proven::Previous;
pub use push::{ImageToPush, PushReport, push, push_absent, push_onto};

use std::io::Read;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::oci::{BlobSource, Descriptor, MediaType, Repository, Sha256Digest, Tag};

/// What names a manifest within a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// A digest: always the same bytes.
    Digest(Sha256Digest),
    /// A tag: whatever it points to now.
    Tag(Tag),
}

impl std::fmt::Display for ManifestName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => write!(formatter, "{digest}"),
            Self::Tag(tag) => write!(formatter, "{tag}"),
        }
    }
}

/// A manifest with the bytes that its digest was computed over.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// Media type, digest and size; the digest was verified.
    pub descriptor: Descriptor,
    /// The exact bytes.
    pub bytes: Bytes,
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It was there.
    Present,
    /// The registry took it from another of its repositories.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// One repository of images.
///
/// "Absent" is an answer (`Ok(None)`, `Ok(false)`); a refusal or a failure is
/// an error and never taken for "absent".
#[async_trait]
pub trait Registry: Send + Sync {
    /// The repository that this talks to.
    fn repository(&self) -> &Repository;

    /// Asks for a manifest's descriptor without its bytes (one request).
    ///
    /// # Errors
    /// See [`RegistryError`].
    async fn manifest_descriptor(
        &self,
        name: &ManifestName,
    ) -> Result<Option<Descriptor>, RegistryError>;

    /// Reads a manifest and verifies its digest.
    ///
    /// # Errors
    /// See [`RegistryError`].
    async fn manifest(&self, name: &ManifestName)
    -> Result<Option<FetchedManifest>, RegistryError>;

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// See [`RegistryError`].
    async fn has_blob(&self, digest: &Sha256Digest) -> Result<bool, RegistryError>;

    /// Streams a blob; the reader fails at its end if digest or size is wrong.
    /// The reader blocks: use it off the async threads.
    ///
    /// # Errors
    /// An absent blob is an error here, since its manifest promised it.
    async fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, RegistryError>;

    /// Brings a blob into the repository: by mount from one of
    /// `mount_candidates` if possible, otherwise by sending its bytes.
    ///
    /// It does not ask first whether the blob is there, but the repository
    /// itself may be the first candidate: the mount then is that question, and
    /// its refusal opens the upload, so that the two cost one request.
    ///
    /// A blob that this client has brought before, or is bringing for another image,
    /// counts as present until [`Self::has_blob`] says otherwise.
    ///
    /// # Errors
    /// See [`RegistryError`].
    async fn put_blob(
        &self,
        blob: &Arc<dyn BlobSource>,
        mount_candidates: &[Repository],
    ) -> Result<BlobOutcome, RegistryError>;

    /// Writes a manifest under a digest or a tag.
    ///
    /// # Errors
    /// [`RegistryError::BlobsMissing`] if the registry lacks what the manifest names.
    async fn put_manifest(
        &self,
        name: &ManifestName,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<(), RegistryError>;

    /// Takes a tag away; the manifest stays. `false` if the registry does not do that; a tag
    /// that is gone already is taken away.
    ///
    /// # Errors
    /// See [`RegistryError`].
    async fn delete_tag(&self, tag: &Tag) -> Result<bool, RegistryError> {
        let _ = tag;
        Ok(false)
    }

    /// All tags, page by page.
    ///
    /// # Errors
    /// See [`RegistryError`]; a registry says of a repository without any image that
    /// it does not exist.
    async fn tags(&self) -> Result<Vec<Tag>, RegistryError>;

    /// The manifests that refer to one as their subject: signatures, lists of
    /// contents. It need not be in the repository.
    ///
    /// # Errors
    /// See [`RegistryError`].
    async fn referrers(&self, digest: &Sha256Digest) -> Result<Vec<Referrer>, RegistryError>;
}

/// A manifest that refers to another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The manifest.
    #[serde(flatten)]
    pub descriptor: Descriptor,
    /// What kind of thing it is, for instance a signature.
    pub artifact_type: Option<String>,
}

/// Where clients keep the list of referrers on registries that keep none themselves
/// (distribution specification, "Referrers Tag Schema").
fn referrers_tag(digest: &Sha256Digest) -> Result<Tag, RegistryError> {
    let name = digest.to_string().replacen(':', "-", 1);
    name.parse().map_err(|error| RegistryError::Malformed {
        what: format!("the tag {name}"),
        problem: format!("{error}"),
    })
}

/// Why a repository could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke, after all attempts.
    #[error("cannot reach the registry {registry}")]
    Unreachable {
        /// Host, with the port if there is one.
        registry: String,
        /// The transport's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// 401 or 403, after a fresh token was tried where one can be had.
    #[error("{repository} does not allow {action} to {identity}{}", .detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Denied {
        /// The repository.
        repository: String,
        /// What was tried: `push`, `pull`.
        action: &'static str,
        /// Who asked and with which credential, without secrets.
        identity: String,
        /// The registry's own words, cut short, if they are not HTML.
        detail: Option<String>,
    },
    /// The repository (not a manifest in it) does not exist.
    #[error("the repository {repository} does not exist")]
    NoRepository {
        /// The repository.
        repository: String,
    },
    /// The manifest names blobs that the repository lacks.
    #[error("{repository} lacks blobs that the manifest names")]
    BlobsMissing {
        /// The repository.
        repository: String,
        /// Those that the answer names; it may name only the first.
        digests: Vec<Sha256Digest>,
    },
    /// Bytes that do not have the digest or size they were promised to have.
    #[error("{what} is damaged: expected {expected}, got {actual}")]
    Damaged {
        /// What was read or sent.
        what: String,
        /// The promise.
        expected: String,
        /// What came.
        actual: String,
    },
    /// Any other answer.
    #[error("the registry answered {status} to {request}{}", .detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Unexpected {
        /// The HTTP status, in numbers.
        status: u16,
        /// Method and path, without query.
        request: String,
        /// The registry's own words, cut short, if they are not HTML.
        detail: Option<String>,
    },
    /// A local file could not be read or written (OCI layouts, blob sources).
    #[error("{action}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// An answer, or a layout's file, that is not what the specification says.
    #[error("{what} is not valid: {problem}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No credential could be had.
    #[error(transparent)]
    Credential(#[from] crate::credentials::CredentialError),
}
