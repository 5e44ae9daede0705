//! Decides, line by line, what of a Dockerfile can be done without a container,
//! and says why.

use std::collections::{BTreeMap, BTreeSet};

use forebay_store::Tree;
use serde::Serialize;

use super::dockerfile::{Dockerfile, Instruction, expand_words, substitute};
use super::glob::{self, IgnoreFile};
use super::run::{self, Effect, Surroundings, resolve_path};
use crate::oci::ImageReference;

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

    fn copy(&mut self, instruction: &Instruction) -> Outcome {
        let words = match instruction.exec_form() {
            Some(words) => words
                .iter()
                .map(|word| self.expand(word))
                .collect::<Result<_, _>>()?,
            None => self.words(&instruction.arguments)?,
        };
        let (flags, paths): (Vec<&String>, Vec<&String>) =
            words.iter().partition(|word| word.starts_with("--"));
        for flag in flags {
            let (flag, value) = flag.split_once('=').unwrap_or((flag, ""));
            match flag {
                "--link" => {}
                "--chown" if matches!(value, "root" | "0" | "root:root" | "0:0") => {}
                "--chown" => {
                    return Err("files of another owner than root are not known".to_owned());
                }
                "--from" => return Err("it copies from another stage or image".to_owned()),
                _ => return Err(format!("its option {flag} is not known here")),
            }
        }
        let Some((to, sources)) = paths.split_last().filter(|(_, from)| !from.is_empty()) else {
            return Err("it needs a source and a destination".to_owned());
        };
        let mut files = Vec::new();
        let mut brings_wheel = false;
        for source in sources {
            if source.contains("://") {
                return Err("it downloads a file".to_owned());
            }
            if instruction.name == "ADD" && is_archive(source) {
                return Err("it unpacks an archive".to_owned());
            }
            brings_wheel |= self.copy_source(source, to, sources.len() > 1, &mut files)?;
        }
        match (files.is_empty(), brings_wheel) {
            (true, _) => native("the project layer stands for the project's wheel"),
            (false, _) => {
                let reason = format!("a layer with {} of the context", count(files.len(), "file"));
                self.steps.push(Step::Copy {
                    text: instruction.text(),
                    files,
                });
                native(reason)
            }
        }
    }

    /// Adds the files of one source; true if it was (or had) the project's wheel.
    fn copy_source(
        &mut self,
        source: &str,
        to: &str,
        is_one_of_many: bool,
        files: &mut Vec<CopiedFile>,
    ) -> Result<bool, String> {
        let from = resolve_path("", source);
        let target = resolve_path(&self.directory, to);
        let target_is_directory = is_one_of_many
            || to.ends_with('/')
            || matches!(to.rsplit('/').next(), Some("." | ".."))
            || target == self.directory
            || self.origins.iter().any(|(image, _)| {
                image
                    .strip_prefix(target.as_str())
                    .is_some_and(|rest| target.is_empty() || rest.starts_with('/'))
            });
        if from == DIST || from.starts_with("dist/") {
            let directory = from.rsplit_once('/').map_or(DIST, |(parent, file)| {
                if file.ends_with(".whl") {
                    parent
                } else {
                    &from
                }
            });
            self.origins.push((target, directory.to_owned()));
            return Ok(true);
        }
        let join = |directory: &str, name: &str| {
            if directory.is_empty() {
                name.to_owned()
            } else {
                format!("{directory}/{name}")
            }
        };
        // What a pattern names may be files or directories.
        let depth = from.split('/').count();
        let mut roots: BTreeSet<String> = BTreeSet::new();
        if from.is_empty() {
            roots.insert(String::new());
        }
        for entry in &self.context.tree.entries {
            let root: String = entry
                .path
                .split('/')
                .take(depth)
                .collect::<Vec<_>>()
                .join("/");
            if root == from || (glob::is_pattern(&from) && glob::matches(&from, &root)) {
                roots.insert(root);
            }
        }
        if roots.is_empty() {
            return Err(format!("the build context has no {source}"));
        }
        let several = roots.len() > 1 || glob::is_pattern(&from);
        let mut found = false;
        let mut brings_wheel = from.is_empty();
        for root in roots {
            let is_file = self.context.tree.get(&root).is_some();
            let image_root = if is_file && (target_is_directory || several) {
                join(&target, root.rsplit('/').next().unwrap_or_default())
            } else {
                target.clone()
            };
            for entry in &self.context.tree.entries {
                let rest = if root.is_empty() {
                    Some(entry.path.as_str())
                } else if entry.path == root {
                    Some("")
                } else {
                    entry
                        .path
                        .strip_prefix(root.as_str())
                        .and_then(|rest| rest.strip_prefix('/'))
                };
                let Some(rest) = rest else { continue };
                if entry.path.split('/').next() == Some(DIST) {
                    brings_wheel = true;
                    continue;
                }
                if self.context.ignore.excludes(&entry.path) {
                    continue;
                }
                found = true;
                let to = if rest.is_empty() {
                    image_root.clone()
                } else {
                    join(&image_root, rest)
                };
                files.push(CopiedFile {
                    from: entry.path.clone(),
                    to,
                });
            }
            self.origins.push((image_root, root));
        }
        if found || brings_wheel {
            Ok(brings_wheel)
        } else {
            Err(format!(".dockerignore leaves nothing of {source}"))
        }
    }

    /// The context's path of what stands at `path` in the image.
    fn origin(&self, path: &str) -> Option<String> {
        self.origins.iter().rev().find_map(|(image, context)| {
            let rest = if image.is_empty() {
                path
            } else if path == image {
                return Some(context.clone());
            } else {
                path.strip_prefix(image.as_str())?.strip_prefix('/')?
            };
            Some(resolve_path(context, rest))
        })
    }

    fn run(&mut self, instruction: &Instruction) -> Outcome {
        let mut arguments = instruction.arguments.as_str();
        while let Some(flagged) = arguments.strip_prefix("--") {
            let (flag, rest) = flagged
                .split_once(char::is_whitespace)
                .unwrap_or((flagged, ""));
            // A cache leaves nothing in the image; other mounts bring what a command may need.
            let is_harmless = flag.starts_with("network=")
                || (flag.starts_with("mount=") && flag.contains("type=cache"));
            if !is_harmless {
                return Err(format!("its option --{flag} needs a container"));
            }
            arguments = rest.trim_start();
        }
        let stripped = Instruction {
            arguments: arguments.to_owned(),
            ..instruction.clone()
        };
        let surroundings = Surroundings {
            directory: &self.directory,
            variables: &self.variables,
        };
        let effects = match stripped.exec_form() {
            Some(words) => run::exec_effects(&words, &surroundings),
            None => run::shell_effects(arguments, &surroundings),
        };
        let needs_container = |problem: String| {
            format!(
                "{problem}, which needs a container engine: put it into the base image, or build \
                 with docker and deploy with --image-tar-path"
            )
        };
        let mut reasons = Vec::new();
        let mut class = LineClass::NoOp;
        for effect in effects.map_err(needs_container)? {
            match effect {
                Effect::Nothing(reason) => reasons.push(reason.to_owned()),
                Effect::Remove(paths) => {
                    for path in paths {
                        self.removal(&path).map_err(needs_container)?;
                    }
                    reasons.push("what it removes was never there".to_owned());
                }
                Effect::Install { files, lines } => {
                    class = LineClass::Native;
                    for file in files {
                        let origin = self
                            .origin(&file)
                            .filter(|origin| self.context.tree.get(origin).is_some())
                            .ok_or_else(|| format!("no COPY line brings /{file}"))?;
                        self.require(origin);
                    }
                    self.requirement_lines.extend(lines);
                    self.add_step(Step::Wheels);
                    reasons.push("layers of wheels, spliced".to_owned());
                }
                Effect::InstallWheels {
                    directory,
                    dependencies,
                } => {
                    class = LineClass::Native;
                    if self.origin(&directory).as_deref() != Some(DIST) {
                        return Err(format!(
                            "no COPY line brings the project's wheel to /{directory}"
                        ));
                    }
                    let requirements = self.context.project_requirements;
                    if dependencies && self.context.tree.get(requirements).is_some() {
                        self.require(requirements.to_owned());
                        self.add_step(Step::Wheels);
                    }
                    self.add_step(Step::Project);
                    reasons.push("a layer with the project".to_owned());
                }
            }
        }
        reasons.dedup();
        Ok((class, reasons.join("; ")))
    }

    fn require(&mut self, file: String) {
        if !self.requirement_files.contains(&file) {
            self.requirement_files.push(file);
        }
    }

    /// One set of wheels is resolved for all pip lines, and there is one
    /// project: each stands where it comes first.
    fn add_step(&mut self, step: Step) {
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }

    /// Whether removing `path` is removing what this image does not have.
    fn removal(&self, path: &str) -> Result<(), String> {
        let is_scratch = [
            "var/lib/apt/lists",
            "var/cache/apt",
            "var/cache/debconf",
            "tmp",
            "var/tmp",
            "root/.cache",
        ]
        .iter()
        .any(|directory| {
            path.strip_prefix(directory)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let origin = self.origin(path).unwrap_or_default();
        if (is_scratch && origin.is_empty()) || origin == DIST || origin.starts_with("dist/") {
            Ok(())
        } else {
            Err(format!("it removes /{path}"))
        }
    }
}

fn is_archive(path: &str) -> bool {
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz"]
        .iter()
        .any(|suffix| path.ends_with(suffix))
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

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}
