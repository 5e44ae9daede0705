//! Buckets behind one trait. Every write and delete carries a precondition, so
//! that nobody's work is overwritten unseen.

mod checksums;
mod directory;
mod entity_tag;
mod exchange;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gcs;
mod key;
mod location;
mod nonce;
mod reading;
mod tags;
mod web_dav;

pub use checksums::Checksums;
pub use directory::DirectoryBucket;
pub use entity_tag::EntityTagBucket;
pub(crate) use exchange::unescape;
pub use gcs::{Endpoint, GcsBucket};
pub use key::{InvalidKey, ObjectKey};
pub use location::{BucketLocation, ParseBucketError};
pub use nonce::nonce;
pub use web_dav::WebDavBucket;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::credentials::{TokenSource, netrc_login};
use crate::http::HttpClient;

/// A number that changes with every write of a key (Google Cloud Storage,
/// "generation"); on other services a digest of what tells its writes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorageGeneration(pub u64);

/// Under which condition a write may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCondition {
    /// Only if the key does not exist.
    Absent,
    /// Only if the key is still what we saw.
    Unchanged(StorageGeneration),
}

/// What a bucket says of one of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The key as the bucket has it; others may have written odd ones.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// Which write this is.
    pub generation: StorageGeneration,
    /// The CRC32C of its bytes. S3, Azure and WebDAV give none, nor has an object on Google's
    /// service that is under a customer's own encryption key.
    pub crc32c: Option<u32>,
    /// The MD5 of its bytes. What was composed of parts has none, nor has anything on WebDAV.
    pub md5: Option<[u8; 16]>,
    /// When it was written, by the server's clock.
    pub updated: Timestamp,
}

/// An object with its bytes, verified against its checksum.
#[derive(Debug, Clone)]
pub struct ReadObject {
    /// What the bucket says of it.
    pub object: StoredObject,
    /// Its bytes.
    pub bytes: Bytes,
    /// The server's clock when it answered.
    pub server_time: Timestamp,
}

/// The objects under a prefix, sorted by key.
#[derive(Debug, Clone)]
pub struct Listing {
    /// All pages together.
    pub objects: Vec<StoredObject>,
    /// The server's clock when it answered.
    pub server_time: Timestamp,
}

/// A flat space of keys and bytes with conditional writes.
#[async_trait]
pub trait Bucket: Send + Sync {
    /// Where this is.
    fn location(&self) -> &BucketLocation;

    /// Lists all objects whose key starts with `prefix`.
    ///
    /// # Errors
    /// See [`BucketError`].
    async fn list(&self, prefix: &str) -> Result<Listing, BucketError>;

    /// Reads one object; `None` if the key does not exist.
    ///
    /// # Errors
    /// See [`BucketError`].
    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError>;

    /// Writes one object if the condition holds, and says what the bucket then has.
    ///
    /// An implementation that repeats a write after a lost answer recognises
    /// its own earlier attempt, so that a failed condition always means
    /// somebody else. After any other error the write may or may not have happened.
    ///
    /// # Errors
    /// [`BucketError::ConditionFailed`] if the object is not as the condition wants it.
    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError>;

    /// Deletes exactly the object that we saw. Deleting what is gone already is done.
    ///
    /// # Errors
    /// [`BucketError::ConditionFailed`] if the object changed.
    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError>;

    /// Whether an object that is written again with the same bytes has another
    /// [`StorageGeneration`]. Otherwise whoever relies on that must not write the same bytes twice.
    fn tells_writes_apart(&self) -> bool {
        true
    }

    /// Whether a delete spares an object that was written again after it was seen, as far as
    /// [writes are told apart](Bucket::tells_writes_apart). Only a service of which that is not
    /// known is asked, with an object of that key, which is gone afterwards.
    ///
    /// # Errors
    /// See [`BucketError`].
    async fn deletes_only_what_was_seen(&self, _: &ObjectKey) -> Result<bool, BucketError> {
        Ok(true)
    }
}

/// Opens a bucket; makes no request. `tokens` are for Google: they may be absent for
/// an emulator; without them a real bucket is asked anonymously. S3 and Azure take
/// their credentials where their own tools take them: `AWS_*`, `AZURE_*`, the machine's role;
/// a WebDAV server's user and password are in the user's `.netrc`.
///
/// # Errors
/// `STORAGE_EMULATOR_HOST` must be an address if it is set, the variables of S3
/// and Azure must not contradict each other, and no password is sent in the clear.
pub fn open(
    location: &BucketLocation,
    http: &HttpClient,
    tokens: Option<Arc<dyn TokenSource>>,
) -> Result<Arc<dyn Bucket>, BucketError> {
    Ok(match location {
        BucketLocation::Directory { path } => Arc::new(DirectoryBucket::new(path)),
        BucketLocation::GoogleCloudStorage { name } => {
            let endpoint = Endpoint::from_environment()?;
            Arc::new(GcsBucket::new(name, endpoint, http.clone(), tokens))
        }
        BucketLocation::S3 { name } => {
            let variables: Vec<_> = process_variables();
            Arc::new(EntityTagBucket::s3(name, &variables, http.clone())?)
        }
        BucketLocation::Azure { container } => {
            let variables: Vec<_> = process_variables();
            Arc::new(EntityTagBucket::azure(container, &variables, http.clone())?)
        }
        BucketLocation::WebDav { url } => {
            let login = url.host_str().and_then(netrc_login);
            Arc::new(WebDavBucket::new(url, http.clone(), login)?)
        }
    })
}

/// Those whose names and values are texts.
fn process_variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Why a bucket could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// No connection, or it broke, after all attempts.
    #[error("cannot reach the bucket {bucket}")]
    Unreachable {
        /// The bucket.
        bucket: String,
        /// The transport's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bucket itself does not exist.
    #[error("the bucket {bucket} does not exist")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// 401 or 403, after a fresh token was tried where one can be had.
    #[error("{identity} may not {permission} in {bucket}")]
    Denied {
        /// The bucket.
        bucket: String,
        /// The permission that is missing, in Google's words: `storage.objects.create`.
        permission: &'static str,
        /// Who asked, without secrets.
        identity: String,
    },
    /// The object is not in the state that the condition wants.
    #[error("{key} in {bucket} was changed by somebody else")]
    ConditionFailed {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// Bytes whose checksum is not the promised one.
    #[error("{key} in {bucket} arrived damaged")]
    Damaged {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// Any other answer.
    #[error("the bucket {bucket} answered {status} to {request}{}", .detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Unexpected {
        /// The bucket.
        bucket: String,
        /// The HTTP status, in numbers.
        status: u16,
        /// Method and key.
        request: String,
        /// The server's own words, cut short.
        detail: Option<String>,
    },
    /// `STORAGE_EMULATOR_HOST` is set to something that is not an address.
    #[error("STORAGE_EMULATOR_HOST is {value:?}, which is not HOST:PORT or a URL")]
    EmulatorAddress {
        /// The variable's value.
        value: String,
    },
    /// A local file could not be read or written (directory buckets).
    #[error("{action}")]
    Io {
        /// What was being done, with the path.
        action: String,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// The variables that describe S3 or Azure are of no use.
    #[error("cannot set up access to {bucket}")]
    Setup {
        /// The bucket.
        bucket: String,
        /// What is missing or wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody here has credentials of S3 or Azure.
    #[error("no credentials could be had for {bucket}")]
    NoCredential {
        /// The bucket.
        bucket: String,
        /// Who was asked, and what he said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A bucket that does not say what its objects are: nothing could be verified in it.
    #[error("the bucket {bucket} keeps no MD5 of its objects")]
    NoChecksums {
        /// The bucket.
        bucket: String,
    },
    /// No credential could be had.
    #[error(transparent)]
    Credential(#[from] crate::credentials::CredentialError),
}
