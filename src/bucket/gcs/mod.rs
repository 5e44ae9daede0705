//! Google Cloud Storage through its JSON API. The XML API, which general
//! libraries speak, has no precondition on deletes and no checksums in
//! listings; both are what ownership rests on.

mod endpoint;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod wire;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LAST_MODIFIED};
use http::{Method, StatusCode};
use url::Url;

pub use self::endpoint::Endpoint;
use self::wire::{ListPage, OBJECT_FIELDS, ObjectResource};
use super::checksums::{encode_crc32c, encode_md5};
use super::exchange::{self, Answer, Call, Permissions, Service};
use super::reading::{Page, Reading};
use super::{
    Bucket, BucketError, BucketLocation, Checksums, Listing, ObjectKey, ReadObject,
    StorageGeneration, StoredObject, WriteCondition, nonce,
};
use crate::credentials::TokenSource;
use crate::http::HttpClient;

const PERMISSIONS: Permissions = Permissions {
    list: "storage.objects.list",
    read: "storage.objects.get",
    write: "storage.objects.create",
    delete: "storage.objects.delete",
};

const MALFORMED_OBJECT: &str = "an object with a malformed number or checksum";

/// A bucket of Google Cloud Storage.
///
/// Every write carries `ifGenerationMatch`, both checksums, and a nonce in the
/// object's metadata by which a repeated write knows its own earlier attempt.
pub struct GcsBucket {
    name: String,
    location: BucketLocation,
    endpoint: Endpoint,
    http: HttpClient,
    tokens: Option<Arc<dyn TokenSource>>,
}

impl GcsBucket {
    /// Makes no request.
    pub fn new(
        name: &str,
        endpoint: Endpoint,
        http: HttpClient,
        tokens: Option<Arc<dyn TokenSource>>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            location: BucketLocation::GoogleCloudStorage {
                name: name.to_owned(),
            },
            tokens: tokens.filter(|_| !endpoint.is_emulator()),
            endpoint,
            http,
        }
    }

    /// Where an object is described, not its bytes.
    fn resource_url(&self, key: &ObjectKey) -> Url {
        let key = exchange::escape(key.as_str(), b"");
        self.endpoint
            .url(&format!("/storage/v1/b/{}/o/{key}", self.name))
    }

    fn parse_object(&self, call: &Call, body: &[u8]) -> Result<ObjectResource, BucketError> {
        serde_json::from_slice(body)
            .map_err(|_| self.malformed(call, "a description of an object that cannot be read"))
    }

    fn stored(&self, call: &Call, resource: ObjectResource) -> Result<StoredObject, BucketError> {
        resource
            .into_stored()
            .ok_or_else(|| self.malformed(call, MALFORMED_OBJECT))
    }

    /// What the bucket says of an object, without its bytes; also which attempt wrote it.
    async fn metadata(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<(StoredObject, Option<String>)>, BucketError> {
        let mut url = self.resource_url(key);
        url.query_pairs_mut().append_pair("fields", OBJECT_FIELDS);
        let what = format!("reading the metadata of {key}");
        let call = Call::new(Method::GET, url, PERMISSIONS.read, what);
        let answer = self.send(&call).await?;
        match answer.status {
            StatusCode::OK => {
                let resource = self.parse_object(&call, &answer.body)?;
                let nonce = resource.nonce().map(str::to_owned);
                Ok(Some((self.stored(&call, resource)?, nonce)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refuse(&call, &answer)),
        }
    }

    /// Whether a failed condition was our own earlier attempt: the object then carries our nonce.
    async fn written_by(
        &self,
        key: &ObjectKey,
        nonce: &str,
    ) -> Result<Option<StoredObject>, BucketError> {
        let found = self.metadata(key).await?;
        Ok(found
            .filter(|(_, writer)| writer.as_deref() == Some(nonce))
            .map(|(object, _)| object))
    }

    fn upload(
        &self,
        key: &ObjectKey,
        bytes: &Bytes,
        checksums: &Checksums,
        nonce: &str,
        condition: WriteCondition,
    ) -> Call {
        let generation = match condition {
            WriteCondition::Absent => 0,
            WriteCondition::Unchanged(StorageGeneration(generation)) => generation,
        };
        let mut url = self
            .endpoint
            .url(&format!("/upload/storage/v1/b/{}/o", self.name));
        url.query_pairs_mut()
            .append_pair("uploadType", "multipart")
            .append_pair("ifGenerationMatch", &generation.to_string())
            .append_pair("fields", OBJECT_FIELDS);
        let content_type = key.content_type();
        let resource = serde_json::json!({
            "name": key.as_str(),
            "contentType": content_type,
            "crc32c": encode_crc32c(checksums),
            "md5Hash": encode_md5(checksums),
            "metadata": { wire::NONCE: nonce },
        });
        let head = format!(
            "--{nonce}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{resource}\r\n\
             --{nonce}\r\nContent-Type: {content_type}\r\n\r\n"
        );
        let tail = format!("\r\n--{nonce}--\r\n");
        let body = [head.as_bytes(), bytes, tail.as_bytes()].concat();
        let content_type = HeaderValue::try_from(format!("multipart/related; boundary={nonce}"));
        let content_type = content_type.map(|value| (CONTENT_TYPE, value));
        Call {
            headers: content_type.into_iter().collect(),
            body: Some(Bytes::from(body)),
            ..Call::new(
                Method::POST,
                url,
                PERMISSIONS.write,
                format!("writing {key}"),
            )
        }
    }
}

impl fmt::Display for GcsBucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.location.fmt(formatter)
    }
}

#[async_trait]
impl Service for GcsBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    fn http(&self) -> &HttpClient {
        &self.http
    }

    async fn authorize(&self, call: &Call) -> Result<reqwest::RequestBuilder, BucketError> {
        let mut request = self.http.request(call.method.clone(), call.url.clone());
        if let Some(tokens) = &self.tokens
            && let Some(token) = tokens.token().await?
        {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        if let Some(bytes) = &call.body {
            request = request.body(bytes.clone());
        }
        Ok(request.headers(call.headers.clone()))
    }

    async fn renew(&self) -> bool {
        match &self.tokens {
            Some(tokens) => {
                tokens.invalidate().await;
                true
            }
            None => false,
        }
    }

    fn identity(&self) -> String {
        let identity = self.tokens.as_ref().map(|tokens| tokens.describe());
        identity.unwrap_or_else(|| "an anonymous caller (no credentials)".to_owned())
    }

    fn words(&self, body: &[u8]) -> Option<String> {
        wire::message(body)
    }

    fn denied_permission(&self, body: &[u8]) -> Option<&'static str> {
        wire::denied_permission(body)
    }
}

#[async_trait]
impl Reading for GcsBucket {
    fn permissions(&self) -> Permissions {
        PERMISSIONS
    }

    fn object_url(&self, key: &ObjectKey) -> Url {
        let mut url = self.resource_url(key);
        url.query_pairs_mut().append_pair("alt", "media");
        url
    }

    fn list_url(&self, prefix: &str, marker: Option<&str>) -> Url {
        let mut url = self.endpoint.url(&format!("/storage/v1/b/{}/o", self.name));
        url.query_pairs_mut()
            .append_pair("prefix", prefix)
            .append_pair("maxResults", "1000")
            .append_pair("fields", &format!("items({OBJECT_FIELDS}),nextPageToken"))
            .extend_pairs(marker.map(|token| ("pageToken", token)));
        url
    }

    fn parse_page(&self, body: &[u8]) -> Result<Page, &'static str> {
        let page: ListPage =
            serde_json::from_slice(body).map_err(|_| "a listing that cannot be read")?;
        let objects = page.items.into_iter().map(ObjectResource::into_stored);
        Ok(Page {
            objects: objects.collect::<Option<_>>().ok_or(MALFORMED_OBJECT)?,
            next: page.next_page_token,
        })
    }

    /// A missing bucket is told apart only by these words; a listing says it clearly.
    fn is_bucket_missing(&self, body: &[u8]) -> bool {
        String::from_utf8_lossy(body).contains("bucket does not exist")
    }

    async fn describe(
        &self,
        key: &ObjectKey,
        call: &Call,
        answer: &Answer,
    ) -> Result<Option<StoredObject>, BucketError> {
        let size = answer.body.len() as u64;
        let object = wire::object_of_headers(key.as_str(), &answer.headers, size)
            .filter(|object| object.crc32c.is_some() || object.md5.is_some())
            .ok_or_else(|| self.malformed(call, "an object without its checksum"))?;
        if answer.headers.get(LAST_MODIFIED).is_some() {
            return Ok(Some(object));
        }
        let now = self.metadata(key).await?.map(|(now, _)| now);
        Ok(now.filter(|now| now.generation == object.generation))
    }
}

#[async_trait]
impl Bucket for GcsBucket {
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
        let nonce = nonce();
        let checksums = Checksums::of(&bytes);
        let call = self.upload(key, &bytes, &checksums, &nonce, condition);
        let answer = self.send(&call).await?;
        let object = match answer.status {
            StatusCode::OK | StatusCode::CREATED => {
                self.stored(&call, self.parse_object(&call, &answer.body)?)?
            }
            StatusCode::PRECONDITION_FAILED if answer.repeated => self
                .written_by(key, &nonce)
                .await?
                .ok_or_else(|| self.condition_failed(key))?,
            StatusCode::PRECONDITION_FAILED => return Err(self.condition_failed(key)),
            _ => return Err(self.refuse(&call, &answer)),
        };
        if checksums.matches(&object) {
            Ok(object)
        } else {
            Err(self.damaged(key))
        }
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        let mut url = self.resource_url(key);
        url.query_pairs_mut()
            .append_pair("ifGenerationMatch", &generation.0.to_string());
        let what = format!("deleting {key}");
        let call = Call::new(Method::DELETE, url, PERMISSIONS.delete, what);
        let answer = self.send(&call).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            StatusCode::PRECONDITION_FAILED => Err(self.condition_failed(key)),
            _ => Err(self.refuse(&call, &answer)),
        }
    }
}
