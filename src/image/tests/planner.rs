//! What the planner makes of a Dockerfile, line by line.

use forebay_store::{ObjectDigest, TreeEntry, TreeEntryKind};

use super::super::*;
use super::SCAFFOLD;
use crate::wheels::Platform;

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

pub(super) fn planned(text: &str) -> ImagePlan {
    planned_with(text, true)
}

fn planned_with(text: &str, hoists_packages: bool) -> ImagePlan {
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
            hoists_packages,
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
    let order_of = |plan: ImagePlan| {
        let steps = plan.steps;
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
    let order = |text: &str| order_of(planned(text));
    // Unless the settings say otherwise.
    let text = "FROM a\nCOPY conf c\nRUN apt-get install -y git";
    assert_eq!(order(text), "engine 3, copy");
    assert_eq!(order_of(planned_with(text, false)), "copy, engine 3");
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
