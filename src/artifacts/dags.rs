//! From a project's workflows to its DAG files.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};

use jiff::Zoned;

use super::{Build, BuildError, Workspace};
use crate::dags::{
    DagFile, DagFormat, LiveStarts, ProbeRequest, RenderContext, Search, StartDate, StartTime,
    Workflow, check, probe, render_with_ids,
};
use crate::oci::{Sha256Digest, Tag};
use crate::progress::Event;
use crate::project::WorkflowId;
use crate::python::Interpreter;
use crate::wheels::{WheelSet, lay_out};

/// How DAG files name their image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageNaming {
    /// `REPOSITORY@sha256:…`, with the tag in a comment.
    Digest,
    /// `REPOSITORY:VERSION`, as BigFlow does.
    Tag,
}

/// What a user says about the DAG files.
#[derive(Debug, Clone, Default)]
pub struct DagOptions {
    /// This workflow alone.
    pub workflow: Option<String>,
    /// The first runtime, as BigFlow's `--start-time` has it.
    pub start_time: Option<String>,
    /// When the live workflows start: what is said for a workflow without a `start_time`.
    pub live: LiveStarts,
    /// How they are written; otherwise `[tool.forebay.dags] format`.
    pub format: Option<DagFormat>,
    /// How they name the image; otherwise by digest, and by tag in BigFlow's format.
    pub image_naming: Option<ImageNaming>,
}

impl DagOptions {
    /// The format that is wanted.
    pub fn format(&self, workspace: &Workspace) -> DagFormat {
        self.format
            .unwrap_or(workspace.project().settings.dags.format)
    }

    /// How the image is to be named.
    pub fn image_naming(&self, workspace: &Workspace) -> ImageNaming {
        self.image_naming
            .unwrap_or_else(|| match self.format(workspace) {
                DagFormat::Default => ImageNaming::Digest,
                DagFormat::Bigflow1_11 => ImageNaming::Tag,
            })
    }
}

impl DagOptions {
    /// Without a word about the start time, what is live goes on as it began.
    fn keeps_live_starts(&self) -> bool {
        self.start_time.as_deref().is_none_or(str::is_empty)
    }

    /// The start time of a workflow that is not live: as it was said, else that of the live
    /// generation, else the current hour.
    pub(super) fn default_start_time(&self) -> Result<StartTime, BuildError> {
        let said = StartTime::from_argument(self.start_time.as_deref(), &Zoned::now())?;
        let live = self.live.latest().filter(|_| self.keeps_live_starts());
        Ok(StartTime {
            time: live.unwrap_or(said.time),
            ..said
        })
    }
}

impl Build<'_> {
    /// The DAG files of the project's workflows. `image` may be absent if they name it by tag.
    ///
    /// # Errors
    /// See [`BuildError`]; no workflow at all is an error too.
    pub async fn dag_files(
        &self,
        options: &DagOptions,
        image: Option<&Sha256Digest>,
    ) -> Result<Vec<DagFile>, BuildError> {
        let workflows = self.workflows(options).await?;
        for warning in check(workflows.iter().map(|(workflow, _)| workflow))? {
            let progress = self.workspace.progress();
            progress.report(Event::Warning(warning));
        }
        let by_tag = self.image_by_tag()?;
        let (image, image_tag) = match image {
            Some(digest) => (
                format!("{}@{digest}", self.target.repository_text()?),
                Some(by_tag),
            ),
            None => (by_tag, None),
        };
        let ids = self.workspace.project().settings.dags.ids;
        workflows
            .iter()
            .map(|(workflow, start_time)| {
                let context = RenderContext {
                    format: options.format(self.workspace),
                    image: &image,
                    image_tag: image_tag.as_deref(),
                    version: &self.version,
                    start_time: *start_time,
                };
                render_with_ids(workflow, &context, ids).map_err(|source| BuildError::Render {
                    place: workflow.place(),
                    source: Box::new(source),
                })
            })
            .collect()
    }

    /// The image by its tag, as `image_version.txt` and BigFlow's DAG files name it.
    ///
    /// # Errors
    /// The version is too long for a tag.
    pub fn image_by_tag(&self) -> Result<String, BuildError> {
        let tag: Tag = self.version.image_tag().parse()?;
        // Parsed for its errors; written as it was written.
        self.target.repository()?;
        Ok(format!("{}:{tag}", self.target.repository_text()?))
    }

    /// The ids of the workflows that are wanted.
    ///
    /// # Errors
    /// See [`BuildError`]; no workflow at all is an error too.
    pub async fn workflow_ids(&self, options: &DagOptions) -> Result<Vec<WorkflowId>, BuildError> {
        let workflows = self.workflows(options).await?;
        Ok(workflows
            .into_iter()
            .map(|(workflow, _)| workflow.id)
            .collect())
    }

    /// The workflows that are wanted, each with its start time.
    async fn workflows(
        &self,
        options: &DagOptions,
    ) -> Result<Vec<(Workflow, StartTime)>, BuildError> {
        let default = options.default_start_time()?;
        let found = self.probe(default).await?;
        let mut started = Vec::new();
        let mut asked = BTreeMap::new();
        for mut workflow in choose(found, options.workflow.as_deref())? {
            let start_time = match options.keeps_live_starts() {
                true => options.live.of(&workflow.id, default),
                false => default,
            };
            // The project's own function answers for one start time only.
            if matches!(workflow.start_date, StartDate::Custom { .. })
                && start_time.time != default.time
            {
                let known = match asked.entry(start_time.time) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(free) => free.insert(self.probe(start_time).await?),
                };
                if let Some(again) = known.iter().find(|known| known.id == workflow.id) {
                    workflow = again.clone();
                }
            }
            started.push((workflow, start_time));
        }
        Ok(started)
    }

    /// Begins to look for the workflows: Python runs, if it has to, while the image is made. Whatever
    /// fails is told by [`Self::dag_files`].
    pub async fn begin_dag_files(&self, options: &DagOptions) {
        let Ok(start_time) = options.default_start_time() else {
            return;
        };
        // Otherwise the image's wheels come first.
        let has_bigflow =
            (self.workspace.interpreter()).is_ok_and(|python| python.bigflow.is_some());
        if !has_bigflow {
            return;
        }
        let store = self.workspace.store();
        let begin = |request: &ProbeRequest<'_>| Ok(Search::begin(request, store)?);
        if let Ok(search) = self.with_probe_request(start_time, begin).await {
            *self.search() = Some((start_time, search));
        }
    }

    fn search(&self) -> MutexGuard<'_, Option<(StartTime, Search)>> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn probe(&self, start_time: StartTime) -> Result<Vec<Workflow>, BuildError> {
        let (store, progress) = (self.workspace.store(), self.workspace.progress().as_ref());
        let begun = self.search().take();
        if let Some((asked, search)) = begun {
            let finish = |request: &ProbeRequest<'_>| Ok(search.finish(request, store, progress)?);
            let found = self.with_probe_request(asked, finish).await?;
            if asked == start_time {
                return Ok(found);
            }
            // Most projects do not ask for the start time: then that was the answer for all.
        }
        self.with_probe_request(start_time, |request| Ok(probe(request, store, progress)?))
            .await
    }

    /// Gathers what finding the workflows needs.
    pub(super) async fn with_probe_request<T>(
        &self,
        start_time: StartTime,
        work: impl FnOnce(&ProbeRequest<'_>) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let interpreter = self.workspace.interpreter()?;
        // They are unpacked only if it has to run.
        let wheels = self.imported_wheels(&interpreter).await?;
        let project = self.workspace.project();
        let request = ProbeRequest {
            directory: &project.directory,
            packages: &project.spec.packages,
            interpreter: &interpreter,
            import_paths: &[],
            wheels: wheels.as_ref(),
            environment: Some(&self.target.environment),
            start_time,
            tree: Some(self.workspace.tree()?),
        };
        work(&request)
    }
}

impl Build<'_> {
    /// A Python without BigFlow imports it, and all else, from the image's own wheels.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn imported_wheels(
        &self,
        interpreter: &Interpreter,
    ) -> Result<Option<WheelSet>, BuildError> {
        Ok(match interpreter.bigflow {
            Some(_) => None,
            None => Some(self.wheels_for_this_machine().await?),
        })
    }

    /// The folders with those wheels, unpacked.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn import_paths(
        &self,
        interpreter: &Interpreter,
    ) -> Result<Vec<PathBuf>, BuildError> {
        Ok(match self.imported_wheels(interpreter).await? {
            None => Vec::new(),
            Some(wheels) => vec![lay_out(&wheels, self.workspace.store())?],
        })
    }
}

fn choose(workflows: Vec<Workflow>, chosen: Option<&str>) -> Result<Vec<Workflow>, BuildError> {
    if workflows.is_empty() {
        return Err(BuildError::NoWorkflow);
    }
    let Some(chosen) = chosen else {
        return Ok(workflows);
    };
    let known = workflows
        .iter()
        .map(|workflow| workflow.id.to_string())
        .collect();
    let found: Vec<Workflow> = workflows
        .into_iter()
        .filter(|workflow| workflow.id.as_str() == chosen)
        .collect();
    if found.is_empty() {
        return Err(BuildError::NoSuchWorkflow {
            id: chosen.to_owned(),
            known,
        });
    }
    Ok(found)
}
