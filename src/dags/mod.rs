//! From workflows to DAG files.
//!
//! The project's Python runs once, to find the workflows ([`probe()`]); the files are
//! written in Rust ([`render()`]), so that a new version, image or start time needs no
//! Python.

mod answer;
mod bigflow_format;
mod check;
mod default_format;
mod end;
mod error;
mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod graph;
mod modules;
mod probe;
mod render;
mod restart;
mod runs;
mod schedule;
mod start_time;
mod workflow;

pub use crate::project::{DagFormat, DagIds, JobId, WorkflowId};
pub use check::{CheckError, check};
pub use end::with_end_date;
pub use error::{ImportFailure, Place, ProbeError};
pub use folder::{
    BuiltDagFile, DagFolder, FolderError, ReadFolderError, read_dag_file, read_folder, write_folder,
};
pub use graph::JobGraph;
pub use probe::{ProbeRequest, Search, probe, probe_inputs};
pub use render::{
    DagFile, DagFileName, InvalidDagFileName, RenderContext, RenderError, render, render_with_ids,
};
pub use restart::{RestartError, WrittenDag};
pub use start_time::{InvalidStartTime, LiveStarts, StartTime, WorkflowStart};
pub use workflow::{
    Job, PythonLiteral, Schedule, ScheduleKind, SecretReference, StartDate, Workflow,
};
