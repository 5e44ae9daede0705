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
use crate::python::{
    Interpreter, PythonVersion, StartedScript, recall, recall_from_anywhere, remember,
};
use crate::wheels::{WheelSet, lay_out};

const PROBE_SCRIPT: &str = concat!(
    include_str!("../python/scripts/common.py"),
    include_str!("../python/scripts/trace.py"),
    include_str!("scripts/probe.py")
);

/// The recipes' version: raise it when equal answers of the script mean something else.
const RECIPE_VERSION: u32 = 2;

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
    /// Wheels to import from too; they are unpacked only if Python must run.
    pub wheels: Option<&'a WheelSet>,
    /// What `bf_env` says to the project's code. `None` leaves it as it is.
    pub environment: Option<&'a EnvironmentName>,
    /// The start time that a workflow's own `start_time_factory` is given.
    pub start_time: StartTime,
    /// The project's files, scanned: what is in it is not read again.
    pub tree: Option<&'a Tree>,
}

/// The project's workflows, sorted by id.
///
/// If nothing has changed that the last run read, here or on another machine with the same
/// Python, no Python is started.
pub fn probe(
    request: &ProbeRequest<'_>,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<Workflow>, ProbeError> {
    Search::begin(request, store)?.finish(request, store, progress)
}

/// A search for a project's workflows that goes on by itself.
#[derive(Debug)]
pub struct Search(State);

#[derive(Debug)]
enum State {
    Known(Vec<Workflow>),
    Running {
        script: StartedScript,
        /// What it was told to import: there may be others by now.
        modules: Vec<Module>,
    },
}

impl Search {
    /// Starts Python, unless the workflows are known.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn begin(request: &ProbeRequest<'_>, store: &Store) -> Result<Self, ProbeError> {
        let probe = Probe::new(request)?;
        Ok(Self(match probe.known(store)? {
            Some(workflows) => State::Known(workflows),
            None => State::Running {
                script: probe.start(store)?,
                modules: probe.modules,
            },
        }))
    }

    /// Gives what [`probe()`] would have given. `request` is the one that it was begun with.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub fn finish(
        self,
        request: &ProbeRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Vec<Workflow>, ProbeError> {
        match self.0 {
            State::Known(workflows) => Ok(workflows),
            State::Running { script, modules } => {
                Probe::of(request, modules).finish(script, store, progress)
            }
        }
    }
}

/// What decides the workflows, by names that people understand, each with what tells two values of
/// it apart: what the last run has read, as it is now. No Python is started; before the first
/// run nothing is known but the Python and the modules.
///
/// # Errors
/// See [`ProbeError`].
pub fn probe_inputs(
    request: &ProbeRequest<'_>,
    store: &Store,
) -> Result<BTreeMap<String, String>, ProbeError> {
    let probe = Probe::new(request)?;
    let trace = match recall::<Trace>(store, &probe.trace_recipe(Reach::Machine)?)? {
        Some(trace) => Some(trace),
        None => recall_from_anywhere(store, &probe.trace_recipe(Reach::Anywhere)?)?,
    };
    let mut inputs = match trace {
        Some(trace) => probe.world(request.tree).observe(&trace).named(),
        None => BTreeMap::new(),
    };
    let python = request.interpreter;
    let mut known = |name: &str, value: String| inputs.insert(name.to_owned(), value);
    known(
        "the Python",
        format!("{} ({})", python.version, python.platform),
    );
    known(
        "what is installed in the Python",
        python.installed.join(", "),
    );
    if let Some(wheels) = request.wheels {
        known(
            "the wheels that workflows import",
            wheels.digest().to_string(),
        );
    }
    let modules: Vec<String> = probe
        .modules
        .iter()
        .map(|module| module.name.clone())
        .collect();
    known("the project's modules", modules.join(", "));
    Ok(inputs)
}

/// For whom a recipe is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// For this folder on this machine.
    Machine,
    /// For whoever has the same sources and the same Python, wherever these are.
    Anywhere,
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
    place: Option<Place<'a>>,
    python: Python<'a>,
    wheels: Option<ObjectDigest>,
    environment: Option<&'a EnvironmentName>,
    packages: Vec<&'a str>,
}

/// What only this machine knows.
#[derive(Serialize)]
struct Place<'a> {
    directory: &'a Path,
    executable: &'a Path,
    import_paths: &'a [PathBuf],
}

/// A Python, wherever it is.
#[derive(Serialize)]
struct Python<'a> {
    version: PythonVersion,
    platform: &'a str,
    bigflow: Option<&'a str>,
    installed: &'a [String],
}

impl<'a> Probe<'a> {
    fn new(request: &'a ProbeRequest<'a>) -> Result<Self, ProbeError> {
        let roots = root_packages(request.packages);
        let modules = find_modules(request.directory, roots)
            .map_err(|(path, source)| ProbeError::Read { path, source })?;
        Ok(Self::of(request, modules))
    }

    fn of(request: &'a ProbeRequest<'a>, modules: Vec<Module>) -> Self {
        let mut variables: BTreeMap<String, String> = process_variables().into_iter().collect();
        for (name, value) in forced_variables(request) {
            variables.insert(name.to_owned(), value.to_owned());
        }
        Self {
            request,
            modules,
            variables,
        }
    }

    /// What an earlier run gave, if everything that it read is as it was.
    fn known(&self, store: &Store) -> Result<Option<Vec<Workflow>>, ProbeError> {
        let world = self.world(self.request.tree);
        let anywhere = self.trace_recipe(Reach::Anywhere)?;
        let own = recall::<Trace>(store, &self.trace_recipe(Reach::Machine)?)?;
        if let Some(trace) = &own {
            let inputs = world.observe(trace);
            let bound = self.result_recipe(Reach::Machine, &inputs)?;
            if let Some(workflows) = recall(store, &bound)? {
                return Ok(Some(workflows));
            }
            let recipe = self.result_recipe(Reach::Anywhere, &inputs)?;
            if let Some(workflows) = recall_from_anywhere(store, &recipe)? {
                // It is part of what another machine would look up.
                recall_from_anywhere::<Trace>(store, &anywhere)?;
                return Ok(Some(workflows));
            }
        }
        let Some(trace) = recall_from_anywhere::<Trace>(store, &anywhere)? else {
            return Ok(None);
        };
        if own.as_ref() == Some(&trace) {
            return Ok(None);
        }
        let recipe = self.result_recipe(Reach::Anywhere, &world.observe(&trace))?;
        Ok(recall_from_anywhere(store, &recipe)?)
    }

    /// Whether the answer has a path in it that another machine would have otherwise.
    fn names_this_machine(&self, workflows: &[Workflow]) -> bool {
        let Ok(text) = serde_json::to_string(workflows) else {
            return true;
        };
        let home = self.variables.get("HOME").map(Path::new);
        let mut places = self
            .request
            .import_paths
            .iter()
            .map(PathBuf::as_path)
            .chain([self.request.directory])
            .chain(home)
            .filter(|place| place.parent().is_some());
        places.any(|place| text.contains(place.to_string_lossy().as_ref()))
    }

    fn common(&self, reach: Reach) -> Common<'_> {
        let interpreter = self.request.interpreter;
        Common {
            script: ObjectDigest::of(PROBE_SCRIPT.as_bytes()),
            place: (reach == Reach::Machine).then_some(Place {
                directory: self.request.directory,
                executable: &interpreter.executable,
                import_paths: self.request.import_paths,
            }),
            python: Python {
                version: interpreter.version,
                platform: &interpreter.platform,
                bigflow: interpreter.bigflow.as_deref(),
                installed: &interpreter.installed,
            },
            wheels: self.request.wheels.map(WheelSet::digest),
            environment: self.request.environment,
            packages: root_packages(self.request.packages).collect(),
        }
    }

    /// Names the trace of the last run, which each run replaces.
    fn trace_recipe(&self, reach: Reach) -> Result<Recipe, StoreError> {
        Recipe::new("probe-trace", RECIPE_VERSION, &self.common(reach))
    }

    /// Names the result for these inputs.
    fn result_recipe(&self, reach: Reach, inputs: &Inputs) -> Result<Recipe, StoreError> {
        #[derive(Serialize)]
        struct ResultInputs<'a> {
            common: Common<'a>,
            modules: &'a [Module],
            read: &'a Inputs,
        }
        let inputs = ResultInputs {
            common: self.common(reach),
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

    fn finish(
        &self,
        script: StartedScript,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Vec<Workflow>, ProbeError> {
        progress.report(Event::Started {
            phase: Phase::Probe,
            total: None,
            unit: Unit::Items,
        });
        let (workflows, trace) = self.answer(script)?;
        // The files are read again: what was edited while the probe ran must not be
        // remembered under the old content, nor the old result under the new one.
        let before = self.world(self.request.tree).observe(&trace);
        let after = self.world(None).observe(&trace);
        if self.request.tree.is_some() && before == after && !trace.incomplete {
            let mut batch = store.begin()?;
            let reach = match self.names_this_machine(&workflows) {
                true => Reach::Machine,
                false => Reach::Anywhere,
            };
            remember(&mut batch, &self.trace_recipe(Reach::Machine)?, &trace)?;
            remember(&mut batch, &self.trace_recipe(Reach::Anywhere)?, &trace)?;
            let result = self.result_recipe(reach, &before)?;
            remember(&mut batch, &result, &workflows)?;
            batch.commit()?;
            if reach == Reach::Anywhere {
                store.share(&result.key());
            }
        }
        progress.report(Event::Finished {
            phase: Phase::Probe,
            summary: format!("{} workflows", workflows.len()),
        });
        Ok(workflows)
    }

    fn start(&self, store: &Store) -> Result<StartedScript, ProbeError> {
        #[derive(Serialize)]
        struct Request<'a> {
            directory: &'a Path,
            modules: &'a [Module],
            import_paths: &'a [PathBuf],
            start_time: String,
        }
        let mut import_paths = self.request.import_paths.to_vec();
        if let Some(wheels) = self.request.wheels {
            import_paths.push(lay_out(wheels, store)?);
        }
        let request = Request {
            directory: self.request.directory,
            modules: &self.modules,
            import_paths: &import_paths,
            start_time: self
                .request
                .start_time
                .time
                .strftime("%Y-%m-%dT%H:%M:%S")
                .to_string(),
        };
        Ok(StartedScript::start(
            &self.request.interpreter.executable,
            PROBE_SCRIPT,
            &request,
            self.request.directory,
            &forced_variables(self.request),
        )?)
    }

    fn answer(&self, script: StartedScript) -> Result<(Vec<Workflow>, Trace), ProbeError> {
        let answer: Answer = script.finish()?;
        let (workflows, trace) =
            answer.into_result(&self.request.interpreter.executable, self.request.directory)?;
        let home = self.variables.get("HOME").map(String::as_str);
        Ok((workflows, trace.relative_to_home(home)))
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
