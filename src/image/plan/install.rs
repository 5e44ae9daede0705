//! RUN: what its commands come to, seen together with what COPY brought before.

use super::{DIST, Instruction, LineClass, Outcome, Planner, Step};
use crate::image::run::{self, Effect, Surroundings};

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
                "{problem}, which needs a container: put it into the base image that FROM names"
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
    pub(super) fn add_step(&mut self, step: Step) {
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
