//! `--wheel`: the project's wheel as its own build makes it, for what only setuptools knows.

use std::fs::File;
use std::path::PathBuf;

use forebay_store::{ObjectDigest, Realisation, Recipe, Store};
use serde::Serialize;

use super::package::project_source;
use super::{Build, BuildError};
use crate::image::{BuildContext, ImageError};
use crate::progress::{Event, Phase, Unit};
use crate::python::{PythonVersion, run_script};
use crate::wheels::{LockedWheel, TargetPython, WheelError, WheelFileName};

const SCRIPT: &str = include_str!("scripts/own_wheel.py");

/// Everything that decides the wheel, as far as it can be known: all files count, because
/// setup.py may read any.
#[derive(Serialize)]
struct Inputs<'a> {
    script: ObjectDigest,
    sources: ObjectDigest,
    version: Option<&'a str>,
    python: PythonVersion,
    platform: &'a str,
    installed: &'a [String],
}

#[derive(Serialize)]
struct Request<'a> {
    out: PathBuf,
    version: Option<&'a str>,
}

impl Build<'_> {
    /// Whether the project's own build makes its wheel.
    fn builds_own_wheel(&self) -> bool {
        self.options.own_wheel || self.workspace.project().settings.image.wheel
    }

    /// The project's wheel, if its own build is to make it; from the store if it was made of
    /// the same sources before.
    ///
    /// # Errors
    /// The build fails, or gives what does not fit `target`.
    pub(super) async fn own_wheel(
        &self,
        target: &TargetPython,
    ) -> Result<Option<LockedWheel>, BuildError> {
        if !self.builds_own_wheel() {
            return Ok(None);
        }
        let interpreter = self.workspace.interpreter()?;
        let store = self.workspace.store();
        let project = self.workspace.project();
        let source = project_source(&project.spec, &self.version, None);
        let inputs = Inputs {
            script: ObjectDigest::of(SCRIPT.as_bytes()),
            sources: self.workspace.tree()?.digest(),
            version: source.version,
            python: interpreter.version,
            platform: &interpreter.platform,
            installed: &interpreter.installed,
        };
        let recipe = Recipe::new("own-wheel", 1, &inputs)?;
        let wheel = match known(store, &recipe)? {
            Some(wheel) => wheel,
            None => {
                let paths = self.import_paths(&interpreter).await?;
                self.build_own_wheel(&recipe, &interpreter.executable, &paths, source.version)?
            }
        };
        let version = (interpreter.version.major, interpreter.version.minor);
        let fits =
            wheel.file_name.is_universal() || target.agrees_with(version, &interpreter.platform);
        if !fits {
            return Err(WheelError::NoWheel {
                distributions: vec![wheel.file_name.to_string()],
                target: target.to_string(),
            }
            .into());
        }
        Ok(Some(wheel))
    }

    fn build_own_wheel(
        &self,
        recipe: &Recipe,
        executable: &std::path::Path,
        paths: &[PathBuf],
        version: Option<&str>,
    ) -> Result<LockedWheel, BuildError> {
        let progress = self.workspace.progress();
        progress.report(Event::Started {
            phase: Phase::Wheels,
            total: None,
            unit: Unit::Items,
        });
        let io = |action: &str| {
            let action = action.to_owned();
            move |source| ImageError::Io { action, source }
        };
        let scratch = tempfile::tempdir().map_err(io("cannot make a folder for the wheel"))?;
        let (sources, out) = (scratch.path().join("sources"), scratch.path().join("out"));
        std::fs::create_dir(&out).map_err(io("cannot make a folder for the wheel"))?;
        let context = BuildContext {
            directory: &self.workspace.project().directory,
            tree: self.workspace.tree()?,
        };
        context.copy_all(&sources)?;
        let paths = std::env::join_paths(paths)
            .map_err(std::io::Error::other)
            .map_err(io("cannot name the folders to import from"))?;
        let paths = paths.to_string_lossy();
        let variables: Vec<(&str, &str)> = match paths.is_empty() {
            true => Vec::new(),
            false => vec![("PYTHONPATH", &*paths)],
        };
        let request = Request {
            out: out.clone(),
            version,
        };
        let name: String = run_script(executable, SCRIPT, &request, &sources, &variables)?;
        let file_name: WheelFileName = name.parse()?;
        let path = out.join(file_name.as_str());
        let mut file = File::open(&path).map_err(io("cannot read the project's wheel"))?;
        let store = self.workspace.store();
        let mut batch = store.begin()?;
        let info = batch.put_reader(&mut file)?;
        let outputs = [(file_name.to_string(), info.digest)].into();
        batch.realise(&recipe.key(), &Realisation { outputs })?;
        batch.commit()?;
        progress.report(Event::Finished {
            phase: Phase::Wheels,
            summary: format!("{file_name} by the project's own build"),
        });
        Ok(LockedWheel {
            file_name,
            object: info.digest,
            sha256: info.sha256,
            size: info.size,
        })
    }
}

/// The wheel that was made before, if it is still here.
fn known(store: &Store, recipe: &Recipe) -> Result<Option<LockedWheel>, BuildError> {
    let outputs = store
        .realisation(&recipe.key())?
        .unwrap_or_default()
        .outputs;
    let Some((name, object)) = outputs.into_iter().next() else {
        return Ok(None);
    };
    let Some(info) = store.info(&object)? else {
        return Ok(None);
    };
    Ok(Some(LockedWheel {
        file_name: name.parse()?,
        object,
        sha256: info.sha256,
        size: info.size,
    }))
}
