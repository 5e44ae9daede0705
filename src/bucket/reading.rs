//! Listing and reading, alike for every service: all pages are followed, and bytes are given
//! out only if they have the checksums that the service keeps of them.

use async_trait::async_trait;
use http::{Method, StatusCode};
use url::Url;

use super::exchange::{Answer, Call, OBJECT_LIMIT, Permissions, Service};
use super::{BucketError, Checksums, Listing, ObjectKey, ReadObject, StoredObject};

/// How often a body that does not have its promised checksum is read again.
const READ_AGAIN: u32 = 2;

/// One page of a listing.
pub(super) struct Page {
    pub(super) objects: Vec<StoredObject>,
    /// What the next page's request must name.
    pub(super) next: Option<String>,
}

/// How a service is asked for its objects, and how it answers.
#[async_trait]
pub(super) trait Reading: Service {
    fn permissions(&self) -> Permissions;

    fn object_url(&self, key: &ObjectKey) -> Url;

    fn list_url(&self, prefix: &str, marker: Option<&str>) -> Url;

    /// Fails with what is not as documented, in words.
    fn parse_page(&self, body: &[u8]) -> Result<Page, &'static str>;

    /// Whether a 404 means the whole bucket.
    fn is_bucket_missing(&self, body: &[u8]) -> bool;

    /// What the answer with an object's bytes says of it; nothing if it was replaced meanwhile.
    async fn describe(
        &self,
        key: &ObjectKey,
        call: &Call,
        answer: &Answer,
    ) -> Result<Option<StoredObject>, BucketError>;

    /// All objects whose key starts with `prefix`.
    async fn list_all(&self, prefix: &str) -> Result<Listing, BucketError> {
        let mut objects = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let url = self.list_url(prefix, marker.as_deref());
            let permission = self.permissions().list;
            let call = Call::new(Method::GET, url, permission, format!("listing {prefix}"));
            let answer = self.send(&call).await?;
            if answer.status != StatusCode::OK {
                return Err(self.refuse(&call, &answer));
            }
            let page = self.parse_page(&answer.body);
            let page = page.map_err(|problem| self.malformed(&call, problem))?;
            objects.extend(page.objects);
            match page.next {
                Some(next) if marker.as_ref() == Some(&next) => {
                    return Err(self.malformed(&call, "the same page twice"));
                }
                Some(next) => marker = Some(next),
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

    /// One object with its bytes; `None` if the key does not exist.
    async fn read_verified(&self, key: &ObjectKey) -> Result<Option<ReadObject>, BucketError> {
        let url = self.object_url(key);
        let permission = self.permissions().read;
        let mut call = Call::new(Method::GET, url, permission, format!("reading {key}"));
        call.limit = OBJECT_LIMIT;
        for _ in 0..=READ_AGAIN {
            let answer = self.send(&call).await?;
            match answer.status {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND if self.is_bucket_missing(&answer.body) => {
                    return Err(self.refuse(&call, &answer));
                }
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(self.refuse(&call, &answer)),
            }
            let Some(object) = self.describe(key, &call, &answer).await? else {
                continue;
            };
            if Checksums::of(&answer.body).allow(&object) {
                let server_time = self.time_of(&call, &answer)?;
                return Ok(Some(ReadObject {
                    object,
                    bytes: answer.body,
                    server_time,
                }));
            }
        }
        Err(self.damaged(key))
    }
}
