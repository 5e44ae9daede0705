//! Lines that say something about the image's configuration, or about lines that follow.

use std::collections::BTreeMap;

use super::{
    BaseName, Instruction, LineClass, Outcome, Planner, Step, native, stages, usual_shell,
};
use crate::image::dockerfile::{expand_words, substitute};
use crate::image::run::resolve_path;
use crate::wheels::Platform;

impl Planner<'_> {
    /// A line that is done here, if its instruction can be.
    pub(super) fn native_line(&mut self, instruction: &Instruction) -> Outcome {
        match instruction.name.as_str() {
            "FROM" => self.from(instruction),
            "ARG" => self.argument(instruction),
            "ENV" => self.set_environment(instruction),
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
            "SHELL" => {
                let shell = instruction
                    .exec_form()
                    .filter(|words| !words.is_empty())
                    .ok_or("SHELL wants a JSON list of words")?;
                self.shell = Some(shell);
                native("names the shell of the lines that follow")
            }
            "CMD" => {
                self.settings.command = Some(self.command(instruction));
                native("sets the command")
            }
            "ENTRYPOINT" => {
                self.settings.entrypoint = Some(self.command(instruction));
                // Docker forgets an earlier CMD, also the base's.
                self.settings.command.get_or_insert_default();
                native("sets the entry point")
            }
            "HEALTHCHECK" => Ok((
                LineClass::NoOp,
                "OCI images have no health check, and Kubernetes has its own".to_owned(),
            )),
            "ONBUILD" => Ok((
                LineClass::NoOp,
                "it is meant for images that start from this one, and OCI images have no such lines"
                    .to_owned(),
            )),
            name => Err(format!("{name} is not supported").into()),
        }
    }

    /// ENV and ARG together; ENV always wins.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.arguments.clone();
        variables.extend(self.environment.clone());
        variables
    }

    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        substitute(text.trim(), &self.variables(), self.escape)
    }

    pub(super) fn words(&self, text: &str) -> Result<Vec<String>, String> {
        expand_words(text, &self.variables(), self.escape)
    }

    fn from(&mut self, instruction: &Instruction) -> Outcome {
        self.arguments.clear();
        self.shell = None;
        let base = self.stages.read_from(instruction)?;
        if let Some(stage) = self.stages.stage_named(&base, instruction.line) {
            return native(format!("goes on from the stage on line {stage}"));
        }
        if let Some(replaced) = self.context.replaced_base {
            return native(format!(
                "the environment's settings put {replaced} in its place"
            ));
        }
        match stages::base_name(&base)? {
            BaseName::Scratch => native("starts from nothing"),
            BaseName::Image(_) => {
                native("takes the base by digest; its layers stay where they are")
            }
        }
    }

    fn argument(&mut self, instruction: &Instruction) -> Outcome {
        for word in self.words(&instruction.arguments)? {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => {
                    let value = self
                        .stages
                        .global_argument(&word)
                        .or_else(|| platform_argument(&word, self.context.platform));
                    (word, value.unwrap_or_default())
                }
            };
            self.arguments.insert(name, value);
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

    fn set_environment(&mut self, instruction: &Instruction) -> Outcome {
        for (name, value) in self.pairs(instruction)? {
            self.environment.insert(name.clone(), value.clone());
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

    /// CMD and ENTRYPOINT: exec form, or a line for the shell.
    fn command(&self, instruction: &Instruction) -> Vec<String> {
        instruction.exec_form().unwrap_or_else(|| {
            let mut words = self.shell.clone().unwrap_or_else(usual_shell);
            words.push(instruction.arguments.clone());
            words
        })
    }
}

/// Arguments that every build has (Docker's "Automatic platform ARGs in the global scope").
/// Where something is built is nowhere else than where it is built for.
fn platform_argument(name: &str, platform: Platform) -> Option<String> {
    match name {
        "TARGETPLATFORM" | "BUILDPLATFORM" => Some(platform.to_string()),
        "TARGETOS" | "BUILDOS" => Some(platform.os().to_owned()),
        "TARGETARCH" | "BUILDARCH" => Some(platform.architecture().to_owned()),
        _ => None,
    }
}
