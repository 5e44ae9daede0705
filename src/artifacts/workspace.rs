//! An opened project with everything that building it needs: store, Python, progress.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use forebay_store::{Store, Tree};

use super::target::{Target, TargetOptions};
use super::{BuildError, LockFile};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::project::Project;
use crate::python::{Interpreter, PythonError, find};

/// How a project is opened.
#[derive(Debug, Clone)]
pub struct WorkspaceOptions {
    /// Where to look for the project; its parents are searched too.
    pub directory: PathBuf,
    /// The Python that the user named.
    pub python: Option<PathBuf>,
    /// The store's folder.
    pub store: PathBuf,
}

/// A project, its store and its Python.
pub struct Workspace {
    store: Arc<Store>,
    project: Project,
    python: LazyPython,
    progress: Arc<dyn Progress>,
    tree: OnceLock<Tree>,
}

/// The interpreter, looked for only when somebody needs it, and only once.
struct LazyPython {
    explicit: Option<PathBuf>,
    directory: PathBuf,
    store: Arc<Store>,
    found: OnceLock<Interpreter>,
}

impl LazyPython {
    fn get(&self) -> Result<Interpreter, PythonError> {
        if let Some(interpreter) = self.found.get() {
            return Ok(interpreter.clone());
        }
        let interpreter = find(self.explicit.as_deref(), &self.directory, &self.store)?;
        Ok(self.found.get_or_init(|| interpreter).clone())
    }
}

impl Workspace {
    /// Opens the store and reads the project's specification.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn open(
        options: WorkspaceOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, BuildError> {
        let store = Arc::new(Store::open(&options.store)?);
        let python = LazyPython {
            explicit: options.python,
            directory: options.directory.clone(),
            store: Arc::clone(&store),
            found: OnceLock::new(),
        };
        let project = Project::open_remembered(&options.directory, &|| python.get(), Some(&store))?;
        let python = LazyPython {
            directory: project.directory.clone(),
            ..python
        };
        for warning in &project.spec.warnings {
            progress.report(Event::Warning(warning.clone()));
        }
        Ok(Self {
            store,
            project,
            python,
            progress,
            tree: OnceLock::new(),
        })
    }

    /// The environment that the user means.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn target(&self, options: TargetOptions) -> Result<Target, BuildError> {
        let interpreter = || self.python.get();
        let warn = |warning| self.progress.report(Event::Warning(warning));
        Target::resolve(&self.project, options, &interpreter, &self.store, &warn)
    }

    /// The project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Who is told how the work goes on.
    pub fn progress(&self) -> &Arc<dyn Progress> {
        &self.progress
    }

    /// The project's Python.
    ///
    /// # Errors
    /// There is none, or it does not run.
    pub fn interpreter(&self) -> Result<Interpreter, PythonError> {
        self.python.get()
    }

    /// The project's files with their digests, read once per command.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn tree(&self) -> Result<&Tree, BuildError> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree);
        }
        self.progress.report(Event::Started {
            phase: Phase::Scan,
            total: None,
            unit: Unit::Items,
        });
        let directory = &self.project.directory;
        let own_store = self.store.root().canonicalize().ok();
        let tree = self.store.scan(directory, &|path, is_directory| {
            let is_own_store = || own_store.as_deref() == Some(directory.join(path).as_path());
            let is_package = self
                .project
                .spec
                .packages
                .iter()
                .any(|package| package == path);
            !is_package
                && (is_no_source(directory, path, is_directory) || is_directory && is_own_store())
        })?;
        self.progress.report(Event::Finished {
            phase: Phase::Scan,
            summary: format!("{} files, {} read", tree.entries.len(), tree.read_again),
        });
        Ok(self.tree.get_or_init(|| tree))
    }
}

/// What lies in a project's folder without being part of it: the tools' own
/// folders, results of builds, virtual environments.
fn is_no_source(directory: &Path, path: &str, is_directory: bool) -> bool {
    const FOLDERS: [&str; 14] = [
        ".git",
        ".hg",
        ".svn",
        ".dags",
        ".image",
        ".local",
        ".idea",
        ".vscode",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        "__pycache__",
        "node_modules",
    ];
    /// At the top only: deeper, a package may well be called `build`.
    const TOP_FOLDERS: [&str; 2] = ["build", "dist"];
    let name = path.rsplit('/').next().unwrap_or(path);
    if !is_directory {
        // The lock file says what the image is made of, and a build may write it.
        return name.ends_with(".pyc") || name == ".DS_Store" || path == LockFile::NAME;
    }
    /// What is in a virtual environment, an OCI layout, a folder used as a bucket.
    const MARKERS: [&str; 3] = ["pyvenv.cfg", "oci-layout", ".forebay-lock"];
    let folder = directory.join(path);
    FOLDERS.contains(&name)
        || TOP_FOLDERS.contains(&path)
        || name.ends_with(".egg-info")
        || MARKERS.iter().any(|marker| folder.join(marker).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_virtual_environments_are_no_sources() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("env/lib")).unwrap();
        std::fs::write(directory.path().join("env/pyvenv.cfg"), "").unwrap();
        let skips = |path, is_directory| is_no_source(directory.path(), path, is_directory);
        assert!(skips("env", true));
        assert!(skips("dist", true) && !skips("flow/dist", true));
        assert!(skips("flow/__pycache__", true) && skips("flow/a.pyc", false));
        assert!(!skips("flow", true) && !skips("build", false));
    }
}
