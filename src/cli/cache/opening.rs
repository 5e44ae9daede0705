//! What the commands on a cache begin with.

use std::sync::Arc;

use crate::artifacts::{Build, OpenRegistry, Target, Workspace};
use crate::cache::Cache;
use crate::cli::arguments::{BuildArguments, CacheArguments};
use crate::cli::caching::Caching;
use crate::cli::context::Context;
use crate::cli::services::LazyServices;
use crate::ui::{CommandError, Exit};

/// A project, one of its environments, and the caches: there is at least one.
pub(super) struct Opening<'a> {
    pub(super) workspace: Workspace,
    pub(super) target: Target,
    pub(super) services: LazyServices<'a>,
    pub(super) caching: Caching,
    pub(super) cache: Arc<Cache>,
}

impl<'a> Opening<'a> {
    /// The caches of `arguments`, or those of `caches`.
    pub(super) fn new(
        context: &Context,
        arguments: &'a BuildArguments,
        caches: &CacheArguments,
    ) -> Result<Self, CommandError> {
        let workspace = context.workspace()?;
        let (target, services) = LazyServices::of_build(&workspace, arguments)?;
        let caching = Caching::of_cache(&workspace, &target, caches, &arguments.authentication)?;
        let cache = Arc::clone(caching.cache().ok_or_else(no_cache)?);
        Ok(Self {
            workspace,
            target,
            services,
            caching,
            cache,
        })
    }

    /// The build that the caches are asked about.
    pub(super) fn build<'b>(&'b self, open: OpenRegistry<'b>) -> Result<Build<'b>, CommandError> {
        let build = Build::new(&self.workspace, &self.target, open)?;
        self.caching.expect(&build)?;
        Ok(build)
    }
}

/// There is nothing to work on.
fn no_cache() -> CommandError {
    CommandError::new(Exit::Usage, "there is no cache").next(
        "name one with --cache URL, $FOREBAY_CACHE, or `cache` in [tool.forebay] of pyproject.toml",
    )
}
