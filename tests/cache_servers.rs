//! What a cache, a registry and a bucket see of a machine that starts empty: counted at the
//! servers, and with servers that are ill or have lost what they had.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[path = "support/caches.rs"]
#[allow(dead_code)]
mod caches;
#[path = "support/certificates.rs"]
#[allow(dead_code)]
mod certificates;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/meter.rs"]
#[allow(dead_code)]
mod meter;

use caches::{Site, Surroundings, requests};
use certificates::Authority;
use docker_registry::DockerRegistry;
use emulator::Emulator;
use meter::{Gate, Meter};

/// A cache in a bucket behind a gate, a registry, and a folder that DAG files go to.
struct Scene {
    surroundings: Surroundings,
    gate: Meter,
    _emulator: Emulator,
    registry: DockerRegistry,
    key: String,
    signing_key: String,
}

const URL: &str = "gs://team-builds/ci";

fn emulator_with_bucket() -> Option<Emulator> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let emulator = runtime.block_on(Emulator::start())?;
    runtime.block_on(emulator.create_bucket("team-builds"));
    Some(emulator)
}

impl Scene {
    fn new() -> Option<Self> {
        let surroundings = Surroundings::new()?;
        let emulator = emulator_with_bucket()?;
        let gate = Meter::start(&emulator.address);
        let registry = DockerRegistry::start()?;
        let (key, signing_key) = surroundings.site("keys", "UTC", "022").keygen("release");
        Some(Self {
            surroundings,
            gate,
            _emulator: emulator,
            registry,
            key,
            signing_key,
        })
    }

    /// The requests at the cache since the last call.
    fn requests(&self) -> Vec<String> {
        let passed = self.gate.take().into_iter();
        passed
            .map(|passed| passed.what.replace("%2F", "/"))
            .collect()
    }

    /// A machine that reads the cache.
    fn reader(&self, name: &str) -> Site {
        self.surroundings
            .site(name, "UTC", "022")
            .with_variable("STORAGE_EMULATOR_HOST", self.gate.address())
            .with_variable("FOREBAY_CACHE", URL)
            .with_variable("FOREBAY_CACHE_TRUSTED_KEYS", &self.key)
    }

    /// One that writes it too.
    fn writer(&self, name: &str) -> Site {
        self.reader(name)
            .with_variable("FOREBAY_CACHE_SIGNING_KEY_FILE", &self.signing_key)
    }

    fn composer(&self) -> PathBuf {
        self.surroundings.directory.path().join("composer")
    }

    /// Runs a command on the environment, with registry and bucket of this scene.
    fn run(&self, site: &Site, command: &[&str]) -> forebay_support::Finished {
        let repository = format!("{}/hello", self.registry.address());
        let bucket = format!("file://{}", self.composer().display());
        let place = ["-c", "local", "-r", &repository, "-b", &bucket, "--json"];
        site.run(&[command, &place].concat())
    }

    fn json(&self, site: &Site, command: &[&str]) -> (serde_json::Value, String) {
        let finished = self.run(site, command);
        assert_eq!(finished.status, 0, "{command:?}: {}", finished.stderr);
        let document = serde_json::from_str(&finished.stdout).unwrap();
        (document, finished.stderr)
    }

    fn dags(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(&self.composer().join("dags"))
    }
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            (
                entry.path().to_owned(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

fn add_a_line(site: &Site) {
    let greeting = site.project.join("hello/greeting.py");
    let text = std::fs::read_to_string(&greeting).unwrap();
    std::fs::write(&greeting, text + "\n# One more line.\n").unwrap();
}

/// How many of these requests are about entries, and about objects.
fn kinds(requests: &[String]) -> (usize, usize) {
    let about = |what: &str| requests.iter().filter(|line| line.contains(what)).count();
    let (entries, objects) = (
        about("/forebay-cache/v1/entries/"),
        about("/forebay-cache/v1/objects/"),
    );
    assert_eq!(entries + objects, requests.len(), "{requests:?}");
    (entries, objects)
}

#[test]
fn servers_see_at_most_three_requests_and_the_misses() {
    let Some(scene) = Scene::new() else { return };
    let first = scene.writer("first");
    let (built, _) = scene.json(&first, &["deploy", "-t", "2026-01-01"]);
    scene.requests();
    scene.registry.requests();
    let registry_before = scene.registry.requests().len();

    // The registry has the image: one request to the cache, one to the registry, no blob.
    let second = scene.reader("second");
    let (again, said) = scene.json(&second, &["deploy", "-t", "2026-01-01"]);
    assert_eq!(again["image"], built["image"]);
    assert!(said.contains("nothing was built"), "{said}");
    let seen = scene.requests();
    assert_eq!(kinds(&seen), (1, 0), "{seen:?}");
    assert_eq!(requests(&said), 1);
    let asked = scene.registry.requests().split_off(registry_before);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("HEAD "), "{asked:?}");

    // Writers look at the collector's mark first.
    let same = scene.writer("same");
    let (_, said) = scene.json(&same, &["plan", "-t", "2026-01-01"]);
    assert!(said.contains("nothing was built"), "{said}");
    let seen = scene.requests();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].contains("mark.json"), "{seen:?}");

    // A change: this build's entry, the latest one's, and what neither has. Of the objects
    // only what the new layer is made of.
    let change = scene.reader("change");
    add_a_line(&change);
    let (changed, said) = scene.json(&change, &["deploy", "-t", "2026-01-01"]);
    assert_ne!(changed["image"], built["image"]);
    let seen = scene.requests();
    let (entries, objects) = kinds(&seen);
    // Layer, image, image by its digest, workflows.
    assert!(entries <= 2 + 4, "{seen:?}");
    assert_eq!(objects, 0, "{seen:?}");
    assert_eq!(requests(&said), seen.len() as u64, "{said}");
    assert!(change.starts().iter().all(|start| !start.contains("pip")));
}

#[test]
fn a_bucket_that_is_ill_or_slow_costs_the_cache_and_not_the_build() {
    let Some(scene) = Scene::new() else { return };
    let (built, _) = scene.writer("first").build(&[]);
    scene.requests();
    for (number, (gate, most)) in [
        // Asked twice, because a repetition may help.
        (Gate::Unavailable, 2),
        (Gate::Silent, 1),
        // Each answer comes in time, all together they do not: three seconds are enough.
        (Gate::Slow(Duration::from_millis(700)), 5),
    ]
    .into_iter()
    .enumerate()
    {
        scene.gate.set(gate);
        let site = scene
            .writer(&format!("ill-{number}"))
            .with_variable("FOREBAY_CACHE_TIMEOUT", "1");
        add_a_line(&site);
        let (document, said) = site.build(&[]);
        assert_ne!(document["image"], built["image"]);
        assert_eq!(said.matches("warning: the cache gs:").count(), 1, "{said}");
        let seen = scene.requests();
        assert!(!seen.is_empty() && seen.len() <= most, "{gate:?}: {seen:?}");
        scene.gate.set(Gate::Open);
    }
    // Nothing of it is remembered.
    let (taken, said) = scene.reader("well").build(&[]);
    assert_eq!(taken, built);
    assert!(said.contains("nothing was built"), "{said}");
}

#[test]
fn a_rollback_takes_from_the_cache_what_registry_and_bucket_have_lost() {
    let Some(scene) = Scene::new() else { return };
    let first = scene.writer("first");
    let (one, _) = scene.json(&first, &["deploy", "-t", "2026-01-01"]);
    let first_dags = scene.dags();
    add_a_line(&first);
    scene.json(&first, &["deploy", "-t", "2026-01-01"]);
    assert_ne!(scene.dags(), first_dags);

    let lose_all = || {
        std::fs::remove_dir_all(scene.registry.data().join("docker")).unwrap();
        std::fs::remove_dir_all(scene.composer().join("forebay/v1/hello/objects")).unwrap();
    };
    lose_all();
    let other = scene.reader("other");
    // Without a cache it cannot be done, and nothing changes.
    let without = scene.reader("without").with_variable("FOREBAY_CACHE", "");
    let before = files(&scene.composer());
    let refused = scene.run(&without, &["rollback", "1"]);
    assert_eq!(refused.status, 8, "{}", refused.stderr);
    assert_eq!(files(&scene.composer()), before);

    let dry = scene.json(&other, &["rollback", "1", "--dry-run"]).0;
    assert_eq!(dry["rollback_of"], 1);
    assert_eq!(files(&scene.composer()), before);
    let (back, said) = scene.json(&other, &["rollback", "1"]);
    assert_eq!(back["rollback_of"], 1);
    assert_eq!(back["image"], one["image"]);
    assert_eq!(scene.dags(), first_dags);
    assert!(said.contains("taken, "), "{said}");
    // Nothing was built, and no Python was asked.
    assert_eq!(other.starts(), Vec::<String>::new());
    // Registry and bucket have everything again: an independent reader gets the image, and a
    // machine without a cache goes back to it.
    let image = one["image"].as_str().unwrap();
    let source = format!("docker://{}/hello@{image}", scene.registry.address());
    let copied = scene.surroundings.directory.path().join("copied");
    let target = format!("dir:{}", copied.display());
    let arguments = [
        "--insecure-policy",
        "copy",
        "-q",
        "--src-tls-verify=false",
        &source,
        &target,
    ];
    forebay_support::Machine::new().run(scene.surroundings.directory.path(), "skopeo", arguments);
    let status = scene.json(&without, &["status"]).0;
    assert_eq!(status["drift"], serde_json::Value::Array(Vec::new()));

    // What the cache does not give either cannot be had; where one can go is named.
    let third = scene.writer("third");
    for text in ["GREETING = 4\n", "GREETING = 5\n"] {
        std::fs::write(third.project.join("hello/extra.py"), text).unwrap();
        scene.json(&third, &["deploy", "-t", "2026-01-01"]);
    }
    let digest = image.trim_start_matches("sha256:");
    let revisions = "docker/registry/v2/repositories/hello/_manifests/revisions/sha256";
    let manifest = scene.registry.data().join(revisions).join(digest);
    std::fs::remove_dir_all(manifest).unwrap();
    scene.gate.set(Gate::Unavailable);
    let late = scene
        .reader("late")
        .with_variable("FOREBAY_CACHE_TIMEOUT", "1");
    let refused = scene.run(&late, &["rollback", "1"]);
    let said = &refused.stderr;
    assert_eq!(refused.status, 8, "{said}");
    assert!(said.contains(image), "{said}");
    assert!(said.contains("forebay rollback 4"), "{said}");
    assert_eq!(said.matches("warning: the cache").count(), 1, "{said}");
    scene.gate.set(Gate::Open);
    // With the cache it goes on.
    assert_eq!(scene.json(&late, &["rollback", "1"]).0["rollback_of"], 1);
}

#[test]
fn what_is_built_is_brought_to_a_cache_only_where_that_is_wanted() {
    let Some(surroundings) = Surroundings::new() else {
        return;
    };
    let url = surroundings.cache_url();
    let is_empty = || files_or_none(&surroundings.cache()).is_empty();
    let site = surroundings
        .site("machine", "UTC", "022")
        .with_variable("FOREBAY_CACHE", &url);
    site.build(&[]);
    assert!(is_empty(), "a person's machine only reads");
    let (key, file) = site.keygen("release");
    let trusting = surroundings
        .site("trusting", "UTC", "022")
        .with_variable("FOREBAY_CACHE_TRUSTED_KEYS", &key);
    let (_, said) = trusting.build(&["--cache", &url, "--cache-write"]);
    assert!(said.contains("no key to sign with"), "{said}");
    assert!(is_empty());
    let in_ci = surroundings
        .site("ci", "UTC", "022")
        .with_variable("CI", "true")
        .with_variable("FOREBAY_CACHE", &url);
    in_ci.build(&[]);
    assert!(!is_empty());
    for (name, flags) in [("asked", &["--cache-write"][..]), ("with-key", &[])] {
        std::fs::remove_dir_all(surroundings.cache()).unwrap();
        let mut site = surroundings.site(name, "UTC", "022");
        if flags.is_empty() {
            site = site.with_variable("FOREBAY_CACHE_SIGNING_KEY_FILE", &file);
        }
        site.build(&[&["--cache", &url], flags].concat());
        assert!(!is_empty(), "{name}");
    }
}

#[test]
fn a_server_is_believed_whose_authority_is_named() {
    let authority = Authority::new();
    let certificate = authority.sign("server", "IP:127.0.0.1", "2");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = Emulator::start_web_dav_over_tls("anna", "hunter2", &certificate);
    let (Some(server), Some(surroundings)) = (runtime.block_on(start), Surroundings::new()) else {
        return;
    };
    let url = format!("https://anna:hunter2@{}/team", server.emulator.address);
    let certificate = authority.certificate().display().to_string();
    let machine = |name| {
        surroundings
            .site(name, "UTC", "022")
            .with_variable("FOREBAY_CACHE", &url)
            .with_variable("FOREBAY_CACHE_UNSIGNED", "1")
    };
    let knowing = |name| machine(name).with_variable("SSL_CERT_FILE", &certificate);
    let (built, said) = knowing("writer").build(&["--cache-write"]);
    assert!(said.contains("brought"), "{said}");
    let (taken, said) = knowing("reader").build(&[]);
    assert_eq!(taken, built);
    assert!(said.contains("nothing was built"), "{said}");
    let (_, said) = machine("flag").build(&["--ca-file", &certificate]);
    assert!(said.contains("nothing was built"), "{said}");

    // Nobody else's word is taken, and the build goes on.
    let (alone, said) = machine("stranger").build(&[]);
    assert_eq!(alone, built);
    assert_eq!(said.matches("warning: the cache").count(), 1, "{said}");
    assert!(said.contains("--ca-file or SSL_CERT_FILE"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

fn files_or_none(folder: &Path) -> Vec<PathBuf> {
    match folder.exists() {
        true => files(folder).into_keys().collect(),
        false => Vec::new(),
    }
}
