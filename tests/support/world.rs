//! An environment with everything around it: a bucket, a registry, and
//! machines that deploy.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay::bucket::Bucket;
use forebay::clock::SystemClock;
use forebay::dags::DagFile;
use forebay::environment::{
    Applied, Desired, DesiredDags, DesiredImage, Environment, EnvironmentError, EnvironmentKey,
    Options, RecordedCommit,
};
use forebay::oci::{BlobSource, BytesBlob, Descriptor, ImageManifest, MediaType, Sha256Digest};
use forebay::progress::Silent;
use forebay::registry::{FetchedManifest, ImageToPush};
use forebay_store::{ObjectDigest, Store};

use super::fake_bucket::FakeBucket;
use super::fake_registry::FakeRegistry;
use super::faults::Calls;

pub(crate) struct World {
    pub(crate) calls: Arc<Calls>,
    pub(crate) bucket: Arc<FakeBucket>,
    pub(crate) registry: Arc<FakeRegistry>,
}

/// A computer with a store of its own.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    store: Arc<Store>,
    _directory: tempfile::TempDir,
}

/// What a test wants to be live.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) image: &'static str,
    /// Workflows and what decides their files.
    pub(crate) dags: Vec<(&'static str, &'static str)>,
    pub(crate) version: &'static str,
    pub(crate) commit: Option<&'static str>,
    pub(crate) scope: Scope,
    /// Whether the files name the image by the version's tag.
    pub(crate) by_tag: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Scope {
    Everything,
    ImageAlone,
    DagsAlone,
    TheseWorkflows,
}

pub(crate) fn wish(
    version: &'static str,
    image: &'static str,
    dags: &[(&'static str, &'static str)],
) -> Wish {
    Wish {
        image,
        dags: dags.to_vec(),
        version,
        commit: None,
        scope: Scope::Everything,
        by_tag: false,
    }
}

impl Wish {
    pub(crate) fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    pub(crate) fn commit(self, commit: &'static str) -> Self {
        let commit = Some(commit);
        Self { commit, ..self }
    }

    pub(crate) fn by_tag(self) -> Self {
        let by_tag = true;
        Self { by_tag, ..self }
    }

    pub(crate) fn desired(&self) -> Desired {
        let image = image(self.image);
        let dags = self.dags.iter();
        let dags = dags.map(|(workflow, content)| self.dag(workflow, content));
        let dags: Vec<_> = dags.collect();
        Desired {
            image: match self.scope {
                Scope::DagsAlone => DesiredImage::Existing(image.manifest.descriptor.digest),
                _ => DesiredImage::Push(image),
            },
            dags: match self.scope {
                Scope::Everything | Scope::DagsAlone => DesiredDags::All(dags),
                Scope::TheseWorkflows => DesiredDags::Only(dags),
                Scope::ImageAlone => DesiredDags::Only(Vec::new()),
            },
            version: self.version.parse().unwrap(),
            git: self.commit.map(|commit| RecordedCommit {
                commit: commit.to_owned(),
                dirty: false,
            }),
        }
    }

    fn dag(&self, workflow: &str, content: &str) -> DagFile {
        let image = self.image_name();
        let (image, _comment) = image.split_once(" # ").unwrap_or((&image, ""));
        let identity = format!("{workflow} {content} {image}");
        DagFile {
            workflow: workflow.parse().unwrap(),
            identity: ObjectDigest::of(identity.as_bytes()),
            file_name: file_name(workflow, self.version).parse().unwrap(),
            bytes: self.bytes(workflow, content).to_vec(),
            start: None,
        }
    }

    fn bytes(&self, workflow: &str, content: &str) -> Bytes {
        let text = format!(
            "# {workflow} {} on {}\n{content}\n",
            self.version,
            self.image_name()
        );
        text.into()
    }

    fn image_name(&self) -> String {
        let by_tag = format!("registry.test/hello:{}", self.version);
        match self.by_tag {
            true => by_tag,
            // The tag beside a digest is a comment.
            false => format!(
                "registry.test/hello@{} # {by_tag}",
                image_digest(self.image)
            ),
        }
    }

    /// `dags/` as this wish alone would make it.
    pub(crate) fn files(&self) -> BTreeMap<String, Bytes> {
        let dags = self.dags.iter();
        dags.map(|(workflow, content)| {
            let key = format!("dags/{}", file_name(workflow, self.version));
            (key, self.bytes(workflow, content))
        })
        .collect()
    }
}

pub(crate) fn file_name(workflow: &str, version: &str) -> String {
    format!("{workflow}__v{version}__2026_01_01_dag.py")
}

pub(crate) fn image(name: &str) -> ImageToPush {
    let layer = BytesBlob::new(
        MediaType::new(MediaType::OCI_LAYER_GZIP),
        format!("layer of {name}"),
    );
    let config = BytesBlob::new(
        MediaType::new(MediaType::OCI_CONFIG),
        format!("config of {name}"),
    );
    let manifest = serde_json::to_vec(&ImageManifest {
        schema_version: 2,
        media_type: Some(MediaType::new(MediaType::OCI_MANIFEST)),
        config: config.descriptor().clone(),
        layers: vec![layer.descriptor().clone()],
        annotations: BTreeMap::new(),
    })
    .unwrap();
    ImageToPush {
        manifest: FetchedManifest {
            descriptor: Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), &manifest),
            bytes: manifest.into(),
        },
        blobs: vec![Arc::new(config), Arc::new(layer)],
        parts: Vec::new(),
        mount_candidates: Vec::new(),
    }
}

pub(crate) fn image_digest(name: &str) -> Sha256Digest {
    image(name).manifest.descriptor.digest
}

impl Machine {
    pub(crate) fn new(name: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            name,
            store: Arc::new(Store::open(directory.path()).unwrap()),
            _directory: directory,
        }
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(self.name)
    }
}

pub(crate) fn key(project: &str, environment: &str) -> EnvironmentKey {
    EnvironmentKey {
        project: project.parse().unwrap(),
        environment: environment.parse().unwrap(),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let calls = Arc::new(Calls::default());
        let world = Self {
            bucket: Arc::new(FakeBucket::new(Arc::clone(&calls))),
            registry: Arc::new(FakeRegistry::new(Arc::clone(&calls))),
            calls,
        };
        // What is in every Composer, and is nobody's business.
        for (name, bytes) in foreign_files() {
            world.bucket.put(&name, &bytes);
        }
        world
    }

    pub(crate) fn environment(&self, machine: &Machine) -> Environment {
        self.environment_with(key("hello", "dev"), machine, machine.options())
    }

    pub(crate) fn environment_with(
        &self,
        key: EnvironmentKey,
        machine: &Machine,
        options: Options,
    ) -> Environment {
        Environment::new(
            key,
            Arc::clone(&self.bucket) as Arc<dyn Bucket>,
            Arc::clone(&self.registry) as _,
            Arc::clone(&machine.store),
            Arc::new(SystemClock),
            Arc::new(Silent),
            options,
        )
    }

    pub(crate) async fn deploy(
        &self,
        machine: &Machine,
        wish: &Wish,
    ) -> Result<Applied, EnvironmentError> {
        deploy(&self.environment(machine), wish).await
    }

    pub(crate) async fn rollback(
        &self,
        machine: &Machine,
        target: Option<u64>,
    ) -> Result<Applied, EnvironmentError> {
        let environment = self.environment(machine);
        let (live, _) = environment.settle(environment.observe(None).await?).await?;
        let plan = environment.plan_rollback(live, target).await?;
        environment.apply(plan).await
    }

    /// Our part of `dags/`; it also checks that nobody else's has changed.
    pub(crate) fn dags(&self) -> BTreeMap<String, Bytes> {
        let mut files = self.bucket.contents("dags");
        for (name, bytes) in foreign_files() {
            assert_eq!(files.remove(&name), Some(bytes), "{name} was touched");
        }
        files
    }
}

fn foreign_files() -> BTreeMap<String, Bytes> {
    [
        "dags/airflow_monitoring.py",
        "dags/other_team.py",
        "dags_backup/a.py",
    ]
    .map(|name| (name.to_owned(), Bytes::from(format!("not ours: {name}"))))
    .into()
}

/// A whole deploy, as the command does it.
pub(crate) async fn deploy(
    environment: &Environment,
    wish: &Wish,
) -> Result<Applied, EnvironmentError> {
    deploy_if(environment, wish, &|_, _| None).await
}

pub(crate) async fn deploy_if(
    environment: &Environment,
    wish: &Wish,
    is_ancestor: forebay::environment::IsAncestor<'_>,
) -> Result<Applied, EnvironmentError> {
    let digest = image_digest(wish.image);
    let live = environment.observe(Some(&digest)).await?;
    let (live, _) = environment.settle(live).await?;
    let plan = environment.plan(live, wish.desired(), is_ancestor).await?;
    environment.apply(plan).await
}
