//! Lines that run in a container: what they need of the Dockerfile around them, and in
//! which order they run.

use std::collections::{BTreeMap, BTreeSet};

use super::stages::{Stages, froms};
use super::{
    Containers, DIST, Instruction, LineClass, Outcome, PlannedLine, Planner, Refusal, Step,
    usual_shell,
};
use crate::image::packages;
use crate::image::run::Surroundings;

/// Folders whose files package managers read or write: what COPY brings there decides
/// what a package manager does.
pub(super) const SYSTEM_FOLDERS: [&str; 10] = [
    "bin", "boot", "etc", "lib", "lib64", "opt", "root", "sbin", "usr", "var",
];

/// Lines that run in a container, one after another, on the image so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStep {
    /// The lines.
    pub lines: Vec<EngineLine>,
    /// The files of the context that they and the stages below copy.
    pub files: BTreeSet<String>,
    /// Other stages that they copy from, as a Dockerfile; otherwise empty.
    pub stages: String,
    /// The escape character that all of it is written with.
    pub escape: char,
    needed: BTreeSet<usize>,
    is_about_packages: bool,
}

/// A line that runs in a container, with all that decides what it does there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineLine {
    /// Where it starts in the Dockerfile, counted from 1.
    pub line: usize,
    /// The instruction on one line, without passwords.
    pub text: String,
    /// The instruction as it is written.
    pub source: String,
    /// ENV lines before it.
    pub environment: Vec<(String, String)>,
    /// ARG lines before it.
    pub arguments: BTreeMap<String, String>,
    /// USER before it.
    pub user: Option<String>,
    /// WORKDIR before it.
    pub working_directory: Option<String>,
    /// SHELL before it.
    pub shell: Option<Vec<String>>,
}

impl EngineLine {
    pub(super) fn is_run(&self) -> bool {
        self.text.starts_with("RUN")
    }
}

/// `text` between double quotes, with nothing in it that a Dockerfile would replace.
pub(super) fn quote(text: &str, escape: char) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        if character == '"' || character == '$' || character == escape {
            quoted.push(escape);
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

impl EngineStep {
    /// The step as a Dockerfile on `base`, whose name the engine knows.
    ///
    /// `SOURCE_DATE_EPOCH` is an argument, so that programs in the container see it and
    /// the image does not.
    pub fn dockerfile(&self, base: &str, epoch: i64) -> String {
        let quote = |text: &str| quote(text, self.escape);
        let mut out = format!("# escape={}\n{}", self.escape, self.stages);
        out.push_str(&format!("FROM {base}\nARG SOURCE_DATE_EPOCH={epoch}\n"));
        let mut environment: &[(String, String)] = &[];
        let mut arguments = &BTreeMap::new();
        let (mut user, mut directory, mut shell) = (&None, &None, &None);
        for line in &self.lines {
            // Each line's list of ENV begins with that of the line before it.
            for (name, value) in line.environment.iter().skip(environment.len()) {
                out.push_str(&format!("ENV {name}={}\n", quote(value)));
            }
            for (name, value) in &line.arguments {
                if arguments.get(name) != Some(value) {
                    out.push_str(&format!("ARG {name}={}\n", quote(value)));
                }
            }
            if line.shell != *shell {
                let words = line.shell.clone().unwrap_or_else(usual_shell);
                out.push_str(&format!("SHELL {}\n", serde_json::Value::from(words)));
            }
            if line.working_directory != *directory
                && let Some(path) = &line.working_directory
            {
                out.push_str(&format!("WORKDIR {}\n", quote(path)));
            }
            if line.user != *user
                && let Some(user) = &line.user
            {
                out.push_str(&format!("USER {}\n", quote(user)));
            }
            (environment, arguments) = (&line.environment, &line.arguments);
            (user, directory, shell) = (&line.user, &line.working_directory, &line.shell);
            out.push_str(&line.source);
            out.push('\n');
        }
        out
    }

    pub(super) fn containers(&self) -> Containers {
        match self.is_about_packages {
            true => Containers::OfPackages,
            false => Containers::OfAnyKind,
        }
    }

    fn append(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.files.extend(other.files);
        self.needed.extend(other.needed);
        self.is_about_packages &= other.is_about_packages;
    }
}

impl Planner<'_> {
    /// A line that is not done here: it becomes a step of its own.
    pub(super) fn container_line(&mut self, instruction: &Instruction, reason: String) -> Outcome {
        let mentions_wheel = instruction.name == "RUN"
            && (instruction.source.contains(".whl")
                || self.origins.iter().any(|(image, context)| {
                    context == DIST && instruction.source.contains(&format!("/{image}"))
                }));
        if mentions_wheel {
            return Err(Refusal::Error(format!(
                "{reason}, and the project's wheel is in no image here: install it with a plain `pip install` of dist/*.whl"
            )));
        }
        let mut files = BTreeSet::new();
        if instruction.name != "RUN" {
            files = self.files_for_container(instruction)?;
        }
        let mut needed = BTreeSet::new();
        let mut source = self.source_for_container(instruction);
        for from in froms(instruction) {
            needed.extend(self.stages.needed_by(&from, instruction.line));
            if let Some(name) = self.stages.renamed(&from, instruction.line) {
                source = source.replace(&format!("from={from}"), &format!("from={name}"));
            }
        }
        for stage in &needed {
            for instruction in self.stages.instructions(*stage) {
                let copies = matches!(instruction.name.as_str(), "COPY" | "ADD");
                if copies && froms(instruction).is_empty() {
                    files.extend(self.files_of_other_stage(instruction));
                }
            }
        }
        let surroundings = Surroundings {
            directory: &self.directory,
            variables: &self.variables(),
        };
        let is_about_packages = instruction.name == "RUN"
            && instruction.heredocs.is_empty()
            && instruction.exec_form().is_none()
            && packages::is_package_line(&instruction.arguments, &surroundings);
        let settings = &self.settings;
        self.steps.push(Step::Engine(EngineStep {
            lines: vec![EngineLine {
                line: instruction.line,
                text: crate::wheels::strip_credentials(&instruction.text()),
                source,
                environment: settings.environment.clone(),
                arguments: self.arguments.clone(),
                user: settings.user.clone(),
                working_directory: settings.working_directory.clone(),
                shell: self.shell.clone(),
            }],
            files,
            stages: String::new(),
            escape: self.escape,
            needed,
            is_about_packages,
        }));
        Ok((LineClass::Engine, reason))
    }

    /// Builders older than BuildKit know no here-documents: what the shell would read of
    /// them is given to it as a word.
    fn source_for_container(&self, instruction: &Instruction) -> String {
        let has_flags = instruction.arguments.starts_with("--");
        if instruction.name != "RUN" || instruction.heredocs.is_empty() || has_flags {
            return instruction.source.clone();
        }
        let whole = match instruction.heredocs.as_slice() {
            // `RUN <<EOF`: the body is the script. One that names its interpreter is left to BuildKit.
            [heredoc] if instruction.arguments.split_whitespace().count() == 1 => {
                if heredoc.body.starts_with("#!") {
                    return instruction.source.clone();
                }
                heredoc.body.clone()
            }
            heredocs => {
                let mut script = format!("{}\n", instruction.arguments);
                for heredoc in heredocs {
                    script.push_str(&format!("{}{}\n", heredoc.body, heredoc.word));
                }
                script
            }
        };
        let mut words = self.shell.clone().unwrap_or_else(usual_shell);
        words.push(whole);
        format!("RUN {}", serde_json::Value::from(words))
    }

    /// The stages that lines in a container copy from.
    pub(super) fn needed_stages(&self) -> BTreeSet<usize> {
        let needed = self.steps.iter().filter_map(|step| match step {
            Step::Engine(step) => Some(step.needed.clone()),
            _ => None,
        });
        needed.flatten().collect()
    }
}

/// Moves lines that are about system packages alone to the front, if nothing before them
/// could matter to them, and joins neighbours. `lines` learns what was moved.
pub(super) fn arrange(
    steps: Vec<Step>,
    hoists: bool,
    stages: &Stages<'_>,
    lines: &mut [PlannedLine],
) -> Vec<Step> {
    let mut first = Vec::new();
    let mut rest = Vec::new();
    let mut is_blocked = !hoists;
    for step in steps {
        match step {
            Step::Engine(mut step) if !is_blocked && step.is_about_packages => {
                for line in &mut step.lines {
                    // The folder is not there yet, and package managers do not look at it.
                    line.working_directory = None;
                    if !rest.is_empty()
                        && let Some(planned) = lines.iter_mut().find(|l| l.line == line.line)
                    {
                        planned.reason.push_str("; it runs first, once per base");
                    }
                }
                first.push(Step::Engine(step));
            }
            step => {
                is_blocked |= match &step {
                    Step::Engine(_) => true,
                    Step::Copy { files, .. } => files.iter().any(|file| {
                        let top = file.to.split('/').next().unwrap_or_default();
                        SYSTEM_FOLDERS.contains(&top)
                    }),
                    _ => false,
                };
                rest.push(step);
            }
        }
    }
    let mut joined: Vec<Step> = Vec::new();
    for step in first.into_iter().chain(rest) {
        match (joined.last_mut(), step) {
            (Some(Step::Engine(before)), Step::Engine(step)) => before.append(step),
            (_, step) => joined.push(step),
        }
    }
    for step in &mut joined {
        if let Step::Engine(step) = step {
            step.stages = stages.source(&step.needed);
            step.escape = stages.escape();
        }
    }
    joined
}
