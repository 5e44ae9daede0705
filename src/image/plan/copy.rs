//! COPY and ADD: which files of the build context go where in the image.

use std::collections::BTreeSet;

use super::{CopiedFile, DIST, Instruction, Outcome, Planner, Refusal, Step, native};
use crate::image::glob;
use crate::image::run::resolve_path;

/// The words of a COPY line: its flags, its sources, and where they go.
struct Words {
    flags: Vec<String>,
    sources: Vec<String>,
    to: String,
}

impl Planner<'_> {
    fn copy_words(&self, instruction: &Instruction) -> Result<Words, String> {
        let mut flags = Vec::new();
        let mut rest = instruction.arguments.trim_start();
        while rest.starts_with("--") {
            let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            flags.push(self.expand(flag)?);
            rest = after.trim_start();
        }
        let unflagged = Instruction {
            arguments: rest.to_owned(),
            ..instruction.clone()
        };
        let mut words = match unflagged.exec_form() {
            Some(words) => words
                .iter()
                .map(|word| self.expand(word))
                .collect::<Result<Vec<_>, _>>()?,
            None => self.words(rest)?,
        };
        let to = words.pop().filter(|_| !words.is_empty());
        Ok(Words {
            flags,
            sources: words,
            to: to.ok_or("it needs a source and a destination")?,
        })
    }

    pub(super) fn copy(&mut self, instruction: &Instruction) -> Outcome {
        let Words { flags, sources, to } = self.copy_words(instruction)?;
        let engine = |reason: &str| Err(Refusal::Engine(reason.to_owned()));
        if flags.iter().any(|flag| flag.starts_with("--from=")) {
            return engine("it copies from another stage or image");
        }
        if !instruction.heredocs.is_empty() {
            return engine("it has a here-document");
        }
        for source in &sources {
            if source.contains("://") || source.starts_with("git@") {
                return engine("it downloads a file");
            }
            if instruction.name == "ADD" && is_archive(source) {
                return engine("it unpacks an archive");
            }
        }
        let mut files = Vec::new();
        let mut brings_wheel = false;
        for source in &sources {
            brings_wheel |= self.copy_source(source, &to, sources.len() > 1, &mut files)?;
        }
        if !files.is_empty() {
            for flag in &flags {
                let (flag, value) = flag.split_once('=').unwrap_or((flag, ""));
                match flag {
                    "--link" => {}
                    "--chown" if matches!(value, "root" | "0" | "root:root" | "0:0") => {}
                    "--chown" => return engine("its files get another owner than root"),
                    _ => return engine(&format!("its option {flag} is not known here")),
                }
            }
        }
        match (files.is_empty(), brings_wheel) {
            (true, _) => native("the project layer stands for the project's wheel"),
            (false, _) => {
                let reason = format!(
                    "a layer with {} of the context",
                    crate::image::count(files.len(), "file")
                );
                self.steps.push(Step::Copy {
                    text: instruction.text(),
                    files,
                });
                native(reason)
            }
        }
    }

    /// The files of the context that a line takes with it into a container; where they go
    /// is remembered.
    pub(super) fn files_for_container(
        &mut self,
        instruction: &Instruction,
    ) -> Result<BTreeSet<String>, String> {
        let Words { flags, sources, to } = self.copy_words(instruction)?;
        let mut files = Vec::new();
        let is_local = |source: &&String| !source.contains("://") && !source.starts_with("<<");
        if !flags.iter().any(|flag| flag.starts_with("--from=")) {
            for source in sources.iter().filter(is_local) {
                self.copy_source(source, &to, sources.len() > 1, &mut files)?;
            }
        }
        Ok(files.into_iter().map(|file| file.from).collect())
    }

    /// The same for a line of another stage. What cannot be told takes all files.
    pub(super) fn files_of_other_stage(&self, instruction: &Instruction) -> BTreeSet<String> {
        let all = || {
            let entries = self.context.tree.entries.iter();
            entries
                .map(|entry| entry.path.clone())
                .filter(|path| !self.context.ignore.excludes(path))
                .collect()
        };
        // Its variables are those of its own stage.
        if instruction.arguments.contains('$') {
            return all();
        }
        self.clone()
            .files_for_container(instruction)
            .unwrap_or_else(|_| all())
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
    pub(super) fn origin(&self, path: &str) -> Option<String> {
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
}

fn is_archive(path: &str) -> bool {
    [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz"]
        .iter()
        .any(|suffix| path.ends_with(suffix))
}
