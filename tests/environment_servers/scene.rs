//! Real servers with a proxy in front of each, and the program over them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::bucket::{Bucket as _, Endpoint, GcsBucket, ObjectKey, WriteCondition};
use forebay::http::{HttpClient, HttpOptions};
use forebay::oci::ImageManifest;
use serde_json::Value;
use tokio::process::Command;

use crate::docker_registry::DockerRegistry;
use crate::emulator::Emulator;
use crate::faulty_proxy::{Fault, FaultyProxy, Numbered, Struck};
use crate::forebay_support::{Finished, Machine, installed};
use crate::{schema, two_workflows};

pub(crate) const FOREIGN: [&str; 2] = ["dags/airflow_monitoring.py", "dags/somebody_elses_dag.py"];

pub(crate) type Files = BTreeMap<String, Bytes>;

/// The servers with a proxy in front of each, and a project as it was and as it is now.
pub(crate) struct Scene {
    registry: DockerRegistry,
    emulator: Emulator,
    registry_proxy: FaultyProxy,
    _bucket_proxy: FaultyProxy,
    pub(crate) requests: Arc<Numbered>,
    machine: Machine,
    pub(crate) before: tempfile::TempDir,
    pub(crate) after: tempfile::TempDir,
    http: HttpClient,
}

impl Scene {
    pub(crate) async fn start() -> Option<Self> {
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

    /// What a deploy asks for that brings `after` where `before` is live.
    pub(crate) async fn requests_of_a_deploy(&self) -> Vec<String> {
        // Once to build and push all of it, and once to look.
        for name in ["first", "second"] {
            let place = self.place(name).await;
            place.deploy_base().await;
            self.requests.heal();
            place.once_free(self.after.path(), "deploy").await;
        }
        self.requests.requests()
    }

    /// A repository and a bucket of their own.
    pub(crate) async fn place(&self, name: &str) -> Place<'_> {
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

pub(crate) struct Place<'s> {
    pub(crate) scene: &'s Scene,
    name: String,
    bucket: GcsBucket,
}

impl Place<'_> {
    pub(crate) fn command(&self, project: &Path, arguments: &[&str]) -> Command {
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

    pub(crate) async fn run(&self, project: &Path, arguments: &[&str]) -> Finished {
        Finished::from(self.command(project, arguments).output().await.unwrap())
    }

    pub(crate) async fn json(&self, project: &Path, arguments: &[&str]) -> Value {
        let finished = self.run(project, arguments).await;
        assert_eq!(finished.status, 0, "{arguments:?}: {}", finished.stderr);
        let document = serde_json::from_str(&finished.stdout).unwrap();
        schema::assert_follows(arguments, &document);
        document
    }

    pub(crate) async fn deploy_base(&self) {
        self.json(self.scene.before.path(), &["deploy"]).await;
    }

    /// `dags/` but for what belongs to others, which is as it was.
    pub(crate) async fn dags(&self) -> Files {
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

    /// Lets the bucket lose the bytes by which generations come back.
    pub(crate) async fn lose_objects(&self) {
        let listing = self.bucket.list("forebay/v1/flow/objects/").await.unwrap();
        assert!(!listing.objects.is_empty());
        for object in listing.objects {
            let key: ObjectKey = object.key.parse().unwrap();
            self.bucket.delete(&key, object.generation).await.unwrap();
        }
    }

    /// The storage generation of every object that there is.
    pub(crate) async fn writes(&self) -> BTreeMap<String, u64> {
        let listing = self.bucket.list("").await.unwrap();
        let objects = listing.objects.into_iter();
        objects
            .map(|object| (object.key, object.generation.0))
            .collect()
    }

    pub(crate) async fn get(&self, path: &str) -> Bytes {
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
    pub(crate) async fn assert_images_are_there(&self, files: &Files) {
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

    /// Runs a command once a lease that a dead process has left is over.
    pub(crate) async fn once_free(&self, project: &Path, command: &str) -> Value {
        self.repeated(|| self.command(project, &[command])).await
    }

    /// The same of any command that waits for the lease.
    pub(crate) async fn repeated(&self, command: impl Fn() -> Command) -> Value {
        for _ in 0..100 {
            let finished = Finished::from(command().output().await.unwrap());
            match finished.status {
                0 => return serde_json::from_str(&finished.stdout).unwrap(),
                5 => tokio::time::sleep(Duration::from_millis(200)).await,
                status => panic!("{status}: {}", finished.stderr),
            }
        }
        panic!("the lease never ends")
    }

    /// Runs a command that cannot be done, once a lease that a dead process has left is over.
    pub(crate) async fn refused(&self, command: impl Fn() -> Command) -> Finished {
        loop {
            let finished = Finished::from(command().output().await.unwrap());
            match finished.status {
                0 => panic!("{}", finished.stdout),
                5 => tokio::time::sleep(Duration::from_millis(200)).await,
                _ => return finished,
            }
        }
    }

    /// Lets the program end by SIGKILL when a request of its stands still. Gives that request.
    pub(crate) async fn kill(&self, mut command: Command, at: Struck, fault: Fault) -> String {
        let requests = &self.scene.requests;
        requests.strike(at.clone(), fault);
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        tokio::select! {
            () = requests.still() => {}
            status = child.wait() => panic!("it never sent {at:?}: {status:?}"),
        }
        child.kill().await.unwrap();
        let struck = requests.struck();
        requests.heal();
        format!("{fault:?} {struck}")
    }
}
