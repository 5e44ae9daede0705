//! An opened project with everything that building it needs: store, Python, progress.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use forebay_store::{ScanStep, Store, Tree};

use super::target::{Target, TargetOptions};
use super::{BuildError, LockFile};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::project::{DeploymentConfig, Project};
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

    /// The names of the project's environments, in the order of `deployment_config.py`; none if
    /// there is no such file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn environments(&self) -> Result<Vec<String>, BuildError> {
        let path = self.project.deployment_config_path();
        if !path.exists() {
            return Ok(Vec::new());
        }
        let interpreter = || self.python.get();
        let loaded = DeploymentConfig::load_remembered(&path, &interpreter, Some(&self.store))?;
        let names = loaded.config.environments().into_iter();
        Ok(names.map(str::to_owned).collect())
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
        let watch = |step| {
            self.progress.report(match step {
                ScanStep::Listed { bytes } => Event::Started {
                    phase: Phase::Scan,
                    total: Some(bytes),
                    unit: Unit::Bytes,
                },
                ScanStep::Read { bytes } => Event::Advanced {
                    phase: Phase::Scan,
                    amount: bytes,
                },
            });
        };
        let tree = self.scan(&watch)?;
        self.progress.report(Event::Finished {
            phase: Phase::Scan,
            summary: format!("{} files, {} read", tree.entries.len(), tree.read_again),
        });
        Ok(self.tree.get_or_init(|| tree))
    }

    /// The project's files as they are by now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn scan_again(&self) -> Result<Tree, BuildError> {
        self.scan(&|_| {})
    }

    fn scan(&self, watch: &(dyn Fn(ScanStep) + Sync)) -> Result<Tree, BuildError> {
        let directory = &self.project.directory;
        let own_store = self.store.root().canonicalize().ok();
        let skip = |path: &str, is_directory: bool| {
            let is_own_store = || own_store.as_deref() == Some(directory.join(path).as_path());
            let is_package = self
                .project
                .spec
                .packages
                .iter()
                .any(|package| package == path);
            !is_package
                && (is_no_source(directory, path, is_directory) || is_directory && is_own_store())
        };
        Ok(self.store.scan_watched(directory, &skip, watch)?)
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
