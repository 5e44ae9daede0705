//! RUN: what its commands come to, seen together with what COPY brought before.

use super::container::SYSTEM_FOLDERS;
use super::{
    Containers, DIST, Instruction, LineClass, Outcome, Planner, Refusal, Step, usual_shell,
};
use crate::image::packages::is_scratch;
use crate::image::run::{self, Effect, Surroundings};

/// Flags of a shell that do not change what lines mean that are understood here.
fn is_plain_shell(shell: &[String]) -> bool {
    let Some((program, flags)) = shell.split_first() else {
        return false;
    };
    let name = program.rsplit('/').next().unwrap_or_default();
    matches!(name, "sh" | "bash" | "dash" | "ash")
        && flags
            .iter()
            .any(|flag| flag.starts_with('-') && flag.ends_with('c'))
        && flags.iter().all(|flag| {
            flag == "pipefail"
                || flag
                    .strip_prefix('-')
                    .is_some_and(|letters| letters.chars().all(|letter| "ceuxol".contains(letter)))
        })
}

impl Planner<'_> {
    pub(super) fn run(&mut self, instruction: &Instruction) -> Outcome {
        let mut arguments = instruction.arguments.as_str();
        while let Some(flagged) = arguments.strip_prefix("--") {
            let (flag, rest) = flagged
                .split_once(char::is_whitespace)
                .unwrap_or((flagged, ""));
            // A cache leaves nothing in the image; other mounts bring what a command may need.
            let is_harmless = flag.starts_with("network=")
                || (flag.starts_with("mount=") && flag.contains("type=cache"));
            if !is_harmless {
                return Err(Refusal::Engine(format!("it has the option --{flag}")));
            }
            arguments = rest.trim_start();
        }
        let variables = self.variables();
        let surroundings = Surroundings {
            directory: &self.directory,
            variables: &variables,
        };
        let stripped = Instruction {
            arguments: arguments.to_owned(),
            ..instruction.clone()
        };
        let shell = self.shell.clone().unwrap_or_else(usual_shell);
        let effects = match (stripped.exec_form(), instruction.heredocs.as_slice()) {
            (Some(words), _) => run::exec_effects(&words, &surroundings),
            (None, _) if !is_plain_shell(&shell) => {
                Err(format!("its shell is `{}`", shell.join(" ")))
            }
            (None, []) => run::shell_effects(arguments, &surroundings),
            // `RUN <<EOF`: the body is a script.
            (None, [heredoc])
                if arguments.split_whitespace().count() == 1 && !heredoc.body.starts_with("#!") =>
            {
                run::shell_effects(&heredoc.body.replace("\\\n", ""), &surroundings)
            }
            (None, _) => Err("it has a here-document".to_owned()),
        };
        let mut reasons = Vec::new();
        let mut class = LineClass::NoOp;
        let mut prepares = false;
        let user = self.settings.user.clone().unwrap_or_default();
        let is_root = matches!(user.split(':').next(), Some("" | "root" | "0"));
        for effect in effects.map_err(Refusal::Engine)? {
            if !is_root
                && matches!(
                    effect,
                    Effect::Install { .. } | Effect::InstallWheels { .. }
                )
            {
                return Err(Refusal::Engine(format!("pip installs for the user {user}")));
            }
            match effect {
                Effect::Nothing(reason) => reasons.push(reason.to_owned()),
                Effect::System(reason) => {
                    prepares |= self.containers != Containers::None;
                    reasons.push(reason.to_owned());
                }
                Effect::Installer(reason) => {
                    prepares |= self.containers == Containers::OfAnyKind;
                    reasons.push(reason.to_owned());
                }
                Effect::Remove(paths) => {
                    for path in paths {
                        prepares |= is_scratch(&path) && self.containers != Containers::None;
                        self.removal(&path).map_err(Refusal::Engine)?;
                    }
                    reasons.push("the image never has what it removes".to_owned());
                }
                Effect::Install {
                    files,
                    constraints,
                    lines,
                } => {
                    if !files.is_empty() || lines.iter().any(|line| !line.starts_with('-')) {
                        class = LineClass::Native;
                        self.add_step(Step::Wheels);
                        reasons.push("layers of wheels, spliced".to_owned());
                    }
                    for file in files {
                        let origin = self.brought(&file)?;
                        self.require(origin);
                    }
                    for file in constraints {
                        let origin = self.brought(&file)?;
                        if !self.constraint_files.contains(&origin) {
                            self.constraint_files.push(origin);
                        }
                    }
                    self.requirement_lines.extend(lines);
                }
                Effect::InstallWheels {
                    directory,
                    dependencies,
                } => {
                    class = LineClass::Native;
                    if self.origin(&directory).as_deref() != Some(DIST) {
                        return Err(Refusal::Error(format!(
                            "no COPY line brings the project's wheel to /{directory}"
                        )));
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
        if class == LineClass::NoOp && prepares {
            return Err(Refusal::Engine(
                "other lines run in a container, and may need what it does".to_owned(),
            ));
        }
        reasons.dedup();
        Ok((class, reasons.join("; ")))
    }

    /// The context's path of a file in the image that pip reads.
    fn brought(&self, file: &str) -> Result<String, Refusal> {
        self.origin(file)
            .filter(|origin| self.context.tree.get(origin).is_some())
            .ok_or_else(|| Refusal::Engine(format!("no COPY line brings /{file}")))
    }

    fn require(&mut self, file: String) {
        if !self.requirement_files.contains(&file) {
            self.requirement_files.push(file);
        }
    }

    /// One set of wheels is resolved for all pip lines, and there is one
    /// project: each stands where it comes first.
    pub(super) fn add_step(&mut self, step: Step) {
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }

    /// Removes `path`: scratch is not there, the project's wheel neither, and what COPY
    /// brought is left out of its layer.
    fn removal(&mut self, path: &str) -> Result<(), String> {
        let origin = self.origin(path).unwrap_or_default();
        if origin == DIST || origin.starts_with("dist/") || (is_scratch(path) && origin.is_empty())
        {
            return Ok(());
        }
        let is_below = |file: &str| {
            file.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut found = false;
        for step in &mut self.steps {
            match step {
                Step::Copy { files, .. } => {
                    let before = files.len();
                    files.retain(|file| !is_below(&file.to));
                    found |= files.len() < before;
                }
                // What runs in between has seen the file, and may have left more there.
                Step::Engine(_) => found = false,
                _ => {}
            }
        }
        self.steps
            .retain(|step| !matches!(step, Step::Copy { files, .. } if files.is_empty()));
        let top = path.split('/').next().unwrap_or_default();
        match found && !SYSTEM_FOLDERS.contains(&top) {
            true => Ok(()),
            false => Err(format!("it removes /{path}")),
        }
    }
}
