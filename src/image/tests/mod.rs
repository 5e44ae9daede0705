//! What images promise: the planner's classes, the bytes of layers, and that
//! the same sources give the same digests everywhere.

mod planner;
mod project;
mod variants;
mod wheels;
mod whole;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use forebay_store::Store;

use super::context::BuildContext;
use super::layer::{Layer, StoredLayer};
use super::project::ProjectSource;
use super::*;
use crate::oci::{BlobSource, Sha256Digest};
use crate::progress::{Progress, Silent};
use crate::wheels::testing::WheelBuilder;
use crate::wheels::{InstallScheme, LockedWheel, Platform, WheelSet};

/// The Dockerfile of BigFlow's scaffold, as `bigflow start-project` writes it.
const SCAFFOLD: &str = "\
# Docker base image - change to upgrade python version.
FROM python:3.7.9-slim-buster

# Working directory.
WORKDIR /app

# Install binary system libraries and/or dev packages.
RUN apt-get update && apt-get install -y \\
  # libc-dev \\
  && rm -rf /var/lib/apt/lists/*

# Preinstall python packages (improve docker layer caching).
# This step is optional, but may improve docker image building time.
COPY ./resources/requirements.txt requirements.txt
RUN pip install --no-cache-dir -r requirements.txt

# Install bigflow project 'whl' package.
COPY ./dist dist
RUN pip install dist/*.whl
";

pub(in crate::image) fn scheme() -> InstallScheme {
    InstallScheme::under(
        "usr/local",
        (3, 11),
        "site-packages",
        "/usr/local/bin/python3.11",
    )
}

pub(in crate::image) fn lock(store: &Store, wheels: &[&WheelBuilder]) -> WheelSet {
    let mut batch = store.begin().unwrap();
    let locked = wheels
        .iter()
        .map(|wheel| {
            let info = batch.put(&wheel.build()).unwrap();
            LockedWheel {
                file_name: wheel.file_name().parse().unwrap(),
                object: info.digest,
                sha256: info.sha256,
                size: info.size,
            }
        })
        .collect();
    batch.commit().unwrap();
    WheelSet::new(locked).unwrap()
}

pub(in crate::image) fn new_store() -> (tempfile::TempDir, std::sync::Arc<Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, std::sync::Arc::new(store))
}

/// A layer's bytes, as a push sends them.
pub(in crate::image) fn bytes_of(store: &std::sync::Arc<Store>, layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    let blob = StoredLayer {
        store: std::sync::Arc::clone(store),
        descriptor: layer.descriptor.clone(),
        source: layer.source,
    };
    blob.open().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(Sha256Digest::of(&bytes), layer.descriptor.digest);
    assert_eq!(bytes.len() as u64, layer.descriptor.size);
    bytes
}

pub(in crate::image) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut tar).unwrap();
    tar
}

pub(in crate::image) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

pub(in crate::image) fn write_project(root: &Path) {
    for (path, text) in [
        ("Dockerfile", SCAFFOLD),
        (
            "setup.py",
            "import bigflow.build\nbigflow.build.setup(name='hello_world')\n",
        ),
        (
            "pyproject.toml",
            "[build-system]\nrequires = ['bigflow==1.11.3']\n",
        ),
        ("deployment_config.py", "# config\n"),
        ("README.md", "read me\n"),
        ("hello_world/__init__.py", ""),
        ("hello_world/jobs/__init__.py", ""),
        ("hello_world/jobs/work.py", "x = 1\n"),
        ("hello_world/data.json", "{}"),
        ("hello_world/notes.txt", "not package data"),
        ("resources/requirements.txt", "some==1.0\n"),
        ("resources/sub/query.sql", "select 1\n"),
        ("test/__init__.py", ""),
        ("test/test_work.py", "# test\n"),
    ] {
        write(root, path, text);
    }
}

pub(in crate::image) struct Parts {
    pub(in crate::image) packages: Vec<String>,
    pub(in crate::image) metadata: BTreeMap<String, serde_json::Value>,
    pub(in crate::image) setuptools: BTreeMap<String, serde_json::Value>,
}

pub(in crate::image) fn parts() -> Parts {
    Parts {
        packages: vec!["hello_world".to_owned(), "hello_world.jobs".to_owned()],
        metadata: BTreeMap::from([("author".to_owned(), "somebody".into())]),
        setuptools: BTreeMap::from([
            (
                "package_data".to_owned(),
                serde_json::json!({"hello_world": ["*.json"]}),
            ),
            (
                "entry_points".to_owned(),
                serde_json::json!({"console_scripts": ["hello = hello_world.jobs.work:main"]}),
            ),
        ]),
    }
}

pub(in crate::image) fn source(parts: &Parts) -> ProjectSource<'_> {
    ProjectSource {
        name: "hello-world",
        version: None,
        packages: &parts.packages,
        resources_directory: "resources",
        requirements_file: "resources/requirements.txt",
        requires: None,
        deployment_config_file: "deployment_config.py",
        docker_repository: Some("registry.test/hello"),
        test_framework: "unittest",
        export_image_tar: true,
        data_files: &[],
        metadata: &parts.metadata,
        setuptools: &parts.setuptools,
    }
}

fn build_image(root: &Path, store: &std::sync::Arc<Store>) -> BuiltImage {
    let base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
    let wheel = WheelBuilder::new("some").file("some/__init__.py", b"y = 2\n");
    let wheels = lock(store, &[&wheel]);
    build_on(&base, &wheels, root, store, &Silent).unwrap()
}

fn build_on(
    base: &BaseImage,
    wheels: &WheelSet,
    root: &Path,
    store: &std::sync::Arc<Store>,
    progress: &dyn Progress,
) -> Result<BuiltImage, ImageError> {
    let tree = store.scan(root, &|_, _| false).unwrap();
    let context = BuildContext {
        directory: root,
        tree: &tree,
    };
    let dockerfile = read_dockerfile(&root.join("Dockerfile")).unwrap();
    let options = PlanOptions {
        project_requirements: "resources/requirements.txt",
        hoists_packages: true,
        replaced_base: None,
    };
    let plan = plan_project(&dockerfile, base, &context, &options).unwrap();
    let parts = parts();
    let request = ImageRequest {
        container_layers: &[],
        published: None,
        plan: &plan,
        base,
        wheels,
        context,
        project: &source(&parts),
        project_wheel: None,
        compression: crate::project::CompressionSetting::Splice,
        bytecode: None,
        labels: &BTreeMap::new(),
        created: None,
    };
    build(&request, store, progress)
}

pub(in crate::image) fn entries(tar: &[u8]) -> BTreeMap<String, String> {
    let mut archive = ::tar::Archive::new(tar);
    let mut entries = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        entries.insert(path, String::from_utf8_lossy(&bytes).into_owned());
    }
    entries
}
