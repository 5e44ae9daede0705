//! What images promise: the planner's classes, the bytes of layers, and that
//! the same sources give the same digests everywhere.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::read::MultiGzDecoder;
use forebay_store::{ObjectDigest, Store, TreeEntry, TreeEntryKind};
use proptest::prelude::*;

use super::context::BuildContext;
use super::layer::{Layer, StoredLayer};
use super::project::ProjectSource;
use super::*;
use crate::oci::{BlobSource, ImageManifest, Sha256Digest};
use crate::progress::{Event, Progress, Silent};
use crate::wheels::testing::WheelBuilder;
use crate::wheels::{
    Archive, Content, InstallScheme, Installation, LockedWheel, Platform, WheelSet,
};

// --- the planner ---

fn tree_of(paths: &[&str]) -> forebay_store::Tree {
    let mut paths = paths.to_vec();
    paths.sort_unstable();
    forebay_store::Tree {
        entries: paths
            .into_iter()
            .map(|path| TreeEntry {
                path: path.to_owned(),
                kind: TreeEntryKind::File {
                    digest: ObjectDigest::of(path.as_bytes()),
                    size: 1,
                    executable: false,
                },
            })
            .collect(),
        read_again: 0,
    }
}

const FILES: [&str; 7] = [
    "Dockerfile",
    "app/__init__.py",
    "conf/a.yml",
    "conf/b.yml",
    "deployment_config.py",
    "resources/requirements.txt",
    "setup.py",
];

fn planned(text: &str) -> ImagePlan {
    let base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
    let tree = tree_of(&FILES);
    let ignore = IgnoreFile::parse("**/*.pyc\n");
    plan(
        &Dockerfile::parse(text).unwrap(),
        &PlanContext {
            tree: &tree,
            ignore: &ignore,
            base_environment: &base.environment(),
            base_directory: base.working_directory(),
            project_requirements: "resources/requirements.txt",
            platform: Platform::LinuxAmd64,
            hoists_packages: true,
            replaced_base: None,
        },
    )
}

fn classes(text: &str) -> String {
    let plan = planned(text);
    let lines = plan.lines.iter().map(|line| {
        format!(
            "{:>2} {:<6} {} | {}\n",
            line.line,
            line.class.as_str(),
            line.text,
            line.reason
        )
    });
    lines.collect()
}

fn copied(plan: &ImagePlan) -> Vec<(String, String)> {
    let files = plan.steps.iter().flat_map(|step| match step {
        Step::Copy { files, .. } => files.clone(),
        _ => Vec::new(),
    });
    files.map(|file| (file.from, file.to)).collect()
}

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

#[test]
fn the_scaffolds_dockerfile_is_native() {
    insta::assert_snapshot!(classes(SCAFFOLD), @r"
     2 native FROM python:3.7.9-slim-buster | takes the base by digest; its layers stay where they are
     5 native WORKDIR /app | sets the working directory
     8 no-op  RUN apt-get update && apt-get install -y && rm -rf /var/lib/apt/lists/* | package lists are not part of the image; it installs no system package; the image never has what it removes
    14 native COPY ./resources/requirements.txt requirements.txt | a layer with 1 file of the context
    15 native RUN pip install --no-cache-dir -r requirements.txt | layers of wheels, spliced
    18 native COPY ./dist dist | the project layer stands for the project's wheel
    19 native RUN pip install dist/*.whl | a layer with the project
    ");
    let plan = planned(SCAFFOLD);
    assert_eq!(plan.requirement_files, ["resources/requirements.txt"]);
    assert!(matches!(
        plan.steps.as_slice(),
        [Step::Copy { .. }, Step::Wheels, Step::Project]
    ));
    assert_eq!(
        copied(&plan),
        [(
            "resources/requirements.txt".to_owned(),
            "app/requirements.txt".to_owned()
        )]
    );
    assert_eq!(plan.settings.working_directory.as_deref(), Some("/app"));
}

#[test]
fn the_wheel_loop_brings_the_requirements_with_the_project() {
    let plan = planned(
        "FROM python:3.8\nCOPY ./dist /dist\nRUN for i in /dist/*.whl; do pip install $i; done\nWORKDIR /app",
    );
    assert_eq!(plan.errors().count(), 0);
    assert_eq!(plan.requirement_files, ["resources/requirements.txt"]);
    assert!(matches!(
        plan.steps.as_slice(),
        [Step::Wheels, Step::Project, Step::Directory { path, .. }] if path == "app"
    ));
    let plan = planned("FROM a\nCOPY dist d\nRUN pip install --no-deps d/*.whl");
    assert!(plan.requirement_files.is_empty());
    assert!(matches!(plan.steps.as_slice(), [Step::Project]));
}

/// The other Dockerfiles of BigFlow's repository, and that of its documentation: six
/// projects of its tests have the first.
const IN_BIGFLOW: [&str; 3] = [
    "FROM python:3.8-slim
COPY ./dist /dist
RUN apt-get -y update && apt-get install -y libzbar-dev libc-dev musl-dev
RUN for i in /dist/*.whl; do pip install $i; done",
    "FROM python:3.7
COPY ./dist /dist
RUN apt-get -y update && apt-get install -y libzbar-dev libc-dev musl-dev
RUN pip install pip==20.2.4
RUN for i in /dist/*.whl; do pip install $i --use-feature=2020-resolver; done",
    "FROM python:3.7-slim
# COPY --from=apache/beam_python3.6_sdk:2.26.0 /opt/apache/beam /opt/apache/beam
WORKDIR /app
RUN echo \"Installing CUDA ...\" \\
  && apt-get update && apt-get install -y --no-install-recommends gnupg2 curl \\
  && curl -fsSL https://x.test/7fa2af80.pub | apt-key add - \\
  && rm -rf /var/lib/apt/lists/*
RUN apt-get update && apt-get install -y \\
  libc-dev \\
  # gcc \\
  && rm -rf /var/lib/apt/lists/*
COPY ./resources/requirements.txt requirements.txt
RUN pip install --no-cache-dir -r requirements.txt
COPY ./dist dist
RUN pip install dist/*.whl",
];

#[test]
fn the_dockerfiles_of_bigflow_need_an_engine_for_their_system_packages_alone() {
    let all: Vec<String> = IN_BIGFLOW.iter().map(|text| classes(text)).collect();
    insta::assert_snapshot!(all.join("--\n"), @r#"
     1 native FROM python:3.8-slim | takes the base by digest; its layers stay where they are
     2 native COPY ./dist /dist | the project layer stands for the project's wheel
     3 engine RUN apt-get -y update && apt-get install -y libzbar-dev libc-dev musl-dev | it installs system packages (libzbar-dev libc-dev musl-dev)
     4 native RUN for i in /dist/*.whl; do pip install $i; done | a layer with the project
    --
     1 native FROM python:3.7 | takes the base by digest; its layers stay where they are
     2 native COPY ./dist /dist | the project layer stands for the project's wheel
     3 engine RUN apt-get -y update && apt-get install -y libzbar-dev libc-dev musl-dev | it installs system packages (libzbar-dev libc-dev musl-dev)
     4 no-op  RUN pip install pip==20.2.4 | pip itself has no part in installing these wheels
     5 native RUN for i in /dist/*.whl; do pip install $i --use-feature=2020-resolver; done | a layer with the project
    --
     1 native FROM python:3.7-slim | takes the base by digest; its layers stay where they are
     3 native WORKDIR /app | sets the working directory
     4 engine RUN echo "Installing CUDA ..." && apt-get update && apt-get install -y --no-install-recommends gnupg2 curl && curl -fsSL https://x.test/7fa2af80.pub | apt-key add - && rm -rf /var/lib/apt/lists/* | it uses the shell's '|'
     8 engine RUN apt-get update && apt-get install -y libc-dev && rm -rf /var/lib/apt/lists/* | it installs system packages (libc-dev)
    12 native COPY ./resources/requirements.txt requirements.txt | a layer with 1 file of the context
    13 native RUN pip install --no-cache-dir -r requirements.txt | layers of wheels, spliced
    14 native COPY ./dist dist | the project layer stands for the project's wheel
    15 native RUN pip install dist/*.whl | a layer with the project
    "#);
    for text in IN_BIGFLOW {
        let plan = planned(text);
        assert!(matches!(
            plan.steps.as_slice(),
            [Step::Engine(_), .., Step::Wheels, Step::Project]
        ));
    }
}

#[test]
fn what_is_not_understood_runs_in_a_container_or_is_an_error() {
    insta::assert_snapshot!(classes("\
FROM python:3.8 AS build
RUN apt-get install -y libzbar-dev
RUN pip install -r nothing.txt
RUN pip install dist/*.whl
COPY missing /x
COPY --chown=app conf /x
COPY --chmod=755 conf /x
ADD https://x.test/a /a
RUN --mount=type=secret,id=x pip install -r r.txt
RUN <<EOF
make
EOF
RUN <<EOF
# only what is known
pip install \\
  x==1
EOF
ONBUILD RUN x
SHELL [\"python3\", \"-c\"]
RUN print()
HEALTHCHECK NONE
FUNNY x
"), @r#"
     1 native FROM python:3.8 AS build | takes the base by digest; its layers stay where they are
     2 engine RUN apt-get install -y libzbar-dev | it installs system packages (libzbar-dev)
     3 engine RUN pip install -r nothing.txt | no COPY line brings /nothing.txt
     4 error  RUN pip install dist/*.whl | no COPY line brings the project's wheel to /dist
     5 error  COPY missing /x | the build context has no missing
     6 engine COPY --chown=app conf /x | its files get another owner than root
     7 engine COPY --chmod=755 conf /x | its option --chmod is not known here
     8 engine ADD https://x.test/a /a | it downloads a file
     9 engine RUN --mount=type=secret,id=x pip install -r r.txt | it has the option --mount=type=secret,id=x
    10 engine RUN <<EOF | it runs `make`
    13 native RUN <<EOF | layers of wheels, spliced
    18 no-op  ONBUILD RUN x | it is meant for images that start from this one, and OCI images have no such lines
    19 native SHELL ["python3", "-c"] | names the shell of the lines that follow
    20 engine RUN print() | its shell is `python3 -c`
    21 no-op  HEALTHCHECK NONE | OCI images have no health check, and Kubernetes has its own
    22 error  FUNNY x | FUNNY is not supported
    "#);
}

#[test]
fn stages_are_followed_as_far_as_the_last_one_needs_them() {
    let text = "\
ARG TAG=3.8
FROM node:20 AS front
COPY conf /src
RUN npm run build
FROM alpine
RUN touch /x
FROM python:$TAG AS base
ENV A=1
RUN apt-get update
FROM base
ARG TAG
ARG TARGETARCH
COPY setup.py $TAG$A$TARGETARCH/
COPY --from=front /src/out /app/static
COPY --from=0 /src/other /app/static
WORKDIR /app
RUN apt-get install -y git
";
    insta::assert_snapshot!(classes(text), @r#"
     1 native ARG TAG=3.8 | sets a build argument
     2 engine FROM node:20 AS front | a later line copies from its stage
     3 engine COPY conf /src | a later line copies from its stage
     4 engine RUN npm run build | a later line copies from its stage
     5 no-op  FROM alpine | the last stage does not need this one
     6 no-op  RUN touch /x | the last stage does not need this one
     7 native FROM python:$TAG AS base | takes the base by digest; its layers stay where they are
     8 native ENV A=1 | sets environment variables
     9 engine RUN apt-get update | other lines run in a container, and may need what it does
    10 native FROM base | goes on from the stage on line 7
    11 native ARG TAG | sets a build argument
    12 native ARG TARGETARCH | sets a build argument
    13 native COPY setup.py $TAG$A$TARGETARCH/ | a layer with 1 file of the context
    14 engine COPY --from=front /src/out /app/static | it copies from another stage or image
    15 engine COPY --from=0 /src/other /app/static | it copies from another stage or image
    16 native WORKDIR /app | sets the working directory
    17 engine RUN apt-get install -y git | it installs system packages (git)
    "#);
    let plan = planned(text);
    assert_eq!(
        copied(&plan),
        [("setup.py".to_owned(), "3.81amd64/setup.py".to_owned())]
    );
    let dockerfiles: Vec<String> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Engine(step) => Some(step.dockerfile("made:1", 1)),
            _ => None,
        })
        .collect();
    insta::assert_snapshot!(dockerfiles.join("--\n"), @r#"
    # escape=\
    FROM made:1
    ARG SOURCE_DATE_EPOCH=1
    ENV A="1"
    RUN apt-get update
    --
    # escape=\
    ARG TAG="3.8"
    FROM node:20 AS front
    COPY conf /src
    RUN npm run build
    FROM made:1
    ARG SOURCE_DATE_EPOCH=1
    ENV A="1"
    ARG TAG="3.8"
    ARG TARGETARCH="amd64"
    COPY --from=front /src/out /app/static
    COPY --from=front /src/other /app/static
    --
    # escape=\
    FROM made:1
    ARG SOURCE_DATE_EPOCH=1
    ENV A="1"
    ARG TAG="3.8"
    ARG TARGETARCH="amd64"
    WORKDIR "/app"
    RUN apt-get install -y git
    "#);
    let files = plan.steps.iter().find_map(|step| match step {
        Step::Engine(step) if !step.files.is_empty() => Some(step.files.clone()),
        _ => None,
    });
    let expected = ["conf/a.yml", "conf/b.yml"].map(str::to_owned);
    assert_eq!(files.unwrap().into_iter().collect::<Vec<_>>(), expected);
    let dockerfile = Dockerfile::parse(text).unwrap();
    assert_eq!(
        base_of(&dockerfile).unwrap(),
        BaseName::Image("python:3.8".parse().unwrap())
    );
}

#[test]
fn package_lines_run_first_unless_something_before_them_could_matter() {
    let order = |text: &str| {
        let steps = planned(text).steps;
        let names = steps.iter().map(|step| match step {
            Step::Directory { .. } => "directory".to_owned(),
            Step::Copy { .. } => "copy".to_owned(),
            Step::Wheels => "wheels".to_owned(),
            Step::Project => "project".to_owned(),
            Step::Engine(step) => {
                let lines: Vec<String> = step
                    .lines
                    .iter()
                    .map(|line| line.line.to_string())
                    .collect();
                format!("engine {}", lines.join("+"))
            }
        });
        names.collect::<Vec<_>>().join(", ")
    };
    for (text, expected) in [
        (
            "FROM a\nWORKDIR /w\nCOPY conf c\nRUN apt-get update\nENV X=1\nRUN apt-get install -y git\nRUN make",
            "engine 4+6, copy, engine 7",
        ),
        (
            "FROM a\nCOPY conf /etc/apt\nRUN apt-get install -y git",
            "copy, engine 3",
        ),
        (
            "FROM a\nCOPY conf c\nRUN make\nRUN apt-get install -y git\nUSER x\nRUN make",
            "copy, engine 3+4+6",
        ),
        // Alone it does nothing; with the other it has to run.
        ("FROM a\nRUN apt-get update\nCOPY conf c", "copy"),
        (
            "FROM a\nRUN pip install -U pip\nCOPY conf c\nRUN make",
            "engine 2, copy, engine 4",
        ),
        ("FROM a\nCOPY conf c\nRUN rm -r c", ""),
        ("FROM a\nCOPY conf c\nRUN rm c/a.yml", "copy"),
        (
            "FROM a\nCOPY conf c\nRUN make\nRUN rm c/a.yml",
            "copy, engine 3+4",
        ),
        (
            "FROM a\nUSER x\nCOPY conf c\nRUN pip install x",
            "copy, engine 4",
        ),
    ] {
        assert_eq!(order(text), expected, "{text}");
    }
}

#[test]
fn copy_puts_files_where_docker_puts_them() {
    let to = |line: &str| {
        copied(&planned(&format!("FROM a\nWORKDIR /w\n{line}")))
            .into_iter()
            .map(|(_, to)| to)
            .collect::<Vec<_>>()
    };
    assert_eq!(to("COPY setup.py ."), ["w/setup.py"]);
    assert_eq!(to("COPY setup.py /x"), ["x"]);
    assert_eq!(to("COPY setup.py x/"), ["w/x/setup.py"]);
    assert_eq!(to("COPY conf /etc/app"), ["etc/app/a.yml", "etc/app/b.yml"]);
    assert_eq!(to("COPY conf/*.yml ./"), ["w/a.yml", "w/b.yml"]);
    assert_eq!(
        to("COPY setup.py deployment_config.py ./"),
        ["w/setup.py", "w/deployment_config.py"]
    );
    assert_eq!(to("COPY [\"conf\", \"/c d\"]"), ["c d/a.yml", "c d/b.yml"]);
    assert_eq!(to("COPY . ../all").len(), FILES.len());
    assert_eq!(
        to("ENV D=/opt\nCOPY conf ${D:-/x}/c"),
        ["opt/c/a.yml", "opt/c/b.yml"]
    );
}

#[test]
fn settings_are_what_the_dockerfile_says() {
    let plan = planned(
        "ARG TAG=3\nFROM python:$TAG\nARG A=1\nENV B=$A C=\"x y\"\nENV OLD a b\nLABEL l='1 2'\nUSER app\n\
         EXPOSE 80 53/udp\nVOLUME [\"/v\"]\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"python\"]\nCMD echo hi",
    );
    assert_eq!(
        plan.errors().collect::<Vec<_>>(),
        Vec::<&PlannedLine>::new()
    );
    insta::assert_json_snapshot!(plan.settings, @r#"
    {
      "environment": [
        [
          "B",
          "1"
        ],
        [
          "C",
          "x y"
        ],
        [
          "OLD",
          "a b"
        ]
      ],
      "working_directory": null,
      "labels": {
        "l": "1 2"
      },
      "user": "app",
      "exposed_ports": [
        "53/udp",
        "80/tcp"
      ],
      "volumes": [
        "/v"
      ],
      "command": [
        "/bin/sh",
        "-c",
        "echo hi"
      ],
      "entrypoint": [
        "python"
      ],
      "stop_signal": "SIGINT"
    }
    "#);
    let dockerfile = Dockerfile::parse("ARG TAG=3\nFROM python:$TAG\n").unwrap();
    assert_eq!(
        base_of(&dockerfile).unwrap(),
        BaseName::Image("python:3".parse().unwrap())
    );
}

// --- layers of wheels ---

pub(super) fn scheme() -> InstallScheme {
    InstallScheme::under(
        "usr/local",
        (3, 11),
        "site-packages",
        "/usr/local/bin/python3.11",
    )
}

pub(super) fn lock(store: &Store, wheels: &[&WheelBuilder]) -> WheelSet {
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

pub(super) fn new_store() -> (tempfile::TempDir, std::sync::Arc<Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    (directory, std::sync::Arc::new(store))
}

/// A layer's bytes, as a push sends them.
pub(super) fn bytes_of(store: &std::sync::Arc<Store>, layer: &Layer) -> Vec<u8> {
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

pub(super) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut tar).unwrap();
    tar
}

/// The tar archive that unpacking the wheels and archiving the files gives,
/// written by other code: the `tar` crate's headers.
fn unpack_then_tar(wheels: &[&WheelBuilder]) -> Vec<u8> {
    let mut files: BTreeMap<String, Option<(Vec<u8>, bool)>> = BTreeMap::new();
    for wheel in wheels {
        let archive = Archive::open(wheel.build()).unwrap();
        let name = wheel.file_name().parse().unwrap();
        for file in Installation::plan(&archive, &name, &scheme())
            .unwrap()
            .files
        {
            let content = match file.content {
                Content::Generated(bytes) => bytes,
                Content::Entry(index) => archive.read(&archive.entries()[index], u64::MAX).unwrap(),
            };
            for (slash, _) in file.path.match_indices('/') {
                files.insert(file.path[..slash].to_owned(), None);
            }
            files.insert(file.path, Some((content, file.executable)));
        }
    }
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, file) in files {
        let mut header = ::tar::Header::new_ustar();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(315_532_801);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        match file {
            None => {
                header.set_entry_type(::tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                header.set_path(format!("{path}/")).unwrap();
                header.set_cksum();
                builder.append(&header, std::io::empty()).unwrap();
            }
            Some((content, executable)) => {
                header.set_entry_type(::tar::EntryType::Regular);
                header.set_mode(if executable { 0o755 } else { 0o644 });
                header.set_size(content.len() as u64);
                header.set_path(&path).unwrap();
                header.set_cksum();
                builder.append(&header, content.as_slice()).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn any_wheel() -> impl Strategy<Value = Vec<(String, Vec<u8>, bool, bool)>> {
    let path = "[a-c]{1,3}(/[a-c]{1,3}){0,2}\\.[a-z]{2}";
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000),
        (any::<u8>(), 0usize..200_000).prop_map(|(byte, length)| vec![byte; length]),
    ];
    proptest::collection::vec((path, content, any::<bool>(), any::<bool>()), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_spliced_layer_is_the_tar_of_the_unpacked_wheel(files in any_wheel()) {
        let mut wheel = WheelBuilder::new("some").data("scripts/run", b"#!python\n");
        for (path, content, executable, deflate) in files {
            // One directory level under a name of its own: no file is another's directory.
            let path = format!("pkg/{}", path.replace('.', "_."));
            wheel = wheel.entry(&path, &content, if executable { 0o755 } else { 0o644 }, deflate);
        }
        let (_directory, store) = new_store();
        let set = lock(&store, &[&wheel]);
        let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
        prop_assert_eq!(layers.len(), 1);
        let tar = gunzip(&bytes_of(&store, &layers[0]));
        let expected = unpack_then_tar(&[&wheel]);
        let difference = tar.iter().zip(&expected).position(|(a, b)| a != b);
        prop_assert_eq!((tar.len(), difference), (expected.len(), None));
        prop_assert_eq!(Sha256Digest::of(&tar), layers[0].diff_id);
    }
}

#[test]
fn a_wheel_whose_record_lies_makes_no_layer() {
    let wheel = WheelBuilder::new("liar").file("a.py", b"one");
    let right = wheel.build();
    let archive = Archive::open(right).unwrap();
    let record = archive.entry("liar-1.0.dist-info/RECORD").unwrap();
    let record = String::from_utf8(archive.read(record, 1 << 20).unwrap()).unwrap();
    let wheel = WheelBuilder::new("liar")
        .file("a.py", b"two")
        .record(&record);
    let (_directory, store) = new_store();
    let set = lock(&store, &[&wheel]);
    let error = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("a.py\" is not what RECORD says"),
        "{error}"
    );
}

#[test]
fn conflicting_wheels_make_no_image() {
    let a = WheelBuilder::new("a").file("shared.py", b"1");
    let b = WheelBuilder::new("b").file("shared.py", b"2");
    let (_directory, store) = new_store();
    let set = lock(&store, &[&a, &b]);
    let error = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("a and b both install"),
        "{error}"
    );
}

#[test]
fn one_more_package_disturbs_one_layer() {
    let wheels: Vec<WheelBuilder> = (0..30)
        .map(|n| {
            let name = format!("package{n}");
            WheelBuilder::new(&name).file(&format!("{name}/__init__.py"), name.as_bytes())
        })
        .collect();
    let (_directory, store) = new_store();
    let some: Vec<&WheelBuilder> = wheels.iter().skip(1).collect();
    let all: Vec<&WheelBuilder> = wheels.iter().collect();
    let digests = |wheels: &[&WheelBuilder]| -> Vec<Sha256Digest> {
        let set = lock(&store, wheels);
        let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
        layers.iter().map(|layer| layer.descriptor.digest).collect()
    };
    let (before, after) = (digests(&some), digests(&all));
    assert!(before.len() <= 8 && after.len() <= 8);
    let new: Vec<_> = after
        .iter()
        .filter(|digest| !before.contains(digest))
        .collect();
    assert_eq!(new.len(), 1);
}

#[test]
fn a_recipe_is_small_beside_its_layer() {
    let noise: Vec<u8> = (0..400_000u32)
        .flat_map(|n| ObjectDigest::of(&n.to_le_bytes()).as_bytes()[..1].to_vec())
        .collect();
    let wheel = WheelBuilder::new("big").file("big/data.bin", &noise);
    let (_directory, store) = new_store();
    let set = lock(&store, &[&wheel]);
    let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
    let recipe = store.info(&layers[0].object().unwrap()).unwrap().unwrap();
    assert!(
        recipe.size * 100 < layers[0].descriptor.size,
        "{}",
        recipe.size
    );
}

// --- the project, and the whole image ---

pub(super) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

pub(super) fn write_project(root: &Path) {
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

pub(super) struct Parts {
    pub(super) packages: Vec<String>,
    pub(super) metadata: BTreeMap<String, serde_json::Value>,
    pub(super) setuptools: BTreeMap<String, serde_json::Value>,
}

pub(super) fn parts() -> Parts {
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

pub(super) fn source(parts: &Parts) -> ProjectSource<'_> {
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
        recompress: false,
        bytecode: None,
        labels: &BTreeMap::new(),
        created: None,
    };
    build(&request, store, progress)
}

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(std::sync::Mutex<Vec<String>>);

impl Progress for Warnings {
    fn report(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

pub(super) fn entries(tar: &[u8]) -> BTreeMap<String, String> {
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

#[test]
fn the_project_layer_is_what_pip_would_leave() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let layer = image.layers().last().unwrap();
    let files = entries(&gunzip(&bytes_of(&store, layer)));
    let version = files
        .keys()
        .find_map(|path| {
            path.split_once("hello_world-0+t")?
                .1
                .split_once(".dist-info")
        })
        .unwrap()
        .0
        .to_owned();
    assert_eq!(version.len(), 12);
    let paths: Vec<String> = files
        .keys()
        .filter(|path| !path.ends_with('/'))
        .map(|path| path.replace(&version, "V"))
        .collect();
    assert_eq!(
        paths,
        [
            "usr/local/bigflow__project/hello-world/bf-project.tar",
            "usr/local/bigflow__project/hello-world/pyproject.toml",
            "usr/local/bin/hello",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/INSTALLER",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/METADATA",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/RECORD",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/WHEEL",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/entry_points.txt",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/top_level.txt",
            "usr/local/lib/python3.11/site-packages/hello_world/__init__.py",
            "usr/local/lib/python3.11/site-packages/hello_world/data.json",
            "usr/local/lib/python3.11/site-packages/hello_world/jobs/__init__.py",
            "usr/local/lib/python3.11/site-packages/hello_world/jobs/work.py",
            "usr/local/resources/query.sql",
            "usr/local/resources/requirements.txt",
        ]
    );
    let metadata = files
        .iter()
        .find(|(path, _)| path.ends_with("METADATA"))
        .unwrap()
        .1;
    assert_eq!(
        metadata.replace(&version, "V"),
        "Metadata-Version: 2.1\nName: hello-world\nVersion: 0+tV\nAuthor: somebody\nRequires-Dist: some==1.0\n\n"
    );
    let pyproject = &files["usr/local/bigflow__project/hello-world/pyproject.toml"];
    let pyproject: toml::Table = pyproject.parse().unwrap();
    let specification = &pyproject["bigflow-project"];
    assert_eq!(specification["name"].as_str(), Some("hello-world"));
    assert_eq!(specification["requries"][0].as_str(), Some("some==1.0"));
    assert_eq!(
        specification["docker_repository"].as_str(),
        Some("registry.test/hello")
    );
    assert_eq!(
        pyproject["build-system"]["requires"][0].as_str(),
        Some("bigflow==1.11.3")
    );
}

#[test]
fn the_source_archive_has_what_bigflows_sdist_has() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let tar = gunzip(&bytes_of(&store, image.layers().last().unwrap()));
    let mut archive = ::tar::Archive::new(tar.as_slice());
    let mut inner = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("bf-project.tar") {
            entry.read_to_end(&mut inner).unwrap();
        }
    }
    let names: Vec<String> = entries(&inner)
        .into_keys()
        .filter_map(|path| Some(path.split_once('/')?.1.to_owned()))
        .filter(|path| !path.is_empty() && !path.ends_with('/'))
        .collect();
    assert_eq!(
        names,
        [
            "Dockerfile",
            "PKG-INFO",
            "deployment_config.py",
            "hello_world/__init__.py",
            "hello_world/data.json",
            "hello_world/jobs/__init__.py",
            "hello_world/jobs/work.py",
            "pyproject.toml",
            "resources/requirements.txt",
            "resources/sub/query.sql",
            "setup.py",
            "test/test_work.py",
        ]
    );
}

#[test]
fn the_same_sources_give_the_same_image_everywhere() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_project(one.path());
    let (_first, first_store) = new_store();
    let first = build_image(one.path(), &first_store);

    // Another folder, store, order of writing and time.
    let mut files: Vec<_> = first_store.scan(one.path(), &|_, _| false).unwrap().entries;
    files.reverse();
    for entry in files {
        let text = std::fs::read_to_string(one.path().join(&entry.path)).unwrap();
        write(two.path(), &entry.path, &text);
        let file = std::fs::File::open(two.path().join(&entry.path)).unwrap();
        let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
        file.set_modified(then).unwrap();
    }
    let (_second, second_store) = new_store();
    let second = build_image(two.path(), &second_store);
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.manifest().bytes, second.manifest().bytes);
    assert_eq!(first.config().bytes(), second.config().bytes());
}

#[test]
fn a_password_in_a_requirement_is_warned_of_and_kept_out_of_what_is_written() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
    let path = "resources/requirements.txt";
    write(
        project.path(),
        path,
        "some @ https://user:hunter2@host.test/some.zip\n",
    );
    let warnings = Warnings::default();
    let image = build_on(
        &base,
        &WheelSet::default(),
        project.path(),
        &store,
        &warnings,
    )
    .unwrap();
    let said = warnings.0.into_inner().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(path) && said[0].contains("${VARIABLE}"));
    assert!(!said[0].contains("hunter2"));
    let layer = gunzip(&bytes_of(&store, image.layers().last().unwrap()));
    let files = entries(&layer);
    let pyproject = files
        .iter()
        .find(|(path, _)| path.ends_with("bigflow__project/hello-world/pyproject.toml"));
    let (_, text) = pyproject.unwrap();
    assert!(text.contains("https://host.test/some.zip"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    write(
        project.path(),
        path,
        "some @ https://user:${PASSWORD}@host.test/some.zip\n",
    );
    let warnings = Warnings::default();
    build_on(
        &base,
        &WheelSet::default(),
        project.path(),
        &store,
        &warnings,
    )
    .unwrap();
    assert_eq!(warnings.0.into_inner().unwrap(), [""; 0]);
}

#[test]
fn wheels_for_glibc_are_refused_on_musl() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let mut base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
    base.python.is_musl = true;
    let wheel = WheelBuilder::new("some").file("some/__init__.py", b"y = 2\n");
    let mut wheels = lock(&store, &[&wheel]);
    assert!(build_on(&base, &wheels, project.path(), &store, &Silent).is_ok());
    let name = "some-1.0-cp311-cp311-manylinux_2_17_x86_64.whl";
    wheels.wheels[0].file_name = name.parse().unwrap();
    let refused = build_on(&base, &wheels, project.path(), &store, &Silent).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("musl") && refused.contains(name),
        "{refused}"
    );
    wheels.wheels[0].file_name = "some-1.0-cp311-cp311-musllinux_1_2_x86_64.whl"
        .parse()
        .unwrap();
    assert!(build_on(&base, &wheels, project.path(), &store, &Silent).is_ok());
}

#[test]
fn a_directory_says_of_itself_what_its_own_line_says() {
    let project = tempfile::tempdir().unwrap();
    let (_directory, store) = new_store();
    let tree = store.scan(project.path(), &|_, _| false).unwrap();
    let context = BuildContext {
        directory: project.path(),
        tree: &tree,
    };
    for line in ["WORKDIR /srv/app", "WORKDIR app"] {
        let layer = copy_layer::directory("srv/app", line, &context, &store).unwrap();
        assert_eq!(layer.unwrap().created_by, line);
    }
}

#[test]
fn a_change_replaces_the_layer_it_touches() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let layers = |image: &BuiltImage| -> Vec<Sha256Digest> {
        image.layers().iter().map(|l| l.descriptor.digest).collect()
    };
    let first = build_image(project.path(), &store);

    // What is in no wheel changes nothing.
    write(project.path(), "README.md", "another text\n");
    let same = build_image(project.path(), &store);
    assert_eq!(first.digest(), same.digest());

    write(project.path(), "hello_world/jobs/work.py", "x = 2\n");
    let changed = build_image(project.path(), &store);
    assert_ne!(first.digest(), changed.digest());
    let (before, after) = (layers(&first), layers(&changed));
    assert_eq!(before.len(), after.len());
    let differing = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 1);
    assert_ne!(before.last(), after.last());
}

#[test]
fn the_configuration_names_every_layer() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let manifest: ImageManifest = serde_json::from_slice(&image.manifest().bytes).unwrap();
    assert_eq!(
        manifest.config.digest,
        Sha256Digest::of(image.config().bytes())
    );
    let config: serde_json::Value = serde_json::from_slice(image.config().bytes()).unwrap();
    let diff_ids: Vec<String> =
        serde_json::from_value(config["rootfs"]["diff_ids"].clone()).unwrap();
    let expected: Vec<String> = image
        .layers()
        .iter()
        .map(|l| l.diff_id.to_string())
        .collect();
    assert_eq!(diff_ids, expected);
    assert_eq!(config["history"].as_array().unwrap().len(), expected.len());
    assert_eq!(config["config"]["WorkingDir"], "/app");
    assert_eq!(config["created"], "1980-01-01T00:00:01Z");
    for layer in image.layers() {
        let tar = gunzip(&bytes_of(&store, layer));
        assert_eq!(Sha256Digest::of(&tar), layer.diff_id);
    }
    assert_eq!(manifest.layers.len(), expected.len());
}

#[test]
fn the_systems_tar_and_gzip_read_every_layer() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let root = tempfile::tempdir().unwrap();
    for layer in image.layers() {
        let path = root.path().join("layer.tar.gz");
        std::fs::write(&path, bytes_of(&store, layer)).unwrap();
        let unpacked = Command::new("tar")
            .args(["--warning=all", "--no-same-owner", "-xzf"])
            .arg(&path)
            .arg("-C")
            .arg(root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&unpacked.stderr);
        assert!(unpacked.status.success() && errors.is_empty(), "{errors}");
    }
    let site = root.path().join("usr/local/lib/python3.11/site-packages");
    assert_eq!(
        std::fs::read_to_string(site.join("some/__init__.py")).unwrap(),
        "y = 2\n"
    );
    assert!(site.join("hello_world/jobs/work.py").is_file());
    assert!(root.path().join("app/requirements.txt").is_file());
}

#[test]
fn a_file_that_changes_while_it_is_read_fails_the_build() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let tree = store.scan(project.path(), &|_, _| false).unwrap();
    write(project.path(), "hello_world/jobs/work.py", "x = 3\n");
    let context = BuildContext {
        directory: project.path(),
        tree: &tree,
    };
    let parts = parts();
    let error = project_layer::build(&source(&parts), &context, &scheme(), None, &store, &Silent)
        .unwrap_err();
    assert!(format!("{error}").contains("work.py"), "{error}");
}

#[test]
fn what_only_setuptools_knows_is_refused() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let tree = store.scan(project.path(), &|_, _| false).unwrap();
    let context = BuildContext {
        directory: project.path(),
        tree: &tree,
    };
    let mut parts = parts();
    parts
        .setuptools
        .insert("ext_modules".to_owned(), serde_json::json!(["x"]));
    let error = project_layer::build(&source(&parts), &context, &scheme(), None, &store, &Silent)
        .unwrap_err();
    assert!(error.to_string().contains("ext_modules"), "{error}");
}

#[test]
fn links_that_lead_nowhere_are_named() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    for (target, problem) in [
        ("/etc/passwd", "an absolute path"),
        ("../outside.sql", "has no file"),
        ("gone.sql", "has no file"),
    ] {
        let link = project.path().join("resources/link.sql");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
        let refused =
            build_on(&base, &WheelSet::default(), project.path(), &store, &Silent).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("resources/link.sql")
                && refused.contains(target)
                && refused.contains(problem),
            "{refused}"
        );
    }
}

#[test]
fn the_first_difference_of_two_builds_is_named() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_project(one.path());
    write_project(two.path());
    let ((_first, first), (_second, second)) = (new_store(), new_store());
    let built = build_image(one.path(), &first);
    let same = build_image(two.path(), &second);
    assert_eq!(
        first_difference((&built, &first), (&same, &second)).unwrap(),
        None
    );
    write(two.path(), "hello_world/jobs/work.py", "x = 9\n");
    let other = build_image(two.path(), &second);
    let difference = first_difference((&built, &first), (&other, &second)).unwrap();
    let difference = difference.unwrap();
    assert!(
        difference.contains("bf-project.tar") && difference.contains("pip install hello-world"),
        "{difference}"
    );
}

#[test]
fn settings_stand_for_the_scaffolds_dockerfile() {
    let plan = planned(SCAFFOLD);
    let base = base_of(&Dockerfile::parse(SCAFFOLD).unwrap()).unwrap();
    let settings = declaration_of(&plan, &base).unwrap();
    let text = declaration_text(&settings);
    insta::assert_snapshot!(text, @r#"
    [tool.forebay.image]
    base = "docker.io/library/python:3.7.9-slim-buster"
    requirements = ["resources/requirements.txt"]
    workdir = "/app"
    "#);
    let written: toml::Table = text.parse().unwrap();
    let read: crate::project::ImageSettings = written["tool"]["forebay"]["image"]
        .clone()
        .try_into()
        .unwrap();
    assert_eq!(read, settings);
    let again = planned(&declared_dockerfile(&read).unwrap().unwrap());
    assert_eq!(
        with_declared_requirements(again, &read).requirement_files,
        plan.requirement_files
    );
    let container = planned("FROM a\nRUN make\n");
    assert!(declaration_of(&container, &base).is_err());
}

#[test]
fn a_layer_that_is_compressed_anew_has_the_same_inside() {
    let (_directory, store) = new_store();
    let wheel = WheelBuilder::new("some").file("some/__init__.py", b"y = 2\n");
    let set = lock(&store, &[&wheel]);
    let layers = wheel_layers::build(&set, &scheme(), None, &store, &Silent).unwrap();
    let spliced = layers.into_iter().next().unwrap();
    let anew = recompress::recompress(spliced.clone(), &store).unwrap();
    assert_eq!(
        anew,
        recompress::recompress(spliced.clone(), &store).unwrap()
    );
    assert_eq!(anew, recompress::recompress(anew.clone(), &store).unwrap());
    assert_ne!(anew.descriptor.digest, spliced.descriptor.digest);
    assert_eq!(anew.diff_id, spliced.diff_id);
    let bytes = bytes_of(&store, &anew);
    // One member holds it all.
    let mut tar = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes.as_slice());
    decoder.read_to_end(&mut tar).unwrap();
    assert_eq!(Sha256Digest::of(&tar), spliced.diff_id);
}
