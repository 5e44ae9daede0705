//! The caches that a command reads and writes: where they are, who is believed, and what is
//! said of them at the end.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay_store::Store;

use super::arguments::{AuthenticationArguments, CacheArguments};
use super::login::{auth_method, holder, http_options};
use crate::artifacts::{Build, Target, Workspace};
use crate::bucket::{self, BucketLocation, WebDavBucket};
use crate::cache::{
    Cache, CacheLocation, CacheOptions, OpenBucket, Patience, PushReport, SigningKey, TrustedKey,
};
use crate::credentials::{Login, LoginKind, token_source};
use crate::http::{HttpClient, HttpOptions, RetryPolicy};
use crate::progress::{Event, Phase, Progress};
use crate::ui::{CommandError, Exit, bytes, count};

/// The variables that say what the flags do not.
const LOCATIONS: &str = "FOREBAY_CACHE";
const TRUSTED: &str = "FOREBAY_CACHE_TRUSTED_KEYS";
const SIGNING_KEY: &str = "FOREBAY_CACHE_SIGNING_KEY";
const SIGNING_KEY_FILE: &str = "FOREBAY_CACHE_SIGNING_KEY_FILE";
const UNSIGNED: &str = "FOREBAY_CACHE_UNSIGNED";
const TIMEOUT: &str = "FOREBAY_CACHE_TIMEOUT";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
}

/// What flags, variables and the project's settings say together.
pub(super) fn cache_options(
    workspace: &Workspace,
    arguments: &CacheArguments,
) -> Result<CacheOptions, CommandError> {
    let settings = workspace.project().settings.cache.clone();
    let given = variable(LOCATIONS);
    let (texts, source): (Vec<&str>, _) = match (&given, arguments.cache.is_empty()) {
        (_, false) => (
            arguments.cache.iter().map(String::as_str).collect(),
            "--cache",
        ),
        (Some(given), true) => (words(given).collect(), LOCATIONS),
        (None, true) => (
            settings.urls.iter().map(String::as_str).collect(),
            "pyproject.toml",
        ),
    };
    let locations = texts
        .into_iter()
        .map(|text| location(workspace, text, source))
        .collect::<Result<Vec<_>, _>>()?;
    // The variable replaces the file: a release job names its own keys, whatever a commit says.
    let keys = variable(TRUSTED);
    let keys: Vec<&str> = match &keys {
        Some(keys) => words(keys).collect(),
        None => settings.trusted_keys.iter().map(String::as_str).collect(),
    };
    let trusted = keys
        .into_iter()
        .map(str::parse::<TrustedKey>)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            CommandError::from_error(Exit::Usage, &error).next(format!(
                "mend ${TRUSTED} or [tool.forebay.cache] trusted_keys"
            ))
        })?;
    Ok(CacheOptions {
        locations,
        trusted,
        signing_key: signing_key()?,
        unsigned: arguments.cache_unsigned
            || variable(UNSIGNED).is_some_and(|value| value == "1" || value == "true"),
        write: arguments.cache_write,
        is_ci: variable("CI").is_some_and(|value| !value.is_empty() && value != "false"),
    })
}

/// A cache's place. A password is taken from the variable alone: what is written in the project
/// is there for all to read, and so is a command line.
fn location(
    workspace: &Workspace,
    text: &str,
    source: &str,
) -> Result<CacheLocation, CommandError> {
    let location: CacheLocation = text.parse().map_err(|error| {
        CommandError::from_error(Exit::Usage, &error)
            .next("mend --cache, $FOREBAY_CACHE or [tool.forebay] cache")
    })?;
    if location.login().is_some() && source != LOCATIONS {
        return Err(CommandError::new(
            Exit::Usage,
            format!("the cache {location} stands in {source} with a user and a password"),
        )
        .why("others can read them there")
        .next(format!(
            "write them into ~/.netrc (machine HOST login USER password PASSWORD), or name the cache in ${LOCATIONS}"
        )));
    }
    Ok(location.relative_to(&workspace.project().directory))
}

/// How long an answer is waited for.
fn patience() -> Result<Patience, CommandError> {
    match variable(TIMEOUT) {
        None => Ok(Patience::default()),
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=600) => Ok(Patience::of_build(Duration::from_secs(seconds))),
            _ => Err(
                CommandError::new(Exit::Usage, format!("{TIMEOUT} is {text:?}"))
                    .next("give a number of seconds from 1 to 600, or unset it"),
            ),
        },
    }
}

/// The private key, from a variable or from the file that a variable names.
fn signing_key() -> Result<Option<SigningKey>, CommandError> {
    let is_set = |text: &String| !text.trim().is_empty();
    let text = match variable(SIGNING_KEY).filter(is_set) {
        Some(text) => Some(text),
        None => match variable(SIGNING_KEY_FILE).filter(is_set) {
            Some(path) => Some(std::fs::read_to_string(&path).map_err(|error| {
                CommandError::new(
                    Exit::Usage,
                    format!("the signing key {path} cannot be read"),
                )
                .why(error.to_string())
                .next(format!("mend or unset ${SIGNING_KEY_FILE}"))
            })?),
            None => None,
        },
    };
    text.map(|text| SigningKey::parse(&text))
        .transpose()
        .map_err(|error| {
            CommandError::from_error(Exit::Usage, &error)
                .next("make one with `forebay cache keygen FILE`")
        })
}

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

    /// Brings what was built to the cache that is written, and says how it went. None of it
    /// can make the command fail.
    pub(super) fn finish(&self) {
        let Some(OpenedCache {
            cache,
            store,
            progress,
        }) = self.opened.get()
        else {
            return;
        };
        let (found, missed) = cache.answers(store);
        let pushed = match cache.writes() {
            true => Some(cache.push(store, &producer())),
            false => None,
        };
        let mut parts = Vec::new();
        match (found, missed) {
            (0, 0) => {}
            (found, 0) => parts.push(format!(
                "nothing was built: {} taken",
                count(found, "result")
            )),
            (found, missed) => parts.push(format!(
                "{found} of {} taken",
                count(found + missed, "result")
            )),
        }
        let failure = match pushed {
            Some(Ok(report)) => {
                if !report.is_unchanged() {
                    parts.push(describe(&report));
                }
                None
            }
            Some(Err(error)) => Some(format!("the cache was not written: {error}")),
            None => None,
        };
        say(cache, progress.as_ref(), parts, failure);
    }

    /// The same of a command that builds nothing.
    pub(super) fn finish_reading(&self) {
        let Some(OpenedCache {
            cache,
            store,
            progress,
        }) = self.opened.get()
        else {
            return;
        };
        let (found, _) = cache.answers(store);
        let brought = usize::try_from(cache.brought()).unwrap_or(usize::MAX);
        let mut parts = Vec::new();
        if found > 0 {
            parts.push(format!("{} taken", count(found, "result")));
            parts.push(format!("{} brought", count(brought, "object")));
        }
        say(cache, progress.as_ref(), parts, None);
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
        let words = |error: &dyn std::error::Error| crate::cache::describe(error);
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
