//! Decides, line by line, what of a Dockerfile can be done without a container,
//! and says why.

use std::collections::{BTreeMap, BTreeSet};

use forebay_store::Tree;
use serde::Serialize;

use super::dockerfile::{Dockerfile, Instruction, expand_words, substitute};
use super::glob::IgnoreFile;
use super::run::resolve_path;
use crate::oci::ImageReference;

mod copy;
mod install;

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

/// What makes layers, in the Dockerfile's order.
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
}

/// The image that a Dockerfile starts from.
///
/// # Errors
/// No FROM line, or one that names no image.
pub fn base_of(dockerfile: &Dockerfile) -> Result<BaseName, String> {
    let mut arguments = BTreeMap::new();
    for instruction in &dockerfile.instructions {
        match instruction.name.as_str() {
            "ARG" => declare_arguments(&mut arguments, instruction, dockerfile.escape)?,
            "FROM" => return read_from(instruction, &arguments, dockerfile.escape),
            _ => break,
        }
    }
    Err("the Dockerfile does not start with FROM".to_owned())
}

fn read_from(
    instruction: &Instruction,
    arguments: &BTreeMap<String, String>,
    escape: char,
) -> Result<BaseName, String> {
    let text = substitute(&instruction.arguments, arguments, escape)?;
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !word.starts_with("--"))
        .collect();
    let name = match words.as_slice() {
        [name] => name,
        [name, as_word, _] if as_word.eq_ignore_ascii_case("as") => name,
        _ => return Err(format!("`FROM {text}` names no image")),
    };
    if *name == "scratch" {
        return Ok(BaseName::Scratch);
    }
    name.parse()
        .map(BaseName::Image)
        .map_err(|error| format!("{error}"))
}

fn declare_arguments(
    arguments: &mut BTreeMap<String, String>,
    instruction: &Instruction,
    escape: char,
) -> Result<(), String> {
    for word in expand_words(&instruction.arguments, arguments, escape)? {
        match word.split_once('=') {
            Some((name, value)) => {
                arguments.insert(name.to_owned(), value.to_owned());
            }
            None => {
                arguments.entry(word).or_default();
            }
        }
    }
    Ok(())
}

/// A line's outcome: native or no-op with a reason, or the reason of an error.
type Outcome = Result<(LineClass, String), String>;

fn native(reason: impl Into<String>) -> Outcome {
    Ok((LineClass::Native, reason.into()))
}

struct Planner<'a> {
    context: &'a PlanContext<'a>,
    escape: char,
    seen_from: bool,
    /// ARG before FROM.
    global_arguments: BTreeMap<String, String>,
    /// ENV and ARG, as later lines see them.
    variables: BTreeMap<String, String>,
    environment_names: BTreeSet<String>,
    directory: String,
    /// Where paths of the image came from: (image, context), later lines win.
    origins: Vec<(String, String)>,
    steps: Vec<Step>,
    requirement_files: Vec<String>,
    requirement_lines: Vec<String>,
    settings: ContainerSettings,
}

/// Plans a Dockerfile.
pub fn plan(dockerfile: &Dockerfile, context: &PlanContext<'_>) -> ImagePlan {
    let mut planner = Planner {
        context,
        escape: dockerfile.escape,
        seen_from: false,
        global_arguments: BTreeMap::new(),
        variables: context.base_environment.clone(),
        environment_names: context.base_environment.keys().cloned().collect(),
        directory: resolve_path("", context.base_directory.unwrap_or("/")),
        origins: Vec::new(),
        steps: Vec::new(),
        requirement_files: Vec::new(),
        requirement_lines: Vec::new(),
        settings: ContainerSettings::default(),
    };
    let lines = dockerfile
        .instructions
        .iter()
        .map(|instruction| {
            let (class, reason) = match planner.line(instruction) {
                Ok(outcome) => outcome,
                Err(problem) => (LineClass::Error, problem),
            };
            PlannedLine {
                line: instruction.line,
                // Index URLs may carry passwords, and this is shown.
                text: crate::wheels::strip_credentials(&instruction.text()),
                class,
                reason,
            }
        })
        .collect();
    ImagePlan {
        lines,
        steps: without_needless_directories(planner.steps),
        requirement_files: planner.requirement_files,
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
    fn line(&mut self, instruction: &Instruction) -> Outcome {
        let name = instruction.name.as_str();
        if !self.seen_from && !matches!(name, "FROM" | "ARG") {
            return Err("it stands before FROM".to_owned());
        }
        if instruction.has_heredoc {
            return Err("it has a here-document, which needs a container".to_owned());
        }
        match name {
            "FROM" => self.from(instruction),
            "ARG" => self.argument(instruction),
            "ENV" => self.environment(instruction),
            "LABEL" => self.label(instruction),
            "MAINTAINER" => {
                self.settings
                    .labels
                    .insert("maintainer".to_owned(), instruction.arguments.clone());
                native("sets a label")
            }
            "WORKDIR" => self.working_directory(instruction),
            "COPY" | "ADD" => self.copy(instruction),
            "RUN" => self.run(instruction),
            "USER" => {
                self.settings.user = Some(self.expand(&instruction.arguments)?);
                native("sets the user")
            }
            "EXPOSE" => {
                for port in self.words(&instruction.arguments)? {
                    let port = if port.contains('/') {
                        port
                    } else {
                        format!("{port}/tcp")
                    };
                    self.settings.exposed_ports.insert(port);
                }
                native("names ports")
            }
            "VOLUME" => {
                let volumes = match instruction.exec_form() {
                    Some(volumes) => volumes,
                    None => self.words(&instruction.arguments)?,
                };
                self.settings.volumes.extend(volumes);
                native("names volumes")
            }
            "STOPSIGNAL" => {
                self.settings.stop_signal = Some(self.expand(&instruction.arguments)?);
                native("sets the stop signal")
            }
            "CMD" => {
                self.settings.command = Some(command(instruction));
                native("sets the command")
            }
            "ENTRYPOINT" => {
                self.settings.entrypoint = Some(command(instruction));
                // Docker forgets an earlier CMD, also the base's.
                self.settings.command.get_or_insert_default();
                native("sets the entry point")
            }
            "HEALTHCHECK" => Ok((
                LineClass::NoOp,
                "OCI images have no health check, and Kubernetes has its own".to_owned(),
            )),
            _ => Err(format!("{name} is not supported")),
        }
    }

    fn expand(&self, text: &str) -> Result<String, String> {
        substitute(text.trim(), &self.variables, self.escape)
    }

    fn words(&self, text: &str) -> Result<Vec<String>, String> {
        expand_words(text, &self.variables, self.escape)
    }

    fn from(&mut self, instruction: &Instruction) -> Outcome {
        if self.seen_from {
            return Err("a second FROM starts another stage, which needs a container".to_owned());
        }
        self.seen_from = true;
        match read_from(instruction, &self.global_arguments, self.escape)? {
            BaseName::Scratch => native("starts from nothing"),
            BaseName::Image(_) => {
                native("takes the base by digest; its layers stay where they are")
            }
        }
    }

    fn argument(&mut self, instruction: &Instruction) -> Outcome {
        if !self.seen_from {
            declare_arguments(&mut self.global_arguments, instruction, self.escape)?;
            return native("sets a build argument");
        }
        for word in self.words(&instruction.arguments)? {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => {
                    let value = self.global_arguments.get(&word).cloned();
                    (word, value.unwrap_or_default())
                }
            };
            // ENV always wins over ARG.
            if !self.environment_names.contains(&name) {
                self.variables.insert(name, value);
            }
        }
        native("sets a build argument")
    }

    /// `NAME=value …`, or the old form `NAME value`.
    fn pairs(&self, instruction: &Instruction) -> Result<Vec<(String, String)>, String> {
        let words = self.words(&instruction.arguments)?;
        if words.first().is_some_and(|word| word.contains('=')) {
            return words
                .into_iter()
                .map(|word| match word.split_once('=') {
                    Some((name, value)) if !name.is_empty() => {
                        Ok((name.to_owned(), value.to_owned()))
                    }
                    _ => Err(format!("{word:?} is not NAME=value")),
                })
                .collect();
        }
        match instruction.arguments.split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![(name.to_owned(), self.expand(value)?)]),
            None => Err("it has no value".to_owned()),
        }
    }

    fn environment(&mut self, instruction: &Instruction) -> Outcome {
        for (name, value) in self.pairs(instruction)? {
            self.variables.insert(name.clone(), value.clone());
            self.environment_names.insert(name.clone());
            self.settings.environment.push((name, value));
        }
        native("sets environment variables")
    }

    fn label(&mut self, instruction: &Instruction) -> Outcome {
        let pairs = self.pairs(instruction)?;
        self.settings.labels.extend(pairs);
        native("sets labels")
    }

    fn working_directory(&mut self, instruction: &Instruction) -> Outcome {
        let path = self.expand(&instruction.arguments)?;
        self.directory = resolve_path(&self.directory, path.trim_matches(['"', '\'']));
        self.settings.working_directory = Some(format!("/{}", self.directory));
        if !self.directory.is_empty() {
            self.add_step(Step::Directory {
                text: instruction.text(),
                path: self.directory.clone(),
            });
        }
        native("sets the working directory")
    }
}

/// CMD and ENTRYPOINT: exec form, or a line for the shell.
fn command(instruction: &Instruction) -> Vec<String> {
    instruction.exec_form().unwrap_or_else(|| {
        vec![
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            instruction.arguments.clone(),
        ]
    })
}
