//! One suite over the caches of every kind of bucket, and the program itself over each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "support/caches.rs"]
#[allow(dead_code)]
mod caches;
#[path = "support/clouds.rs"]
mod clouds;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use std::sync::Arc;
use std::time::Duration;

use caches::{Site, Surroundings, requests};
use emulator::Emulator;
use forebay::bucket::{
    Bucket, DirectoryBucket, Endpoint, EntityTagBucket, GcsBucket, WebDavBucket,
};
use forebay::cache::{
    Cache, CacheError, CacheLocation, CacheOptions, Closure, CollectOptions, OpenBucket, Patience,
    SigningKey, TrustedKey,
};
use forebay::credentials::{Login, LoginKind, Secret};
use forebay::http::{HttpClient, HttpOptions};
use forebay_store::{ObjectDigest, Realisation, Recipe, RecipeKey, Store};

fn http() -> HttpClient {
    HttpClient::new(&HttpOptions::default()).unwrap()
}

fn key(name: &str) -> RecipeKey {
    Recipe::new("test", 1, &name).unwrap().key()
}

/// A cache somewhere, and a key that signs for it.
struct Place {
    location: CacheLocation,
    open: OpenBucket,
    signing_key: String,
    trusted: TrustedKey,
    /// Whether a delete spares what was written again.
    holds: bool,
}

/// What every host builds alike: a document, a small archive, and one of two parts.
struct Built {
    contents: Vec<(&'static str, Vec<u8>)>,
}

impl Built {
    fn new() -> Self {
        let noise = |seed: u8, length: usize| -> Vec<u8> {
            let mut bytes = vec![0; length];
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
            bytes
        };
        Self {
            contents: vec![
                ("document", b"{\"layers\": []}".to_vec()),
                ("small", noise(1, 1000)),
                ("large", noise(2, (17 << 20) + 5)),
            ],
        }
    }

    fn outputs(&self) -> Realisation {
        let each = self.contents.iter();
        Realisation {
            outputs: each
                .map(|(name, bytes)| ((*name).to_owned(), ObjectDigest::of(bytes)))
                .collect(),
        }
    }

    fn build(&self, store: &Store) {
        let mut batch = store.begin().unwrap();
        for (_, bytes) in &self.contents {
            batch.put(bytes).unwrap();
        }
        batch.realise(&key("result"), &self.outputs()).unwrap();
        batch.commit().unwrap();
        store.share(&key("result"));
    }
}

struct Host {
    store: Store,
    cache: Arc<Cache>,
    _directory: tempfile::TempDir,
}

impl Place {
    fn new(url: &str, holds: bool, open: OpenBucket) -> Self {
        let signing_key = SigningKey::generate("release".parse().unwrap()).unwrap();
        Self {
            location: url.parse().unwrap(),
            open,
            trusted: signing_key.public().clone(),
            signing_key: signing_key.to_text(),
            holds,
        }
    }

    fn host(&self, build: &str, writes: bool) -> Host {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let options = CacheOptions {
            locations: vec![self.location.clone()],
            trusted: vec![self.trusted.clone()],
            signing_key: writes.then(|| SigningKey::parse(&self.signing_key).unwrap()),
            ..CacheOptions::default()
        };
        let patience = Patience::default().without_end();
        let cache = Arc::new(Cache::new(options, patience, store.root(), &self.open));
        cache.expect(Closure {
            exact: key(build),
            latest: key("latest"),
        });
        store.set_source(cache.clone());
        Host {
            store,
            cache,
            _directory: directory,
        }
    }

    /// A reader finds everything, with one request for what the build says.
    fn assert_readable(&self, built: &Built, build: &str) {
        let reader = self.host(build, false);
        let found = reader.store.realisation(&key("result")).unwrap();
        assert_eq!(found, Some(built.outputs()));
        assert_eq!(reader.cache.requests(), 1);
        for (name, bytes) in &built.contents {
            let read = reader.store.read(&ObjectDigest::of(bytes)).unwrap();
            assert!(read == *bytes, "{name}");
        }
        // The small archive has one part, the large one two; the document came with the entry.
        assert_eq!(reader.cache.requests(), 1 + 1 + 2);
        assert_eq!(reader.cache.warning(), None);
    }

    fn suite(&self) {
        let built = Built::new();
        let (small, large) = (&built.contents[1].1, &built.contents[2].1);

        // Brought once, and found by others.
        let first = self.host("one", true);
        built.build(&first.store);
        let report = first.cache.push(&first.store, "test").unwrap();
        assert_eq!((report.entries, report.objects), (3, 2));
        assert_eq!(report.bytes, (small.len() + large.len()) as u64);
        let again = self.host("one", true);
        built.build(&again.store);
        let report = again.cache.push(&again.store, "test").unwrap();
        assert!(report.is_unchanged(), "{report:?}");
        self.assert_readable(&built, "one");

        // Two at once bring other builds with the same objects.
        let writers = [self.host("two", true), self.host("three", true)];
        std::thread::scope(|scope| {
            for writer in &writers {
                built.build(&writer.store);
                scope.spawn(|| writer.cache.push(&writer.store, "test").unwrap());
            }
        });
        for writer in &writers {
            assert_eq!(writer.cache.warning(), None);
        }
        self.assert_readable(&built, "two");
        self.assert_readable(&built, "three");

        // What somebody has deleted is missed, built again, and brought again.
        self.delete_some(|key| key.ends_with(".1"));
        let mender = self.host("one", true);
        assert!(mender.store.realisation(&key("result")).unwrap().is_some());
        assert!(mender.store.read(&ObjectDigest::of(large)).is_err());
        assert_eq!(mender.cache.losses(), 1);
        assert!(mender.store.realisation(&key("result")).unwrap().is_none());
        built.build(&mender.store);
        let report = mender.cache.push(&mender.store, "test").unwrap();
        assert_eq!(report.objects, 1, "{report:?}");
        assert!(mender.cache.warning().unwrap().contains("missing"));
        self.assert_readable(&built, "one");

        // A collection notes first, and deletes what was noted; then all of it can come again.
        let collector = self.host("none", true);
        let options = CollectOptions {
            keep: Duration::ZERO,
            grace: Duration::ZERO,
            dry_run: false,
        };
        // Servers tell times in whole seconds.
        let pause = || std::thread::sleep(Duration::from_millis(1100));
        pause();
        if !self.holds {
            let refused = collector.cache.collect(&options).unwrap_err();
            assert!(matches!(refused, CacheError::Unconditional(_)), "{refused}");
            self.assert_readable(&built, "one");
            return;
        }
        let noted = collector.cache.collect(&options).unwrap();
        assert_eq!((noted.condemned.len(), noted.deleted.len()), (5 + 3, 0));
        self.assert_readable(&built, "one");
        pause();
        // Whoever needs something meanwhile writes it again.
        let late = self.host("four", true);
        built.build(&late.store);
        late.cache.push(&late.store, "test").unwrap();
        pause();
        let swept = collector.cache.collect(&options).unwrap();
        // The entries that were noted; the objects were written again.
        assert_eq!((swept.deleted.len(), swept.revived), (5, 3), "{swept:?}");
        self.assert_readable(&built, "four");
        let gone = self.host("one", false);
        assert!(!gone.cache.look(&gone.store));
        let keys = self.keys();
        assert!(!keys.iter().any(|key| key.contains("probe")), "{keys:?}");
    }

    fn keys(&self) -> Vec<String> {
        let bucket = (self.open)(&self.location).unwrap();
        let listing = block_on(async { bucket.list("").await.unwrap() });
        listing
            .objects
            .into_iter()
            .map(|object| object.key)
            .collect()
    }

    fn delete_some(&self, matches: impl Fn(&str) -> bool) {
        let bucket = (self.open)(&self.location).unwrap();
        block_on(async {
            for object in bucket.list("").await.unwrap().objects {
                if matches(&object.key) {
                    let key = object.key.parse().unwrap();
                    bucket.delete(&key, object.generation).await.unwrap();
                }
            }
        });
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn opener<B: Bucket + 'static>(open: impl Fn() -> B + Send + Sync + 'static) -> OpenBucket {
    Arc::new(move |_: &CacheLocation| Ok(Arc::new(open()) as Arc<dyn Bucket>))
}

/// A build of the real program on one machine, and what another takes of it.
fn program(url: &str, variables: &[(String, String)]) {
    let Some(surroundings) = Surroundings::new() else {
        return;
    };
    let site = |name: &str| -> Site {
        let site = surroundings
            .site(name, "UTC", "022")
            .with_variable("FOREBAY_CACHE", url);
        variables
            .iter()
            .fold(site, |site, (name, value)| site.with_variable(name, value))
    };
    let first = site("first");
    let (key, file) = first.keygen("release");
    let first = first.with_variable("FOREBAY_CACHE_SIGNING_KEY_FILE", &file);
    let (built, said) = first.build(&[]);
    assert!(said.contains("entries and"), "{said}");
    let second = site("second").with_variable("FOREBAY_CACHE_TRUSTED_KEYS", &key);
    let (taken, said) = second.build(&[]);
    assert_eq!(taken, built);
    assert!(said.contains("nothing was built"), "{said}");
    assert_eq!(requests(&said), 1, "{said}");
    for (name, value) in variables {
        let secret = name.contains("SECRET") || name.contains("PASSWORD");
        assert!(!secret || !said.contains(value.as_str()), "{said}");
    }
    let pull = second.run(&["cache", "pull", "-c", "local", "--json"]);
    assert_eq!(pull.status, 0, "{}", pull.stderr);
    let status = second.run(&["cache", "status", "-c", "local", "--json"]);
    assert_eq!(status.status, 0, "{}", status.stderr);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["found"], true);
    assert_eq!(status["caches"][0]["written"], false);
    assert_eq!(status["warning"], serde_json::Value::Null);
}

#[test]
fn a_folder() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let url = format!("file://{}", path.display());
    Place::new(&url, true, opener(move || DirectoryBucket::new(&path))).suite();
}

#[test]
fn google_cloud_storage() {
    let Some(emulator) = block_on(Emulator::start()) else {
        return;
    };
    block_on(emulator.create_bucket("team-builds"));
    let address = emulator.address.clone();
    let open = opener(move || {
        let endpoint = Endpoint::emulator(&address).unwrap();
        GcsBucket::new("team-builds", endpoint, http(), None)
    });
    Place::new("gs://team-builds", true, open).suite();
    let host = ("STORAGE_EMULATOR_HOST".to_owned(), emulator.address.clone());
    program("gs://team-builds/ci/shop", &[host]);
}

#[test]
fn s3() {
    let Some(emulator) = block_on(Emulator::start_s3()) else {
        return;
    };
    drop(block_on(clouds::s3_bucket(&emulator, "team-builds")));
    let variables = clouds::s3_variables(&emulator);
    let of_bucket = variables.clone();
    let open = opener(move || EntityTagBucket::s3("team-builds", &of_bucket, http()).unwrap());
    Place::new("s3://team-builds", true, open).suite();
    program("s3://team-builds/ci", &variables);
}

#[test]
fn azure() {
    let Some(emulator) = block_on(Emulator::start_azure()) else {
        return;
    };
    drop(block_on(clouds::azure_container(&emulator, "team-builds")));
    let variables = clouds::azure_variables(&emulator);
    let of_bucket = variables.clone();
    let open = opener(move || EntityTagBucket::azure("team-builds", &of_bucket, http()).unwrap());
    Place::new("az://team-builds", true, open).suite();
    program("az://team-builds/ci", &variables);
}

const USER: &str = "anna";
const PASSWORD: &str = "s3cret of anna";

fn web_dav(address: &str, folder: &str) -> OpenBucket {
    let url: url::Url = format!("http://{address}/{folder}").parse().unwrap();
    opener(move || {
        let login = Login {
            kind: LoginKind::Password {
                user: USER.to_owned(),
                password: Secret::new(PASSWORD),
            },
            description: USER.to_owned(),
        };
        WebDavBucket::new(&url, http(), Some(login)).unwrap()
    })
}

#[test]
fn web_dav_that_holds_to_conditions() {
    let Some(server) = block_on(Emulator::start_web_dav(USER, PASSWORD)) else {
        return;
    };
    let address = &server.emulator.address;
    let url = format!("http://{address}/team");
    Place::new(&url, true, web_dav(address, "team")).suite();

    // The password from the address, which only the variable may have, or from .netrc.
    let secret = PASSWORD.replace(' ', "%20");
    program(&format!("http://{USER}:{secret}@{address}/one"), &[]);
    let directory = tempfile::tempdir().unwrap();
    let netrc = directory.path().join("netrc");
    let text = format!("machine 127.0.0.1 login {USER} password \"{PASSWORD}\"\n");
    std::fs::write(&netrc, text).unwrap();
    let netrc = ("NETRC".to_owned(), netrc.display().to_string());
    program(&format!("http://{address}/two"), &[netrc]);
}

#[test]
fn web_dav_that_ignores_conditions_is_not_collected() {
    let Some(server) = block_on(Emulator::start_lax_web_dav()) else {
        return;
    };
    let url = format!("http://{}/team", server.emulator.address);
    let open = web_dav(&server.emulator.address, "team");
    Place::new(&url, false, open).suite();
}

#[test]
fn a_password_is_neither_taken_from_where_others_read_it_nor_shown() {
    let Some(server) = block_on(Emulator::start_web_dav(USER, PASSWORD)) else {
        return;
    };
    let Some(surroundings) = Surroundings::new() else {
        return;
    };
    let address = &server.emulator.address;
    let site = surroundings.site("machine", "UTC", "022");
    let url = format!("http://{USER}:hunter2@{address}/team");
    let refused = site.run(&["build", "-c", "local", "--cache", &url]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains(".netrc"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);

    // A wrong one, or none, costs the cache and not the build.
    for (url, who) in [(url, USER), (format!("http://{address}/team"), "nobody")] {
        let site = surroundings
            .site(who, "UTC", "022")
            .with_variable("FOREBAY_CACHE", &url)
            .with_variable("FOREBAY_CACHE_UNSIGNED", "1");
        let (_, said) = site.build(&["--cache-write"]);
        assert_eq!(said.matches("warning: the cache").count(), 1, "{said}");
        assert!(said.contains(who), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        let shown = site.run(&["cache", "status", "-c", "local", "--json", "-v"]);
        let all = format!("{}{}", shown.stdout, shown.stderr);
        assert!(!all.contains("hunter2") && all.contains("/team"), "{all}");
    }
    // Never in the clear to another machine.
    let site = site.with_variable(
        "FOREBAY_CACHE",
        "http://anna:hunter2@files.example.com/team",
    );
    let site = site.with_variable("FOREBAY_CACHE_UNSIGNED", "1");
    let (_, said) = site.build(&[]);
    assert!(said.contains("in the clear"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
