//! The stages of a Dockerfile: which of them the image comes of, and which others those need.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{BaseName, LineClass};
use crate::image::dockerfile::{Dockerfile, Instruction, expand_words, substitute};

/// A stage: FROM and the lines up to the next one.
struct Stage {
    /// Its name, in lower case.
    name: Option<String>,
    /// What it starts from: an image, or an earlier stage.
    base: String,
    /// Its instructions, by index.
    instructions: Range<usize>,
    /// The line of its FROM.
    line: usize,
}

/// A Dockerfile's stages.
pub(super) struct Stages<'a> {
    dockerfile: &'a Dockerfile,
    /// ARG before the first FROM.
    arguments: BTreeMap<String, String>,
    stages: Vec<Stage>,
    /// The stages that the last one goes on from, and itself.
    chain: Vec<usize>,
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

/// The words of FROM: what it names, and the stage's own name.
fn from_words(text: &str) -> Result<(String, Option<String>), String> {
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !word.starts_with("--"))
        .collect();
    match words.as_slice() {
        [base] => Ok(((*base).to_owned(), None)),
        [base, as_word, name] if as_word.eq_ignore_ascii_case("as") => {
            Ok(((*base).to_owned(), Some(name.to_lowercase())))
        }
        _ => Err(format!("`FROM {text}` names no image")),
    }
}

/// The image that a base is.
pub(super) fn base_name(base: &str) -> Result<BaseName, String> {
    if base == "scratch" {
        return Ok(BaseName::Scratch);
    }
    base.parse()
        .map(BaseName::Image)
        .map_err(|error| format!("{error}"))
}

/// The image that a Dockerfile's last stage starts from.
///
/// # Errors
/// No FROM line, or one that names no image.
pub fn base_of(dockerfile: &Dockerfile) -> Result<BaseName, String> {
    let stages = Stages::read(dockerfile);
    let root = stages
        .chain
        .first()
        .and_then(|index| stages.stages.get(*index))
        .ok_or("the Dockerfile has no FROM line")?;
    let from = dockerfile.instructions.get(root.instructions.start);
    let base = stages.read_from(from.ok_or("the Dockerfile has no FROM line")?)?;
    base_name(&base)
}

impl<'a> Stages<'a> {
    pub(super) fn read(dockerfile: &'a Dockerfile) -> Self {
        let mut read = Self {
            dockerfile,
            arguments: BTreeMap::new(),
            stages: Vec::new(),
            chain: Vec::new(),
        };
        for (index, instruction) in dockerfile.instructions.iter().enumerate() {
            if instruction.name == "FROM" {
                if let Some(stage) = read.stages.last_mut() {
                    stage.instructions.end = index;
                }
                let text = substitute(&instruction.arguments, &read.arguments, dockerfile.escape);
                let words = text.and_then(|text| from_words(&text));
                let (base, name) = words.unwrap_or_default();
                read.stages.push(Stage {
                    name,
                    base,
                    instructions: index..dockerfile.instructions.len(),
                    line: instruction.line,
                });
            } else if read.stages.is_empty() && instruction.name == "ARG" {
                // A line that declares nothing is named where lines are planned.
                let _ = declare_arguments(&mut read.arguments, instruction, dockerfile.escape);
            }
        }
        let mut next = read.stages.len().checked_sub(1);
        while let Some(index) = next {
            read.chain.insert(0, index);
            next = read
                .stages
                .get(index)
                .and_then(|stage| read.earlier(&stage.base, index));
        }
        read
    }

    /// The stage called `name` (or counted so, in COPY) before the one at `before`.
    fn earlier(&self, name: &str, before: usize) -> Option<usize> {
        let name = name.to_lowercase();
        let earlier = self.stages.get(..before)?;
        earlier
            .iter()
            .rposition(|stage| stage.name.as_deref() == Some(name.as_str()))
    }

    /// The instructions that the image comes of, in order, by index.
    pub(super) fn chain_lines(&self) -> Vec<usize> {
        let stages = self
            .chain
            .iter()
            .filter_map(|index| self.stages.get(*index));
        stages
            .flat_map(|stage| stage.instructions.clone())
            .collect()
    }

    /// What FROM names, arguments replaced.
    pub(super) fn read_from(&self, instruction: &Instruction) -> Result<String, String> {
        let text = substitute(
            &instruction.arguments,
            &self.arguments,
            self.dockerfile.escape,
        )?;
        Ok(from_words(&text)?.0)
    }

    /// The line of the stage that a FROM on `line` goes on from.
    pub(super) fn stage_named(&self, base: &str, line: usize) -> Option<usize> {
        let own = self.stages.iter().position(|stage| stage.line == line)?;
        let stage = self.stages.get(self.earlier(base, own)?)?;
        Some(stage.line)
    }

    pub(super) fn global_argument(&self, name: &str) -> Option<String> {
        self.arguments.get(name).cloned()
    }

    /// The stages that `from` (of COPY or RUN on `line`) needs: the one it names and all
    /// that this one needs. Empty if it names an image.
    pub(super) fn needed_by(&self, from: &str, line: usize) -> BTreeSet<usize> {
        let own = self
            .stages
            .iter()
            .rposition(|stage| stage.line <= line)
            .unwrap_or_default();
        let by_number = from.parse().ok().filter(|number| *number < own);
        let mut needed = BTreeSet::new();
        let mut open: Vec<usize> = by_number
            .or_else(|| self.earlier(from, own))
            .into_iter()
            .collect();
        while let Some(index) = open.pop() {
            let Some(stage) = self.stages.get(index).filter(|_| needed.insert(index)) else {
                continue;
            };
            open.extend(self.earlier(&stage.base, index));
            for instruction in self.instructions(index) {
                for from in froms(instruction) {
                    let by_number = from.parse().ok().filter(|number| *number < index);
                    open.extend(by_number.or_else(|| self.earlier(&from, index)));
                }
            }
        }
        needed
    }

    /// The instructions of one stage.
    pub(super) fn instructions(&self, stage: usize) -> &[Instruction] {
        self.stages
            .get(stage)
            .and_then(|stage| self.dockerfile.instructions.get(stage.instructions.clone()))
            .unwrap_or_default()
    }

    /// Stages as they are written, with the arguments before the first of them.
    pub(super) fn source(&self, stages: &BTreeSet<usize>) -> String {
        if stages.is_empty() {
            return String::new();
        }
        let mut source = String::new();
        for (name, value) in &self.arguments {
            source.push_str(&format!(
                "ARG {name}={}\n",
                super::container::quote(value, self.dockerfile.escape)
            ));
        }
        for (index, stage) in self.stages.iter().enumerate() {
            if !stages.contains(&index) {
                continue;
            }
            for instruction in self.instructions(index) {
                source.push_str(&instruction.source);
                // COPY may name stages by number, which counts those that are left out.
                if instruction.name == "FROM" && stage.name.is_none() {
                    source.push_str(&format!(" AS stage-{index}"));
                }
                source.push('\n');
            }
        }
        source
    }

    /// The escape character of the Dockerfile.
    pub(super) fn escape(&self) -> char {
        self.dockerfile.escape
    }

    /// The name that a generated Dockerfile has for what `from` names.
    pub(super) fn renamed(&self, from: &str, line: usize) -> Option<String> {
        let number: usize = from.parse().ok()?;
        let own = self.stages.iter().rposition(|stage| stage.line <= line)?;
        let stage = self.stages.get(number).filter(|_| number < own)?;
        Some(
            stage
                .name
                .clone()
                .unwrap_or_else(|| format!("stage-{number}")),
        )
    }

    /// The class of a line that is not of the stages that the image comes of.
    pub(super) fn other_line(
        &self,
        index: usize,
        instruction: &Instruction,
        needed: &BTreeSet<usize>,
    ) -> (LineClass, String) {
        let stage = self
            .stages
            .iter()
            .position(|stage| stage.instructions.contains(&index));
        match stage {
            Some(stage) if needed.contains(&stage) => (
                LineClass::Engine,
                "a later line copies from its stage".to_owned(),
            ),
            Some(_) => (
                LineClass::NoOp,
                "the last stage does not need this one".to_owned(),
            ),
            None if instruction.name == "ARG" => {
                let mut arguments = self.arguments.clone();
                match declare_arguments(&mut arguments, instruction, self.dockerfile.escape) {
                    Ok(()) => (LineClass::Native, "sets a build argument".to_owned()),
                    Err(problem) => (LineClass::Error, problem),
                }
            }
            None => (LineClass::Error, "it stands before FROM".to_owned()),
        }
    }
}

/// What a line takes files from: `--from=` of COPY and ADD, `from=` of a mount.
pub(super) fn froms(instruction: &Instruction) -> Vec<String> {
    instruction
        .arguments
        .split_whitespace()
        .take_while(|word| word.starts_with("--"))
        .flat_map(|flag| match flag.strip_prefix("--from=") {
            Some(from) => vec![from.to_owned()],
            None => flag
                .strip_prefix("--mount=")
                .into_iter()
                .flat_map(|mount| mount.split(','))
                .filter_map(|part| part.strip_prefix("from="))
                .map(str::to_owned)
                .collect(),
        })
        .collect()
}
