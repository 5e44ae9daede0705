//! What every command needs: the printer, the opened project, a runtime for the network.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_store::Store;

use super::arguments::GlobalArguments;
use super::interrupt;
use crate::artifacts::{BuildError, Workspace, WorkspaceOptions};
use crate::develop::import_paths_of_bigflow;
use crate::progress::Progress;
use crate::python::{self, Interpreter};
use crate::ui::{CommandError, Exit, Printer, TerminalProgress};

/// How many threads may wait for disks at the same time: 100 writes to a directory bucket would
/// start as many threads, each with a stack. Four uploads hold one each while they last.
const BLOCKING_THREADS: usize = 16;

/// One run of the program.
pub(super) struct Context {
    /// Where output goes.
    pub(super) printer: Printer,
    directory: PathBuf,
    python: Option<PathBuf>,
    progress: Arc<TerminalProgress>,
}

impl Context {
    /// Settles the directory that the command works in.
    pub(super) fn new(arguments: GlobalArguments, printer: Printer) -> Result<Self, CommandError> {
        if let Some(directory) = &arguments.directory {
            std::env::set_current_dir(directory).map_err(|error| {
                CommandError::new(Exit::Usage, format!("cannot go to {}", directory.display()))
                    .why(error.to_string())
                    .next("name a folder that exists with --directory")
            })?;
        }
        let directory = std::env::current_dir().map_err(|error| {
            CommandError::new(Exit::Usage, "the current directory cannot be told")
                .why(error.to_string())
                .next("go to a directory that exists, or name one with --directory")
        })?;
        Ok(Self {
            printer,
            directory,
            python: arguments.python,
            progress: Arc::new(TerminalProgress::new(printer)),
        })
    }

    /// Opens the project and the store.
    pub(super) fn workspace(&self) -> Result<Workspace, CommandError> {
        self.workspace_with(store_directory().ok_or(BuildError::NoStoreDirectory)?)
    }

    /// Opens the project with another store.
    pub(super) fn workspace_with(&self, store: PathBuf) -> Result<Workspace, CommandError> {
        let options = WorkspaceOptions {
            directory: self.directory.clone(),
            python: self.python.clone(),
            store,
        };
        let progress: Arc<dyn Progress> = self.progress.clone();
        Ok(Workspace::open(options, progress)?)
    }

    /// Opens the store alone.
    pub(super) fn store(&self) -> Result<Store, CommandError> {
        let directory = store_directory().ok_or(BuildError::NoStoreDirectory)?;
        Ok(Store::open(&directory)?)
    }

    /// A Python that can import BigFlow, for work outside of any project, and where from.
    pub(super) fn python_with_bigflow(&self) -> Result<(Interpreter, Vec<PathBuf>), CommandError> {
        let store = self.store()?;
        let interpreter = python::find(self.python.as_deref(), &self.directory, &store)
            .map_err(BuildError::from)?;
        let paths = import_paths_of_bigflow(&interpreter, &store, self.progress.as_ref())?;
        Ok((interpreter, paths))
    }

    /// The directory that the command works in.
    pub(super) fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Runs what needs the network. Commands that do not need it start no runtime.
    pub(super) fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        interrupt::watch(self.printer, Arc::clone(&self.progress));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .map_err(|error| {
                CommandError::new(Exit::Failed, "cannot start the network runtime")
                    .why(error.to_string())
            })?;
        let result = runtime.block_on(work);
        // A credential helper or a blocked read must not keep a finished command alive.
        runtime.shutdown_background();
        result
    }
}

impl Drop for Context {
    /// What a failed command was about is no line above its error.
    fn drop(&mut self) {
        self.progress.clear();
    }
}

/// `$FOREBAY_STORE`, else the platform's data folder.
fn store_directory() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(store) = set("FOREBAY_STORE") {
        return Some(store.into());
    }
    if let Some(data) = set("XDG_DATA_HOME") {
        return Some(PathBuf::from(data).join("forebay"));
    }
    let home = std::env::home_dir()?;
    let data = if cfg!(target_os = "macos") {
        home.join("Library/Application Support")
    } else {
        home.join(".local/share")
    };
    Some(data.join("forebay"))
}
