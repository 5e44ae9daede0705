//! Scripts whose answers are remembered until something changes that they read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use forebay_store::{ObjectDigest, Recipe, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::trace::{Inputs, Trace, World};
use super::{Interpreter, PythonError, recall, remember, run_script};

/// The recipes' version: raise it when equal answers mean something else.
const RECIPE_VERSION: u32 = 1;

/// A file that was written less than this before the script was started may have been read
/// before or after: times have whole seconds in some file systems.
const SETTLED: Duration = Duration::from_secs(2);
/// The same for times with a fraction.
const SETTLED_FINE: Duration = Duration::from_millis(20);

/// A script that runs one file of the project.
pub(crate) struct TracedScript<'a> {
    /// What it is for; names its recipes.
    pub(crate) purpose: &'static str,
    /// Its text: `common.py`, `trace.py`, then its own.
    pub(crate) source: &'static str,
    /// The file that it runs, absolute.
    pub(crate) path: &'a Path,
    /// The file's folder, in which it runs.
    pub(crate) directory: &'a Path,
    /// Whether an answer is remembered although the project's code read variables: their values
    /// may be in it, and may be secrets.
    pub(crate) keeps_variables: bool,
}

/// An answer that may be remembered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Traced<Answer> {
    #[serde(flatten)]
    pub(crate) answer: Answer,
    pub(crate) trace: Trace,
}

/// What both recipes have in common.
#[derive(Serialize)]
struct Common<'a> {
    script: ObjectDigest,
    path: &'a Path,
    interpreter: &'a Interpreter,
}

impl TracedScript<'_> {
    /// The remembered answer, or that of a run. `take` makes what is remembered out of what
    /// the script answers; without a trace nothing is.
    pub(crate) fn run<Answer, Raw, Error>(
        &self,
        interpreter: &Interpreter,
        store: Option<&Store>,
        take: impl FnOnce(Raw) -> Result<Traced<Answer>, Error>,
    ) -> Result<Answer, Error>
    where
        Answer: Serialize + DeserializeOwned,
        Raw: DeserializeOwned,
        Error: From<PythonError>,
    {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let world = World {
            directory: self.directory,
            tree: None,
            variables: &variables,
            start_time: None,
        };
        let trace_recipe = self.trace_recipe(interpreter)?;
        if let Some(store) = store
            && let Some(trace) = recall::<Trace>(store, &trace_recipe).map_err(PythonError::from)?
        {
            let recipe = self.answer_recipe(interpreter, &world.observe(&trace))?;
            if let Some(answer) = recall(store, &recipe).map_err(PythonError::from)? {
                return Ok(answer);
            }
        }
        #[derive(Serialize)]
        struct Request<'a> {
            path: &'a Path,
            directory: &'a Path,
        }
        let request = Request {
            path: self.path,
            directory: self.directory,
        };
        let started = SystemTime::now();
        let raw = run_script(
            &interpreter.executable,
            self.source,
            &request,
            self.directory,
            &[],
        )?;
        let Traced { answer, trace } = take(raw)?;
        let secret = !trace.read_by_project.is_empty() && !self.keeps_variables;
        if let Some(store) = store
            && !trace.started_process
            && !trace.incomplete
            && !secret
            && trace
                .files()
                .all(|file| is_settled(&self.directory.join(file), started))
        {
            let recipe = self.answer_recipe(interpreter, &world.observe(&trace))?;
            let remembered = store.begin().and_then(|mut batch| {
                remember(&mut batch, &trace_recipe, &trace)?;
                remember(&mut batch, &recipe, &answer)?;
                batch.commit()
            });
            remembered.map_err(PythonError::from)?;
        }
        Ok(answer)
    }

    fn common<'b>(&'b self, interpreter: &'b Interpreter) -> Common<'b> {
        Common {
            script: ObjectDigest::of(self.source.as_bytes()),
            path: self.path,
            interpreter,
        }
    }

    fn trace_recipe(&self, interpreter: &Interpreter) -> Result<Recipe, PythonError> {
        let kind = format!("{}-trace", self.purpose);
        let inputs = self.common(interpreter);
        Ok(Recipe::new(&kind, RECIPE_VERSION, &inputs)?)
    }

    fn answer_recipe(
        &self,
        interpreter: &Interpreter,
        read: &Inputs,
    ) -> Result<Recipe, PythonError> {
        #[derive(Serialize)]
        struct AnswerInputs<'a> {
            common: Common<'a>,
            read: &'a Inputs,
        }
        let inputs = AnswerInputs {
            common: self.common(interpreter),
            read,
        };
        let kind = format!("{}-answer", self.purpose);
        Ok(Recipe::new(&kind, RECIPE_VERSION, &inputs)?)
    }
}

/// Whether a file was the same before the script ran: it is read for its digest only afterwards.
fn is_settled(path: &Path, started: SystemTime) -> bool {
    let Ok(metadata) = path.metadata() else {
        return true;
    };
    let times = [
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    ];
    times.into_iter().all(|(seconds, nanoseconds)| {
        let seconds = u64::try_from(seconds).unwrap_or_default();
        let fraction = u32::try_from(nanoseconds).unwrap_or_default();
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, fraction));
        let age = time.and_then(|time| started.duration_since(time).ok());
        let enough = if fraction == 0 { SETTLED } else { SETTLED_FINE };
        age.is_some_and(|age| age > enough)
    })
}
