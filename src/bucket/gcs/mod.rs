//! Google Cloud Storage through its JSON API. The XML API, which general
//! libraries speak, has no precondition on deletes and no checksums in
//! listings; both are what ownership rests on.

mod endpoint;
mod wire;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LAST_MODIFIED};
use http::{Method, StatusCode};
use url::Url;

pub use self::endpoint::Endpoint;
use self::wire::{ListPage, OBJECT_FIELDS, ObjectResource};
use super::checksums::{encode_crc32c, encode_md5};
use super::exchange::{self, Call, OBJECT_LIMIT, PAGE_LIMIT, Service};
use super::{
    Bucket, BucketError, BucketLocation, Checksums, Listing, ObjectKey, ReadObject,
    StorageGeneration, StoredObject, WriteCondition, nonce,
};
use crate::credentials::TokenSource;
use crate::http::HttpClient;

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
    /// How often a body that does not have its promised checksum is read again.
    const READ_AGAIN: u32 = 2;

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

    fn objects_url(&self) -> Url {
        self.endpoint.url(&format!("/storage/v1/b/{}/o", self.name))
    }

    fn object_url(&self, key: &ObjectKey) -> Url {
        let key = exchange::escape(key.as_str(), b"");
        self.endpoint
            .url(&format!("/storage/v1/b/{}/o/{key}", self.name))
    }

    fn condition_failed(&self, key: &ObjectKey) -> BucketError {
        BucketError::ConditionFailed {
            bucket: self.to_string(),
            key: key.to_string(),
        }
    }

    fn parse_object(&self, call: &Call, body: &[u8]) -> Result<ObjectResource, BucketError> {
        serde_json::from_slice(body)
            .map_err(|_| self.malformed(call, "a description of an object that cannot be read"))
    }

    fn stored(&self, call: &Call, resource: ObjectResource) -> Result<StoredObject, BucketError> {
        resource
            .into_stored()
            .ok_or_else(|| self.malformed(call, "an object with a malformed number or checksum"))
    }

    /// What the bucket says of an object, without its bytes; also which attempt wrote it.
    async fn metadata(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<(StoredObject, Option<String>)>, BucketError> {
        let mut url = self.object_url(key);
        url.query_pairs_mut().append_pair("fields", OBJECT_FIELDS);
        let call = Call {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            limit: PAGE_LIMIT,
            permission: "storage.objects.get",
            what: format!("reading the metadata of {key}"),
        };
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
            method: Method::POST,
            url,
            headers: content_type.into_iter().collect(),
            body: Some(Bytes::from(body)),
            limit: PAGE_LIMIT,
            permission: "storage.objects.create",
            what: format!("writing {key}"),
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
        identity.unwrap_or_else(|| "nobody (no credentials)".to_owned())
    }

    fn words(&self, body: &[u8]) -> Option<String> {
        wire::message(body)
    }

    fn denied_permission(&self, body: &[u8]) -> Option<&'static str> {
        wire::denied_permission(body)
    }
}

#[async_trait]
impl Bucket for GcsBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        let mut objects = Vec::new();
        let mut page_token: Option<String> = None;
        loop {
            let mut url = self.objects_url();
            url.query_pairs_mut()
                .append_pair("prefix", prefix)
                .append_pair("maxResults", "1000")
                .append_pair("fields", &format!("items({OBJECT_FIELDS}),nextPageToken"));
            if let Some(token) = &page_token {
                url.query_pairs_mut().append_pair("pageToken", token);
            }
            let call = Call {
                method: Method::GET,
                url,
                headers: HeaderMap::new(),
                body: None,
                limit: PAGE_LIMIT,
                permission: "storage.objects.list",
                what: format!("listing {prefix}"),
            };
            let answer = self.send(&call).await?;
            if answer.status != StatusCode::OK {
                return Err(self.refuse(&call, &answer));
            }
            let page: ListPage = serde_json::from_slice(&answer.body)
                .map_err(|_| self.malformed(&call, "a listing that cannot be read"))?;
            for resource in page.items {
                objects.push(self.stored(&call, resource)?);
            }
            match page.next_page_token {
                Some(token) if page_token.as_ref() == Some(&token) => {
                    return Err(self.malformed(&call, "the same page twice"));
                }
                Some(token) => page_token = Some(token),
                None => {
                    objects.sort_by(|one, other| one.key.cmp(&other.key));
                    let server_time = self.time_of(&call, &answer)?;
                    return Ok(Listing {
                        objects,
                        server_time,
                    });
                }
            }
        }
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        let mut url = self.object_url(key);
        url.query_pairs_mut().append_pair("alt", "media");
        let call = Call {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: None,
            limit: OBJECT_LIMIT,
            permission: "storage.objects.get",
            what: format!("reading {key}"),
        };
        for _ in 0..=Self::READ_AGAIN {
            let answer = self.send(&call).await?;
            match answer.status {
                StatusCode::OK => {}
                // A missing bucket is told apart only by these words; a listing says it clearly.
                StatusCode::NOT_FOUND if mentions_bucket(&answer.body) => {
                    return Err(self.refuse(&call, &answer));
                }
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.refuse(&call, &answer)),
            }
            let size = answer.body.len() as u64;
            let mut object = wire::object_of_headers(key.as_str(), &answer.headers, size)
                .filter(|object| object.crc32c.is_some() || object.md5.is_some())
                .ok_or_else(|| self.malformed(&call, "an object without its checksum"))?;
            if answer.headers.get(LAST_MODIFIED).is_none() {
                match self.metadata(key).await? {
                    Some((now, _)) if now.generation == object.generation => object = now,
                    // It was replaced between the two requests.
                    _ => continue,
                }
            }
            let checksums = Checksums::of(&answer.body);
            if object.crc32c.is_none_or(|crc| crc == checksums.crc32c)
                && object.md5.is_none_or(|md5| md5 == checksums.md5)
            {
                let server_time = self.time_of(&call, &answer)?;
                return Ok(Some(ReadObject {
                    object,
                    bytes: answer.body,
                    server_time,
                }));
            }
        }
        Err(BucketError::Damaged {
            bucket: self.to_string(),
            key: key.to_string(),
        })
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
            Err(BucketError::Damaged {
                bucket: self.to_string(),
                key: key.to_string(),
            })
        }
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        let mut url = self.object_url(key);
        url.query_pairs_mut()
            .append_pair("ifGenerationMatch", &generation.0.to_string());
        let call = Call {
            method: Method::DELETE,
            url,
            headers: HeaderMap::new(),
            body: None,
            limit: PAGE_LIMIT,
            permission: "storage.objects.delete",
            what: format!("deleting {key}"),
        };
        let answer = self.send(&call).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            StatusCode::PRECONDITION_FAILED => Err(self.condition_failed(key)),
            _ => Err(self.refuse(&call, &answer)),
        }
    }
}

fn mentions_bucket(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).contains("bucket does not exist")
}
