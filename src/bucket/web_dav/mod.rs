//! A folder of a WebDAV server (RFC 4918) as a bucket.
//!
//! Such servers differ in what they hold to. Conditions (`If-Match`, `If-None-Match`, RFC
//! 9110) are sent with every write and delete, and many servers ignore them; whoever depends on
//! them asks [`Bucket::deletes_only_what_was_seen`] first. No checksum is kept, so that readers must
//! know what they want. A tag may be made of a time in whole seconds: of two writes within one
//! second the second may not show.

mod listing;

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::Mutex;
use url::Url;

use self::listing::{Resource, parse_listing};
use super::exchange::{Answer, Call, OBJECT_LIMIT, Service, escape, parse_http_date};
use super::tags::{Tags, generation_of};
use super::{
    Bucket, BucketError, BucketLocation, Listing, ObjectKey, ReadObject, StorageGeneration,
    StoredObject, WriteCondition, nonce,
};
use crate::credentials::{Login, LoginKind};
use crate::http::{HttpClient, is_loopback};

/// Folders that are listed at the same time.
const AT_ONCE: usize = 8;
/// How deep folders are looked into: ours have three levels.
const DEEPEST: usize = 8;

/// What is asked of every file of a folder.
const PROPERTIES: &str = r#"<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getcontentlength/><D:getetag/><D:getlastmodified/></D:prop></D:propfind>"#;

/// A folder of a WebDAV server. Folders are made as they are needed.
pub struct WebDavBucket {
    /// Without a slash at its end.
    base: Url,
    location: BucketLocation,
    http: HttpClient,
    login: Option<Login>,
    tags: Tags,
    /// Folders that are known to be there.
    folders: Mutex<BTreeSet<String>>,
}

impl WebDavBucket {
    /// Makes no request.
    ///
    /// # Errors
    /// [`BucketError::Setup`] if a password would be sent in the clear to another machine.
    pub fn new(url: &Url, http: HttpClient, login: Option<Login>) -> Result<Self, BucketError> {
        let location = BucketLocation::WebDav { url: url.clone() };
        if login.is_some() && url.scheme() == "http" && !is_loopback(url) {
            return Err(BucketError::Setup {
                bucket: location.to_string(),
                source: "the password would be sent in the clear: use https://".into(),
            });
        }
        let mut base = url.clone();
        base.set_path(url.path().trim_end_matches('/'));
        Ok(Self {
            base,
            location,
            http,
            login,
            tags: Tags::default(),
            folders: Mutex::default(),
        })
    }

    /// The address of a key, or of a folder, which ends with a slash.
    fn url(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        let path = url.path().trim_end_matches('/');
        let path = format!("{path}/{}", escape(key, b"/"));
        url.set_path(&path);
        url
    }

    fn call(&self, method: Method, key: &str, permission: &'static str, what: String) -> Call {
        Call::new(method, self.url(key), permission, what)
    }

    /// Which write of a file this is: by its tag, or by what else there is.
    fn generation(&self, tag: Option<&str>, size: u64, updated: Timestamp) -> StorageGeneration {
        match tag {
            Some(tag) => self.tags.note(tag),
            None => generation_of(&format!("{size} {updated}")),
        }
    }

    fn stored(&self, key: &str, resource: &Resource, size: u64, now: Timestamp) -> StoredObject {
        let updated = resource.updated.unwrap_or(now);
        StoredObject {
            key: key.to_owned(),
            size,
            generation: self.generation(resource.tag.as_deref(), size, updated),
            crc32c: None,
            md5: None,
            updated,
        }
    }

    /// What an answer's headers say of a file of `size` bytes.
    fn described(
        &self,
        call: &Call,
        answer: &Answer,
        key: &ObjectKey,
        size: u64,
    ) -> Result<StoredObject, BucketError> {
        let now = self.time_of(call, answer)?;
        let text = |name: HeaderName| answer.headers.get(name)?.to_str().ok();
        let resource = Resource {
            updated: text(LAST_MODIFIED).and_then(parse_http_date),
            tag: text(ETAG).map(str::to_owned),
            ..Resource::default()
        };
        Ok(self.stored(key.as_str(), &resource, size, now))
    }

    /// One folder's files and folders, and the server's time; nothing if there is no such folder.
    async fn folder(&self, folder: &str) -> Result<(Vec<Resource>, Timestamp), BucketError> {
        let method = method("PROPFIND");
        let mut call = self.call(method, folder, "PROPFIND", format!("listing {folder}"));
        call.headers.extend([
            (
                HeaderName::from_static("depth"),
                HeaderValue::from_static("1"),
            ),
            (CONTENT_TYPE, HeaderValue::from_static("application/xml")),
        ]);
        call.body = Some(Bytes::from_static(PROPERTIES.as_bytes()));
        let answer = self.send(&call).await?;
        let now = self.time_of(&call, &answer)?;
        match answer.status {
            StatusCode::MULTI_STATUS => {}
            StatusCode::NOT_FOUND => return Ok((Vec::new(), now)),
            _ => return Err(self.refuse(&call, &answer)),
        }
        let resources = parse_listing(&answer.body, &self.base)
            .ok_or_else(|| self.malformed(&call, "a listing that cannot be read"))?;
        // A server names the folder itself too, and must not lead elsewhere.
        let below = |resource: &Resource| {
            resource.path.len() > folder.len() && resource.path.starts_with(folder)
        };
        Ok((resources.into_iter().filter(below).collect(), now))
    }

    async fn put(
        &self,
        key: &ObjectKey,
        bytes: &Bytes,
        condition: Option<(HeaderName, HeaderValue)>,
    ) -> Result<(Call, Answer), BucketError> {
        let what = format!("writing {key}");
        let mut call = self.call(Method::PUT, key.as_str(), "PUT", what);
        call.headers.extend([
            (CONTENT_LENGTH, HeaderValue::from(bytes.len())),
            (CONTENT_TYPE, HeaderValue::from_static(key.content_type())),
        ]);
        call.headers.extend(condition);
        call.body = Some(bytes.clone());
        let mut answer = self.send(&call).await?;
        // A folder is missing; some servers say so in other words than the standard's.
        if matches!(
            answer.status,
            StatusCode::CONFLICT | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN
        ) {
            self.make_folders(key).await?;
            answer = self.send(&call).await?;
        }
        Ok((call, answer))
    }

    /// Makes the folders of a key that are not known to be there, from the top. One write does so
    /// at a time: servers trip over a folder whose parent is being made.
    async fn make_folders(&self, key: &ObjectKey) -> Result<(), BucketError> {
        let mut known = self.folders.lock().await;
        let mut made = false;
        for (end, _) in key.as_str().match_indices('/') {
            let folder = key.as_str().get(..=end).unwrap_or_default();
            if known.contains(folder) {
                continue;
            }
            let (call, mut answer) = self.make_folder(self.url(folder)).await?;
            if answer.status == StatusCode::CONFLICT && !made {
                // The bucket's own folder is not there yet.
                self.make_base().await?;
                answer = self.send(&call).await?;
            }
            match answer.status {
                // It is there; another may have made it at the same moment.
                StatusCode::METHOD_NOT_ALLOWED => {}
                status if status.is_success() || status.is_redirection() => {}
                _ => return Err(self.refuse(&call, &answer)),
            }
            known.insert(folder.to_owned());
            made = true;
        }
        Ok(())
    }

    async fn make_folder(&self, url: Url) -> Result<(Call, Answer), BucketError> {
        let what = format!("making the folder {}", url.path());
        let call = Call::new(method("MKCOL"), url, "MKCOL", what);
        let answer = self.send(&call).await?;
        Ok((call, answer))
    }

    /// Makes the bucket's own folder and those above it; which of them are not ours to make,
    /// shows in what is put there.
    async fn make_base(&self) -> Result<(), BucketError> {
        let path = format!("{}/", self.base.path());
        for (end, _) in path.match_indices('/').skip(1) {
            let mut url = self.base.clone();
            url.set_path(path.get(..=end).unwrap_or_default());
            self.make_folder(url).await?;
        }
        Ok(())
    }

    async fn remove(
        &self,
        key: &ObjectKey,
        tag: HeaderValue,
    ) -> Result<(Call, Answer), BucketError> {
        let what = format!("deleting {key}");
        let mut call = self.call(Method::DELETE, key.as_str(), "DELETE", what);
        call.headers.insert(IF_MATCH, tag);
        let answer = self.send(&call).await?;
        Ok((call, answer))
    }
}

/// A method of WebDAV.
fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).unwrap_or_default()
}

#[async_trait]
impl Service for WebDavBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    fn http(&self) -> &HttpClient {
        &self.http
    }

    async fn authorize(&self, call: &Call) -> Result<reqwest::RequestBuilder, BucketError> {
        let request = self.http.request(call.method.clone(), call.url.clone());
        let request = request.headers(call.headers.clone());
        let request = match self.login.as_ref().map(|login| &login.kind) {
            Some(LoginKind::Password { user, password }) => {
                request.basic_auth(user, Some(password.reveal()))
            }
            _ => request,
        };
        Ok(match &call.body {
            Some(bytes) => request.body(bytes.clone()),
            None => request,
        })
    }

    fn identity(&self) -> String {
        match &self.login {
            Some(login) => login.description.clone(),
            None => format!(
                "nobody (no user for {} in .netrc)",
                self.base.host_str().unwrap_or_default()
            ),
        }
    }

    fn words(&self, _: &[u8]) -> Option<String> {
        None
    }
}

#[async_trait]
impl Bucket for WebDavBucket {
    fn location(&self) -> &BucketLocation {
        &self.location
    }

    /// One request for each folder: few servers list a tree at once.
    async fn list(&self, prefix: &str) -> Result<Listing, BucketError> {
        let start = prefix.rfind('/').map_or("", |end| &prefix[..=end]);
        let mut objects = Vec::new();
        let mut level = vec![start.to_owned()];
        let mut server_time = None;
        for _ in 0..DEEPEST {
            let asked: Vec<_> = level.iter().map(|folder| self.folder(folder)).collect();
            let folders: Vec<_> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
            let mut next = BTreeSet::new();
            for (resources, now) in folders {
                // The oldest answer: what was written since may not be in it.
                server_time.get_or_insert(now);
                for resource in resources {
                    match resource.size {
                        None if resource.path.starts_with(prefix) => {
                            next.insert(resource.path);
                        }
                        Some(size) if resource.path.starts_with(prefix) => {
                            objects.push(self.stored(&resource.path, &resource, size, now));
                        }
                        _ => {}
                    }
                }
            }
            level = next.into_iter().collect();
            if level.is_empty() {
                break;
            }
        }
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Listing {
            objects,
            server_time: server_time.unwrap_or_default(),
        })
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        let mut call = self.call(Method::GET, key.as_str(), "GET", format!("reading {key}"));
        call.limit = OBJECT_LIMIT;
        let answer = self.send(&call).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(self.refuse(&call, &answer)),
        }
        Ok(Some(ReadObject {
            object: self.described(&call, &answer, key, answer.body.len() as u64)?,
            server_time: self.time_of(&call, &answer)?,
            bytes: answer.body,
        }))
    }

    async fn write(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        condition: WriteCondition,
    ) -> Result<StoredObject, BucketError> {
        let condition = match condition {
            WriteCondition::Absent => Some((IF_NONE_MATCH, HeaderValue::from_static("*"))),
            // Where there are no tags, nothing can be compared.
            WriteCondition::Unchanged(seen) => self.tags.find(seen).map(|tag| (IF_MATCH, tag)),
        };
        let (call, answer) = self.put(key, &bytes, condition).await?;
        let size = bytes.len() as u64;
        match answer.status {
            status if status.is_success() && answer.headers.contains_key(ETAG) => {
                self.described(&call, &answer, key, size)
            }
            status if status.is_success() => {
                let call = self.call(
                    Method::HEAD,
                    key.as_str(),
                    "GET",
                    format!("reading the metadata of {key}"),
                );
                let answer = self.send(&call).await?;
                match answer.status {
                    StatusCode::OK => self.described(&call, &answer, key, size),
                    _ => Err(self.condition_failed(key)),
                }
            }
            // Our own earlier attempt has the same bytes.
            StatusCode::PRECONDITION_FAILED if answer.repeated => {
                let found = self.read(key).await?;
                let ours = found.filter(|found| found.bytes == bytes);
                let ours = ours.ok_or_else(|| self.condition_failed(key))?;
                Ok(ours.object)
            }
            StatusCode::PRECONDITION_FAILED => Err(self.condition_failed(key)),
            _ => Err(self.refuse(&call, &answer)),
        }
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        generation: StorageGeneration,
    ) -> Result<(), BucketError> {
        let tag = self.tags.find(generation);
        let tag = tag.ok_or_else(|| self.condition_failed(key))?;
        let (call, answer) = self.remove(key, tag).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            StatusCode::PRECONDITION_FAILED => Err(self.condition_failed(key)),
            _ => Err(self.refuse(&call, &answer)),
        }
    }

    /// Tries each condition that is relied on with an object of its own: one that must fail,
    /// for a write of what is there, for a write and for a delete of what has another tag; and
    /// that listings show the tag.
    async fn deletes_only_what_was_seen(&self, key: &ObjectKey) -> Result<bool, BucketError> {
        let other = || HeaderValue::try_from(format!("\"{}\"", nonce()));
        let Ok((one, two)) = other().and_then(|one| Ok((one, other()?))) else {
            return Ok(false);
        };
        let fails = |answer: &Answer| answer.status == StatusCode::PRECONDITION_FAILED;
        let bytes = Bytes::from(nonce());
        let (call, answer) = self.put(key, &bytes, None).await?;
        if !answer.status.is_success() {
            return Err(self.refuse(&call, &answer));
        }
        let absent = (IF_NONE_MATCH, HeaderValue::from_static("*"));
        let mut holds = fails(&self.put(key, &bytes, Some(absent)).await?.1)
            && fails(&self.put(key, &bytes, Some((IF_MATCH, one))).await?.1)
            && fails(&self.remove(key, two).await?.1);
        let listed = self.list(key.as_str()).await?.objects;
        let listed = listed.iter().find(|object| object.key == key.as_str());
        let read = self.read(key).await?;
        if let (Some(listed), Some(read)) = (listed, read) {
            holds &= listed.generation == read.object.generation;
        } else {
            holds = false;
        }
        let any = HeaderValue::from_static("*");
        let (call, answer) = self.remove(key, any).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(holds),
            status if status.is_success() => Ok(holds),
            _ => Err(self.refuse(&call, &answer)),
        }
    }
}
