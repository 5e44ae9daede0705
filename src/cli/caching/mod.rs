//! The caches that a command reads and writes, and what is said of them at the end.

mod settings;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay_store::Store;

use super::arguments::{AuthenticationArguments, CacheArguments};
use super::login::{auth_method, holder, http_options};
use crate::artifacts::{Build, Target, Workspace};
use crate::bucket::{self, BucketLocation, WebDavBucket};
use crate::cache::{Cache, CacheLocation, OpenBucket, Patience, PushReport};
use crate::credentials::{Login, LoginKind, token_source};
use crate::http::{HttpClient, HttpOptions, RetryPolicy};
use crate::progress::{Event, Phase, Progress};
use crate::ui::{CommandError, bytes, count};

pub(super) use settings::cache_options;
use settings::{LOCATIONS, SIGNING_KEY, SIGNING_KEY_FILE, TRUSTED, patience};

/// The caches of one command, once it knows its environment; none if it names none.
#[derive(Default)]
pub(super) struct Caching {
    opened: OnceLock<OpenedCache>,
}

struct OpenedCache {
    cache: Arc<Cache>,
    store: Arc<Store>,
    progress: Arc<dyn Progress>,
}

impl Caching {
    /// Settles which caches there are. From now on the store looks there for what it lacks.
    pub(super) fn new(
        workspace: &Workspace,
        target: &Target,
        arguments: &CacheArguments,
        authentication: &AuthenticationArguments,
    ) -> Result<Self, CommandError> {
        let caching = Self::default();
        caching.open(workspace, target, arguments, authentication)?;
        Ok(caching)
    }

    /// [`Caching::new`] for a command that is about the cache: it needs one, and waits for it.
    pub(super) fn of_cache(
        workspace: &Workspace,
        target: &Target,
        arguments: &CacheArguments,
        authentication: &AuthenticationArguments,
    ) -> Result<Self, CommandError> {
        let caching = Self::default();
        let patience = patience()?.without_end();
        caching.open_with(patience, workspace, target, arguments, authentication)?;
        Ok(caching)
    }

    /// [`Caching::new`] of one that was not settled yet.
    pub(super) fn open(
        &self,
        workspace: &Workspace,
        target: &Target,
        arguments: &CacheArguments,
        authentication: &AuthenticationArguments,
    ) -> Result<(), CommandError> {
        self.open_with(patience()?, workspace, target, arguments, authentication)
    }

    fn open_with(
        &self,
        patience: Patience,
        workspace: &Workspace,
        target: &Target,
        arguments: &CacheArguments,
        authentication: &AuthenticationArguments,
    ) -> Result<(), CommandError> {
        if self.opened.get().is_some() {
            return Ok(());
        }
        let options = cache_options(workspace, arguments)?;
        if options.locations.is_empty() {
            return Ok(());
        }
        let warn = |text| workspace.progress().report(Event::Warning(text));
        let wants_to_write = options.write;
        let open = opener(target, authentication)?;
        let store = workspace.store();
        let cache = Arc::new(Cache::new(options, patience, store.root(), &open));
        for location in cache.refused() {
            warn(format!(
                "the cache {location} is not used, because no key is trusted: name one in ${TRUSTED} or in [tool.forebay.cache] trusted_keys (`forebay cache keygen` makes it); \
                 only a folder that you alone can write to needs none"
            ));
        }
        if wants_to_write && !cache.writes() {
            warn(format!(
                "nothing is brought to a cache, because there is no key to sign with: ${SIGNING_KEY_FILE} and ${SIGNING_KEY} are not set"
            ));
        }
        store.set_source(cache.clone());
        let _ = self.opened.set(OpenedCache {
            cache,
            store: Arc::clone(store),
            progress: Arc::clone(workspace.progress()),
        });
        Ok(())
    }

    /// The caches, if there are any.
    pub(super) fn cache(&self) -> Option<&Arc<Cache>> {
        self.opened.get().map(|opened| &opened.cache)
    }

    /// Says which build is about to be looked up.
    pub(super) fn expect(&self, build: &Build<'_>) -> Result<(), CommandError> {
        if let Some(cache) = self.cache() {
            cache.expect(build.closure()?);
        }
        Ok(())
    }

    /// Does `work`, and does it again if it failed for want of what a cache has promised: that
    /// is then no longer counted on.
    pub(super) async fn retry<T>(
        &self,
        work: impl AsyncFn() -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let losses = || self.cache().map_or(0, |cache| cache.losses());
        loop {
            let before = losses();
            match work().await {
                Err(_) if losses() > before => {}
                Err(error) => {
                    // It may be why.
                    if let Some(OpenedCache {
                        cache, progress, ..
                    }) = self.opened.get()
                    {
                        say(cache, progress.as_ref(), Vec::new(), None);
                    }
                    return Err(error);
                }
                done => return done,
            }
        }
    }

    /// Says how it went. What a command has built is first brought to the cache that is
    /// written. None of it can make the command fail.
    pub(super) fn finish(&self, usage: Usage) {
        let Some(OpenedCache {
            cache,
            store,
            progress,
        }) = self.opened.get()
        else {
            return;
        };
        let (found, missed) = cache.answers(store);
        let mut parts = Vec::new();
        let mut failure = None;
        match usage {
            Usage::Reads if found == 0 => {}
            Usage::Reads => {
                let brought = usize::try_from(cache.brought()).unwrap_or(usize::MAX);
                parts.push(format!("{} taken", count(found, "result")));
                parts.push(format!("{} brought", count(brought, "object")));
            }
            Usage::Builds => {
                parts.extend(taken(found, missed));
                match cache.writes().then(|| cache.push(store, &producer())) {
                    Some(Ok(report)) if !report.is_unchanged() => parts.push(describe(&report)),
                    Some(Err(error)) => {
                        failure = Some(format!("the cache was not written: {error}"));
                    }
                    Some(Ok(_)) | None => {}
                }
            }
        }
        say(cache, progress.as_ref(), parts, failure);
    }
}

/// What a command does with caches.
#[derive(Debug, Clone, Copy)]
pub(super) enum Usage {
    /// It looks up what it would else build, and brings what it builds.
    Builds,
    /// It only takes.
    Reads,
}

/// How many of the results that a build looked up came from a cache.
fn taken(found: usize, missed: usize) -> Option<String> {
    match (found, missed) {
        (0, 0) => None,
        (found, 0) => Some(format!(
            "nothing was built: {} taken",
            count(found, "result")
        )),
        (found, missed) => Some(format!(
            "{found} of {} taken",
            count(found + missed, "result")
        )),
    }
}

/// How it went with the caches, and what was wrong with them: if that says nothing, `failure`.
fn say(cache: &Cache, progress: &dyn Progress, mut parts: Vec<String>, failure: Option<String>) {
    if !parts.is_empty() {
        let requests = usize::try_from(cache.requests()).unwrap_or(usize::MAX);
        parts.push(count(requests, "request"));
        progress.report(Event::Finished {
            phase: Phase::Cache,
            summary: parts.join(", "),
        });
    }
    if let Some(warning) = cache.warning().or(failure) {
        progress.report(Event::Warning(warning));
    }
}

/// So many entries, in words.
pub(super) fn entries(number: usize) -> String {
    match number {
        1 => "1 entry".to_owned(),
        _ => format!("{number} entries"),
    }
}

/// What a push did, in words.
pub(super) fn describe(report: &PushReport) -> String {
    format!(
        "{} and {} brought ({})",
        entries(report.entries),
        count(report.objects, "object"),
        bytes(report.bytes)
    )
}

/// Who makes entries: not a secret, and not believed.
pub(super) fn producer() -> String {
    format!("forebay {}, {}", env!("CARGO_PKG_VERSION"), holder())
}

/// How the caches' buckets are opened, if they are ever needed: with the same login as the
/// environment's, but with less patience.
fn opener(
    target: &Target,
    authentication: &AuthenticationArguments,
) -> Result<OpenBucket, CommandError> {
    let method = auth_method(target, authentication)?;
    let options = HttpOptions {
        retry: RetryPolicy {
            attempts: 2,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(1),
        },
        ..http_options(authentication)
    };
    Ok(Arc::new(move |location: &CacheLocation| {
        let words = |error: &(dyn std::error::Error + 'static)| crate::cache::describe(error);
        let http = HttpClient::new(&options).map_err(|error| words(&error))?;
        let bucket = match (&location.bucket, location.login()) {
            (BucketLocation::WebDav { url }, Some((user, password))) => {
                let login = Login {
                    description: format!("{user} (${LOCATIONS})"),
                    kind: LoginKind::Password {
                        user: user.to_owned(),
                        password: password.clone(),
                    },
                };
                WebDavBucket::new(url, http, Some(login)).map(|bucket| Arc::new(bucket) as _)
            }
            (place, _) => {
                let tokens = token_source(&method, &http).map_err(|error| words(&error))?;
                bucket::open(place, &http, Some(tokens))
            }
        };
        bucket.map_err(|error| words(&error))
    }))
}

/// The file that a new private key goes to.
pub(super) fn key_file(path: &PathBuf) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
