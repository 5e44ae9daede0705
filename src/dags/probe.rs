//! Finds the project's workflows by running its Python, once for every change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use forebay_store::{ObjectDigest, Recipe, Store, StoreError, Tree};
use serde::Serialize;

use super::answer::Answer;
use super::error::ProbeError;
use super::modules::{Module, find_modules};
use super::start_time::StartTime;
use super::workflow::Workflow;
use crate::progress::{Event, Phase, Progress, Unit};
use crate::project::{EnvironmentName, process_variables};
use crate::python::trace::{Inputs, Trace, World};
use crate::python::{Interpreter, recall, remember, run_script};

const PROBE_SCRIPT: &str = concat!(
    include_str!("../python/scripts/common.py"),
    include_str!("../python/scripts/trace.py"),
    include_str!("scripts/probe.py")
);

/// The recipes' version: raise it when equal answers of the script mean something else.
const RECIPE_VERSION: u32 = 1;

/// What the probe is asked.
#[derive(Clone, Copy)]
pub struct ProbeRequest<'a> {
    /// The project's directory, absolute.
    pub directory: &'a Path,
    /// The project's packages, dotted; those without a dot are searched.
    pub packages: &'a [String],
    /// The Python that runs it.
    pub interpreter: &'a Interpreter,
    /// Folders to import from besides what is installed there.
    pub import_paths: &'a [PathBuf],
    /// What `bf_env` says to the project's code. `None` leaves it as it is.
    pub environment: Option<&'a EnvironmentName>,
    /// The start time that a workflow's own `start_time_factory` is given.
    pub start_time: StartTime,
    /// The project's files, scanned: what is in it is not read again.
    pub tree: Option<&'a Tree>,
}

/// The project's workflows, sorted by id.
///
/// If nothing has changed that the last run read, no Python is started.
pub fn probe(
    request: &ProbeRequest<'_>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<Workflow>, ProbeError> {
    let probe = Probe::new(request)?;
    let trace_recipe = probe.trace_recipe()?;
    if let Some(trace) = recall::<Trace>(store, &trace_recipe)? {
        let inputs = probe.world(request.tree).observe(&trace);
        if let Some(workflows) = recall(store, &probe.result_recipe(&inputs)?)? {
            return Ok(workflows);
        }
    }

    progress.report(Event::Started {
        phase: Phase::Probe,
        total: None,
        unit: Unit::Items,
    });
    let (workflows, trace) = probe.run()?;
    // The files are read again: what was edited while the probe ran must not be
    // remembered under the old content, nor the old result under the new one.
    let before = probe.world(request.tree).observe(&trace);
    let after = probe.world(None).observe(&trace);
    if request.tree.is_some() && before == after && !trace.incomplete {
        let mut batch = store.begin()?;
        remember(&mut batch, &trace_recipe, &trace)?;
        remember(&mut batch, &probe.result_recipe(&before)?, &workflows)?;
        batch.commit()?;
    }
    progress.report(Event::Finished {
        phase: Phase::Probe,
        summary: format!("{} workflows", workflows.len()),
    });
    Ok(workflows)
}

struct Probe<'a> {
    request: &'a ProbeRequest<'a>,
    modules: Vec<Module>,
    variables: BTreeMap<String, String>,
}

/// What both recipes have in common.
#[derive(Serialize)]
struct Common<'a> {
    script: ObjectDigest,
    directory: &'a Path,
    interpreter: &'a Interpreter,
    import_paths: &'a [PathBuf],
    environment: Option<&'a EnvironmentName>,
    packages: Vec<&'a str>,
}

impl<'a> Probe<'a> {
    fn new(request: &'a ProbeRequest<'a>) -> Result<Self, ProbeError> {
        let roots = root_packages(request.packages);
        let modules = find_modules(request.directory, roots)
            .map_err(|(path, source)| ProbeError::Read { path, source })?;
        let mut variables: BTreeMap<String, String> = process_variables().into_iter().collect();
        for (name, value) in forced_variables(request) {
            variables.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self {
            request,
            modules,
            variables,
        })
    }

    fn common(&self) -> Common<'_> {
        Common {
            script: ObjectDigest::of(PROBE_SCRIPT.as_bytes()),
            directory: self.request.directory,
            interpreter: self.request.interpreter,
            import_paths: self.request.import_paths,
            environment: self.request.environment,
            packages: root_packages(self.request.packages).collect(),
        }
    }

    /// Names the trace of the last run, which each run replaces.
    fn trace_recipe(&self) -> Result<Recipe, StoreError> {
        Recipe::new("probe-trace", RECIPE_VERSION, &self.common())
    }

    /// Names the result for these inputs.
    fn result_recipe(&self, inputs: &Inputs) -> Result<Recipe, StoreError> {
        #[derive(Serialize)]
        struct ResultInputs<'a> {
            common: Common<'a>,
            modules: &'a [Module],
            read: &'a Inputs,
        }
        let inputs = ResultInputs {
            common: self.common(),
            modules: &self.modules,
            read: inputs,
        };
        Recipe::new("probe-result", RECIPE_VERSION, &inputs)
    }

    fn world<'b>(&'b self, tree: Option<&'b Tree>) -> World<'b> {
        World {
            directory: self.request.directory,
            tree,
            variables: &self.variables,
            start_time: Some(self.request.start_time.time),
        }
    }

    fn run(&self) -> Result<(Vec<Workflow>, Trace), ProbeError> {
        #[derive(Serialize)]
        struct Request<'a> {
            directory: &'a Path,
            modules: &'a [Module],
            import_paths: &'a [PathBuf],
            start_time: String,
        }
        let request = Request {
            directory: self.request.directory,
            modules: &self.modules,
            import_paths: self.request.import_paths,
            start_time: self
                .request
                .start_time
                .time
                .strftime("%Y-%m-%dT%H:%M:%S")
                .to_string(),
        };
        let answer: Answer = run_script(
            &self.request.interpreter.executable,
            PROBE_SCRIPT,
            &request,
            self.request.directory,
            &forced_variables(self.request),
        )?;
        answer.into_result(&self.request.interpreter.executable, self.request.directory)
    }
}

fn root_packages(packages: &[String]) -> impl Iterator<Item = &str> {
    packages
        .iter()
        .map(String::as_str)
        .filter(|package| !package.contains('.'))
}

/// The variables that the probe's process has besides its parent's.
fn forced_variables<'a>(request: &ProbeRequest<'a>) -> Vec<(&'static str, &'a str)> {
    // The order of a set of texts, secrets for example, must not differ from run to run.
    let mut variables = vec![("PYTHONHASHSEED", "0")];
    if let Some(environment) = request.environment {
        variables.push(("bf_env", environment.as_str()));
    }
    variables
}
