//! COPY and ADD: which files of the build context go where in the image.

use std::collections::BTreeSet;

use super::{CopiedFile, DIST, Instruction, Outcome, Planner, Step, native};
use crate::image::glob;
use crate::image::run::resolve_path;

impl Planner<'_> {
    pub(super) fn copy(&mut self, instruction: &Instruction) -> Outcome {
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

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}
