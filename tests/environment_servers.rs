//! The program itself over Debian's `docker-registry` and `fake-gcs-server`. What is there
//! afterwards is asserted by a client of its own.
//!
//! Killed with SIGKILL amid a deploy: at every request that writes, before it was done, after it,
//! or in the middle of its body, in turns. `environment_interrupted` does all of them over strict
//! fakes. And what is told, brought back, pruned and unlocked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/faulty_proxy.rs"]
#[allow(dead_code)]
mod faulty_proxy;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/schema.rs"]
mod schema;
#[path = "support/two_workflows.rs"]
mod two_workflows;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use docker_registry::DockerRegistry;
use emulator::Emulator;
use faulty_proxy::{Fault, FaultyProxy, Numbered, Struck};
use forebay::bucket::{Bucket as _, Endpoint, GcsBucket, ObjectKey, WriteCondition};
use forebay::http::{HttpClient, HttpOptions};
use forebay::oci::ImageManifest;
use forebay_support::{Finished, Machine, installed};
use serde_json::Value;
use tokio::process::Command;

const FOREIGN: [&str; 2] = ["dags/airflow_monitoring.py", "dags/somebody_elses_dag.py"];

type Files = BTreeMap<String, Bytes>;

/// The servers with a proxy in front of each, and a project as it was and as it is now.
struct Scene {
    registry: DockerRegistry,
    emulator: Emulator,
    registry_proxy: FaultyProxy,
    _bucket_proxy: FaultyProxy,
    requests: Arc<Numbered>,
    machine: Machine,
    before: tempfile::TempDir,
    after: tempfile::TempDir,
    http: HttpClient,
}

impl Scene {
    async fn start() -> Option<Self> {
        let python = installed("FOREBAY_TEST_BIGFLOW_PYTHON")?;
        let registry = DockerRegistry::start()?;
        let emulator = Emulator::start().await?;
        let requests = Arc::new(Numbered::default());
        let schedule = Arc::clone(&requests);
        let registry_proxy = FaultyProxy::start(registry.address(), schedule as _).await;
        let schedule = Arc::clone(&requests);
        let bucket_proxy = FaultyProxy::start(&emulator.address, schedule as _).await;
        let machine = Machine::new()
            .with_python(python)
            .with_variable("STORAGE_EMULATOR_HOST", bucket_proxy.address())
            .with_variable("FOREBAY_LEASE_SECONDS", "1");
        let (before, after) = (two_workflows::example(), two_workflows::example());
        two_workflows::change(after.path());
        Some(Self {
            registry,
            emulator,
            registry_proxy,
            _bucket_proxy: bucket_proxy,
            requests,
            machine,
            before,
            after,
            http: HttpClient::new(&HttpOptions::default()).unwrap(),
        })
    }

    /// A repository and a bucket of their own.
    async fn place(&self, name: &str) -> Place<'_> {
        self.emulator.create_bucket(name).await;
        let endpoint = Endpoint::emulator(&self.emulator.address).unwrap();
        let bucket = GcsBucket::new(name, endpoint, self.http.clone(), None);
        for key in FOREIGN {
            let key: ObjectKey = key.parse().unwrap();
            let written = bucket.write(&key, "not ours".into(), WriteCondition::Absent);
            written.await.unwrap();
        }
        Place {
            scene: self,
            name: name.to_owned(),
            bucket,
        }
    }
}

struct Place<'s> {
    scene: &'s Scene,
    name: String,
    bucket: GcsBucket,
}

impl Place<'_> {
    fn command(&self, project: &Path, arguments: &[&str]) -> Command {
        let registry = self.scene.registry_proxy.address();
        let mut command = self
            .scene
            .machine
            .command(env!("CARGO_BIN_EXE_forebay"), project);
        command
            .arg("--python")
            .arg(self.scene.machine.python().unwrap())
            .args(arguments)
            .args(["-c", "local", "--json", "-b", &self.name])
            .args(["-r", &format!("{registry}/team/{}", self.name)]);
        let mut command = Command::from(command);
        command.kill_on_drop(true).stdin(Stdio::null());
        command
    }

    async fn run(&self, project: &Path, arguments: &[&str]) -> Finished {
        Finished::from(self.command(project, arguments).output().await.unwrap())
    }

    async fn json(&self, project: &Path, arguments: &[&str]) -> Value {
        let finished = self.run(project, arguments).await;
        assert_eq!(finished.status, 0, "{arguments:?}: {}", finished.stderr);
        let document = serde_json::from_str(&finished.stdout).unwrap();
        schema::assert_follows(arguments, &document);
        document
    }

    async fn deploy_base(&self) {
        self.json(self.scene.before.path(), &["deploy"]).await;
    }

    /// `dags/` but for what belongs to others, which is as it was.
    async fn dags(&self) -> Files {
        let listing = self.bucket.list("dags/").await.unwrap();
        let mut files = Files::new();
        for object in listing.objects {
            let key: ObjectKey = object.key.parse().unwrap();
            let read = self.bucket.read(&key).await.unwrap().unwrap();
            files.insert(object.key, read.bytes);
        }
        for key in FOREIGN {
            assert_eq!(
                files.remove(key).as_deref(),
                Some(&b"not ours"[..]),
                "{key}"
            );
        }
        files
    }

    /// The storage generation of every object that there is.
    async fn writes(&self) -> BTreeMap<String, u64> {
        let listing = self.bucket.list("").await.unwrap();
        let objects = listing.objects.into_iter();
        objects
            .map(|object| (object.key, object.generation.0))
            .collect()
    }

    async fn get(&self, path: &str) -> Bytes {
        let url = format!("http://{}{path}", self.scene.registry.address());
        let request = self
            .scene
            .http
            .request(http::Method::GET, url.parse().unwrap());
        let request = request.header("accept", "application/vnd.oci.image.manifest.v1+json");
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.bytes().await.unwrap()
    }

    /// Every DAG file's image is in the registry, with all its blobs.
    async fn assert_images_are_there(&self, files: &Files) {
        let repository = format!("/v2/team/{}", self.name);
        let images = files.values().map(|bytes| {
            let text = std::str::from_utf8(bytes).unwrap();
            let (_, digest) = text.split_once("@sha256:").unwrap();
            digest[..64].to_owned()
        });
        for digest in images.collect::<std::collections::BTreeSet<_>>() {
            let manifest = self
                .get(&format!("{repository}/manifests/sha256:{digest}"))
                .await;
            let manifest: ImageManifest = serde_json::from_slice(&manifest).unwrap();
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                self.get(&format!("{repository}/blobs/{}", blob.digest))
                    .await;
            }
        }
    }

    /// Deploys what is in `after`, waiting for a lease that a dead process has left.
    async fn deploy(&self) -> Value {
        for _ in 0..100 {
            let finished = self.run(self.scene.after.path(), &["deploy"]).await;
            match finished.status {
                0 => return serde_json::from_str(&finished.stdout).unwrap(),
                5 => tokio::time::sleep(Duration::from_millis(200)).await,
                status => panic!("{status}: {}", finished.stderr),
            }
        }
        panic!("the lease never ends")
    }
}

/// Which requests of a deploy are struck: all that write, and the first of those that read.
fn sample(requests: &[String]) -> Vec<usize> {
    let reads = |request: &String| request.starts_with("GET ") || request.starts_with("HEAD ");
    let first_read = requests.iter().position(reads);
    let numbers = requests.iter().enumerate();
    let writes = numbers.filter(|(_, request)| !reads(request));
    first_read
        .into_iter()
        .chain(writes.map(|(number, _)| number))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_the_program_leaves_what_the_next_deploy_mends() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    // Once to build and push all of it, and once to see what a deploy then asks for.
    let mut requests = Vec::new();
    for name in ["first", "second"] {
        let place = scene.place(name).await;
        place.deploy_base().await;
        scene.requests.heal();
        place.deploy().await;
        requests = scene.requests.requests();
    }
    let faults = [Fault::StallBefore, Fault::StallAfter, Fault::StallWithin];
    let mut states = BTreeMap::<String, usize>::new();
    for (turn, at) in sample(&requests).into_iter().enumerate() {
        let fault = faults[turn % faults.len()];
        let place = scene.place(&format!("killed-{at}")).await;
        let state = kill(&place, at, fault).await;
        *states.entry(state).or_default() += 1;
    }
    // Before HEAD was swapped, while it was, and after it.
    let often = |state: &str| states.get(state).is_some_and(|times| *times > 3);
    assert!(often("committed") && often("applying"), "{states:?}");
}

/// Gives the state that the dead program has left.
async fn kill(place: &Place<'_>, at: usize, fault: Fault) -> String {
    let Scene {
        requests, after, ..
    } = place.scene;
    place.deploy_base().await;
    let before = place.dags().await;
    assert_eq!(before.len(), 2);
    requests.strike(Struck::Number(at), fault);
    let mut command = place.command(after.path(), &["deploy"]);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    tokio::select! {
        () = requests.still() => {}
        status = child.wait() => panic!("it never sent request {at}: {status:?}"),
    }
    let struck = requests.requests()[at].clone();
    let here = format!("{fault:?} {struck}");
    // SIGKILL.
    child.kill().await.unwrap();
    requests.heal();

    let live = place.dags().await;
    place.assert_images_are_there(&live).await;
    let status = place.json(after.path(), &["status"]).await;
    assert_eq!(
        status["drift"].as_array().unwrap().len(),
        0,
        "{here}: {status}"
    );
    assert_eq!(status["foreign"], FOREIGN.len(), "{here}: {status}");
    let state = status["state"].as_str().unwrap().to_owned();

    let deployed = place.deploy().await;
    let then = place.dags().await;
    assert_ne!(then, before, "{here}");
    for (key, bytes) in &live {
        let known = [before.get(key), then.get(key)];
        assert!(known.contains(&Some(bytes)), "{here}: {key} is neither");
    }
    if state != "applying" {
        assert!(live == before || live == then, "{here}: {live:?}");
    }
    place.assert_images_are_there(&then).await;
    assert!(deployed["image"].is_string(), "{here}: {deployed}");

    let written = place.writes().await;
    requests.heal();
    let third = place.json(after.path(), &["deploy"]).await;
    assert_eq!(third["changed"], false, "{here}");
    for request in requests.requests() {
        let reads = request.starts_with("GET ") || request.starts_with("HEAD ");
        assert!(reads, "{here}: {request}");
    }
    assert_eq!(place.writes().await, written, "{here}");
    state
}

/// What a test reads from a document.
fn numbers(value: &Value) -> Vec<u64> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_u64().unwrap()).collect()
}

fn names(value: &Value) -> Vec<&str> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_are_told_brought_back_unlocked_and_pruned() {
    let Some(scene) = Scene::start().await else {
        return;
    };
    let place = scene.place("told").await;
    let project = scene.after.path();
    let deploy = ["deploy", "--start-time", "2026-01-31"];
    place.json(scene.before.path(), &deploy).await;
    let first = place.dags().await;
    place.json(project, &deploy).await;
    let second = place.dags().await;

    let difference = place.json(project, &["diff"]).await;
    assert_eq!(
        (
            &difference["from"]["generation"],
            &difference["to"]["generation"]
        ),
        (&1.into(), &2.into())
    );
    assert_eq!(
        difference["dags"].as_array().unwrap().len(),
        3,
        "{difference}"
    );
    let files = difference["contents"]["files"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{difference}");
    assert_eq!(files[0]["name"], "flow/extra.py");

    // Exactly, and then as if it were deployed now.
    let back = place.json(project, &["rollback"]).await;
    assert_eq!(back["rollback_of"], 1);
    assert_eq!(place.dags().await, first);
    let anew = place.json(project, &["rollback", "2", "--from-now"]).await;
    assert_eq!(names(&anew["added"]), ["extra"], "{anew}");
    let restarted = place.dags().await;
    assert_eq!(restarted.len(), second.len());
    let extra = |files: &Files| {
        let mut keys = files.keys().filter(|key| key.contains("extra"));
        keys.next().unwrap().clone()
    };
    assert_ne!(extra(&restarted), extra(&second));
    for (key, bytes) in &second {
        let stays = *key != extra(&second);
        assert_eq!(restarted.get(key) == Some(bytes), stays, "{key}");
    }
    place.assert_images_are_there(&restarted).await;

    unlock(&place).await;

    // All but what is live goes; this registry deletes no tags.
    let status = place.json(project, &["status"]).await;
    let live = status["generation"].as_u64().unwrap();
    let gc = ["gc", "--environment", "--keep", "1", "--grace", "0"];
    let would = place
        .json(project, &[&gc[..], &["--dry-run"]].concat())
        .await;
    let before = place.writes().await;
    let done = place.json(project, &gc).await;
    assert_eq!(numbers(&done["kept"]), [live]);
    assert_eq!(
        numbers(&done["generations"]),
        numbers(&would["generations"])
    );
    assert!(!names(&done["tags_left"]).is_empty(), "{done}");
    let after = place.writes().await;
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let (records, objects): (Vec<_>, Vec<_>) = gone.partition(|key| key.contains("/generations/"));
    assert_eq!(records.len(), numbers(&done["generations"]).len());
    assert_eq!(objects.len() as u64, done["objects"].as_u64().unwrap());
    assert!(
        objects.iter().all(|key| key.contains("/objects/")),
        "{objects:?}"
    );
    assert!(!records.is_empty() && !objects.is_empty());
    // What is live has all that it needs, and whoever has nothing of his own finds no way back.
    let status = place.json(project, &["status"]).await;
    for object in status["dags"].as_object().unwrap().values() {
        let key = format!("forebay/v1/flow/objects/{}", object.as_str().unwrap());
        assert!(after.contains_key(&key), "{key}");
    }
    let empty = tempfile::tempdir().unwrap();
    let mut command = place.command(project, &["rollback"]);
    let output = command.env("FOREBAY_STORE", empty.path()).output().await;
    assert_eq!(Finished::from(output.unwrap()).status, 8);
    assert_eq!(place.dags().await, first);
}

/// A deploy dies with a long lease: others wait, until somebody who knows ends its hold.
async fn unlock(place: &Place<'_>) {
    let project = place.scene.before.path();
    let requests = &place.scene.requests;
    // Deletes come when everything is uploaded.
    requests.strike(Struck::First("DELETE "), Fault::StallAfter);
    // It was rolled away.
    let mut command = place.command(
        project,
        &["deploy", "--start-time", "2026-01-31", "--allow-older"],
    );
    let command = command.env("FOREBAY_LEASE_SECONDS", "3600");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    requests.still().await;
    child.kill().await.unwrap();
    requests.heal();

    let status = place.json(project, &["status"]).await;
    assert_eq!(status["state"], "applying", "{status}");
    assert_eq!(status["applying"]["held"], true);
    let generation = status["applying"]["generation"].as_u64().unwrap();
    let refused = place.run(project, &["deploy"]).await;
    assert_eq!(refused.status, 5, "{}", refused.stderr);
    let number = generation.to_string();
    assert!(
        refused.stderr.contains(&format!("forebay unlock {number}")),
        "{}",
        refused.stderr
    );
    let other = (generation - 1).to_string();
    assert_eq!(place.run(project, &["unlock", &other]).await.status, 6);
    let unlocked = place.json(project, &["unlock", &number]).await;
    assert_eq!(unlocked["lease"], "ended");
    assert_eq!(unlocked["holder"], status["applying"]["holder"]);
    let resumed = place.json(project, &["resume"]).await;
    assert_eq!(
        (&resumed["generation"], &resumed["live"]),
        (&generation.into(), &true.into())
    );
    let status = place.json(project, &["status"]).await;
    assert_eq!(status["state"], "committed");
    assert_eq!(status["drift"].as_array().unwrap().len(), 0);
}
