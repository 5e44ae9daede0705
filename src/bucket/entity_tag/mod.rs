//! S3 and Azure: services that tell one write of an object from another by its
//! entity tag, and whose listings give an MD5.
//!
//! Credentials and signatures are those of the `object_store` library; the
//! requests are our own, because its listings have no MD5 and fail as a whole
//! on one odd key, and its deletes carry no precondition.

mod azure;
mod dialect;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod s3;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LAST_MODIFIED};
use http::header::{DATE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use http::{Method, StatusCode};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::{BackoffConfig, RetryConfig};
use url::Url;

use self::azure::Azure;
use self::dialect::{Dialect, ListedObject};
use self::s3::S3;
use super::checksums::encode_md5;
use super::exchange::{Answer, Call, Permissions, Service, parse_http_date};
use super::reading::{Page, Reading};
use super::tags::Tags;
use super::{
    Bucket, BucketError, BucketLocation, Checksums, Listing, ObjectKey, ReadObject,
    StorageGeneration, StoredObject, WriteCondition, nonce,
};
use crate::http::HttpClient;

/// A bucket of S3, of a service that speaks its protocol, or a container of Azure.
///
/// An object's [`StorageGeneration`] is a digest of its entity tag. On S3 the
/// same bytes have the same tag, so that a rewrite with the same bytes is not seen:
/// [`Bucket::tells_writes_apart`] says so.
pub struct EntityTagBucket {
    dialect: Box<dyn Dialect>,
    location: BucketLocation,
    http: HttpClient,
    tags: Tags,
}

impl EntityTagBucket {
    /// A bucket of S3. `variables` are those of the process; `AWS_*` among them say where
    /// the service is and who we are. Makes no request.
    ///
    /// # Errors
    /// [`BucketError::Setup`] if the variables contradict each other.
    pub fn s3(
        name: &str,
        variables: &[(String, String)],
        http: HttpClient,
    ) -> Result<Self, BucketError> {
        let location = BucketLocation::S3 {
            name: name.to_owned(),
        };
        let dialect = S3::new(name, variables, &http).map_err(|source| BucketError::Setup {
            bucket: location.to_string(),
            source,
        })?;
        Ok(Self::new(Box::new(dialect), location, http))
    }

    /// A container of Azure. `variables` are those of the process; `AZURE_*` among them name
    /// the account and say who we are. Makes no request.
    ///
    /// # Errors
    /// [`BucketError::Setup`] if the variables name no account or contradict each other.
    pub fn azure(
        container: &str,
        variables: &[(String, String)],
        http: HttpClient,
    ) -> Result<Self, BucketError> {
        let location = BucketLocation::Azure {
            container: container.to_owned(),
        };
        let dialect =
            Azure::new(container, variables, &http).map_err(|source| BucketError::Setup {
                bucket: location.to_string(),
                source,
            })?;
        Ok(Self::new(Box::new(dialect), location, http))
    }

    fn new(dialect: Box<dyn Dialect>, location: BucketLocation, http: HttpClient) -> Self {
        Self {
            dialect,
            location,
            http,
            tags: Tags::default(),
        }
    }

    fn listed(&self, object: ListedObject) -> StoredObject {
        StoredObject {
            generation: self.tags.note(&object.tag),
            key: object.key,
            size: object.size,
            crc32c: None,
            md5: object.md5,
            updated: object.updated,
        }
    }

    /// What an answer's headers say of an object of `size` bytes. A write's answer may
    /// not say when it was written: then it is the moment of the answer.
    fn described(&self, call: &Call, answer: &Answer, size: u64) -> Result<Described, BucketError> {
        let text = |name: HeaderName| answer.headers.get(name)?.to_str().ok();
        let tag = text(ETAG).ok_or_else(|| self.malformed(call, "an object without its tag"))?;
        let updated = text(LAST_MODIFIED)
            .or_else(|| text(DATE))
            .and_then(parse_http_date)
            .ok_or_else(|| self.malformed(call, "an object without its time"))?;
        Ok(Described {
            md5: self.dialect.md5(&answer.headers),
            writer: text(self.dialect.nonce_header()).map(str::to_owned),
            generation: self.tags.note(tag),
            size,
            updated,
        })
    }

    /// What the bucket says of an object, without its bytes.
    async fn look(&self, key: &ObjectKey) -> Result<Option<Described>, BucketError> {
        let url = self.dialect.object_url(key);
        let permission = self.dialect.permissions().read;
        let what = format!("reading the metadata of {key}");
        let call = Call::new(Method::HEAD, url, permission, what);
        let answer = self.send(&call).await?;
        match answer.status {
            StatusCode::OK => {
                let length = answer.headers.get(CONTENT_LENGTH);
                let size = length.and_then(|size| size.to_str().ok()?.parse().ok());
                let size =
                    size.ok_or_else(|| self.malformed(&call, "an object without its size"))?;
                Ok(Some(self.described(&call, &answer, size)?))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refuse(&call, &answer)),
        }
    }

    fn put(
        &self,
        key: &ObjectKey,
        bytes: &Bytes,
        checksums: &Checksums,
        nonce: &str,
        condition: (HeaderName, HeaderValue),
    ) -> Call {
        let url = self.dialect.object_url(key);
        let permission = self.dialect.permissions().write;
        let mut call = Call::new(Method::PUT, url, permission, format!("writing {key}"));
        let texts = [
            (CONTENT_LENGTH, bytes.len().to_string()),
            (CONTENT_TYPE, key.content_type().to_owned()),
            (
                HeaderName::from_static("content-md5"),
                encode_md5(checksums),
            ),
            (self.dialect.nonce_header(), nonce.to_owned()),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| {
            let value = HeaderValue::try_from(text).ok()?;
            Some((name, value))
        });
        call.headers.extend(texts);
        call.headers.extend(self.dialect.put_headers());
        call.headers.extend([condition]);
        call.body = Some(bytes.clone());
        call
    }

    fn removal(&self, key: &ObjectKey) -> Call {
        let url = self.dialect.object_url(key);
        let permission = self.dialect.permissions().delete;
        Call::new(Method::DELETE, url, permission, format!("deleting {key}"))
    }

    /// Whether a failed condition was our own earlier attempt: the object then carries our nonce.
    async fn written_by(
        &self,
        key: &ObjectKey,
        nonce: &str,
    ) -> Result<Option<Described>, BucketError> {
        let found = self.look(key).await?;
        Ok(found.filter(|found| found.writer.as_deref() == Some(nonce)))
    }
}

/// What a service says of one object under a known key.
struct Described {
    size: u64,
    generation: StorageGeneration,
    md5: Option<[u8; 16]>,
    updated: jiff::Timestamp,
    /// The nonce of the attempt that wrote it.
    writer: Option<String>,
}

impl Described {
    fn stored(self, key: &ObjectKey) -> StoredObject {
        StoredObject {
            key: key.to_string(),
            size: self.size,
            generation: self.generation,
            crc32c: None,
            md5: self.md5,
            updated: self.updated,
        }
    }
}

/// How often the library asks again for credentials: where no machine answers
/// at the address of the cloud's own metadata, nobody will.
fn credential_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 2,
        retry_timeout: Duration::from_secs(15),
    }
}

#[async_trait]
impl Service for EntityTagBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    fn http(&self) -> &HttpClient {
        &self.http
    }

    async fn authorize(&self, call: &Call) -> Result<reqwest::RequestBuilder, BucketError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| BucketError::NoCredential {
            bucket: self.location.to_string(),
            source,
        };
        let body = call.body.clone().unwrap_or_default();
        let mut request = HttpRequest::new(HttpRequestBody::from(body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() =
            (call.url.as_str().parse()).map_err(|error| failed(Box::new(error)))?;
        *request.headers_mut() = call.headers.clone();
        (self.dialect.authorize(&mut request).await).map_err(|error| failed(Box::new(error)))?;
        let (parts, _) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| failed(Box::new(error)))?;
        let request = self.http.request(parts.method, url).headers(parts.headers);
        Ok(match call.body {
            Some(_) => request.body(body),
            None => request,
        })
    }

    fn identity(&self) -> String {
        self.dialect.identity()
    }

    fn words(&self, body: &[u8]) -> Option<String> {
        let error = dialect::ErrorBody::parse(body)?;
        Some(match error.message.lines().next() {
            Some(message) if !message.is_empty() => format!("{} ({message})", error.code),
            _ => error.code,
        })
    }

    fn is_transient(&self, answer: &Answer) -> bool {
        self.dialect.is_transient(answer)
    }
}

#[async_trait]
impl Reading for EntityTagBucket {
    fn permissions(&self) -> Permissions {
        self.dialect.permissions()
    }

    fn object_url(&self, key: &ObjectKey) -> Url {
        self.dialect.object_url(key)
    }

    fn list_url(&self, prefix: &str, marker: Option<&str>) -> Url {
        self.dialect.list_url(prefix, marker)
    }

    fn parse_page(&self, body: &[u8]) -> Result<Page, &'static str> {
        let page = self.dialect.parse_page(body);
        let page = page.ok_or("a listing that cannot be read")?;
        let objects = page.objects.into_iter().map(|object| self.listed(object));
        Ok(Page {
            objects: objects.collect(),
            next: page.next,
        })
    }

    fn is_bucket_missing(&self, body: &[u8]) -> bool {
        self.dialect.is_bucket_missing(body)
    }

    /// What was written in parts, or under a key of one's own, has no MD5.
    async fn describe(
        &self,
        key: &ObjectKey,
        call: &Call,
        answer: &Answer,
    ) -> Result<Option<StoredObject>, BucketError> {
        let described = self.described(call, answer, answer.body.len() as u64)?;
        Ok(Some(described.stored(key)))
    }
}

#[async_trait]
impl Bucket for EntityTagBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        self.list_all(prefix).await
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        self.read_verified(key).await
    }

    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        let condition = match condition {
            WriteCondition::Absent => (IF_NONE_MATCH, HeaderValue::from_static("*")),
            WriteCondition::Unchanged(seen) => {
                let tag = self
                    .tags
                    .find(seen)
                    .ok_or_else(|| self.condition_failed(key))?;
                (IF_MATCH, tag)
            }
        };
        let nonce = nonce();
        let checksums = Checksums::of(&bytes);
        let call = self.put(key, &bytes, &checksums, &nonce, condition);
        let answer = self.send(&call).await?;
        let described = match answer.status {
            StatusCode::OK | StatusCode::CREATED => {
                self.described(&call, &answer, checksums.size)?
            }
            status if self.dialect.is_condition_failed(status, &answer.body) => {
                let ours = match answer.repeated {
                    true => self.written_by(key, &nonce).await?,
                    false => None,
                };
                ours.ok_or_else(|| self.condition_failed(key))?
            }
            _ => return Err(self.refuse(&call, &answer)),
        };
        let object = described.stored(key);
        if checksums.matches(&object) {
            Ok(object)
        } else {
            // The service has checked the MD5 that came with the bytes.
            Err(BucketError::NoChecksums {
                bucket: self.location.to_string(),
            })
        }
    }

    /// The tag is compared right before, since some servers of the protocol do
    /// not know a delete's condition; to the others it is sent as well.
    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        match self.look(key).await? {
            None => return Ok(()),
            Some(now) if now.generation != generation => return Err(self.condition_failed(key)),
            Some(_) => {}
        }
        let mut call = self.removal(key);
        let tag = self
            .tags
            .find(generation)
            .ok_or_else(|| self.condition_failed(key))?;
        call.headers.insert(IF_MATCH, tag);
        let mut answer = self.send(&call).await?;
        if answer.status == StatusCode::NOT_IMPLEMENTED {
            call.headers.remove(IF_MATCH);
            answer = self.send(&call).await?;
        }
        match answer.status {
            StatusCode::OK
            | StatusCode::ACCEPTED
            | StatusCode::NO_CONTENT
            | StatusCode::NOT_FOUND => Ok(()),
            status if self.dialect.is_condition_failed(status, &answer.body) => {
                Err(self.condition_failed(key))
            }
            _ => Err(self.refuse(&call, &answer)),
        }
    }

    fn tells_writes_apart(&self) -> bool {
        self.dialect.tags_writes()
    }

    /// Tries each condition that is relied on with an object of its own: a write of what is there,
    /// a write and a delete of what has another tag.
    async fn deletes_only_what_was_seen(&self, key: &ObjectKey) -> Result<bool, BucketError> {
        if self.dialect.holds_to_conditions() {
            return Ok(true);
        }
        let Ok(other) = HeaderValue::try_from(format!("\"{}\"", nonce())) else {
            return Ok(false);
        };
        let bytes = Bytes::from(nonce());
        let checksums = Checksums::of(&bytes);
        let written = self
            .write(key, bytes.clone(), WriteCondition::Absent)
            .await?;
        let put = |condition| self.put(key, &bytes, &checksums, &nonce(), condition);
        let mut removal = self.removal(key);
        removal.headers.insert(IF_MATCH, other.clone());
        let mut holds = true;
        for call in [
            put((IF_NONE_MATCH, HeaderValue::from_static("*"))),
            put((IF_MATCH, other)),
            removal,
        ] {
            let answer = self.send(&call).await?;
            holds &= self
                .dialect
                .is_condition_failed(answer.status, &answer.body);
        }
        self.delete(key, written.generation).await?;
        Ok(holds)
    }
}

/// Shared by both dialects: the `PREFIX_*` of the process for a builder of the library.
fn settings<'v>(
    variables: &'v [(String, String)],
    prefix: &'static str,
) -> impl Iterator<Item = (String, &'v str)> {
    (variables.iter())
        .filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
}

/// The dialects share their provider of credentials with every call.
type Shared<T> = Arc<dyn object_store::CredentialProvider<Credential = T>>;
