//! From a project and one of its environments to artifacts: the glue between
//! configuration, wheels, image and DAG files.

mod base;
mod bytecode;
mod cache;
mod containers;
mod dags;
mod declared;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod image;
mod inputs;
mod lock;
mod own_wheel;
mod package;
mod placeholder;
mod requirements;
mod roots;
mod saved;
mod target;
mod workspace;

use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

pub use containers::PublishableBase;
pub use dags::{DagOptions, ImageNaming};
pub use error::BuildError;
pub use inputs::{BuildInputs, Difference, RecordedBuild, RecordedBuilds};
pub use lock::{LockError, LockFile, LockedCompiler};
pub use placeholder::{NotReplaced, Placeholder};
pub use roots::{keep_build, keep_newest_generations};
pub use saved::SavedBuild;
pub use target::{Target, TargetOptions};
pub use workspace::{Workspace, WorkspaceOptions};

use crate::dags::{Search, StartTime};
use crate::oci::Repository;
use crate::project::{GitState, Version};
use crate::registry::{Registry, RegistryError};
use crate::wheels::Platform;

/// Opens a repository for reading: a base image's. Makes no request.
pub type OpenRegistry<'a> =
    &'a (dyn Fn(&Repository) -> Result<Arc<dyn Registry>, RegistryError> + Sync);

/// What the command line says of the image. Nothing of it: then the settings count.
#[derive(Debug, Clone, Default)]
pub struct ImageOptions {
    /// What the image is built for.
    pub platforms: Vec<Platform>,
    /// Whether the project's own build makes its wheel; otherwise the settings say it.
    pub own_wheel: bool,
}

/// The making of one project's artifacts for one environment.
///
/// Whatever the store knows already is only looked up: a build of unchanged
/// sources starts no process, and asks no server.
pub struct Build<'a> {
    workspace: &'a Workspace,
    target: &'a Target,
    version: Version,
    commit: Option<GitState>,
    open: OpenRegistry<'a>,
    options: ImageOptions,
    rebuild: bool,
    inputs: OnceCell<image::AllInputs>,
    /// A search for the workflows, with this start time, beside the making of the image.
    search: Mutex<Option<(StartTime, Search)>>,
}

impl<'a> Build<'a> {
    /// Tells the version; makes nothing yet.
    ///
    /// # Errors
    /// Git gives no version.
    pub fn new(
        workspace: &'a Workspace,
        target: &'a Target,
        open: OpenRegistry<'a>,
    ) -> Result<Self, BuildError> {
        let tree = workspace.project().working_tree(workspace.store())?;
        Ok(Self {
            workspace,
            target,
            version: tree.version,
            commit: tree.commit,
            open,
            options: ImageOptions::default(),
            rebuild: false,
            inputs: OnceCell::new(),
            search: Mutex::default(),
        })
    }

    /// Builds what the command line asks for, which goes before the settings.
    #[must_use]
    pub fn with_options(mut self, options: ImageOptions) -> Self {
        self.options = options;
        self
    }

    /// Runs lines that need a container again, though they ran before.
    #[must_use]
    pub fn rebuilding(mut self, rebuild: bool) -> Self {
        self.rebuild = rebuild;
        self
    }

    /// Keeps what this build has used from collection, until the next of the same `command`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep(&self, command: &str) -> Result<(), BuildError> {
        let project = self.workspace.project().spec.name.to_string();
        let environment = self.target.environment.to_string();
        Ok(keep_build(
            self.workspace.store(),
            &project,
            &environment,
            command,
        )?)
    }

    /// Who is told how the work goes on.
    pub fn progress(&self) -> &dyn crate::progress::Progress {
        self.workspace.progress().as_ref()
    }

    /// The commit of the working tree, where there is one.
    pub fn commit(&self) -> Option<&GitState> {
        self.commit.as_ref()
    }

    /// The project's version: a label of what is built, never content.
    pub fn version(&self) -> &Version {
        &self.version
    }
}
