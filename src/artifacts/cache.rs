//! By what a build is found in a cache.

use forebay_store::{ObjectDigest, Recipe};
use serde::Serialize;

use super::{Build, BuildError};
use crate::cache::Closure;
use crate::python::PythonVersion;

/// What a build looks up depends on more than this; but what is not among it differs rarely,
/// and costs requests, never a wrong answer: each result is found by its own recipe.
#[derive(Serialize)]
struct Inputs<'a> {
    program: &'static str,
    sources: ObjectDigest,
    environment: &'a str,
    python: PythonVersion,
    platform: &'a str,
    bigflow: Option<&'a str>,
    installed: &'a [String],
}

impl Build<'_> {
    /// By what this build is found in a cache. Reads the sources, and looks for the Python.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn closure(&self) -> Result<Closure, BuildError> {
        let project = self.workspace.project();
        let python = self.workspace.interpreter()?;
        let environment = self.target.environment.as_str();
        let inputs = Inputs {
            program: env!("CARGO_PKG_VERSION"),
            sources: self.workspace.tree()?.digest(),
            environment,
            python: python.version,
            platform: &python.platform,
            bigflow: python.bigflow.as_deref(),
            installed: &python.installed,
        };
        let latest = (project.spec.name.as_str(), environment);
        Ok(Closure {
            exact: Recipe::new("cached-build", 1, &inputs)?.key(),
            latest: Recipe::new("latest-cached-build", 1, &latest)?.key(),
        })
    }
}
