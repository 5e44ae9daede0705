//! One cache of the list: how it is reached, how long it is waited for, whom it is believed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay_store::{Digesting, ObjectInfo, RecipeKey};
use tokio::sync::OnceCell;

use super::entry::{Entry, EntryError, MAX_ENTRY};
use super::key::{Domain, TrustedKey};
use super::location::CacheLocation;
use super::part::{stamped, without_stamp};
use super::patience::{Patience, Waits};
use crate::bucket::{Bucket, BucketError, ObjectKey, ReadObject, StoredObject, WriteCondition};
use crate::http::TlsProblem;

/// Opens a cache's bucket when it is first needed. What goes wrong is told in words.
pub type OpenBucket = Arc<dyn Fn(&CacheLocation) -> Result<Arc<dyn Bucket>, String> + Send + Sync>;

/// Why something could not be had from a cache, or brought to it.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The bucket could not even be opened.
    #[error("{0}")]
    Open(String),
    /// It did not answer in time.
    #[error("there was no answer within {} seconds", .0.as_secs_f32())]
    Slow(Duration),
    /// It answers, but so slowly that the run has waited enough.
    #[error("this run has waited for it for {} seconds", .0.as_secs_f32())]
    Wearisome(Duration),
    /// It failed before in this run.
    #[error("it failed before")]
    Off,
    /// A key that cannot be.
    #[error(transparent)]
    Key(#[from] crate::bucket::InvalidKey),
    /// It cannot be collected while others write.
    #[error(
        "{0} cannot be told to spare what somebody has just written again, so that nothing can be deleted there while others write"
    )]
    Unconditional(Box<CacheLocation>),
    /// The store.
    #[error(transparent)]
    Store(#[from] forebay_store::StoreError),
    /// A temporary file.
    #[error("cannot write a temporary file")]
    Io(#[from] std::io::Error),
}

/// A cache that is read, and perhaps written.
pub(super) struct Remote {
    pub(super) location: CacheLocation,
    pub(super) trusted: Vec<TrustedKey>,
    is_unsigned: bool,
    pub(super) patience: Patience,
    open: OpenBucket,
    bucket: OnceCell<Arc<dyn Bucket>>,
    waits: Waits,
    /// Set at the first failure.
    off: AtomicBool,
    /// Requests so far.
    pub(super) requests: AtomicU64,
    /// What was wrong, for the one warning at the end.
    pub(super) complaints: Mutex<Vec<String>>,
}

impl Remote {
    /// Opens nothing yet.
    pub(super) fn new(
        location: &CacheLocation,
        trusted: Vec<TrustedKey>,
        is_unsigned: bool,
        patience: Patience,
        open: &OpenBucket,
    ) -> Self {
        Self {
            location: location.clone(),
            trusted,
            is_unsigned,
            patience,
            open: OpenBucket::clone(open),
            bucket: OnceCell::new(),
            waits: Waits::default(),
            off: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            complaints: Mutex::default(),
        }
    }

    /// The domains that are read, in the order of the keys.
    pub(super) fn domains(&self) -> Vec<Domain> {
        let mut domains: Vec<Domain> = Vec::new();
        let signed = self.trusted.iter().map(|key| key.domain.clone());
        for domain in signed.chain(self.is_unsigned.then(Domain::unsigned)) {
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        domains
    }

    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    pub(super) fn complain(&self, what: String) {
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !complaints.contains(&what) {
            complaints.push(what);
        }
    }

    /// One request, for at most `limit`. If it fails, this cache is not asked again in this
    /// run: a build must not wait once for every object.
    pub(super) async fn ask<T>(
        &self,
        limit: Duration,
        request: impl AsyncFnOnce(Arc<dyn Bucket>) -> Result<T, BucketError>,
    ) -> Result<T, CacheError> {
        if self.is_off() {
            return Err(CacheError::Off);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let asked = async {
            let bucket = self.bucket().await?;
            Ok(request(Arc::clone(bucket)).await?)
        };
        let left = self.waits.begin(&self.patience);
        let answer = match tokio::time::timeout(limit.min(left), asked).await {
            Ok(answer) => answer,
            Err(_) if left < limit => Err(CacheError::Wearisome(self.patience.run)),
            Err(_) => Err(CacheError::Slow(limit)),
        };
        self.waits.end();
        match &answer {
            Ok(_)
            | Err(CacheError::Bucket(
                BucketError::ConditionFailed { .. } | BucketError::Damaged { .. },
            )) => {}
            Err(error) => self.switch_off(error),
        }
        answer
    }

    async fn bucket(&self) -> Result<&Arc<dyn Bucket>, CacheError> {
        let open = || async { (self.open)(&self.location) };
        let bucket = self.bucket.get_or_try_init(open).await;
        bucket.map_err(CacheError::Open)
    }

    fn switch_off(&self, error: &CacheError) {
        if !self.off.swap(true, Ordering::Relaxed) {
            self.complain(format!("it is left alone: {}", describe(error)));
        }
    }

    pub(super) async fn read(&self, key: ObjectKey) -> Result<Option<ReadObject>, CacheError> {
        let limit = self.patience.answer;
        let read = self
            .ask(limit, async |bucket| bucket.read(&key).await)
            .await?;
        let carried = read.as_ref().map_or(0, |read| read.bytes.len());
        self.waits.carried(carried);
        Ok(read)
    }

    /// The entry of a recipe in a domain, if it counts. What does not is named in the warning.
    pub(super) async fn entry(&self, domain: &Domain, key: &RecipeKey) -> Option<Entry> {
        let place = self.location.entry(domain, key).ok()?;
        let read = match self.read(place.clone()).await {
            Ok(read) => read?,
            Err(CacheError::Bucket(error)) if !self.is_off() => {
                self.complain(error.to_string());
                return None;
            }
            Err(_) => return None,
        };
        let decoded = match read.bytes.len() {
            0..=MAX_ENTRY => Entry::decode(&read.bytes, key, domain, &self.trusted),
            _ => Err(EntryError::Damaged("it is too large")),
        };
        match decoded {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.complain(format!("the entry {place} does not count: {error}"));
                None
            }
        }
    }

    /// An object's bytes in a temporary file, verified; none if a part is missing or damaged.
    pub(super) async fn object(
        &self,
        info: &ObjectInfo,
        folder: &std::path::Path,
    ) -> Result<Option<std::fs::File>, CacheError> {
        let mut file = tempfile::tempfile_in(folder)?;
        let mut digesting = Digesting::new();
        for (number, size) in CacheLocation::parts(info.size).enumerate() {
            let key = self.location.part(&info.digest, number as u64)?;
            let limit = self.patience.part;
            let read = match self
                .ask(limit, async |bucket| bucket.read(&key).await)
                .await
            {
                Ok(Some(read)) => read.bytes,
                Ok(None) | Err(CacheError::Bucket(BucketError::Damaged { .. })) => return Ok(None),
                Err(error) => return Err(error),
            };
            self.waits.carried(read.len());
            let Some(bytes) = without_stamp(read, size) else {
                return Ok(None);
            };
            digesting.update(&bytes);
            file.write_all(&bytes)?;
        }
        if ObjectInfo::from(digesting) != *info {
            return Ok(None);
        }
        std::io::Seek::rewind(&mut file)?;
        Ok(Some(file))
    }

    /// What lies there under a prefix, by key.
    pub(super) async fn list(
        &self,
        prefix: &str,
    ) -> Result<BTreeMap<String, StoredObject>, CacheError> {
        let limit = self.patience.part;
        let listing = self
            .ask(limit, async |bucket| bucket.list(prefix).await)
            .await?;
        let objects = listing.objects.into_iter();
        Ok(objects.map(|object| (object.key.clone(), object)).collect())
    }

    /// Whether parts end with a stamp there.
    pub(super) async fn stamps_parts(&self) -> Result<bool, CacheError> {
        Ok(!self.bucket().await?.tells_writes_apart())
    }

    /// Writes a part whatever is there; false if somebody else wrote it at the same moment.
    pub(super) async fn replace_part(
        &self,
        key: &ObjectKey,
        bytes: Vec<u8>,
        seen: Option<&StoredObject>,
    ) -> Result<bool, CacheError> {
        let bytes = match self.stamps_parts().await? {
            true => stamped(&bytes),
            false => Bytes::from(bytes),
        };
        self.replace(key, bytes, seen).await
    }

    /// Writes a key whatever is there; false if somebody else wrote it at the same moment.
    pub(super) async fn replace(
        &self,
        key: &ObjectKey,
        bytes: Bytes,
        seen: Option<&StoredObject>,
    ) -> Result<bool, CacheError> {
        let condition = match seen {
            Some(seen) => WriteCondition::Unchanged(seen.generation),
            None => WriteCondition::Absent,
        };
        let limit = self.patience.part;
        self.waits.carried(bytes.len());
        let written = self
            .ask(limit, async |bucket| {
                bucket.write(key, bytes, condition).await
            })
            .await;
        match written {
            Ok(_) => Ok(true),
            Err(CacheError::Bucket(BucketError::ConditionFailed { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Remote({})", self.location)
    }
}

/// An error with its causes, in one line.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    // What a TLS library says of a certificate helps nobody.
    if let Some(problem) = TlsProblem::among(error) {
        return format!("{text}: {problem}");
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
