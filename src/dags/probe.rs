//! Finds the project's workflows by running its Python, once for every change.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use forebay_store::{Recipe, Store, StoreError, Tree};
use serde::{Deserialize, Serialize};

use super::PythonLiteral;
use super::inputs::{Definition, Inputs, Trace, World};
use super::modules::{Module, find_modules};
use super::start_time::StartTime;
use super::workflow::{Job, Schedule, StartDate, Workflow};
use crate::progress::{Event, Phase, Progress, Unit};
use crate::project::{EnvironmentName, InvalidName, process_variables};
use crate::python::{Interpreter, PythonError, recall, remember, run_script};

const PROBE_SCRIPT: &str = concat!(
    include_str!("../python/scripts/common.py"),
    include_str!("scripts/probe.py")
);

/// The recipes' version: raise it when equal answers of the script mean something else.
const RECIPE_VERSION: u32 = 1;

/// Why the workflows could not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A module of the project cannot be imported.
    #[error("{} cannot be imported: {}{exception}: {message}", module, place(file, *line))]
    Import {
        /// The module's dotted name.
        module: String,
        /// The file of the user's code where the exception came from.
        file: PathBuf,
        /// Its line.
        line: Option<usize>,
        /// The exception's type.
        exception: String,
        /// Python's message.
        message: String,
        /// The name of a module that is not installed, if that is the reason.
        missing_module: Option<String>,
    },
    /// BigFlow itself cannot be imported.
    #[error("the Python at {} cannot import bigflow: {message}", interpreter.display())]
    NoBigflow {
        /// The interpreter.
        interpreter: PathBuf,
        /// Python's message.
        message: String,
    },
    /// A workflow is defined that no DAG file can be written from.
    #[error("workflow {workflow} ({}) has no DAG: {message}", place(file, *line).trim_end_matches(": "))]
    Workflow {
        /// The workflow's id, as it is written.
        workflow: String,
        /// The file that defines it.
        file: PathBuf,
        /// The line.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// A name in a workflow would break in Airflow or in the pod.
    #[error("in {file}{}: {source}", line.map_or_else(String::new, |line| format!(", line {line}")))]
    Name {
        /// The file that defines the workflow.
        file: String,
        /// The line.
        line: Option<usize>,
        /// What is wrong with the name.
        source: InvalidName,
    },
    /// Two different workflows have one id.
    #[error("two workflows have the id {}: one in {first}, one in {second}", first.workflow)]
    Duplicate {
        /// One of them.
        first: Definition,
        /// The other.
        second: Definition,
    },
    /// The project's packages cannot be listed.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Python could not be run.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn place(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}, line {line}: ", file.display()),
        None => format!("{}: ", file.display()),
    }
}

impl ProbeError {
    /// What a person can do about it.
    pub fn next_step(&self) -> Option<String> {
        match self {
            Self::Import {
                missing_module: Some(module),
                ..
            } => Some(format!(
                "install {module} where the project's workflows are built (its requirements must name it), or name another Python with --python"
            )),
            Self::Import { exception, .. } if exception == "ValueError" => Some(
                "mend the module; BigFlow would skip it, and leave its workflows out, with no more than a printed line".to_owned(),
            ),
            Self::Import { .. } => Some(
                "mend the module: `python -c 'import …'` in the project's folder shows the same error".to_owned(),
            ),
            Self::NoBigflow { .. } => Some(
                "install bigflow there, or name another Python with --python".to_owned(),
            ),
            Self::Duplicate { .. } => Some("give one of them another workflow_id".to_owned()),
            _ => None,
        }
    }
}

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
    if request.tree.is_some() && before == after {
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
    script: forebay_store::ObjectDigest,
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
            script: forebay_store::ObjectDigest::of(PROBE_SCRIPT.as_bytes()),
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
            start_time: self.request.start_time.time,
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
        let (found, mut trace) = match answer {
            Answer::Found { workflows, trace } => (workflows, trace),
            Answer::Failed { error } => {
                return Err(error.into_error(&self.request.interpreter.executable));
            }
        };
        let mut workflows = found
            .into_iter()
            .map(FoundWorkflow::check)
            .collect::<Result<Vec<_>, _>>()?;
        refuse_duplicates(&workflows)?;
        workflows.sort_by(|left, right| left.id.cmp(&right.id));
        trace.start_time_matters = workflows
            .iter()
            .any(|workflow| matches!(workflow.start_date, StartDate::Custom { .. }));
        Ok((workflows, trace))
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

fn refuse_duplicates(workflows: &[Workflow]) -> Result<(), ProbeError> {
    let mut seen: HashMap<&str, &Workflow> = HashMap::new();
    for workflow in workflows {
        if let Some(first) = seen.insert(workflow.id.as_str(), workflow) {
            let definition = |workflow: &Workflow| Definition {
                workflow: workflow.id.clone(),
                file: workflow.file.clone(),
                line: workflow.line,
            };
            return Err(ProbeError::Duplicate {
                first: definition(first),
                second: definition(workflow),
            });
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Failed {
        error: Failure,
    },
    Found {
        workflows: Vec<FoundWorkflow>,
        trace: Trace,
    },
}

/// An exception, as the script describes it.
#[derive(Deserialize)]
struct Failure {
    kind: FailureKind,
    exception: Option<String>,
    message: String,
    missing_module: Option<String>,
    file: Option<PathBuf>,
    line: Option<usize>,
    #[serde(default)]
    module: String,
    #[serde(default)]
    source: PathBuf,
    #[serde(default)]
    workflow: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum FailureKind {
    Bigflow,
    Import,
    Workflow,
}

impl Failure {
    fn into_error(self, interpreter: &Path) -> ProbeError {
        match self.kind {
            FailureKind::Bigflow => ProbeError::NoBigflow {
                interpreter: interpreter.to_owned(),
                message: self.message,
            },
            FailureKind::Import => ProbeError::Import {
                module: self.module,
                file: self.file.unwrap_or(self.source),
                line: self.line,
                exception: self.exception.unwrap_or_default(),
                message: self.message,
                missing_module: self.missing_module,
            },
            FailureKind::Workflow => ProbeError::Workflow {
                workflow: self.workflow,
                file: self.file.unwrap_or_default(),
                line: self.line,
                message: match self.exception {
                    Some(exception) => format!("{exception}: {}", self.message),
                    None => self.message,
                },
            },
        }
    }
}

/// A workflow before its names are checked.
#[derive(Deserialize)]
struct FoundWorkflow {
    id: String,
    package: String,
    file: String,
    line: Option<usize>,
    depends_on_past: PythonLiteral,
    schedule: Schedule,
    start_date: StartDate,
    environment_variable: String,
    jobs: Vec<FoundJob>,
}

#[derive(Deserialize)]
struct FoundJob {
    id: String,
    retries: PythonLiteral,
    retry_delay: PythonLiteral,
    execution_timeout: Option<PythonLiteral>,
    secrets: Option<Vec<super::SecretReference>>,
    dependencies: Vec<String>,
}

impl FoundWorkflow {
    fn check(self) -> Result<Workflow, ProbeError> {
        let bad_name = |source| ProbeError::Name {
            file: self.file.clone(),
            line: self.line,
            source,
        };
        let id = self.id.parse().map_err(bad_name)?;
        let jobs = self
            .jobs
            .into_iter()
            .map(|job| {
                Ok(Job {
                    id: job.id.parse()?,
                    retries: job.retries,
                    retry_delay: job.retry_delay,
                    execution_timeout: job.execution_timeout,
                    secrets: job.secrets,
                    dependencies: job
                        .dependencies
                        .iter()
                        .map(|dependency| dependency.parse())
                        .collect::<Result<_, _>>()?,
                })
            })
            .collect::<Result<_, InvalidName>>()
            .map_err(bad_name)?;
        Ok(Workflow {
            id,
            package: self.package,
            file: self.file,
            line: self.line,
            depends_on_past: self.depends_on_past,
            schedule: self.schedule,
            start_date: self.start_date,
            environment_variable: self.environment_variable,
            jobs,
        })
    }
}
