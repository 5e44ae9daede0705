//! Decides, line by line, what of a Dockerfile can be done without a container,
//! and says why.

use std::collections::{BTreeMap, BTreeSet};

use forebay_store::Tree;
use serde::Serialize;

use super::dockerfile::{Dockerfile, Instruction};
use super::glob::IgnoreFile;
use super::run::resolve_path;
use crate::oci::ImageReference;
use crate::wheels::Platform;

mod container;
mod copy;
mod install;
mod settings;
mod stages;

pub use container::{EngineLine, EngineStep};
use stages::Stages;
pub use stages::base_of;

/// The folder that BigFlow builds the project's wheel into.
const DIST: &str = "dist";

/// How a line of a Dockerfile is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineClass {
    /// Done without a container.
    Native,
    /// Changes nothing in the image.
    NoOp,
    /// Runs in a container, on what the lines before it came to.
    Engine,
    /// Cannot be done.
    Error,
}

impl LineClass {
    /// Whether no container is needed.
    pub fn is_native(self) -> bool {
        matches!(self, Self::Native | Self::NoOp)
    }

    /// The word that people and scripts see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::NoOp => "no-op",
            Self::Engine => "engine",
            Self::Error => "error",
        }
    }
}

/// One instruction with its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedLine {
    /// The line it starts on, counted from 1.
    pub line: usize,
    /// The instruction on one line.
    pub text: String,
    /// How it is treated.
    pub class: LineClass,
    /// Why.
    pub reason: String,
}

/// What the image stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseName {
    /// `FROM scratch`: nothing.
    Scratch,
    /// An image.
    Image(ImageReference),
}

/// A file or link that a COPY line brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedFile {
    /// Its path in the build context.
    pub from: String,
    /// Its path in the image, without the leading slash.
    pub to: String,
}

/// What makes layers, in the Dockerfile's order; only lines that are about system packages
/// alone may stand earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A layer with the directory that a WORKDIR line names.
    Directory {
        /// The instruction, for the image's history.
        text: String,
        /// Its path, without the leading slash.
        path: String,
    },
    /// A layer with files of the context.
    Copy {
        /// The instruction, for the image's history.
        text: String,
        /// The files.
        files: Vec<CopiedFile>,
    },
    /// The layers of the requirements' wheels.
    Wheels,
    /// The layer of the project itself.
    Project,
    /// The layers of lines that run in a container.
    Engine(EngineStep),
}

/// What the Dockerfile says about the container (OCI image specification, "config").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ContainerSettings {
    /// ENV, in order.
    pub environment: Vec<(String, String)>,
    /// WORKDIR, absolute.
    pub working_directory: Option<String>,
    /// LABEL.
    pub labels: BTreeMap<String, String>,
    /// USER.
    pub user: Option<String>,
    /// EXPOSE, with protocol.
    pub exposed_ports: BTreeSet<String>,
    /// VOLUME.
    pub volumes: BTreeSet<String>,
    /// CMD.
    pub command: Option<Vec<String>>,
    /// ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
}

/// A Dockerfile, planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// Every instruction, with its class.
    pub lines: Vec<PlannedLine>,
    /// What makes layers.
    pub steps: Vec<Step>,
    /// Requirement files to install, as paths in the build context.
    pub requirement_files: Vec<String>,
    /// Constraint files of `pip install` lines, as paths in the build context.
    pub constraint_files: Vec<String>,
    /// Requirements and index options from `pip install` lines.
    pub requirement_lines: Vec<String>,
    /// What changes the image's configuration.
    pub settings: ContainerSettings,
}

impl ImagePlan {
    /// The lines that cannot be done.
    pub fn errors(&self) -> impl Iterator<Item = &PlannedLine> {
        self.lines
            .iter()
            .filter(|line| line.class == LineClass::Error)
    }

    /// The lines that run in a container.
    pub fn engine_lines(&self) -> impl Iterator<Item = &PlannedLine> {
        self.lines
            .iter()
            .filter(|line| line.class == LineClass::Engine)
    }
}

/// What planning knows beside the Dockerfile.
#[derive(Debug)]
pub struct PlanContext<'a> {
    /// The build context's files.
    pub tree: &'a Tree,
    /// `.dockerignore`.
    pub ignore: &'a IgnoreFile,
    /// The base's ENV.
    pub base_environment: &'a BTreeMap<String, String>,
    /// The base's WORKDIR, if it has one.
    pub base_directory: Option<&'a str>,
    /// The requirements file that the project's wheel is built with, as a path
    /// in the build context: pip installs them with the wheel.
    pub project_requirements: &'a str,
    /// What the image is for: `TARGETARCH` and its like.
    pub platform: Platform,
    /// Whether lines that are about system packages alone run before all others, so that
    /// they run once per base.
    pub hoists_packages: bool,
    /// The base that the environment's settings put in the place of FROM's.
    pub replaced_base: Option<&'a str>,
}

/// Why a line is not done natively.
#[derive(Debug)]
enum Refusal {
    /// It has to run in a container.
    Engine(String),
    /// It cannot be done at all.
    Error(String),
}

impl From<String> for Refusal {
    fn from(problem: String) -> Self {
        Self::Error(problem)
    }
}

impl From<&str> for Refusal {
    fn from(problem: &str) -> Self {
        Self::Error(problem.to_owned())
    }
}

/// A line's outcome: its class with a reason, or why it is not done here.
type Outcome = Result<(LineClass, String), Refusal>;

fn native(reason: impl Into<String>) -> Outcome {
    Ok((LineClass::Native, reason.into()))
}

#[derive(Clone)]
struct Planner<'a> {
    context: &'a PlanContext<'a>,
    escape: char,
    stages: &'a Stages<'a>,
    containers: Containers,
    /// ENV, as later lines see it, the base's included.
    environment: BTreeMap<String, String>,
    /// ARG, as later lines of the stage see it.
    arguments: BTreeMap<String, String>,
    shell: Option<Vec<String>>,
    directory: String,
    /// Where paths of the image came from: (image, context), later lines win.
    origins: Vec<(String, String)>,
    steps: Vec<Step>,
    requirement_files: Vec<String>,
    constraint_files: Vec<String>,
    requirement_lines: Vec<String>,
    settings: ContainerSettings,
}

/// Plans a Dockerfile.
pub fn plan(dockerfile: &Dockerfile, context: &PlanContext<'_>) -> ImagePlan {
    let stages = Stages::read(dockerfile);
    let first = plan_once(dockerfile, &stages, context, Containers::None);
    let steps = first.steps.iter().filter_map(|step| match step {
        Step::Engine(step) if step.lines.iter().any(EngineLine::is_run) => Some(step),
        _ => None,
    });
    let containers = steps.map(EngineStep::containers).max();
    match containers {
        Some(containers) => plan_once(dockerfile, &stages, context, containers),
        None => first,
    }
}

/// Which lines run in a container: what does not matter without one may matter to those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Containers {
    /// None.
    None,
    /// Only those that install system packages, which do not look at pip.
    OfPackages,
    /// Others, too.
    OfAnyKind,
}

fn plan_once(
    dockerfile: &Dockerfile,
    stages: &Stages<'_>,
    context: &PlanContext<'_>,
    containers: Containers,
) -> ImagePlan {
    let mut planner = Planner {
        context,
        escape: dockerfile.escape,
        stages,
        containers,
        environment: context.base_environment.clone(),
        arguments: BTreeMap::new(),
        shell: None,
        directory: resolve_path("", context.base_directory.unwrap_or("/")),
        origins: Vec::new(),
        steps: Vec::new(),
        requirement_files: Vec::new(),
        constraint_files: Vec::new(),
        requirement_lines: Vec::new(),
        settings: ContainerSettings::default(),
    };
    let mut outcomes: BTreeMap<usize, (LineClass, String)> = BTreeMap::new();
    for index in stages.chain_lines() {
        if let Some(instruction) = dockerfile.instructions.get(index) {
            outcomes.insert(index, planner.line(instruction));
        }
    }
    let needed = planner.needed_stages();
    let mut lines: Vec<PlannedLine> = Vec::new();
    for (index, instruction) in dockerfile.instructions.iter().enumerate() {
        let (class, reason) = outcomes
            .remove(&index)
            .unwrap_or_else(|| stages.other_line(index, instruction, &needed));
        lines.push(PlannedLine {
            line: instruction.line,
            // Index URLs may carry passwords, and this is shown.
            text: crate::wheels::strip_credentials(&instruction.text()),
            class,
            reason,
        });
    }
    let steps = without_needless_directories(planner.steps);
    let steps = container::arrange(steps, context.hoists_packages, stages, &mut lines);
    ImagePlan {
        lines,
        steps,
        requirement_files: planner.requirement_files,
        constraint_files: planner.constraint_files,
        requirement_lines: planner.requirement_lines,
        settings: planner.settings,
    }
}

/// A directory that some file stands in needs no layer of its own.
fn without_needless_directories(steps: Vec<Step>) -> Vec<Step> {
    let copied: Vec<String> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Copy { files, .. } => Some(files.iter().map(|file| file.to.clone())),
            _ => None,
        })
        .flatten()
        .collect();
    let is_needed = |path: &str| {
        !copied
            .iter()
            .any(|file| crate::wheels::parents(file).any(|parent| parent == path))
    };
    steps
        .into_iter()
        .filter(|step| !matches!(step, Step::Directory { path, .. } if !is_needed(path)))
        .collect()
}

impl Planner<'_> {
    /// One line of the stages that the image comes of.
    fn line(&mut self, instruction: &Instruction) -> (LineClass, String) {
        let may_need_engine = matches!(instruction.name.as_str(), "RUN" | "COPY" | "ADD");
        let before = may_need_engine.then(|| self.clone());
        let outcome = match self.native_line(instruction) {
            Err(Refusal::Engine(reason)) => {
                if let Some(before) = before {
                    *self = before;
                }
                self.container_line(instruction, reason)
            }
            outcome => outcome,
        };
        match outcome {
            Ok(outcome) => outcome,
            Err(Refusal::Engine(problem) | Refusal::Error(problem)) => (LineClass::Error, problem),
        }
    }
}

/// What runs lines in shell form.
fn usual_shell() -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned()]
}
